"""Interrupted training goes on where it stopped, to the bit: weights, optimizer, generators, curves,
clock.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Checkpoint:
    """One file that always holds a whole state: written beside it, then renamed.

    Args:
        path: the file; None keeps nothing.
        key: what the state belongs to; a file of another key is ignored.
    """

    def __init__(self, path: Path | None, key: str = "") -> None:
        self.path = path
        self.key = key

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the stored state by this one and the generators' present state."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save({**state, "key": self.key, "generators": _generators()}, partial)
        partial.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """Return the stored state and put the generators back, or None where there is none for this key."""
        if self.path is None or not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=False)
        if state.get("key") != self.key:
            return None
        generators = state["generators"]
        torch.set_rng_state(generators[0])
        if torch.cuda.is_available() and len(generators) > 1:
            torch.cuda.set_rng_state_all(generators[1:])
        return state

    def remove(self) -> None:
        """Delete the file, once the cell is finished."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _generators() -> list[Tensor]:
    states = [torch.get_rng_state()]
    return states + (torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
