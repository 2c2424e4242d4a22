"""A data set under a protocol: the split, the candidates and their hash. Needs no torch, so a finished table prints fast."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.config import ProtocolOptions
from bench.data import candidates as drawn
from bench.data.candidates import Candidates
from bench.data.schema import Dataset, Interactions
from bench.data.split import Split, restrict, split
from bench.errors import UserError


@dataclass(frozen=True)
class Task:
    """What every model of one table shares."""

    dataset: Dataset
    protocol: ProtocolOptions
    interactions: Interactions
    """The events under `protocol.history`: all, or those of the target behavior."""
    split: Split
    validation: Candidates
    test: Candidates

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
    target = dataset.target_behavior
    events = dataset.interactions
    if protocol.history == "target":
        events = restrict(events, target)
    parts = split(events, target, protocol.split)
    if not len(parts.test):
        raise UserError(f"{dataset.name}: no user has a '{dataset.behaviors[-1]}' event to test on; map another behavior to the target")
    counts = _training_counts(events, parts, dataset.num_items)
    folder = dataset.folder

    def candidates(part: str, held: NDArray[np.int64]) -> Candidates:
        users, items = events.user_of(held), events.item[held].astype(np.int64)
        arguments = (protocol.candidates, protocol.candidates_seed, users, items, dataset.touched, counts, dataset.num_items)
        return drawn.draw(*arguments) if folder is None else drawn.stored(folder, part, *arguments)  # type: ignore[arg-type]

    return Task(dataset, protocol, events, parts, candidates("validation", parts.validation), candidates("test", parts.test))


def _training_counts(events: Interactions, parts: Split, num_items: int) -> NDArray[np.int64]:
    lengths = parts.train_end - events.offsets[:-1]
    trained = np.arange(len(events)) < np.repeat(parts.train_end, np.diff(events.offsets))
    assert trained.sum() == lengths.sum()
    return np.bincount(events.item[trained], minlength=num_items + 1)
