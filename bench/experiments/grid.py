"""Many cells: those found in the store are not run again, the others run one after another or side by
side.
"""

import multiprocessing
import os
import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from bench.config import ProtocolOptions, TrainingOptions
from bench.data import library
from bench.data.protocol.shuffle import shuffled, take_shuffle
from bench.data.protocol.task import Task, open_task
from bench.data.storage import METADATA, load
from bench.errors import UserError
from bench.experiments import processes
from bench.experiments.plan import Plan
from bench.experiments.progress import PAUSE, Display, Note, Teller
from bench.experiments.record import Cell, Record
from bench.experiments.store import Store
from bench.files import require_writable
from bench.registry import Entry


@dataclass(frozen=True)
class Order:
    """A cell to be run, in a form that travels to another process."""

    cell: Cell
    entry: Entry
    training: TrainingOptions
    results: Path
    folder: Path
    shuffle: tuple[str, ...]
    """Modalities whose features are permuted over the items."""
    jobs: int
    minutes: float | None = None
    """Limit of the training; None is that of the cell."""


def run_grid(
    plan: Plan, store: Store, *, jobs: int = 1, fresh: bool = False, quiet: bool = False
) -> list[Record]:
    """Return the records of a plan, models x seeds, running what the store lacks.

    Args:
        plan: what is run.
        store: where records are found and written.
        jobs: cells side by side, each in a process of its own with its share of the cores.
        fresh: runs every cell again.
        quiet: shows no progress.

    Raises:
        UserError: there is no such data set, or the results folder cannot be written.
    """
    return run_plans([plan], store, jobs=jobs, fresh=fresh, quiet=quiet)


def run_plans(
    plans: Sequence[Plan], store: Store, *, jobs: int = 1, fresh: bool = False, quiet: bool = False
) -> list[Record]:
    """Return the records of several plans, one after the other, their missing cells run side by side.

    Args:
        plans: alike but for models, options and seeds.
        store: as in `run_grid`, like the rest and the errors.
        jobs: see there.
        fresh: see there.
        quiet: see there.
    """
    require_writable(store.root, "results folder")
    work = find_work(plans, store, jobs=jobs, fresh=fresh)
    records, missing = dict(work.found), work.missing
    if not quiet:
        for line in work.lines():
            print(line, file=sys.stderr)
    for order in missing if fresh else []:
        store.checkpoint_path(order.cell.key).unlink(missing_ok=True)
    if missing and quiet:
        records |= {record.key: record for record in _run(missing, jobs, lambda note: None)}
    elif missing:
        with Display(len(missing)) as display:
            for record in _run(missing, jobs, display.show):
                records[record.key] = record
                display.finish(title(record.label, record.cell.seed), record)
    return [records[cell.key] for cell, _ in work.cells]


