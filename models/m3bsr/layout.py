"""Streams of single behaviors inside one history, and means over what is real."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.interface import Batch


@dataclass(frozen=True)
class Events:
    """Where the events of some behaviors stand in the histories of a batch, padded on the left."""

    places: Tensor
    """(B, Lb) int64, 0 where padded."""
    mask: Tensor
    """(B, Lb) bool."""

    def of(self, streams: Tensor) -> Tensor:
        """Return (G, B, Lb, D) from (G, B, L, D); padding holds whatever stands at place 0."""
        return gather(streams, self.places)


@dataclass(frozen=True)
class Layout:
    """The behaviors of a batch."""

    each: tuple[Events, ...]
    """By behavior, the target behavior last."""
    shallower: Events
    """All but the target behavior, in time order; with one behavior that behavior itself."""

    @property
    def target(self) -> Events:
        """Those of the target behavior."""
        return self.each[-1]


def layout(batch: Batch, count: int) -> Layout:
    """Return where the events of `count` behaviors stand."""
    each = tuple(_events(batch, behavior) for behavior in range(1, count + 1))
    return Layout(each, each[0] if count <= 2 else _events(batch, *range(1, count)))


def _events(batch: Batch, *behaviors: int) -> Events:
    items, places = batch.stream(*behaviors)
    return Events(places, items > 0)


def gather(streams: Tensor, places: Tensor) -> Tensor:
    """Return (G, B, Lb, D) from (G, B, L, D) at places (B, Lb); padding holds whatever stands at place 0."""
    index = places[None, :, :, None].expand(len(streams), -1, -1, streams.shape[-1])
    return streams.gather(2, index)


def scatter(streams: Tensor, places: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return the streams with (G, B, Lb, D) put back at their places where the mask (B, Lb) is True."""
    length = streams.shape[2]
    spare = torch.where(mask, places, length)  # padding is written to a column that is cut off again
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
