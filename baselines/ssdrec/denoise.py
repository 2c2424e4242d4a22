"""Sequences of SSDRec: consistency scores, insertion of two items, and the two-level gates.

Sequences stand on the left, padding behind them: item t of a sequence is column t.
Letters: B sequences, L columns, D hidden size, N items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nn.dropout import Dropout
from bench.nn.lengths import by_length


def to_left(history: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the newest L items of left-padded histories with the padding behind them, and their number.

    Args:
        history: (B, any) int64, padded on the left.
        length: L.

    Returns:
        (B, L) int64 and (B,) int64.
    """
    history = F.pad(history, (max(length - history.shape[1], 0), 0))[:, -length:]
    size = (history > 0).sum(1)
    column = torch.arange(length, device=history.device)
    return history.gather(1, (column + length - size[:, None]) % length), size


def real(size: Tensor, length: int) -> Tensor:
    """Return (B, L) bool, True where a sequence of size (B,) has an item."""
    return torch.arange(length, device=size.device) < size[:, None]


class TwoWay(nn.Module):
    """An LSTM in each direction, over items alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.forwards, self.backwards = (nn.LSTM(size, size, batch_first=True) for _ in range(2))

    def around(self, x: Tensor, size: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states before and after each item, (B, L, D) each.

        Args:
            x: (B, L, D).
            size: (B,).
            start: (D,), what stands before the first item.
            end: (D,), what stands behind the last one.
        """
        batch, length, width = x.shape
        first, last = (part.expand(batch, 1, width) for part in (start, end))
        before = self.forwards(torch.cat([first, x[:, :-1]], 1))[0]  # after start, x_1 .. x_(t-1)
        turned = torch.cat([last, reverse(x, size)[:, :-1]], 1)
        return before, reverse(self.backwards(turned)[0], size)

    def summed(self, x: Tensor, size: Tensor) -> Tensor:
        """Return the sum of both directions' states at each item, (B, L, D), 0 behind the items."""
        states = self.forwards(x)[0] + reverse(self.backwards(reverse(x, size))[0], size)
        return states * real(size, x.shape[1])[..., None]


def reverse(x: Tensor, size: Tensor) -> Tensor:
    """Return sequences (B, L, D) in reverse; what stands behind them stays there in some order."""
    column = torch.arange(x.shape[1], device=x.device)
    index = (size[:, None] - 1 - column) % x.shape[1]  # (B, L)
    return x.gather(1, index[..., None].expand_as(x))


def inconsistency(x: Tensor, size: Tensor, around: tuple[Tensor, Tensor]) -> Tensor:
    """Return 1 - p q, (B, L), -inf behind the items: how badly an item fits its neighbors and its sequence.

    Args:
        x: (B, L, D).
        size: (B,).
        around: states before and after each item.
    """
    mask = real(size, x.shape[1])
    before, after = around
    sequential = (x * before * after).sum(-1).masked_fill(~mask, -torch.inf)
    cut = x.clamp(-1, 1) * mask[..., None]
    together = (cut * (cut.sum(1, keepdim=True) - cut)).sum(-1).masked_fill(~mask, -torch.inf)
    some = mask.any(1, keepdim=True)
    p, q = (torch.where(some, part, 0.0).softmax(1) for part in (sequential, together))
    return (1 - p * q).masked_fill(~mask, -torch.inf)


def one_hot(logits: Tensor, temperature: float, training: bool) -> Tensor:
    """Return (B, K) a hard Gumbel choice in training with a straight-through gradient, else the argmax; all 0
    where no logit is finite.
    """
    some = torch.isfinite(logits).any(1, keepdim=True)
    logits = torch.where(some, logits, 0.0)
    if training:
        return F.gumbel_softmax(logits, temperature, hard=True) * some
    return F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype) * some


def insert(values: Tensor, position: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return sequences with two elements around one position.

    Args:
        values: (B, L, ...), two columns of padding or more at the end.
        position: (B,) int64.
        left: (B, ...), what goes before it.
        right: (B, ...), what goes behind it.
    """
    length = values.shape[1]
    column = torch.arange(length, device=values.device)
    at = position[:, None]
    source = torch.where(column < at, column, torch.where(column == at + 1, at, column - 2)).clamp(min=0)
    wide = (slice(None), slice(None), *(None for _ in values.shape[2:]))
    moved = values.gather(1, source[wide].expand(values.shape))
    is_left, is_right = (column == at)[wide], (column == at + 2)[wide]
    return torch.where(is_left, left[:, None], torch.where(is_right, right[:, None], moved))


def compact(keep: Tensor) -> Tensor:
    """Return (B, L) int64, the columns in the order: kept ones as they stand, then the others."""
    return torch.argsort(1 - keep.to(torch.int8), dim=1, stable=True)


class Gates(nn.Module):
    """Two levels that each call an item noise or not (HSD): by its sequence, and by who asks.

    Args:
        size: D.
        length: L.
        dropout: on the vectors, fraction.
    """

    def __init__(self, size: int, length: int, dropout: float) -> None:
        super().__init__()
        self.two_way, self.dropout = TwoWay(size), Dropout(dropout)
        self.mixed = nn.Conv2d(length, length, (1, 2))  # positions are channels
        self.by_sequence = nn.Linear(size, 2)
        self.norm = nn.BatchNorm1d(size)
        self.of_item, self.of_query = nn.Linear(size, size, bias=False), nn.Linear(size, size)
        self.by_item = nn.Linear(size, 2)

    def forward(self, x: Tensor, size: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits (keep, noise) of both levels, (B, L, 2) each, and the sequence as decoded.

        Args:
            x: (B, L, D), 0 behind the items.
            size: (B,).
            query: (B, D), who asks.
        """
        mask = real(size, x.shape[1])
        x = self.dropout(x) * mask[..., None]
        decoded = by_length(self.decoded, size, size, x, padding="right")
        assert self.mixed.bias is not None
        # as products with its two matrices (L, L): a convolution over so few columns is slow
        of_decoded, of_x = self.mixed.weight[:, :, 0].unbind(-1)
        mixed = F.relu(of_decoded @ decoded + of_x @ x + self.mixed.bias[:, None])  # (B, L, D)
        sequence = torch.sigmoid(self.by_sequence(mixed))
        normed = torch.zeros_like(x)
        if int(mask.sum()) > 1 or not self.training:  # statistics over real items alone
            normed[mask] = self.norm(x[mask])
        asked = torch.tanh(self.of_item(normed) + self.of_query(query)[:, None])
        return sequence, torch.sigmoid(self.by_item(asked)), decoded

    def decoded(self, size: Tensor, x: Tensor) -> Tensor:
        """Return sequences (B, L, D) encoded and decoded again, 0 behind the items."""
        return self.two_way.summed(self.two_way.summed(x, size), size)

    @staticmethod
    def noise(sequence: Tensor, item: Tensor, temperature: float, training: bool) -> Tensor:
        """Return (B, L) 1 where both levels say noise: drawn in training, by the larger logit else."""
        if training:
            flags = [F.gumbel_softmax(part, temperature, hard=True)[..., 1] for part in (sequence, item)]
            return flags[0] * flags[1]
        both = (sequence[..., 1] > sequence[..., 0]) & (item[..., 1] > item[..., 0])
        return both.to(sequence.dtype)