@dataclass(frozen=True)
class Work:
    """What a command has to run, and what is there."""

    cells: list[tuple[Cell, Entry]]
    """All, in the order of their plans."""
    found: dict[str, Record]
    """Key -> finished record."""
    missing: list[Order]
    root: Path
    jobs: int
    limits: TrainingOptions
    warnings: tuple[str, ...] = ()
    """What is wrong with the data, though they can be used."""

    def lines(self) -> list[str]:
        """Return what is said before anything is run: cells found, cells missing, the most time they take."""
        lines = [f"{len(self.found)} of {len(self.cells)} cells found in {self.root}"] if self.found else []
        most = [_duration(len(self.missing), self.jobs, self.limits)] if self.missing else []
        return [*self.warnings, *lines, *most]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return label, seed, options and whether it is there, for each cell."""
        return [
            (
                entry.card.label,
                str(cell.seed),
                ", ".join(f"{name}={value}" for name, value in cell.options.items()),
                "found" if cell.key in self.found else "missing",
            )
            for cell, entry in self.cells
        ]


def find_work(plans: Sequence[Plan], store: Store, *, jobs: int = 1, fresh: bool = False) -> Work:
    """Return which cells of several plans are in the store, and which are to be run.

    Args:
        plans: alike but for models, options and seeds.
        store: where records are found.
        jobs: cells side by side.
        fresh: takes none from the store.

    Raises:
        UserError: there is no such data set, or both limits of time are given.
    """
    plan = plans[0]
    options, shuffle = take_shuffle(plan.data)
    folder = library.resolve(plan.dataset, options)
    task = _task(folder, shuffle, plan.protocol)
    asked = [(part, entry, seed) for part in plans for entry in part.models for seed in part.seeds]
    limits = shared(plan.training, len(asked), jobs)
    cells = [
        (make_cell(task, entry, part.overrides.get(entry.card.name, {}), limits, seed), entry)
        for part, entry, seed in asked
    ]
    found = {
        cell.key: record
        for cell, _ in cells
        if not fresh
        and (record := store.find(cell.key))
        and (not plan.training.keep_model or store.weights_path(cell).is_file())
    }
    missing = [
        Order(cell, entry, limits, store.root, folder, shuffle, jobs)
        for cell, entry in {cell.key: (cell, entry) for cell, entry in cells}.values()
        if cell.key not in found
    ]
    return Work(cells, found, missing, store.root, jobs, limits, tuple(library.edited(folder)))


def open_plan(plan: Plan) -> Task:
    """Return the data set of a plan under its protocol.

    Raises:
        UserError: there is no such data set.
    """
    options, shuffle = take_shuffle(plan.data)
    return _task(library.resolve(plan.dataset, options), shuffle, plan.protocol)


def shared(training: TrainingOptions, cells: int, jobs: int) -> TrainingOptions:
    """Return the limits of a command's trainings, each with an even share of their total minutes.

    Raises:
        UserError: both limits are given.
    """
    if training.total_minutes is None:
        return training
    if training.max_minutes is not None:
        raise UserError("--total-minutes and --max-minutes: give one of them")
    return replace(training, max_minutes=training.total_minutes / -(-cells // max(jobs, 1)))


def _duration(cells: int, jobs: int, limits: TrainingOptions) -> str:
    """Say how many cells are run and, where trainings have a limit, how long they take at most."""
    text = f"{cells} cells to run, {min(jobs, cells)} at a time"
    if limits.total_minutes is not None:
        return f"{text}: at most {limits.total_minutes:g} minutes of training, shared, then their tests"
    if limits.max_minutes is None:
        return f"{text}; training has no limit in time (--max-minutes, --total-minutes)"
    most = -(-cells // jobs) * limits.max_minutes
    return f"{text}: at most {most:g} minutes of training, then their tests"


class Share:
    """Hands out what is left of the total minutes when a cell begins: an even part of the time that each
    worker still has for the cells that have not begun.
    """

    def __init__(self, orders: Sequence[Order], jobs: int) -> None:
        self.left, self.jobs = len(orders), max(jobs, 1)
        total = orders[0].training.total_minutes
        self.deadline = None if total is None else time.monotonic() + total * 60

    def take(self, order: Order) -> Order:
        """Return the order of the next cell with its limit."""
        rounds = -(-self.left // self.jobs)
        self.left -= 1
        if self.deadline is None:
            return order
        minutes = max(self.deadline - time.monotonic(), 1.0) / 60 / rounds
        return replace(order, minutes=minutes)


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
        total_minutes=training.total_minutes,
    )


def title(label: str, seed: int) -> str:
    """Return what a cell is called on the screen."""
    return f"{label} seed {seed}"


def _run(missing: list[Order], jobs: int, send: Callable[[Note], None]) -> Iterator[Record]:
    """Run cells here, or in processes of their own where several go side by side."""
    share = Share(missing, jobs)
    if jobs == 1 or len(missing) == 1:
        yield from (run_order(share.take(order), send) for order in missing)
        return
    context = processes.context()
    notes = context.Queue()  # a manager would leave its folder behind when it is killed
    pool = ProcessPoolExecutor(min(jobs, len(missing)), context, _take_queue, (notes,))
    rest = iter(missing)
    waiting = {pool.submit(_run_in_pool, share.take(order)) for order in islice(rest, jobs)}
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=PAUSE, return_when=FIRST_COMPLETED)
            # a cell is handed out when a worker is free: only then is it known what the others have left
            waiting |= {pool.submit(_run_in_pool, share.take(order)) for order in islice(rest, len(done))}
            for note in _waiting(notes):
                send(note)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        fix = "run with fewer --jobs or a smaller batch_size; finished cells are kept"
        raise UserError(f"a cell's process was killed, most likely for want of memory; {fix}") from error
    finally:
        _end(pool, abandoned=bool(waiting))


_queue: "multiprocessing.Queue[Note] | None" = None
"""Where a process of the pool sends its notes."""


def _take_queue(notes: "multiprocessing.Queue[Note]") -> None:
    """Set up a process of the pool; notes nobody reads must not keep it from ending."""
    global _queue
    _queue = notes
    notes.cancel_join_thread()


def _run_in_pool(order: Order) -> Record:
    assert _queue is not None
    return run_order(order, _queue.put)


def _waiting(notes: "multiprocessing.Queue[Note]") -> Iterator[Note]:
    """Yield the notes that have come in so far."""
    while True:
        try:
            yield notes.get_nowait()
        except queue.Empty:
            return


def _end(pool: ProcessPoolExecutor, abandoned: bool) -> None:
    """Close the pool; after an interruption its processes are ended first, or they would go on with what is
    queued. The wait lets the pool's own thread collect them, so that none is left when the error goes on.
    """
    for child in multiprocessing.active_children() if abandoned else []:
        child.terminate()
    pool.shutdown(cancel_futures=True)


def _task(folder: Path, shuffle: tuple[str, ...], protocol: ProtocolOptions) -> Task:
    """Open a data set under a protocol; a process keeps the last one for the cells that follow."""
    return _opened(folder, (folder / METADATA).stat().st_mtime_ns, shuffle, protocol)


@lru_cache(maxsize=1)
def _opened(folder: Path, changed: int, shuffle: tuple[str, ...], protocol: ProtocolOptions) -> Task:
    return open_task(shuffled(load(folder), shuffle), protocol)


def run_order(order: Order, send: Callable[[Note], None]) -> Record:
    """Run a cell with its share of the cores. Torch is imported here: a finished table needs none of it."""
    from bench.experiments.run import run_cell
    from bench.training.device import limit_threads

    limit_threads(order.jobs)
    task = _task(order.folder, order.shuffle, order.cell.protocol)
    watcher = Teller(title(order.entry.card.label, order.cell.seed), send)
    store = Store(order.results)
    return run_cell(order.cell, order.entry, task, order.training, store, watcher, order.minutes)


def default_jobs(device: str) -> int:
    """Return how many cells go side by side by default: on a CPU one per core up to four, else one.

    Small models gain little from a second thread, so a core of its own finishes more cells in the same time.
    """
    return min(os.cpu_count() or 1, 4) if device == "cpu" or (device == "auto" and not _has_gpu()) else 1


def _has_gpu() -> bool:
    """Return whether a CUDA device is there, without importing torch."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
