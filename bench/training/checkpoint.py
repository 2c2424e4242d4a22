"""Interrupted training goes on where it stopped, to the bit: weights, optimizer, generators, curves,
clock.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.files import replacing

FORMAT = 2
"""Format of the file: tensors, numbers, texts, lists, dictionaries alone, so that loading runs no code."""


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
        """Replace the stored state by this one and the generators' present state.

        Args:
            state: tensors and plain values, nested in dictionaries and lists.
        """
        if self.path is None:
            return
        with replacing(self.path) as partial, partial.open("wb") as file:
            head = {"format": FORMAT, "key": self.key, "generators": _generators()}
            torch.save({**head, "state": dict(state)}, file)

    def load(self) -> dict[str, Any] | None:
        """Return the stored state and put the generators back, or None where there is none for this key.

        A file that cannot be read is set aside under a name ending in `.damaged`, with a line on stderr.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}, expected {FORMAT}")
            if stored["key"] != self.key:
                return None
            state, generators = dict(stored["state"]), stored["generators"]
            torch.set_rng_state(generators[0])
        except Exception as error:  # a cut or foreign file raises whatever its bytes lead to
            self._set_aside(error)
            return None
        if torch.cuda.is_available() and len(generators) > 1:
            torch.cuda.set_rng_state_all(generators[1:])
        return state

    def remove(self) -> None:
        """Delete the file, once the cell is finished."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _set_aside(self, error: Exception) -> None:
        assert self.path is not None
        aside = self.path.with_name(self.path.name + ".damaged")
        self.path.replace(aside)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        print(
            f"warning: checkpoint {self.path} cannot be read ({reason}); set aside as {aside.name}, "
            "the cell starts again",
            file=sys.stderr,
        )


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _generators() -> list[Tensor]:
    states = [torch.get_rng_state()]
    return states + (torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
