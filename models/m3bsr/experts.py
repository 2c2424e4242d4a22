"""Multi-expert interest extraction (Eq. 14-19): one expert shared by the behaviors, one for each behavior and
modality.

Pooled at its last event, a sequence's last layer is computed there alone: the same numbers at a fraction of
the cost.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.config import Experts
from bench.models.m3bsr.grouped import GroupedLinear, GroupedNorm, attend, split_heads
from bench.models.m3bsr.layout import mean_vector


class Layer(nn.Module):
    """A pre-norm Transformer layer of G experts."""

    def __init__(self, groups: int, size: int, options: Experts) -> None:
        super().__init__()
        self.heads, self.dropout = options.num_heads, options.dropout
        self.norm_attention = GroupedNorm(groups, size)
        self.query = GroupedLinear(groups, size, size, bias=False)
        self.key_and_value = GroupedLinear(groups, size, 2 * size, bias=False)
        self.output = GroupedLinear(groups, size, size)
        self.norm_feed = GroupedNorm(groups, size)
        self.wide = GroupedLinear(groups, size, 4 * size)
        self.narrow = GroupedLinear(groups, 4 * size, size)

    def forward(self, x: Tensor, mask: Tensor, last_only: bool) -> Tensor:
        """Map (G, B, L, D) to the same shape, or to (G, B, 1, D) at the last position."""
        normed = self.norm_attention(x)
        key, value = self.key_and_value(normed).chunk(2, -1)
        if last_only:
            x, normed = x[:, :, -1:], normed[:, :, -1:]
        heads = (split_heads(part, self.heads) for part in (self.query(normed), key, value))
        x = x + self._drop(self.output(attend(*heads, mask[:, None])))
        return x + self._drop(self.narrow(self._drop(F.gelu(self.wide(self.norm_feed(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Encoder(nn.Module):
    """G Transformer encoders over sequences of one shape, each pooled to a vector.  # Eq. 17-19

    Positions are counted from the newest event, so padding moves nothing. A row without events reads one
    learned token, hence its vector is defined and constant.
    """

    def __init__(self, groups: int, size: int, max_length: int, options: Experts) -> None:
        super().__init__()
        self.mean = options.pool == "mean"
        self.positions = nn.Parameter(torch.randn(groups, 1, max_length, size) * 0.02)
        self.empty = nn.Parameter(torch.randn(groups, 1, size) * 0.02)
        self.layers = nn.ModuleList(Layer(groups, size, options) for _ in range(options.layers))
        self.norm = GroupedNorm(groups, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (G, B, L, D) with mask (B, L) to (G, B, D)."""
        x, mask = self._fill_empty(x, mask)
        x = x + self.positions[:, :, -x.shape[2] :]
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, mask, last_only=number == len(self.layers) and not self.mean)
        return mean_vector(self.norm(x), mask) if self.mean else self.norm(x[:, :, -1])

    def _fill_empty(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put the learned token at the last position of rows without events."""
        groups, batch, length, size = x.shape
        if length == 0:
            x, mask = x.new_zeros(groups, batch, 1, size), mask.new_zeros(batch, 1)
        empty = ~mask[:, -1]  # left padding: a row has events iff its last position is one
        last = torch.where(empty[None, :, None], self.empty, x[:, :, -1])[:, :, None]  # (G, B, 1, D)
        return torch.cat([x[:, :, :-1], last], 2), torch.cat([mask[:, :-1], torch.ones_like(mask[:, -1:])], 1)


class SharedExpert(nn.Module):
    """What behaviors have in common: events of one query those of the other, then an encoder.  # Eq. 14-17"""

    def __init__(self, size: int, max_history: int, options: Experts) -> None:
        super().__init__()
        self.heads, self.both, self.in_time = (
            options.num_heads, options.share == "both", options.concat == "time"
        )  # fmt: skip
        self.concat = None if self.in_time else nn.Linear(3 * size, size)  # one map for all behaviors
        self.query = GroupedLinear(1, size, size, bias=False)
        self.key_and_value = GroupedLinear(1, size, 2 * size, bias=False)
        self.output = GroupedLinear(1, size, size)
        self.null = nn.Parameter(torch.randn(1, 1, 1, size) * 0.02)
        self.encoder = Encoder(1, size, max_history * (3 if self.in_time else 1), options)

    def forward(self, shallow: Tensor, mask: Tensor, deep: Tensor, deep_mask: Tensor) -> Tensor:
        """Return h_common.

        Args:
            shallow: (3, B, Lc, D), the denoised streams of the shallower behaviors.
            mask: (B, Lc) bool.
            deep: (3, B, Lf, D), the streams of the target behavior.
            deep_mask: (B, Lf) bool.

        Returns:
            (B, D).
        """
        clicks, favors = self._fused(shallow, mask), self._fused(deep, deep_mask)
        common = self._read(*clicks, *favors)
        return (common + self._read(*favors, *clicks)) / 2 if self.both else common

    def _read(self, asking: Tensor, mask: Tensor, asked: Tensor, asked_mask: Tensor) -> Tensor:
        """Return (B, D) from the events (1, B, L, D) of one behavior that query those of the other."""
        asked = torch.cat([asked, self.null.expand(1, asked.shape[1], 1, -1)], 2)
        key, value = self.key_and_value(asked).chunk(2, -1)
        seen = F.pad(asked_mask, (0, 1), value=True)[:, None]
        heads = (split_heads(part, self.heads) for part in (self.query(asking), key, value))
        mixed = asking + self.output(attend(*heads, seen))  # Eq. 16, with a residual
        pooled: Tensor = self.encoder(mixed, mask)[0]  # Eq. 17
        return pooled

    def _fused(self, streams: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return H_b and its mask from (3, B, L, D): (1, B, L, D), or (1, B, 3 L, D) side by side in time.

        Tokens of one event stay neighbors, which keeps the padding on the left.  # Eq. 14, 15
        """
        if self.concat is not None:
            return self.concat(torch.cat(streams.unbind(0), -1))[None], mask
        return streams.permute(1, 2, 0, 3).flatten(1, 2)[None], mask.repeat_interleave(3, 1)
