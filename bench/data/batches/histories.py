"""Padded histories gathered from the flat events, and the rule on shallow events that give a target away.

A favor is often logged together with a click on the same item. `drop_target_click` says whether a model may
see it: `same_timestamp` hides shallower events on the target item at the very time of the target, `all` hides
those of any time, `none` hides nothing. The rule is applied only where an event of the target behavior is
predicted.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.schema import Interactions
from bench.interface import Batch

DropTargetClick = Literal["same_timestamp", "none", "all"]
Columns = dict[str, NDArray[Any]]
"""The fields of a `Batch` as arrays: `history`, `behavior`, `timestamp` (B, L), and others with B rows."""
PADDED = ("history", "behavior", "timestamp", "labels", "label_behavior")


def event_indices(
    start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the event index of each position (0 where padded) and the mask, both (B, L), of start:stop.

    Padding is on the left; L is the longest range, at least 1.
    """
    longest = max(int((stop - start).max(initial=0)), 1)
    index = stop[:, None] + np.arange(-longest, 0)  # (B, L)
    real = index >= start[:, None]  # (B, L)
    return np.where(real, index, 0), real


def gather(events: Interactions, index: NDArray[np.int64], real: NDArray[np.bool_]) -> Columns:
    """Return `history`, `behavior` and `timestamp`, each (B, L) int64, of event indices; 0 where padded."""
    return {
        "history": events.item[index].astype(np.int64) * real,
        "behavior": events.behavior[index].astype(np.int64) * real,
        "timestamp": events.timestamp[index] * real,
    }


def before(
    events: Interactions,
    targets: NDArray[np.int64],
    max_history: int,
    target_behavior: int,
    rule: DropTargetClick,
) -> Columns:
    """Return the `max_history` events before each target event, less what the rule hides, and the `user`.

    Args:
        events: the log.
        targets: (B,) event indices.
        max_history: events looked at; hidden ones are not made up for. 0 gives (B, 0) arrays.
        target_behavior: events of this behavior are judged by the rule.
        rule: which shallower events on the target item are hidden.
    """
    user = events.user_of(targets)
    columns = gather(events, *event_indices(np.maximum(events.offsets[user], targets - max_history), targets))
    if max_history == 0:
        return {"user": user} | {name: values[:, :0] for name, values in columns.items()}
    item, time = events.item[targets][:, None], events.timestamp[targets][:, None]  # (B, 1)
    twin = (columns["history"] == item) & (columns["behavior"] < target_behavior)  # (B, L)
    twin &= (events.behavior[targets] == target_behavior)[:, None]
    if rule == "same_timestamp":
        twin &= columns["timestamp"] == time
    rows = np.flatnonzero(twin.any(1)) if rule != "none" else np.empty(0, np.int64)  # (R,)
    if len(rows):
        visible = (columns["history"][rows] > 0) & ~twin[rows]  # (R, L)
        order = np.argsort(visible, axis=1, kind="stable")  # what is kept moves to the right, in time order
        for values in columns.values():
            values[rows] = np.take_along_axis(values[rows] * visible, order, axis=1)
    return {"user": user} | columns


def twins(events: Interactions, target_behavior: int, rule: DropTargetClick) -> NDArray[np.int64]:
    """Return (E,) for each target-behavior event the latest earlier event that the rule hides, or -1."""
    twin = np.full(len(events), -1)
    if rule == "none" or not len(events):
        return twin
    key = events.users() * (int(events.item.max()) + 1) + events.item  # (E,)
    order = np.argsort(key, kind="stable")  # by user and item, then in time order
    rank = np.arange(len(order))  # (E,) from here on in this order: the events of one pair stand together
    # rank of the first event of the pair of each event, and of its last shallow event so far
    first = np.maximum.accumulate(np.where(np.diff(key[order], prepend=-1) != 0, rank, 0))
    shallow = events.behavior[order] < target_behavior
    latest = np.maximum.accumulate(np.where(shallow, rank, -1))
    hides = (events.behavior[order] == target_behavior) & (latest >= first)
    if rule == "same_timestamp":
        hides &= events.timestamp[order[latest]] == events.timestamp[order]
    twin[order[hides]] = order[latest[hides]]
    return twin


def to_batch(columns: Columns) -> tuple[Batch, NDArray[np.int64]]:
    """Return a batch, its rows sorted by history length and trimmed to the longest, and their order."""
    lengths = (columns["history"] > 0).sum(1)
    order = np.argsort(lengths, kind="stable")
    cut = max(columns["history"].shape[1] - max(int(lengths.max(initial=0)), 1), 0)
    fields = {name: part[order, cut:] if name in PADDED else part[order] for name, part in columns.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in fields.items()}
    return Batch(**tensors), order
