"""The training part of a log as the training views read it, and the two ways of cutting it into samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.batches.histories import Columns, before
from bench.data.batches.untouched import Untouched
from bench.data.protocol.split import DropTargetClick
from bench.data.schema import Interactions

Samples = NDArray[np.int64]
"""(S,) or (S, k): one row of numbers per sample of an epoch."""


@dataclass(frozen=True)
class TrainingLog:
    """What all samplers read."""

    events: Interactions
    train_end: NDArray[np.int64]
    """(U,) the training events of user u are `offsets[u]:train_end[u]`."""
    num_items: int
    target_behavior: int
    rule: DropTargetClick

    def trained(self) -> NDArray[np.bool_]:
        """Return (E,) True for training events."""
        return np.arange(len(self.events)) < np.repeat(self.train_end, np.diff(self.events.offsets))

    def untouched(self) -> Untouched:
        """Return the sampler of negatives: items of no training event of the user."""
        chosen = self.trained()
        users = self.events.users()[chosen]
        return Untouched(users, self.events.item[chosen], self.events.num_users, self.num_items)

    def predictable(self, behavior: int | None) -> Samples:
        """Return the training events (of one behavior or all) that have an earlier event of their user."""
        chosen = self.trained()  # (E,)
        chosen[self.events.offsets[:-1][np.diff(self.events.offsets) > 0]] = False  # first event of each user
        return np.flatnonzero(chosen if behavior is None else chosen & (self.events.behavior == behavior))

    def before(self, targets: Samples, max_history: int) -> Columns:
        """Return user and history of each target event under the rule."""
        return before(self.events, targets, max_history, self.target_behavior, self.rule)


def windows(
    start: NDArray[np.int64], stop: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut each range start:stop into windows of `size` from the right; the leftmost may be shorter."""
    counts = -(-(stop - start) // size)  # (U,) windows per user, rounded up
    user = np.repeat(np.arange(len(counts)), counts)  # (W,)
    number = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]  # (W,) 0, 1, ... inside each user
    right = stop[user] - number * size  # (W,)
    return np.maximum(start[user], right - size), right


def capped(rng: np.random.Generator, users: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Return the positions in `users` (n,), ascending, of at most `most` random entries per user."""
    if most is None or capped_size(users, most) == len(users):
        return np.arange(len(users))
    order = np.lexsort((rng.random(len(users)), users))  # (n,) shuffled inside each user
    rank = np.arange(len(users)) - np.searchsorted(users, users)  # (n,) 0, 1, ... inside each user
    return np.sort(order[rank < most])


def capped_size(users: NDArray[np.int64], most: int | None) -> int:
    """Return how many entries `capped` leaves."""
    return len(users) if most is None else int(np.minimum(np.bincount(users), most).sum())
