"""An exponential average of a stage's weights over its steps (Polyak and Juditsky 1992,
doi:10.1137/0330046), which is validated and kept in place of the weights that the optimizer moves: the noise
of single steps averages out, as under a falling learning rate, and nothing has to be known about when
training will end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The average of the parameters that a stage moves; holds one more copy of them.

    Until 1 / (1 - decay) steps it is their plain mean, since the weights at the start would count too long.

    Args:
        model: whose trainable parameters are averaged; buffers stay as they are.
        decay: share of the old average that a step keeps, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.values = [parameter.detach().clone() for parameter in self.moving]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        share = max(1 - self.decay, 1 / self.steps)
        for value, parameter in zip(self.values, self.moving, strict=True):
            value.lerp_(parameter, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model for a while, then the moving weights back."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for value, parameter in zip(self.values, self.moving, strict=True):
            moving = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(moving)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self.steps, "values": self.values}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.steps = state["steps"]
        for value, kept in zip(self.values, state["values"], strict=True):
            value.copy_(kept)
