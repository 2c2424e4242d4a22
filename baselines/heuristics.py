"""Four yardsticks that are not trained: random, popularity, last clicked first, item-to-item neighbours.

A model that does not beat `popularity` has learned nothing; one that does not beat `last-clicked-first` has
at most learned to repeat the history; `item-knn` is what a few seconds of counting reach.

Letters: B users, L history length, C candidates, N items, K neighbours of an item.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Recommender, TrainingEvents

CARDS = (
    Card(
        name="random",
        label="Random",
        model="Random",
        family="heuristic",
        paper="none: the chance level",
        year=0,
        inputs="nothing; a hash of user, item and seed",
    ),
    Card(
        name="popularity",
        label="Popularity",
        model="Popularity",
        family="heuristic",
        paper="none: number of training events of an item, all behaviors together",
        year=0,
        inputs="counts of training events of all behaviors",
    ),
    Card(
        name="last-clicked-first",
        label="Last clicked first",
        model="LastClickedFirst",
        family="heuristic",
        paper="none: items of the history, newest first, then the rest by popularity",
        year=0,
        inputs="item ids of all behaviors; counts of training events",
        notes="Shows how far a table can be won by repeating the history, in which a target item often "
        "stands already.",
    ),
    Card(
        name="item-knn",
        label="ItemKNN",
        model="ItemKNN",
        family="heuristic",
        paper="Sarwar, Karypis, Konstan, Riedl: Item-Based Collaborative Filtering Recommendation "
        "Algorithms. WWW 2001, doi:10.1145/371920.372071",
        year=2001,
        inputs="item ids of all behaviors; training users by items, yes or no",
        deviations=(
            "cosine of who touched an item instead of cosine of ratings: there are no ratings here; as in "
            "Deshpande and Karypis, TOIS 2004",
            "the neighbours of the items in the history are kept, not those of the candidate, so that any "
            "catalog size fits",
            "a shrinkage term in the cosine and a weight that falls with the age of an event: both are "
            "usual today",
        ),
    ),
)


@dataclass(frozen=True)
class NoOptions:
    """These heuristics have no options."""


class Random(Recommender):
    """Gives every user-item pair a fixed number in [0, 1) that depends on the seed alone."""

    Config = NoOptions
    seed: Tensor

    def __init__(self, config: NoOptions, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.register_buffer("seed", torch.randint(2**62, (1,)))

    def encode(self, batch: Batch) -> Tensor:
        """Return the users, (B,)."""
        return batch.user

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        """Return hashes of user and item as fractions, (B, C)."""
        pairs = (encoded[:, None] + 1) * (self.info.num_items + 1) + candidates  # (B, C), one number per pair
        return ((mixed(mixed(pairs) + self.seed) >> 40) & 0xFFFFFF) / 2**24


def mixed(x: Tensor) -> Tensor:
    """Scatter int64 numbers over all bits: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))


