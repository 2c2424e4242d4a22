"""The relation graphs of SSDRec, sparse throughout, from training events alone.

Letters: U users, N items, E events, L events kept per user, k neighbors. User u is row u, item i column i.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_array

from bench.interface import TrainingEvents

BLOCK = 512
"""Rows of a two-hop product held at a time."""
THRESHOLDS = (10, 2, 1, 0)


@dataclass(frozen=True)
class Graphs:
    """Relations of users and items; rows of all but `bought` sum to 1 or 0."""

    bought: csr_array
    """(U, N + 1) number of events of a user with an item."""
    following: csr_array
    """(N + 1, N + 1) what comes after an item, weighed by how soon."""
    preceding: csr_array
    """(N + 1, N + 1) what comes before it."""
    incompatible: csr_array
    """(N + 1, N + 1) items that never meet but share a neighbor."""
    similar: csr_array
    """(U, U) users with common items."""
    dissimilar: csr_array
    """(U, U) users without a common item who share a neighbor."""


@dataclass(frozen=True)
class Weights:
    """The graphs before their rows are scaled; of the same names."""

    following: csr_array
    incompatible: csr_array
    similar: csr_array
    dissimilar: csr_array


def relation_graphs(
    events: TrainingEvents,
    num_users: int,
    length: int,
    threshold: int | None,
    cold: tuple[float, float],
    neighbors: int,
) -> tuple[Graphs, Weights]:
    """Build the graphs of the last events of each user.

    Args:
        events: the training part.
        num_users: U.
        length: L.
        threshold: co-occurrences that an edge exceeds; None chooses.
        cold: rarest items and least active users, fractions, that have no incompatible or dissimilar ones.
        neighbors: k.
    """
    user, item, size = _last_events(events, num_users, length)
    width = events.num_items + 1
    bought = _counted(user, item, np.ones(len(user)), (num_users, width))
    weight, count = _transitions(user, item, size, (width, width), length)
    threshold = _threshold(count, events.num_items) if threshold is None else threshold
    strong = _above(count, threshold)
    following = weight.multiply(strong > 0).tocsr()
    popular = _hot(np.bincount(item, minlength=width), cold[0])
    incompatible = _two_hop(strong, count, popular, neighbors)
    shared = _shared(bought, neighbors)
    similar = _similarity(shared, bought)
    active = _hot(np.bincount(user, minlength=num_users), cold[1])
    dissimilar = _two_hop(_above(shared, threshold), shared, active, neighbors)
    graphs = Graphs(
        bought=bought,
        following=scaled(following),
        preceding=scaled(following.T.tocsr()),
        incompatible=scaled(incompatible),
        similar=scaled(similar),
        dissimilar=scaled(dissimilar),
    )
    return graphs, Weights(following, incompatible, similar, dissimilar)


def scaled(matrix: csr_array) -> csr_array:
    """Return the matrix with rows that sum to 1, or 0 where they are empty."""
    total = matrix.sum(1)
    scale = np.divide(1.0, total, out=np.zeros_like(total, dtype=np.float64), where=total > 0)
    return (sparse.diags_array(scale) @ matrix).tocsr()


def _last_events(
    events: TrainingEvents, num_users: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return user and item of the last L events of each user, and how many of that user there are."""
    count = np.bincount(events.user, minlength=num_users)
    from_end = np.cumsum(count)[events.user] - 1 - np.arange(len(events.user))
    keep = from_end < length
    user, item = events.user[keep], events.item[keep].astype(np.int64)
    return user, item, np.minimum(count, length)[user]


def _transitions(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    size: NDArray[np.int64],
    shape: tuple[int, int],
    length: int,
) -> tuple[csr_array, csr_array]:
    """Return (i, j) -> sum of (len - gap) / len over i before j, and how often both meet, symmetric."""
    rows, columns, values = [], [], []
    for gap in range(1, min(length, len(user))):
        first = np.flatnonzero(user[:-gap] == user[gap:])
        rows.append(item[first].astype(np.int32))
        columns.append(item[first + gap].astype(np.int32))
        values.append(((size[first] - gap) / size[first]).astype(np.float32))
    if not rows:
        return csr_array(shape), csr_array(shape)
    row, column, value = (np.concatenate(part) for part in (rows, columns, values))
    other = row != column
    row, column, value = row[other], column[other], value[other]
    weight = _counted(row, column, value, shape)
    count = _counted(row, column, np.ones(len(row), np.float32), shape)
    return weight, (count + count.T).tocsr()


def _counted(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], shape: tuple[int, int]
) -> csr_array:
    return csr_array((values, (rows, columns)), shape=shape)  # equal cells are added up


