"""What the loop tells while it runs, to whoever shows it."""

from collections.abc import Mapping
from typing import Protocol


class Watcher(Protocol):
    """Listens to one training run."""

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """A new epoch begins: its number from 0, the most epochs of the stage, its batches."""

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """One optimizer step is done; `time_left` in seconds until the time limit, where there is one."""

    def validated(self, value: float | None, best: float | None) -> None:
        """The validation metric after an epoch, and the best one so far; None where nothing is validated."""


class Silent:
    """Shows nothing."""

    def epoch(self, stage: str, number: int, of: int, batches: int) -> None:
        """See `Watcher`."""

    def step(self, terms: Mapping[str, float], samples: int, time_left: float | None) -> None:
        """See `Watcher`."""

    def validated(self, value: float | None, best: float | None) -> None:
        """See `Watcher`."""