class Popularity(Recommender):
    """Ranks by the number of training events."""

    Config = NoOptions
    shares: Tensor

    def __init__(self, config: NoOptions, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.register_buffer("shares", torch.zeros(info.num_items + 1))

    def set_up(self, events: TrainingEvents) -> None:
        """Count the items; shares of (the largest count + 1) lie in [0, 1)."""
        counts = torch.from_numpy(events.item_counts())
        self.shares.copy_(counts / (counts.max() + 1))

    def score_encoded(self, encoded: Any, candidates: Tensor, items: None) -> Tensor:
        """Return popularity, (B, C)."""
        return self.shares[candidates].expand(len(encoded), -1)


class LastClickedFirst(Popularity):
    """Ranks candidates of the history first, newest first, then the others by popularity."""

    def encode(self, batch: Batch) -> Tensor:
        """Return (B, L) sorted keys, item * max_history + age of the event, age 0 at the newest position."""
        history = batch.history[:, -self.max_history :]
        ages = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
        return (history * self.max_history + ages).sort(1).values

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        """Return 1 + 1 / (1 + age) for items of the history, else popularity below 1, (B, C)."""
        candidates = candidates.expand(len(encoded), -1).contiguous()
        position = torch.searchsorted(encoded, candidates * self.max_history).clamp(max=encoded.shape[1] - 1)
        newest = encoded.gather(1, position)  # the newest event of the candidate, where there is one
        recency = 1 + 1 / (1 + newest % self.max_history)
        return torch.where(newest // self.max_history == candidates, recency, self.shares[candidates])


@dataclass(frozen=True)
class ItemKNNConfig:
    """Options of ItemKNN."""

    num_neighbors: int = 100
    """K, neighbours kept per item; memory is 8 K bytes per item."""
    shrinkage: float = 10.0
    """Added to the denominator of the cosine, in users; pulls rare pairs to zero."""
    decay: float = 0.9
    """Weight of an event relative to the next newer one, fraction; 1 weighs all alike."""
    max_history: int = 50
    """Newest events that count."""


class ItemKNN(Recommender):
    """Adds up the similarities of a candidate to the items of the history."""

    Config = ItemKNNConfig
    neighbors: Tensor
    similarity: Tensor

    def __init__(self, config: ItemKNNConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: ItemKNNConfig = config
        self.max_history = config.max_history
        shape = (info.num_items + 1, config.num_neighbors)
        self.register_buffer("neighbors", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("similarity", torch.zeros(shape))

    def set_up(self, events: TrainingEvents) -> None:
        """Find the neighbours of every item."""
        shape = (self.info.num_users, self.info.num_items + 1)
        ones = np.ones(len(events.item), np.float32)
        touched = sparse.csr_array((ones, (events.user, events.item)), shape=shape)
        touched.data[:] = 1  # repeated events count once
        ids, values = nearest(touched, self.config.num_neighbors, self.config.shrinkage)
        self.neighbors.copy_(torch.from_numpy(ids))
        self.similarity.copy_(torch.from_numpy(values))

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the history's neighbours, (B, L K) int64 sorted, and their sums at the first of equals."""
        history = batch.history[:, -self.max_history :]
        ages = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
        weights = self.similarity[history] * (self.config.decay**ages)[:, None]  # (B, L, K)
        ids, order = self.neighbors[history].long().flatten(1).sort(1)  # (B, L K)
        first = torch.searchsorted(ids, ids)
        return ids, torch.zeros_like(ids, dtype=weights.dtype).scatter_add_(
            1, first, weights.flatten(1).gather(1, order)
        )

    def score_encoded(self, encoded: tuple[Tensor, Tensor], candidates: Tensor, items: None) -> Tensor:
        """Return the summed weights of the candidates, 0 for items that are no neighbour, (B, C)."""
        ids, sums = encoded
        candidates = candidates.expand(len(ids), -1).contiguous()
        position = torch.searchsorted(ids, candidates).clamp(max=ids.shape[1] - 1)
        return sums.gather(1, position) * (ids.gather(1, position) == candidates)


def nearest(
    touched: sparse.csr_array, count: int, shrinkage: float, budget: int = 2**24
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the most similar items of each item, c_ij / (sqrt(c_i c_j) + shrinkage), c the number of common
    users.

    Args:
        touched: (U, N + 1) of ones; column 0 is empty.
        count: K, neighbours per item.
        shrinkage: in users.
        budget: most co-occurrences computed at one time, before equal pairs are added up; bounds memory.

    Returns:
        (N + 1, K) ids, most similar first, lower id first among equals, 0 where there are fewer; (N + 1, K)
        similarities.
    """
    by_item = touched.T.tocsr()  # (N + 1, U)
    users = np.diff(by_item.indptr)  # (N + 1,) c_i
    work = np.cumsum(by_item @ np.diff(touched.indptr).astype(np.float64))
    cuts = np.unique(np.searchsorted(work, np.arange(budget, work[-1], budget)))
    bounds = np.unique(np.concatenate([[0], cuts, [len(users)]]))
    ids = np.zeros((len(users), count), np.int32)
    values = np.zeros((len(users), count), np.float32)
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        common = (by_item[start:stop] @ touched).tocoo()  # (block, N + 1)
        row, column = common.coords
        cosine = common.data / (np.sqrt(users[start + row] * users[column].astype(np.float64)) + shrinkage)
        other = row + start != column
        row, column, cosine = row[other], column[other], cosine[other]
        order = np.lexsort((column, -cosine, row))
        row, column, cosine = row[order], column[order], cosine[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        nearest_ones = rank < count
        (
            ids[start + row[nearest_ones], rank[nearest_ones]],
            values[start + row[nearest_ones], rank[nearest_ones]],
        ) = column[nearest_ones], cosine[nearest_ones]
    return ids, values
