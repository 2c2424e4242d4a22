"""FDAF, feature dynamic adaptive fusion: what the streams of a history say of each candidate.

Letters: B histories, L history length, C candidates, S = M + 2 streams (one per modality, common, synergy).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.losses import masked_mean
from bench.nn.transformer import attend


@dataclass(frozen=True)
class State:
    """Encoded histories."""

    streams: Tensor
    """X after the cross step, (B, S, L, D), zero where padded; order: modalities, common, synergy."""
    mask: Tensor
    """(B, L) bool."""
    ids: Tensor
    """The id stream as it entered, (B, L, D)."""
    synergy: Tensor
    """Pooled h_syn before the cross step, (B, D)."""

    def __len__(self) -> int:
        return len(self.mask)

    def rows(self, chosen: slice) -> "State":
        """Return some histories, trimmed to the longest among them."""
        mask = self.mask[chosen]
        cut = mask.shape[1] - max(int(mask.any(0).sum()), 1)
        streams, ids = self.streams[chosen, :, cut:], self.ids[chosen, cut:]
        return State(streams, mask[:, cut:], ids, self.synergy[chosen])

    def pooled(self) -> Tensor:
        """Return the mean of each stream over real events, (S, B, D)."""
        return masked_mean(self.streams.transpose(0, 1), self.mask)


def cross_step(streams: Tensor) -> Tensor:
    """Return X_i + 0.1 mean_j (X_i * X_j), elementwise, j = i included, of X (S, ..., D)."""
    return streams * (1 + 0.1 * streams.mean(0))


class ScoreMap(nn.Module):
    """Target attention per stream, then one score per stream and position.

    a_i = softmax over l (X_il . E_i / sqrt(D)), c_i = sum_l a_il X_il, q_il = sum of the coordinates of
    MLP(c_i * X_il * E_i), MLP: D -> 2 D -> D with ReLU. Padded positions have weight and score 0. The
    released code takes its softmax over a vector that is constant along L: its a is uniform.

    The sum over coordinates is moved into the last layer (sum of W x = (sum of W) x), which halves the cost.

    Args:
        streams: S.
        size: D.
        config: of the model.
    """

    def __init__(self, streams: int, size: int, config: DiffMSINConfig) -> None:
        super().__init__()
        self.uniform, self.pool, self.length = config.released, config.score_pool, config.max_history
        self.wide, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.outputs = streams * (self.length if self.pool == "flat" else 1)

    def attention(self, state: State, target: Tensor) -> Tensor:
        """Return a (B, C, S, L) for target streams (B, C, S, D); rows sum to 1, or to 0 without events."""
        scores = torch.einsum("bsld,bcsd->bcsl", state.streams, target) * target.shape[-1] ** -0.5
        if self.uniform:
            scores = torch.zeros_like(scores)
        real = state.mask[:, None, None]
        scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1) * real

    def forward(self, state: State, target: Tensor) -> Tensor:
        """Return (B, C, S max_history) or (B, C, S) for target streams (B, C, S, D)."""
        context = torch.einsum("bcsl,bsld->bcsd", self.attention(state, target), state.streams) * target
        row, position = state.mask.nonzero(as_tuple=True)  # V real events
        events = state.streams[row, :, position]  # (V, S, D)
        values = self.scores(events[:, None] * context[row])  # (V, C, S)
        scores = values.new_zeros(*state.mask.shape, *values.shape[1:])  # (B, L, C, S)
        scores[row, position] = values
        if self.pool == "sum":
            return scores.sum(1)
        return F.pad(scores.permute(0, 2, 3, 1), (self.length - scores.shape[1], 0)).flatten(2)

    def scores(self, products: Tensor) -> Tensor:
        """Return the sum over coordinates of MLP(x), (...), for x (..., D)."""
        hidden = F.relu(self.wide(products.flatten(0, -2)), inplace=True)  # flat: the bias is fused
        summed = torch.mv(hidden, self.narrow.weight.sum(0)) + self.narrow.bias.sum()
        return summed.view(products.shape[:-1])


class GatedCross(nn.Module):
    """Gates, a cross network and attention, after the independent re-implementation.

    The target's id vector gates every pooled stream but the id's, coordinate by coordinate; cross layers
    x <- x_0 (w . x) + b + x run on their concatenation; the mean of its parts queries the enhanced id stream
    by multi-head attention.

    Args:
        streams: S.
        size: D.
        config: of the model.
    """

    def __init__(self, streams: int, size: int, config: DiffMSINConfig) -> None:
        super().__init__()
        self.parts, self.heads = streams - 1, config.num_heads
        wide = self.parts * size
        self.gate = nn.Linear(size, wide)
        layers = range(config.num_cross_layers)
        self.crosses = nn.ModuleList(nn.Linear(wide, 1, bias=False) for _ in layers)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(wide)) for _ in layers)
        self.query = nn.Linear(size, size)
        self.key_and_value = nn.Linear(size, 2 * size)
        self.outputs = wide + size

    def forward(self, state: State, target: Tensor) -> Tensor:
        """Return (B, C, (S - 1) D + D) for target streams (B, C, S, D)."""
        others = state.pooled()[1:].transpose(0, 1).flatten(1)  # (B, (S - 1) D)
        first = torch.sigmoid(self.gate(target[:, :, 0])) * others[:, None]
        crossed = first
        for layer, bias in zip(self.crosses, self.biases, strict=True):
            crossed = first * layer(crossed) + bias + crossed
        query = self.query(crossed.unflatten(-1, (self.parts, -1)).mean(2))
        return torch.cat([crossed, self.attend(query, state)], -1)

    def attend(self, query: Tensor, state: State) -> Tensor:
        """Return multi-head attention of queries (B, C, D) over the id stream, (B, C, D)."""
        key, value = self.key_and_value(state.streams[:, 0]).chunk(2, -1)
        seen = state.mask | ~state.mask.any(1, keepdim=True)  # no events: zeros are attended
        return attend(query, key, value, seen[:, None, None], self.heads)
