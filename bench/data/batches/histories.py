"""Padded histories gathered from the flat events, and the rule on shallow events that give a target away.

A favor is often logged together with a click on the same item. `drop_target_click` says whether a model may
see it: `same_timestamp` hides shallower events on the target item at the very time of the target, `all` hides
those of any time, `none` hides nothing. The rule is applied only where an event of the target behavior is
predicted.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.protocol.split import DropTargetClick
from bench.data.schema import Interactions
from bench.interface import Batch

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
    event_index = stop[:, None] + np.arange(-longest, 0)  # (B, L)
    is_real = event_index >= start[:, None]  # (B, L)
    return np.where(is_real, event_index, 0), is_real


def gather(events: Interactions, event_index: NDArray[np.int64], is_real: NDArray[np.bool_]) -> Columns:
    """Return `history`, `behavior` and `timestamp`, each (B, L) int64, of event indices; 0 where padded."""
    return {
        "history": events.item[event_index].astype(np.int64) * is_real,
        "behavior": events.behavior[event_index].astype(np.int64) * is_real,
        "timestamp": events.timestamp[event_index] * is_real,
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
    user = events.user_of(targets)  # (B,)
    start = np.maximum(events.offsets[user], targets - max_history)  # (B,)
    columns = gather(events, *event_indices(start, targets))  # each (B, L)
    if max_history == 0:
        return {"user": user} | {name: values[:, :0] for name, values in columns.items()}
    item, time = events.item[targets][:, None], events.timestamp[targets][:, None]  # (B, 1)
    twin = (columns["history"] == item) & (columns["behavior"] < target_behavior)  # (B, L)
    twin &= (events.behavior[targets] == target_behavior)[:, None]
    if rule == "same_timestamp":
        twin &= columns["timestamp"] == time
    rows = np.flatnonzero(twin.any(1)) if rule != "none" else np.empty(0, np.int64)  # (R,) rows that change
    if len(rows):
        keep = (columns["history"][rows] > 0) & ~twin[rows]  # (R, L)
        # False sorts before True: padding and hidden events move to the left, the others stay in time order.
        order = np.argsort(keep, axis=1, kind="stable")  # (R, L)
        for values in columns.values():
            values[rows] = np.take_along_axis(values[rows] * keep, order, axis=1)
    return {"user": user} | columns


def twins(events: Interactions, target_behavior: int, rule: DropTargetClick) -> NDArray[np.int64]:
    """Return (E,) for each target-behavior event the latest earlier event that the rule hides, or -1."""
    twin = np.full(len(events), -1)
    if rule == "none" or not len(events):
        return twin
    key = events.users() * (int(events.item.max()) + 1) + events.item  # (E,) one number per (user, item)
    order = np.argsort(key, kind="stable")  # (E,) events by user and item, then in time order
    # All below stands in this order. A running maximum carries the rank of the last event of a kind along:
    # of the first event of the (user, item), and of the latest shallower event, perhaps of an earlier pair.
    rank = np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.diff(key[order], prepend=-1) != 0, rank, 0))  # (E,)
    is_shallow = events.behavior[order] < target_behavior
    latest = np.maximum.accumulate(np.where(is_shallow, rank, -1))  # (E,)
    has_twin = (events.behavior[order] == target_behavior) & (latest >= first)  # (E,)
    if rule == "same_timestamp":
        has_twin &= events.timestamp[order[latest]] == events.timestamp[order]
    twin[order[has_twin]] = order[latest[has_twin]]
    return twin


def to_batch(columns: Columns) -> tuple[Batch, NDArray[np.int64]]:
    """Return a batch, its rows sorted by history length and trimmed to the longest, and their order."""
    lengths = (columns["history"] > 0).sum(1)  # (B,)
    order = np.argsort(lengths, kind="stable")  # (B,)
    cut = max(columns["history"].shape[1] - max(int(lengths.max(initial=0)), 1), 0)
    fields = {name: part[order, cut:] if name in PADDED else part[order] for name, part in columns.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in fields.items()}
    return Batch(**tensors), order
