"""Multi-expert interest extraction (Eq. 14-19): one shared expert across behaviors, six unique ones.

A sequence becomes a vector at its last valid position, so the last layer of an encoder is computed there
alone: the same numbers at a fraction of the cost.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.config import Experts
from bench.models.m3bsr.grouped import GroupedLinear, GroupedNorm, attend, split_heads


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
    """G Transformer encoders over sequences of one shape, each pooled at its last position.  # Eq. 17-19

    Positions are counted from the newest event, so padding moves nothing. A row without events reads one
    learned token, hence its vector is defined and constant.
    """

    def __init__(self, groups: int, size: int, max_history: int, options: Experts) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(groups, 1, max_history, size) * 0.02)
        self.empty = nn.Parameter(torch.randn(groups, 1, size) * 0.02)
        self.layers = nn.ModuleList(Layer(groups, size, options) for _ in range(options.layers))
        self.norm = GroupedNorm(groups, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (G, B, L, D) with mask (B, L) to (G, B, D)."""
        x, mask = self._fill_empty(x, mask)
        x = x + self.positions[:, :, -x.shape[2] :]
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, mask, last_only=number == len(self.layers))
        return self.norm(x[:, :, -1])

    def _fill_empty(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put the learned token at the last position of rows without events."""
        groups, batch, length, size = x.shape
        if length == 0:
            x, mask = x.new_zeros(groups, batch, 1, size), mask.new_zeros(batch, 1)
        empty = ~mask[:, -1]  # left padding: a row has events iff its last position is one
        last = torch.where(empty[None, :, None], self.empty, x[:, :, -1])[:, :, None]  # (G, B, 1, D)
        return torch.cat([x[:, :, :-1], last], 2), torch.cat([mask[:, :-1], torch.ones_like(mask[:, -1:])], 1)


class SharedExpert(nn.Module):
    """What the behaviors have in common: shallow events query the target behavior's, then an encoder.  # Eq.
    14-17
    """

    def __init__(self, size: int, max_history: int, options: Experts) -> None:
        super().__init__()
        self.heads = options.num_heads
        self.concat = nn.Linear(3 * size, size)  # Eq. 14, 15: one map for all behaviors
        self.query = GroupedLinear(1, size, size, bias=False)
        self.key_and_value = GroupedLinear(1, size, 2 * size, bias=False)
        self.output = GroupedLinear(1, size, size)
        self.null = nn.Parameter(torch.randn(1, 1, 1, size) * 0.02)
        self.encoder = Encoder(1, size, max_history, options)

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
        clicks, favors = self._fused(shallow)[None], self._fused(deep)[None]  # (1, B, L, D)
        favors = torch.cat([favors, self.null.expand(1, favors.shape[1], 1, -1)], 2)
        key, value = self.key_and_value(favors).chunk(2, -1)
        seen = F.pad(deep_mask, (0, 1), value=True)[:, None]
        heads = (split_heads(part, self.heads) for part in (self.query(clicks), key, value))
        mixed = clicks + self.output(attend(*heads, seen))  # Eq. 16, with a residual
        pooled: Tensor = self.encoder(mixed, mask)[0]  # Eq. 17
        return pooled

    def _fused(self, streams: Tensor) -> Tensor:
        """Return H_b (B, L, D) from (3, B, L, D)."""
        return self.concat(torch.cat(streams.unbind(0), -1))
