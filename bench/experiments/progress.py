"""What a person sees while cells run: one bar per running cell and one over all of them. On stderr alone.

A cell may run in a process of its own, so its `Teller` sends plain `Note`s and the one `Display` draws them.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from bench.experiments.record import NOT_VALIDATED, Failure, Outcome, Record

PAUSE = 0.3  # seconds between two notes of a cell
QUIET = 20.0  # seconds between two lines of a cell where stderr is no terminal


@dataclass(frozen=True)
class Note:
    """How far a cell is."""

    cell: str
    epoch: str
    text: str
    done: int
    """Optimizer steps of the epoch."""
    of: int


class Teller:
    """Turns the calls of the loop (`bench.training.watcher.Watcher`) into notes, a few per second."""

    def __init__(self, cell: str, send: Callable[[Note], None]) -> None:
        self.cell, self.send = cell, send
        self.metric = ""
        self.last_note = 0.0

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """See `Watcher`."""
        self.name = f"{stage} epoch {number + 1}/{of}"
        self.samples, self.done, self.batches, self.started = 0, 0, batches, time.monotonic()

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """See `Watcher`."""
        self.samples, self.done = self.samples + samples, self.done + 1
        now = time.monotonic()
        if now - self.last_note < PAUSE:
            return
        self.last_note = now
        seconds = max(now - self.started, 1e-9)
        left = seconds / self.done * (self.batches - self.done)
        # what matters most stands first: a narrow screen cuts the end
        limit = "" if time_left is None else f", limit in {time_left:.0f} s"
        losses = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
        speed = f"{self.samples / seconds:,.0f} samples/s"
        text = f"epoch left {left:.0f} s{limit} | {speed}{self.metric} | {losses}"
        self.send(Note(self.cell, self.name, text, self.done, self.batches))

    def validated(self, value: float | None, best: float | None) -> None:
        """See `Watcher`."""
        known = value is not None and best is not None
        self.metric = f" | NDCG@10 {value:.4f} (best {best:.4f})" if known else " | no validation"


class Display:
    """Draws notes and finished cells: live bars on a terminal, a line now and then elsewhere.

    Args:
        cells: how many there are to run.
    """

    def __init__(self, cells: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.cells, self.finished, self.begun = cells, 0, time.monotonic()
        self.live = self.console.is_terminal
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self.bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(10, table_column=Column(min_width=10)),
            TextColumn("{task.fields[text]}", table_column=rest),
            console=self.console,
            expand=True,
            transient=True,
            disable=not self.live,
        )
        self.total = self.bars.add_task("all cells", total=cells, text="")
        self.bar_of: dict[str, TaskID] = {}
        self.last_line: dict[str, float] = {}

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def show(self, note: Note) -> None:
        """Draw how far a cell is."""
        if note.cell not in self.bar_of:
            self.bar_of[note.cell] = self.bars.add_task(note.cell, text="")
        description = f"{note.cell} {note.epoch}"
        self.bars.update(
            self.bar_of[note.cell],
            description=description,
            text=note.text,
            completed=note.done,
            total=note.of,
        )
        now = time.monotonic()
        if not self.live and now - self.last_line.setdefault(note.cell, now) > QUIET:
            self.last_line[note.cell] = now
            print(f"{description}: {note.text}", file=sys.stderr, flush=True)

    def finish(self, cell: str, record: Record) -> None:
        """Print the line of a finished cell and move the bar over all."""
        self.finished += 1
        if cell in self.bar_of:
            self.bars.remove_task(self.bar_of.pop(cell))
        left = (time.monotonic() - self.begun) / self.finished * (self.cells - self.finished)
        self.bars.update(
            self.total, completed=self.finished, text=f"{self.finished}/{self.cells}, {left:.0f} s left"
        )
        line = f"[{self.finished}/{self.cells}] {cell}: {result_line(record.result)}"
        self.console.print(line, soft_wrap=True, markup=False)


def result_line(result: Outcome | Failure) -> str:
    """Return one line: what a cell gave, or why it failed."""
    if isinstance(result, Failure):
        return f"failed: {result.reason}"
    scored = f"{result.score_users_per_second:,.0f} users/s scored"
    if not result.epochs:
        return f"nothing to train, {scored}"
    values = [entry["NDCG@10"] for entry in result.curves if entry["NDCG@10"] is not None]
    best = f"validation NDCG@10 {max(values):.4f}" if values else NOT_VALIDATED
    return (
        f"{best}, {result.epochs} epochs, {result.train_seconds:.0f} s, "
        f"{result.samples_per_second:,.0f} samples/s, {result.targets_per_second:,.0f} targets/s, {scored}"
    )
