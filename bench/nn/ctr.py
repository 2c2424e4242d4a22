"""Blocks of click-through-rate models: Dice, the perceptron, DIN's target attention, items as fields.

Letters: B histories, L history length, C candidates of one history, D width of an item.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class Dice(nn.Module):
    """Data-adaptive activation: p s + (1 - p) alpha s, p = sigmoid((s - mean) / sqrt(var + eps)).

    Mean and variance are those of the batch in training, running averages in eval mode; alpha is learned
    per coordinate and starts at 0. Zhou et al., Deep Interest Network, KDD 2018, Eq. 3.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(size, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, D) to (n, D); in training n is 2 or more."""
        return x * torch.lerp(self.alpha, torch.ones_like(self.alpha), torch.sigmoid(self.norm(x)))


def perceptron(inputs: int, hidden: tuple[int, ...], batch_norm: bool = False) -> nn.Sequential:
    """Return Linear, optionally BatchNorm, Dice for each hidden width, then Linear to one logit.

    Args:
        inputs: width of a row.
        hidden: widths of the hidden layers.
        batch_norm: normalises before each Dice.

    Returns:
        A net from (n, inputs) to (n, 1).
    """
    layers: list[nn.Module] = []
    for size in hidden:
        norm = [nn.BatchNorm1d(size)] if batch_norm else []
        layers += [nn.Linear(inputs, size), *norm, Dice(size)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


class TargetAttention(nn.Module):
    """DIN's local activation unit: sum over l of a(t, h_l) h_l, the weights not normalised (KDD 2018, Eq. 4).

    a is a perceptron with Dice on [t ; h ; t - h ; t * h]. Its first layer is applied part by part, W_t t +
    W_h h + W_d (t - h) + W_p (t * h), so that only the last part costs a product for each pair; rows are
    the real events alone, hence padding enters no mean of Dice.

    Args:
        size: D.
        hidden: widths of the perceptron, one or more.
    """

    def __init__(self, size: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Linear(4 * size, hidden[0])
        self.rest = nn.Sequential(Dice(hidden[0]), *perceptron(hidden[0], hidden[1:]))

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Attend.

        Args:
            history: (B, L, D).
            mask: (B, L) bool, True where there is a real event.
            target: (B, C, D).

        Returns:
            (B, C, D); zero for a history without events.
        """
        weights = history.new_zeros(*mask.shape, target.shape[1])  # (B, L, C)
        row, position = mask.nonzero(as_tuple=True)  # V real events
        if len(row):
            weights[row, position] = self.weights(history[row, position], target, row)
        return torch.einsum("blc,bld->bcd", weights, history)

    def weights(self, events: Tensor, target: Tensor, row: Tensor) -> Tensor:
        """Return a(t, h), (V, C), of events (V, D) that stand in the histories row (V,) int64."""
        of_target, of_event, of_gap, of_product = self.first.weight.chunk(4, 1)
        hidden = F.linear(events[:, None] * target[row], of_product)  # (V, C, H)
        hidden = hidden + F.linear(events, of_event - of_gap)[:, None]
        hidden = hidden + F.linear(target, of_target + of_gap, self.first.bias)[row]
        return self.rest(hidden.flatten(0, 1)).view(hidden.shape[:2])


class Content(Protocol):
    """The part of the item content that `ItemFields` reads."""

    @property
    def num_items(self) -> int:
        """N."""

    @property
    def attributes(self) -> Mapping[str, NDArray[Any]]:
        """Name -> (N + 1,) integer ids, 0 where absent."""


class ItemFields(nn.Module):
    """An item as its id and its attributes (brand, category), each with a table, side by side.

    Args:
        content: has `num_items` and `attributes`.
        size: width of each table.
    """

    def __init__(self, content: Content, size: int) -> None:
        super().__init__()
        self.names = tuple(sorted(content.attributes))
        tables = [nn.Embedding(content.num_items + 1, size, padding_idx=0)]
        for name in self.names:
            ids = torch.from_numpy(content.attributes[name].astype("int64"))
            self.register_buffer(f"ids_{name}", ids, persistent=False)
            tables.append(nn.Embedding(int(ids.max()) + 1, size, padding_idx=0))
        for table in tables:
            nn.init.normal_(table.weight, std=0.01)
            nn.init.zeros_(table.weight[0].detach())
        self.tables = nn.ModuleList(tables)
        self.size = size * len(self.tables)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...); zero for item 0."""
        ids = [items, *(self.get_buffer(f"ids_{name}")[items] for name in self.names)]
        return torch.cat([table(part) for table, part in zip(self.tables, ids, strict=True)], -1)


def score_in_blocks(candidates: Tensor, pairs: int, judge: Callable[[slice, Tensor], Tensor]) -> Tensor:
    """Score candidates in blocks of users and candidates: few at once is faster too, it stays in the cache.

    Args:
        candidates: (B, C) int64.
        pairs: most user-item pairs in one block.
        judge: gets a slice of users and their part of the candidates (b, c), returns its (b, c) scores.

    Returns:
        (B, C) scores.
    """
    width = max(1, min(candidates.shape[1], pairs))
    height = max(1, pairs // width)
    rows = [slice(start, start + height) for start in range(0, len(candidates), height)]
    return torch.cat([torch.cat([judge(r, part) for part in candidates[r].split(width, 1)], 1) for r in rows])


@dataclass(frozen=True)
class Impressed:
    """Rows of history, item and label, grouped so that a history is read once for all its items."""

    first: Tensor
    """(B,) int64, the first row of each group."""
    items: Tensor
    """(B, C) int64; 0 where a group has fewer than C rows."""
    row: Tensor
    """(n,) int64, the group of each row."""
    column: Tensor
    """(n,) int64, the column of each row in `items`."""

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Return values of the rows (n,) as (B, C), `fill` where a group has no row."""
        wide = torch.full_like(self.items, fill, dtype=values.dtype)
        wide[self.row, self.column] = values
        return wide


def group_impressions(
    user: Tensor, history: Tensor, behavior: Tensor, target: Tensor, label: Tensor
) -> Impressed:
    """Group adjacent rows of one user and one history; a row with label 1 opens a group.

    Args:
        user: (n,) int64.
        history: (n, L) int64.
        behavior: (n, L) int64.
        target: (n,) int64.
        label: (n,) float, 1 for a real event, followed by its negatives.
    """
    key = torch.cat([user[:, None], history, behavior], 1)
    opens = label > 0
    opens[1:] |= (key[1:] != key[:-1]).any(1)
    opens[:1] = True
    first, row = opens.nonzero()[:, 0], opens.cumsum(0) - 1
    column = torch.arange(len(user), device=user.device) - first[row]
    items = target.new_zeros(len(first), int(column.max()) + 1)
    items[row, column] = target
    return Impressed(first, items, row, column)
