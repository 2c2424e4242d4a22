"""`bench sweep`: tuning on validation. Parsing and printing only."""

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError
from bench.terminal import (
    Candidates,
    DatasetName,
    Device,
    DryRun,
    Epochs,
    Json,
    MaxMinutes,
    Pairs,
    Results,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from bench.experiments.sweep import Tuned
    from bench.registry import Entry


class SamplerName(StrEnum):
    """Ways to choose configurations."""

    tpe = "tpe"
    random = "random"
    grid = "grid"


class PrunerName(StrEnum):
    """Ways to give up a trial early."""

    median = "median"
    halving = "halving"
    none = "none"


Trials = Annotated[
    int, typer.Option(min=1, help="Trials of each model, earlier calls and other workers included.")
]
SharedMinutes = Annotated[
    float | None, typer.Option(min=0.01, help="Minutes for all models together, shared evenly.")
]
Sampler = Annotated[SamplerName, typer.Option(help="How configurations are chosen.")]
Pruner = Annotated[PrunerName, typer.Option(help="How hopeless trials end early.")]
Storage = Annotated[
    str, typer.Option(help="Optuna URL for workers side by side; default: SQLite under --results.")
]


def sweep(
    models: Annotated[str, typer.Argument(help="A model, a family, NAME,NAME, all, or path/to/model.py.")],
    dataset: DatasetName,
    trials: Trials = 20,
    total_minutes: SharedMinutes = None,
    sampler: Sampler = SamplerName.tpe,
    pruner: Pruner = PrunerName.median,
    storage: Storage = "",
    protocol: Candidates = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    set_: Pairs = None,
    device: Device = None,
    results: Results = Path("results"),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Tune models on the validation part; the best configuration is for bench run --tuned.

    The values tried stand in each model's card (bench models NAME), the default configuration first. Test
    events are cut out before a trial begins. Trials are kept: the same command goes on, several share them.

    Example: bench sweep sasrec,m3bsr --dataset ml-100k --trials 20 --max-minutes 2
    """
    from bench.experiments import sweep as sweeps
    from bench.experiments.plan import make_plan
    from bench.experiments.store import Store
    from bench.experiments.study import Tuning
    from bench.registry import select

    chosen = _tunable(models, select(models))
    plan = make_plan(
        dataset, chosen, settings=set_ or [], candidates=protocol, seeds=1, epochs=epochs,
        max_minutes=max_minutes, device=device,
    )  # fmt: skip
    share = None if total_minutes is None else total_minutes / len(chosen)
    tuning = Tuning(trials, sampler.value, pruner.value, storage, share)
    most = _most(share, max_minutes and max_minutes * trials, len(chosen))
    if dry_run:
        found = {e.card.name: sweeps.finished_trials(plan, e, Store(results), tuning) for e in chosen}
        _show_missing(found, trials, most)
        return
    print(f"{len(chosen)} models, {trials} trials each, one at a time: {most}", file=sys.stderr)
    done = []
    for entry in chosen:
        done.append(sweeps.tune(plan, entry, Store(results), tuning, _line(entry.card.label)))
        _write(done[-1], results)
    if as_json:
        print_json([{k: v for k, v in vars(tuned).items() if k != "url"} for tuned in done])
    else:
        _show(done)


def _tunable(models: str, entries: "Sequence[Entry]") -> "list[Entry]":
    """Return the models whose cards declare a search space."""
    if chosen := [entry for entry in entries if entry.card.search]:
        return chosen
    raise UserError(f"{models}: no card of these declares a search space (Card.search)")


def _most(share: float | None, limit: float | None, models: int) -> str:
    """Say how long some models may take: `share` or `limit` minutes each, whichever is less."""
    least = min((part for part in (share, limit) if part), default=None)
    return "no limit in time" if least is None else f"at most {least * models:g} minutes"


def _write(tuned: "Tuned", results: Path) -> None:
    """Write the preset and the pictures of a model that was tuned."""
    from bench.experiments.presets import write_preset
    from bench.experiments.sweep_pictures import draw
    from bench.report import figures

    path = write_preset(results, tuned)
    print(f"written: {path}", file=sys.stderr)
    pictures = draw(tuned, lambda figure, name: figures.save(figure, results / "figures", name))
    print("".join(f"written: {picture}\n" for picture in pictures), end="", file=sys.stderr)


def _show_missing(found: dict[str, int], trials: int, most: str) -> None:
    """Print how many trials each model has and lacks, and the most time that they may take."""
    missing = {model: max(trials - number, 0) for model, number in found.items()}
    rows = [(model, str(trials), str(found[model]), str(lacks)) for model, lacks in missing.items()]
    print_rows(("model", "trials", "found", "missing"), rows)
    print(f"trials missing: {sum(missing.values()):,}; {most}")


def _show(done: "list[Tuned]") -> None:
    print_rows(
        ("model", "default", "best", "trials", "minutes", "options"),
        [
            (
                one.model,
                "" if one.default is None else f"{one.default:.4f}",
                f"{one.value:.4f}",
                f"{one.trials} ({one.pruned} pruned)",
                f"{one.minutes:.1f}",
                ", ".join(f"{name}={value}" for name, value in one.options.items()),
            )
            for one in done
        ],
    )


def _line(label: str) -> Callable[[str], None]:
    return lambda text: print(f"{label} {text}", file=sys.stderr)
