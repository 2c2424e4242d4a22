"""The numerical branch: prices are Gaussians, a session's is found by attention under Wasserstein distances.

Letters: B windows, L length, N items, D width, H heads.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.baselines.mmsbr.config import MMSBRConfig
from bench.nn.dropout import Dropout
from bench.nn.gaussian import point, variance


def levels_of(values: NDArray[np.floating], category: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Return (N + 1,) levels 1..count of values within their category, 0 where unknown: 1 + floor of
    (x - min) / (max - min) times count, the largest value in the last level.
    """
    levels = np.zeros(len(values), np.int64)
    known = np.isfinite(values)
    lowest = np.full(int(category.max()) + 1, np.inf)
    highest = np.full_like(lowest, -np.inf)
    np.minimum.at(lowest, category[known], values[known])
    np.maximum.at(highest, category[known], values[known])
    low, high = lowest[category[known]], highest[category[known]]
    share = (values[known] - low) / np.where(high > low, high - low, 1)
    levels[known] = np.minimum(1 + (share * count).astype(np.int64), count)
    return levels


class PriceBranch(nn.Module):
    """Gaussians of price levels and categories, and the Gaussian that a session asks for.

    Args:
        config: sizes.
        levels: (N + 1,) price level of each item, 0 where unknown.
        category: (N + 1,) category of each item, 0 where unknown.
    """

    levels: Tensor
    category: Tensor

    def __init__(
        self, config: MMSBRConfig, levels: NDArray[np.integer], category: NDArray[np.integer]
    ) -> None:
        super().__init__()
        size, self.num_heads = config.hidden_size, config.num_heads
        self.register_buffer("levels", torch.from_numpy(levels.astype(np.int64)), persistent=False)
        self.register_buffer("category", torch.from_numpy(category.astype(np.int64)), persistent=False)
        self.mean, self.spread = (nn.Embedding(config.num_levels + 1, size) for _ in range(2))
        self.kind = nn.Embedding(int(category.max()) + 1, size)
        self.maps = nn.ModuleList(nn.Linear(size, size) for _ in range(6))
        """Query, key and value of means, then of covariances."""
        self.dense = nn.ModuleList(nn.Linear(size, size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(5))
        """Norms of mean tables, spread tables, categories, and both outputs."""
        self.dropout = Dropout(config.item_dropout)

    def session(self, history: Tensor, allowed: Tensor) -> Tensor:
        """Return the Gaussian that every position asks for, as a point (B, L, 2 D): means and roots of the
        covariances, from items (B, L), allowed (B, 1, L, L) bool.
        """
        level, kind = self.levels[history], self.norms[2](self.kind(self.category[history]))
        mean, spread = self.mean(level), self.spread(level)
        m = self.dropout(self.norms[0](mean) + kind)
        s = variance(self.dropout(self.norms[1](spread) + kind))
        query_mean, key_mean, value_mean = (self.split(part(m)) for part in self.maps[:3])
        query_spread, key_spread, value_spread = (self.split(variance(part(s))) for part in self.maps[3:])
        distance = squared(point(query_mean, query_spread), point(key_mean, key_spread))  # (B, H, L, L)
        logits = (-distance / query_mean.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        weight = self.dropout(torch.softmax(logits, -1))
        out_mean = (weight @ value_mean).transpose(1, 2).flatten(2)
        out_spread = (weight.square() @ value_spread).transpose(1, 2).flatten(2)
        m = self.norms[3](self.dropout(self.dense[0](out_mean)) + mean)
        s = self.norms[4](self.dropout(self.dense[1](out_spread)) + spread)
        return point(m, variance(s))

    def split(self, x: Tensor) -> Tensor:
        """Return (B, H, L, D / H) from (B, L, D)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def items(self, items: Tensor) -> Tensor:
        """Return the Gaussians of items (...), as points (..., 2 D)."""
        kind, level = self.kind(self.category[items]), self.levels[items]
        return point(self.mean(level) + kind, variance(self.spread(level) + kind))


def squared(first: Tensor, second: Tensor) -> Tensor:
    """Return squared 2-Wasserstein distances (..., n, m) of points (..., n, 2 D) and (..., m, 2 D)."""
    squares = first.square().sum(-1)[..., :, None] + second.square().sum(-1)[..., None, :]
    return F.relu(squares - 2 * first @ second.transpose(-1, -2))
