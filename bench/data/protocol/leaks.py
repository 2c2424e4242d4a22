"""Proof that a model sees nothing it must not: every event in a batch is looked up among the allowed ones.

Allowed are a user's training events (part `training`), or the events before the user's held-out event
(`validation`, `test`). Negatives are drawn items, not events, and are not looked up.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.protocol.split import Split
from bench.data.schema import Interactions
from bench.interface import Batch

Part = Literal["training", "validation", "test"]


@dataclass(frozen=True)
class Leak:
    """An event that a batch shows and must not show."""

    user: int
    item: int
    behavior: int
    timestamp: int | None
    """None where the batch does not hold it (labels and targets)."""
    why: str


def find_leaks(batches: Iterable[Batch], interactions: Interactions, split: Split, part: Part) -> list[Leak]:
    """Return every event shown in the batches (histories, labels, targets) that is not allowed in the part.

    Histories are compared by user, item, behavior and timestamp, labels and targets by the first three.
    Evaluation batches carry no label or target at all: each one is a leak.

    Args:
        batches: of `TrainingBatches` or `evaluation_batches`.
        interactions: the whole log.
        split: its split.
        part: what the batches are for.
    """
    users = interactions.users()
    # (E, 4)
    events = np.stack([users, interactions.item, interactions.behavior, interactions.timestamp], axis=1)
    allowed = np.arange(len(interactions)) < _limits(interactions, split, part)[users]  # (E,)
    known, hidden = _Rows(events[allowed]), _Rows(events[~allowed])
    largest = int(interactions.item.max(initial=0)), int(interactions.behavior.max(initial=0))
    leaks: list[Leak] = []
    for batch in batches:
        for field, rows in _visible_events(batch, *largest):
            answer = part != "training" and field != "history"
            bad = rows if answer else rows[~known.hold(rows)]
            for row, later in zip(bad.tolist(), hidden.hold(bad).tolist(), strict=True):
                user, item, behavior, *times = row
                why = f"{field}: {_reason(part, answer, later)}"
                leaks.append(Leak(user, item, behavior, times[0] if times else None, why))
    return leaks


def _reason(part: Part, answer: bool, later: bool) -> str:
    if answer:
        return "an evaluation batch gives an answer away"
    end = "the training part ends" if part == "training" else f"the {part} event, or is it"
    return f"comes after {end}" if later else "no such event of this user"


def _limits(interactions: Interactions, split: Split, part: Part) -> NDArray[np.int64]:
    """Return (U,) where the events of each user end that may be shown; at the first where none may."""
    if part == "training":
        return split.train_end
    held = split.validation if part == "validation" else split.test
    limit = interactions.offsets[:-1].copy()
    limit[interactions.user_of(held)] = held
    return limit


def _visible_events(
    batch: Batch, last_item: int, target_behavior: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the fields and (n, 3 or 4) user, item, behavior and, in histories, timestamp of their events."""
    user = batch.user[:, None].expand(batch.history.shape)  # (B, L)
    seen = batch.mask
    if batch.labels is not None:
        seen = seen & (batch.history <= last_item)  # a mask token shows no item
        behavior = torch.zeros_like(batch.labels) if batch.label_behavior is None else batch.label_behavior
        yield "labels", _rows(batch.labels > 0, user, batch.labels, behavior)
    yield "history", _rows(seen, user, batch.history, batch.behavior, batch.timestamp)
    if batch.target is not None:
        judged = batch.target_behavior  # None in `impressions`: they are of the target behavior
        behavior = torch.full_like(batch.target, target_behavior) if judged is None else judged
        real = batch.target > 0 if batch.label is None else batch.label > 0
        yield "target", _rows(real, batch.user, batch.target, behavior)


def _rows(chosen: Tensor, *columns: Tensor) -> NDArray[np.int64]:
    return np.stack([column[chosen].cpu().numpy() for column in columns], axis=1)


class _Rows:
    """A set of integer rows that can be asked for rows or for their first columns.

    Column by column, the distinct prefixes get ranks; a code is a rank times the number of values of the next
    column, which stays below (number of rows) squared and cannot overflow, whatever the time stamps are.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.levels: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        rank = np.zeros(len(rows), np.int64)
        for column in rows.T:
            values, value_rank = np.unique(column, return_inverse=True)  # (V,), (n,)
            codes, rank = np.unique(rank * len(values) + value_rank, return_inverse=True)  # (P,), (n,)
            self.levels.append((values, codes))

    def hold(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) True where the row, or a row of the set that begins with it, is in the set."""
        rank, held = np.zeros(len(rows), np.int64), np.ones(len(rows), np.bool_)
        for (values, codes), column in zip(self.levels, rows.T, strict=False):
            value_rank, has_value = _find(values, column)  # (n,) each
            rank, has_prefix = _find(codes, rank * len(values) + value_rank)  # (n,) each
            held &= has_value & has_prefix
        return held


def _find(
    ascending: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return (n,) the rank of each value among distinct ascending ones, and whether it is one of them."""
    if not len(ascending):
        return np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
    rank = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)  # (n,)
    return rank, ascending[rank] == values