def _threshold(count: csr_array, num_items: int) -> int:
    """Return the first threshold that leaves as many edges as there are items."""
    return next((t for t in THRESHOLDS if int((count.data > t).sum()) // 2 >= num_items), 0)


def _above(count: csr_array, threshold: int) -> csr_array:
    strong = count.copy()
    strong.data = np.where(strong.data > threshold, strong.data, 0.0)
    strong.eliminate_zeros()
    return strong


def _hot(count: NDArray[np.int64], cold: float) -> NDArray[np.bool_]:
    """Return which nodes are not among the rarest fraction of those that occur."""
    occurring = np.flatnonzero(count)
    order = occurring[np.argsort(count[occurring], kind="stable")]
    hot = np.zeros(len(count), np.bool_)
    hot[order[int(cold * len(order)) :]] = True
    return hot


def _shared(bought: csr_array, neighbors: int) -> csr_array:
    """Return (u, v) -> events of u with items of v and of v with items of u, the k largest of each user."""
    owned = (bought > 0).astype(np.float64).tocsr()
    return _in_blocks(
        bought.shape[0],
        lambda rows: bought[rows] @ owned.T + owned[rows] @ bought.T,
        lambda block, rows: block,
        neighbors,
    )


def _similarity(shared: csr_array, bought: csr_array) -> csr_array:
    """Return the shared events over the events of both users, 1 for a user with itself."""
    size = np.asarray(bought.sum(1)).ravel()
    pairs = shared.tocoo()
    row, column = pairs.coords
    pairs.data = pairs.data / (size[row] + size[column])
    similar = pairs.tocsr()
    similar.setdiag((size > 0).astype(np.float64))
    similar.eliminate_zeros()
    return similar


def _two_hop(strong: csr_array, met: csr_array, hot: NDArray[np.bool_], neighbors: int) -> csr_array:
    """Return (i, j) -> sum over common neighbors n of count(i, n) + count(n, j), for hot nodes never met.

    Args:
        strong: symmetric counts of the edges that make neighbors; the k strongest of a node are followed, so
            that hubs do not make the whole catalog neighbors.
        met: symmetric counts of all meetings.
        hot: nodes that take part.
        neighbors: k.
    """
    strong = _largest(strong, neighbors)
    strong = strong.maximum(strong.T).tocsr()
    linked = (strong > 0).astype(np.float32).tocsr()
    chosen = np.flatnonzero(hot)
    ends, linked_ends = strong[:, chosen].tocsr(), linked[:, chosen].tocsr()
    met = met[chosen][:, chosen]

    def weigh(rows: NDArray[np.int64]) -> csr_array:
        nodes = chosen[rows]
        return strong[nodes] @ linked_ends + linked[nodes] @ ends

    def unmet(block: csr_array, rows: NDArray[np.int64]) -> csr_array:
        own = csr_array((np.ones(len(rows), np.float32), (np.arange(len(rows)), rows)), shape=block.shape)
        return block - block.multiply((met[rows] + own) > 0)

    pairs = _in_blocks(len(chosen), weigh, unmet, neighbors).tocoo()
    row, column = (chosen[part] for part in pairs.coords)
    return csr_array((pairs.data, (row, column)), shape=strong.shape)


def _in_blocks(
    size: int,
    weigh: Callable[[NDArray[np.int64]], csr_array],
    reduce: Callable[[csr_array, NDArray[np.int64]], csr_array],
    neighbors: int,
) -> csr_array:
    """Return (size, size) rows of a product, some at a time, each with its k largest entries."""
    blocks = []
    for start in range(0, size, BLOCK):
        rows = np.arange(start, min(start + BLOCK, size))
        blocks.append(_largest(csr_array(reduce(weigh(rows).tocsr(), rows)), neighbors))
    return sparse.vstack(blocks, format="csr") if blocks else csr_array((size, size))


def _largest(matrix: csr_array, neighbors: int) -> csr_array:
    """Return the matrix with the k largest entries of each row; among equals the lower column."""
    matrix.eliminate_zeros()
    keep = np.ones(matrix.nnz, np.bool_)
    for start, stop in pairwise(matrix.indptr.tolist()):
        if stop - start > neighbors:  # what lies below the k-th largest is not worth sorting
            row = matrix.data[start:stop]
            keep[start:stop] = row >= np.partition(row, stop - start - neighbors)[stop - start - neighbors]
    row, column, value = (part[keep] for part in (*matrix.tocoo().coords, matrix.data))
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    first = np.arange(len(row)) - np.searchsorted(row, row) < neighbors
    return csr_array((value[first], (row[first], column[first])), shape=matrix.shape)
