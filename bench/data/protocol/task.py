"""A data set under a protocol: the split, the candidates and their hash.

Needs no torch, so that a finished table prints fast.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.config import ProtocolOptions
from bench.data.protocol import candidates as drawn
from bench.data.protocol.candidates import Candidates
from bench.data.protocol.split import Split, answers_in_training, restrict, split
from bench.data.schema import Dataset, Interactions
from bench.errors import UserError


@dataclass(frozen=True)
class Task:
    """What every model of one table shares."""

    dataset: Dataset
    protocol: ProtocolOptions
    interactions: Interactions
    """The events under `protocol.history` (all, or those of the target behavior), less the hidden ones."""
    split: Split
    validation: Candidates
    test: Candidates
    hidden_events: int
    """Training events left out, since they give a held-out event away (`protocol.drop_target_click`)."""

    @property
    def candidates_hash(self) -> str:
        """One digest over the candidates of both parts; it stands under every table."""
        return hashlib.sha256(f"{self.validation.hash}{self.test.hash}".encode()).hexdigest()

    def held_users(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the 0-based users of held-out events."""
        return self.interactions.user_of(events)


def open_task(dataset: Dataset, protocol: ProtocolOptions) -> Task:
    """Split a data set and find (or draw and store) its candidates.

    Raises:
        UserError: nobody has a held-out target event.
    """
    target, events = dataset.target_behavior, dataset.interactions
    parts = split(events, target, protocol.split)
    if not len(parts.test):
        name = dataset.behaviors[-1]
        raise UserError(
            f"{dataset.name}: no user has a '{name}' event to test on; map another behavior to the target"
        )
    counts = _training_counts(events, parts, dataset.num_items)

    def candidates(part: Literal["validation", "test"], held: NDArray[np.int64]) -> Candidates:
        users, items = events.user_of(held), events.item[held].astype(np.int64)
        kind, seed = protocol.candidates, protocol.candidates_seed
        if dataset.folder is None:
            return drawn.draw(kind, seed, users, items, dataset.touched, counts, dataset.num_items)
        return drawn.stored(
            dataset.folder, part, kind, seed, users, items, dataset.touched, counts, dataset.num_items
        )

    validation, test = candidates("validation", parts.validation), candidates("test", parts.test)
    hidden = 0
    if protocol.history == "target":
        events, parts = restrict(events, parts, events.behavior == target)
    else:
        away = answers_in_training(events, parts, target, protocol.drop_target_click)
        hidden = int(away.sum())
        if hidden:
            events, parts = restrict(events, parts, ~away)
    return Task(dataset, protocol, events, parts, validation, test, hidden)


def _training_counts(events: Interactions, parts: Split, num_items: int) -> NDArray[np.int64]:
    trained = np.arange(len(events)) < np.repeat(parts.train_end, np.diff(events.offsets))  # (E,)
    return np.bincount(events.item[trained], minlength=num_items + 1)
