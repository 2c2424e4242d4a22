"""Streams of single behaviors inside one history, and means over what is real."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.interface import Batch


@dataclass(frozen=True)
class Events:
    """Where the events of some behaviors stand in the histories of a batch, padded on the left."""

    positions: Tensor
    """(B, Lb) int64, 0 where padded."""
    mask: Tensor
    """(B, Lb) bool."""

    def of(self, streams: Tensor) -> Tensor:
        """Return (G, B, Lb, D) from (G, B, L, D); padding holds whatever stands at position 0."""
        return gather(streams, self.positions)

    def sees(self, other: "Events", causal: bool) -> Tensor:
        """Return which events of other behaviors each of these may see, (B, Lb or 1, Lo) bool: all of them,
        or those before it.
        """
        everything = other.mask[:, None]
        return everything & (other.positions[:, None] < self.positions[:, :, None]) if causal else everything

    def latest(self, reads: "Reads", tokens: int = 1) -> tuple[Tensor, Tensor]:
        """Return where the last of these events up to each position stands: row (P,) and how many columns
        before the newest one (P,), int64. Row B, behind the last one, stands for no event.

        Args:
            reads: the positions.
            tokens: columns of an event, of which the last is meant.
        """
        before = self.mask[reads.row] & (self.positions[reads.row] <= reads.position[:, None])  # (P, Lb)
        number = torch.arange(1, before.shape[1] + 1, device=before.device)
        last = F.pad(before * number, (1, 0)).amax(1)  # 0 without an event
        back = tokens * (before.shape[1] - last)
        return torch.where(last == 0, len(self.mask), reads.row), back * (last > 0)


@dataclass(frozen=True)
class Reads:
    """P positions of a batch at which the interests are read."""

    row: Tensor
    """(P,) int64."""
    position: Tensor
    """(P,) int64, in the history."""


@dataclass(frozen=True)
class Layout:
    """The behaviors of a batch."""

    each: tuple[Events, ...]
    """By behavior, the target behavior last."""
    shallower: Events
    """All but the target behavior, in time order; with one behavior that behavior itself."""
    behavior: Tensor
    """(B, L) int64, 0 where padded."""

    @property
    def everything(self) -> Events:
        """Those of all behaviors, in time order."""
        mask = self.behavior > 0
        return Events(torch.arange(self.length, device=mask.device) * mask, mask)

    @property
    def length(self) -> int:
        """L of the histories."""
        return self.behavior.shape[1]

    @property
    def target(self) -> Events:
        """Those of the target behavior."""
        return self.each[-1]

    def newest(self) -> Reads:
        """Return the last position of every row."""
        rows = torch.arange(len(self.behavior), device=self.behavior.device)
        return Reads(rows, torch.full_like(rows, self.length - 1))


def layout(batch: Batch, count: int) -> Layout:
    """Return where the events of `count` behaviors stand."""
    each = tuple(_events(batch, behavior) for behavior in range(1, count + 1))
    shallower = each[0] if count <= 2 else _events(batch, *range(1, count))
    return Layout(each, shallower, batch.behavior)


def _events(batch: Batch, *behaviors: int) -> Events:
    items, positions = batch.stream(*behaviors)
    return Events(positions, items > 0)


def gather(streams: Tensor, positions: Tensor) -> Tensor:
    """Return (G, B, Lb, D) from (G, B, L, D) at positions (B, Lb); padding holds position 0."""
    index = positions[None, :, :, None].expand(len(streams), -1, -1, streams.shape[-1])
    return streams.gather(2, index)


def scatter(streams: Tensor, positions: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return the streams with (G, B, Lb, D) put back at their positions where the mask (B, Lb) is True."""
    length = streams.shape[2]
    spare = torch.where(mask, positions, length)  # padding is written to a column that is cut off again
    wide = torch.cat([streams, streams[:, :, :1]], 2)
    index = spare[None, :, :, None].expand(len(streams), -1, -1, streams.shape[-1])
    return wide.scatter(2, index, values)[:, :, :length]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (G, B, L) over valid positions (B, L), then over G; 0 where nothing is valid."""
    return (values * mask).sum() / (mask.sum().clamp(min=1) * len(values))


def mean_vector(streams: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (G, B, L, D) over valid positions (B, L), (G, B, D); 0 for an empty row."""
    real = mask[None, :, :, None].to(streams.dtype)
    return (streams * real).sum(2) / real.sum(2).clamp(min=1)


def running_mean(streams: Tensor, mask: Tensor) -> Tensor:
    """Return the means of (G, B, L, D) over valid positions up to each of them, (G, B, L, D); 0 before the
    first.
    """
    real = mask[None, :, :, None].to(streams.dtype)
    return (streams * real).cumsum(2) / real.cumsum(2).clamp(min=1)
