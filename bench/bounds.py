"""What values an option may have, by its name: said once for the harness, the models and the data sets.

Names are the last part of a dotted option; the first pattern that fits counts. A number that fits none has to
be finite.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Bounds:
    """An interval, its ends included unless they are open."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        """Return whether a value lies inside; NaN and infinity never do."""
        if not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def text(self) -> str:
        """Say the interval in words."""
        parts = []
        if self.low > -math.inf:
            parts.append(f"above {self.low:g}" if self.open_low else f"at least {self.low:g}")
        if self.high < math.inf:
            parts.append(f"below {self.high:g}" if self.open_high else f"at most {self.high:g}")
        return " and ".join(parts) or "a finite number"


COUNT = Bounds(1)
NOT_NEGATIVE = Bounds(0)
POSITIVE = Bounds(0, open_low=True)
FRACTION = Bounds(0, 1)
OPEN_FRACTION = Bounds(0, 1, open_high=True)

BY_NAME: tuple[tuple[str, Bounds], ...] = (
    ("epochs", NOT_NEGATIVE),
    ("batch_size", COUNT), ("evaluation_batch", COUNT), ("micro_batch", COUNT), ("patience*", COUNT),
    ("hidden_size", COUNT), ("embedding_size", COUNT), ("num_heads", COUNT),
    ("*_size", NOT_NEGATIVE), ("num_*", NOT_NEGATIVE), ("*_steps", NOT_NEGATIVE), ("max_history", COUNT),
    ("copies", COUNT), ("max_masked", COUNT), ("*seed", NOT_NEGATIVE),
    ("*_minutes", POSITIVE), ("learning_rate*", POSITIVE), ("*temperature", POSITIVE),
    ("dropout*", OPEN_FRACTION), ("*_dropout", OPEN_FRACTION), ("mask_ratio", FRACTION),
    ("last_share", OPEN_FRACTION), ("loss_weight_*", NOT_NEGATIVE), ("weight_decay", NOT_NEGATIVE),
    ("decay_after", NOT_NEGATIVE), ("weight_average", OPEN_FRACTION),
    ("clip_norm", POSITIVE),
    ("keep_last", COUNT), ("min_*", NOT_NEGATIVE), ("max_*", COUNT), ("users", COUNT), ("items", COUNT),
)  # fmt: skip


RENAMED = {
    "negatives": "num_negatives", "num_samples": "num_negatives", "layers": "num_layers",
    "cross_layers": "num_cross_layers", "steps": "diffusion_steps", "weight": "loss_weight",
}  # fmt: skip
"""Last part of an option's old name -> its present name; the list of names stands in CONTRIBUTING.md."""


def renamed(option: str, known: Iterable[str]) -> str:
    """Return how an old option is called now, dots kept; empty where it is no old name of a known one."""
    prefix, dot, name = option.rpartition(".")
    new = f"{prefix}{dot}{RENAMED.get(name, name)}"
    return new if new != option and new in set(known) else ""


def bounds_of(option: str) -> Bounds:
    """Return the bounds of an option, dotted name or not."""
    name = option.rpartition(".")[2]
    return next((bounds for pattern, bounds in BY_NAME if fnmatchcase(name, pattern)), Bounds())


def fault(option: str, value: object) -> str:
    """Return what a number should have been, or nothing where it is right or no number.

    Args:
        option: its name.
        value: of any type; the parts of a tuple are looked at one by one.
    """
    if isinstance(value, tuple | list):
        return next(filter(None, (fault(option, part) for part in value)), "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    bounds = bounds_of(option)
    return "" if bounds.hold(value) else bounds.text()
