"""What is seen while a cell trains: loss terms, validation metric, samples/s, time left. Goes to stderr alone."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Watcher(Protocol):
    """What the loop tells while it runs."""

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """A new epoch begins."""

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """One optimizer step is done; `time_left` in seconds until the time limit, where there is one."""

    def validated(self, value: float, best: float) -> None:
        """The validation metric after an epoch, and the best one so far."""


class Silent:
    """Shows nothing."""

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """See `Watcher`."""

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """See `Watcher`."""

    def validated(self, value: float, best: float) -> None:
        """See `Watcher`."""


class Bar:
    """A live bar on a terminal, a line every 20 seconds elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[shown]}"), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.live,
        )  # fmt: skip
        self.task: TaskID | None = None
        self.metric = ""
        self.started = self.spoke = time.monotonic()
        self.samples = self.done = self.batches = 0

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """See `Watcher`."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.name = f"{self.title} {stage} epoch {number + 1}/{of}"
        self.task = self.progress.add_task(self.name, total=batches, shown="")
        self.samples, self.done, self.batches, self.started = 0, 0, batches, time.monotonic()

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """See `Watcher`."""
        self.samples += samples
        self.done += 1
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = seconds / self.done * (self.batches - self.done)
        limit = "" if time_left is None else f", limit in {time_left:.0f} s"
        losses = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
        shown = f"{losses} | {self.samples / seconds:,.0f} samples/s | epoch left {left:.0f} s{limit} {self.metric}"
        if self.task is not None:
            self.progress.update(self.task, advance=1, shown=shown)
        self._line(shown)

    def validated(self, value: float, best: float) -> None:
        """See `Watcher`."""
        self.metric = f"| NDCG@10 {value:.4f} (best {best:.4f})"

    def _line(self, shown: str) -> None:
        if not self.live and time.monotonic() - self.spoke > 20:
            self.spoke = time.monotonic()
            print(f"{self.name}: {shown}", file=sys.stderr, flush=True)
