"""Noise predictors, eps(x_t, condition, t) (Eq. 9): as printed, and two repairs.

G streams of one stage have predictors of their own, of one shape, and run as one batched call. Keys and
values of the condition are computed once for the whole chain.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.cells import Packed, Rectangle
from bench.models.m3bsr.config import Denoising
from bench.models.m3bsr.grouped import GroupedLinear, attend, split_heads


@dataclass(frozen=True)
class Condition:
    """Keys and values of a condition."""

    key: Tensor
    """(G * B, H, Lk + 1, D / H), a learned null token last."""
    value: Tensor
    mask: Tensor
    """(B, Lq or 1, Lk + 1) bool."""
    cells: Rectangle
    """Where the queries stand in their rectangle."""


class CrossAttention(nn.Module):
    """Multi-head attention of x to the condition and a learned null token, softmax(Q K') V.

    The null token is always seen, so a user without favors attends to it alone.

    Args:
        groups: G.
        size: width of the streams.
        width: D, of the condition and of queries, keys and values.
        heads: H.
    """

    def __init__(self, groups: int, size: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_and_value = GroupedLinear(groups, width, 2 * width, bias=False)
        self.output = GroupedLinear(groups, width, size, bias=False)
        self.null = nn.Parameter(torch.randn(groups, 1, 1, width) * 0.02)

    def condition(self, condition: Tensor, mask: Tensor, cells: Rectangle | None = None) -> Condition:
        """Prepare a condition.

        Args:
            condition: (G, B, Lk, D).
            mask: (B, Lq or 1, Lk) bool, True where the key may be seen.
            cells: where the queries stand; packed, keys are computed only where some query may see them.
                None: they fill their rectangle.
        """
        if isinstance(cells, Packed):
            real = Packed(mask.any(1))
            projected = real.unpack(self.key_and_value(real.pack(condition)))  # (G, B, Lk, 2 D)
            null = self.key_and_value(self.null)
            full = torch.cat([projected, null.expand(-1, condition.shape[1], 1, -1)], 2)
        else:
            groups, batch, _, width = condition.shape
            joined = torch.cat([condition, self.null.expand(groups, batch, 1, width)], 2)  # (G, B, Lk + 1, D)
            full = self.key_and_value(joined)
        key, value = full.chunk(2, -1)
        seen = F.pad(mask, (0, 1), value=True)
        cells = cells or Rectangle(seen[..., 0])
        return Condition(split_heads(key, self.heads), split_heads(value, self.heads), seen, cells)

    def forward(self, query: Tensor, condition: Condition) -> Tensor:
        """Return tokens (G, B, Lq, size), or (G, 1, n, size), for queries of the same form."""
        heads = split_heads(condition.cells.unpack(query), self.heads)
        mixed = condition.cells.pack(attend(heads, condition.key, condition.value, condition.mask))
        crossed: Tensor = self.output(mixed)
        return crossed


class PrintedPredictor(nn.Module):
    """CrossAttention(x, condition, condition), Eq. 9 as printed: no time, no way for x into the output.

    What it says lies in the span of the condition's rows, which isotropic noise does not.
    """

    def __init__(self, groups: int, size: int, width: int, options: Denoising) -> None:
        super().__init__()
        self.query = GroupedLinear(groups, size, width, bias=False)
        self.cross = CrossAttention(groups, size, width, options.num_heads)

    def times(self, step: Tensor) -> Tensor:
        """Return (G, ..., 1) zeros for steps (...): this predictor does not know its step."""
        return step.new_zeros(self.query.weight.shape[0], *step.shape, 1, dtype=torch.float32)

    def forward(self, x: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """Predict the noise of x (G, B, Lq, size); `time` is not used."""
        crossed: Tensor = self.cross(self.query(x), condition)  # Eq. 9
        return crossed


class ResidualPredictor(PrintedPredictor):
    """x + gamma CrossAttention(x, condition, condition), gamma from 0."""

    def __init__(self, groups: int, size: int, width: int, options: Denoising) -> None:
        super().__init__(groups, size, width, options)
        self.gamma = nn.Parameter(torch.zeros(groups, 1, 1, 1))

    def forward(self, x: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """Predict the noise of x (G, B, Lq, size); `time` is not used."""
        return x + self.gamma * super().forward(x, condition, time)


class DecoupledPredictor(nn.Module):
    """The repaired Eq. 9: an own path and a cross path over x and time, then a network on [h ; x].

    Args:
        groups: G streams with weights of their own.
        size: width of the streams.
        width: D, of the condition and the attention.
        options: of the stage.
    """

    def __init__(self, groups: int, size: int, width: int, options: Denoising) -> None:
        super().__init__()
        self.scale, self.split = options.cross_scale, (size, width)
        self.time = GroupedLinear(groups, width, size)
        self.own_and_query = GroupedLinear(groups, size, size + width, bias=False)
        self.cross = CrossAttention(groups, size, width, options.num_heads)
        self.wide = GroupedLinear(groups, 2 * size, 4 * size)
        self.narrow = GroupedLinear(groups, 4 * size, size)
        with torch.no_grad():
            # predicts little noise at first, so the chain starts near the identity
            self.narrow.weight.mul_(0.1)

    def times(self, step: Tensor) -> Tensor:
        """Return (G, ..., size) for steps of any shape (...)."""
        half = self.split[1] // 2
        rate = torch.exp(-math.log(10_000.0) * torch.arange(half, device=step.device) / half)
        angle = step[..., None] * rate
        wave = torch.cat([angle.sin(), angle.cos()], -1)  # (..., D)
        embedded: Tensor = self.time(wave.expand(self.time.weight.shape[0], *wave.shape))
        return embedded

    def forward(self, x: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """Predict the noise of x_t.

        Args:
            x: tokens, (G, B, Lq, size) or packed (G, 1, n, size).
            condition: from `cross.condition`.
            time: from `times`, in a shape that broadcasts over the tokens.

        Returns:
            As x.
        """
        h = x + time
        own, query = self.own_and_query(F.layer_norm(h, h.shape[-1:])).split(self.split, -1)
        h = h + own + self.scale * self.cross(query, condition)  # Eq. 9
        predicted: Tensor = self.narrow(F.gelu(self.wide(torch.cat([h, x], -1))))
        return predicted


PREDICTORS = {"decoupled": DecoupledPredictor, "residual": ResidualPredictor, "printed": PrintedPredictor}
