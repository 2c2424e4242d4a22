"""Many cells: those found in the store are not run again, the others run one after another or side by side."""

import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.config import ProtocolOptions, TrainingOptions
from bench.data import library
from bench.data.schema import load
from bench.data.task import Task, open_task
from bench.experiments.store import Cell, Record, Store
from bench.registry import Entry


@dataclass(frozen=True)
class Order:
    """A cell to be run, in a form that travels to another process."""

    cell: Cell
    entry: Entry
    training: TrainingOptions
    results: Path
    folder: Path
    jobs: int


def run_grid(
    dataset_name: str,
    data_overrides: Mapping[str, str],
    entries: list[Entry],
    overrides: Mapping[str, Mapping[str, Any]],
    protocol: ProtocolOptions,
    training: TrainingOptions,
    seeds: Sequence[int],
    store: Store,
    jobs: int = 1,
    fresh: bool = False,
    quiet: bool = False,
) -> list[Record]:
    """Return the records of models x seeds, running what the store lacks.

    Args:
        dataset_name: a prepared data set, or one that prepares itself.
        data_overrides: `data.*` settings of a variant.
        entries: models.
        overrides: model name -> options given by the user.
        protocol: split, candidates, history.
        training: limits and device.
        seeds: of weights and batches; the candidates do not depend on them.
        store: where records are found and written.
        jobs: cells side by side, each in a process of its own with its share of the cores.
        fresh: runs every cell again.
        quiet: shows no progress.

    Raises:
        UserError: the data set cannot be had.
    """
    folder = library.resolve(dataset_name, data_overrides)
    task = open_task(load(folder), protocol)
    cells = [
        (make_cell(task, entry, overrides.get(entry.card.name, {}), training, seed), entry)
        for entry in entries
        for seed in seeds
    ]
    found = {} if fresh else {cell.key: record for cell, _ in cells if (record := store.find(cell.key))}
    missing = [
        Order(cell, entry, training, store.root, folder, jobs)
        for cell, entry in cells
        if cell.key not in found
    ]
    if not quiet and found:
        print(f"{len(found)} of {len(cells)} cells found in {store.root}", file=sys.stderr)
    for number, record in enumerate(_run(missing, task, store, jobs, fresh, quiet), 1):
        found[record.key] = record
        if not quiet:
            _tell(record, number, len(missing))
    return [found[cell.key] for cell, _ in cells]


def make_cell(
    task: Task, entry: Entry, overrides: Mapping[str, Any], training: TrainingOptions, seed: int
) -> Cell:
    """Return the cell of a model under a task; the model itself is not imported."""
    return Cell(
        dataset=task.dataset.name,
        fingerprint=task.dataset.fingerprint,
        protocol=task.protocol,
        candidates_hash=task.candidates_hash,
        model=entry.card.name,
        options={**entry.card.options, **overrides},
        code_hash=entry.code_hash(),
        epochs=training.epochs,
        max_minutes=training.max_minutes,
        seed=seed,
    )


def _run(
    missing: list[Order], task: Task, store: Store, jobs: int, fresh: bool, quiet: bool
) -> Iterator[Record]:
    if fresh:
        for order in missing:
            store.checkpoint_path(order.cell.key).unlink(missing_ok=True)
    if jobs > 1 and len(missing) > 1:
        yield from _side_by_side(missing, jobs)
        return
    for order in missing:
        from bench.experiments.run import (
            run_cell,
        )  # torch takes two seconds to import, and a finished table needs none

        yield run_cell(order.cell, order.entry, task, order.training, store, quiet)


def _side_by_side(missing: list[Order], jobs: int) -> Iterator[Record]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(jobs, len(missing)), mp_context=context) as pool:
        for future in as_completed([pool.submit(run_order, order) for order in missing]):
            yield future.result()


def run_order(order: Order) -> Record:
    """Run a cell in a process of its own."""
    from bench.experiments.run import run_cell
    from bench.training.device import limit_threads

    limit_threads(order.jobs)
    task = open_task(load(order.folder), order.cell.protocol)
    return run_cell(order.cell, order.entry, task, order.training, Store(order.results), quiet=True)


def _tell(record: Record, number: int, of: int) -> None:
    """Print one line for a finished cell."""
    seed = record.cell["seed"]
    if record.status == "failed":
        text = f"[red]failed[/red]: {record.reason}"
    else:
        best = max((entry["NDCG@10"] for entry in record.curves), default=None)
        value = "" if best is None else f"validation NDCG@10 {best:.4f}, "
        text = f"{value}{record.epochs} epochs, {record.train_seconds:.0f} s, {record.samples_per_second:,.0f} samples/s"
        text += f", {record.targets_per_second:,.0f} targets/s, {record.score_users_per_second:,.0f} users/s scored"
    Console(stderr=True, highlight=False).print(
        f"[{number}/{of}] {record.label} seed {seed}: {text}", soft_wrap=True
    )
