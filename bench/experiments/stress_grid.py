"""A plan under stress: trainings from the store or run, then tested, or trained again, under conditions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.data.protocol.shuffle import DROP, OPTION, take_shuffle
from bench.errors import UserError
from bench.experiments.grid import open_plan, run_grid
from bench.experiments.plan import Plan
from bench.experiments.record import Record
from bench.experiments.store import Store

SHUFFLED = {"image": "images permuted", "text": "texts permuted"}
UNCHANGED = "everything"
Watch = Callable[[str, int, int], None]
"""Progress: stage, done, of how many."""


@dataclass(frozen=True)
class Stressed:
    """Ranks of models under conditions."""

    records: list[Record]
    """The models as they rank with everything, finished and failed."""
    conditions: tuple[str, ...]
    """The unchanged one first."""
    ranks: dict[str, dict[str, list[NDArray[np.int32]]]]
    """Model -> condition -> per seed (S,) test ranks."""
    retrained: bool
    failed: list[str]
    """A line per cell that failed."""


def under_stress(plan: Plan, store: Store, watch: Watch, *, jobs: int = 1, fresh: bool = False) -> Stressed:
    """Test trained models under conditions; their weights are kept and found again.

    Raises:
        UserError: no image or text in the data set, or a stored model that does not rank as it did.
    """
    from bench.experiments.stress import conditions, stressed  # imports torch

    task = open_plan(plan)
    names = tuple(conditions(task.dataset.content))
    if len(names) == 1:
        raise UserError(f"{plan.dataset}: no item has image or text vectors; prepare it with an encoder")
    records = run_grid(plan, store, jobs=jobs, fresh=fresh)
    done = [record for record in records if record.status == "done"]
    entries = {entry.card.name: entry for entry in plan.models}
    rows: dict[str, dict[str, list[NDArray[np.int32]]]] = {}
    for number, record in enumerate(done, start=1):
        entry = entries[record.cell.model]
        options = plan.training
        ranks = stressed(record.cell, entry, task, store, options.device, options.evaluation_batch)
        _check(record, ranks["everything"])
        for name, values in ranks.items():
            rows.setdefault(record.cell.model, {}).setdefault(name, []).append(values)
        watch("stressed", number, len(done))
    return Stressed(records, names, rows, False, _failed(records))


def retrained(plan: Plan, store: Store, watch: Watch, *, jobs: int = 1, fresh: bool = False) -> Stressed:
    """Train models anew on permuted images, texts, and both, and without them.

    Raises:
        UserError: no image or text in the data set, or it is permuted already.
    """
    content = open_plan(plan).dataset.content
    held = [name for name in SHUFFLED if name in content.present and content.present[name].any()]
    if not held:
        raise UserError(f"{plan.dataset}: no item has image or text vectors; prepare it with an encoder")
    if take_shuffle(plan.data)[1]:
        raise UserError(f"data.{OPTION}: the stress table permutes by itself; leave it out")
    both = ",".join(held)
    forms: dict[str, dict[str, str]] = {UNCHANGED: {}}
    forms |= {SHUFFLED[name]: {OPTION: name} for name in held}
    if len(held) > 1:
        forms["both permuted"] = {OPTION: both}
    forms["without both" if len(held) > 1 else f"without {both}s"] = {DROP: both}
    rows: dict[str, dict[str, list[NDArray[np.int32]]]] = {}
    shown: list[Record] = []
    failed: list[str] = []
    for number, (name, change) in enumerate(forms.items()):
        watch("conditions trained", number, len(forms))
        data = {**plan.data, **change}
        records = run_grid(replace(plan, data=data), store, jobs=jobs, fresh=fresh)
        failed += _failed(records)
        done = [record for record in records if record.status == "done"]
        shown = shown or records
        for record in done:
            ranks = np.asarray(record.outcome.arrays["test_rank"], np.int32)
            rows.setdefault(record.cell.model, {}).setdefault(name, []).append(ranks)
    return Stressed(shown, tuple(forms), rows, True, failed)


def _check(record: Record, ranks: NDArray[np.int32]) -> None:
    """Raise a UserError where a model that was loaded does not rank as it did when it was trained."""
    trained = np.asarray(record.outcome.arrays["test_rank"])
    if differing := int((trained != ranks).sum()):
        who = f"{record.label}, seed {record.cell.seed}"
        problem = f"{differing} of {len(ranks)} users rank otherwise than after training"
        if differing > max(len(ranks) // 100, 2):  # some may: the order of sums differs between machines
            raise UserError(f"{who}: {problem}; its state dict does not hold the whole model")


def _failed(records: list[Record]) -> list[str]:
    return [
        f"{record.label} seed {record.cell.seed}: {record.reason}"
        for record in records
        if record.status == "failed"
    ]
