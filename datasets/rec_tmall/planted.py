"""The law behind the simulated Rec-Tmall: a catalog with tastes, and users who click and favor by them.

Items lie in leaves of a tree of categories and are drawn with a probability that falls as a power of their
rank. A user has one leaf at heart; each click goes to that leaf, to the leaf of the click before, to a
neighbor of the leaf at heart, or anywhere. A favor mostly takes an item clicked before, one of the leaf at
heart first, so that favors tell more of a user than clicks. Every choice of a leaf keeps the popularity of
all items as it is, on which the number of distinct items rests.

The paper's Table 1 (arXiv:2508.05352) contradicts itself: 72,051 users with 4.16 clicks and 1.73 favors have
424,380 events, not 328,387 interactions, and 4.56 interactions per user lie below the least length, 5.
Reading taken: interactions are distinct user-item pairs, so that 77 % of the favors are on items clicked
before, and lengths count events (5.89 on average, 5 at least).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

USERS, ITEMS, PAIRS = 72_051, 93_466, 328_387  # Table 1, at scale 1
CLICKS, FAVORS = 4.16, 1.73  # per user
SHORTEST, LONGEST = 5, 50  # events of a user that the paper's preparation keeps

REPEATED = CLICKS + FAVORS - PAIRS / USERS  # favors per user on items clicked before
# Measured: some favors find no click left to repeat, and users who meet no item twice spread over more items.
REPEATING, SPREAD = 1.035, 1.047
SKEW = 0.8  # exponent of popularity over rank
LEAF, LEAVES = 300, 8  # items per leaf, leaves per parent
HEART, BEFORE, NEAR = 0.6, 0.75, 0.9  # cumulated chances of a click's leaf; the rest goes anywhere
PERIOD = 30 * 86_400  # seconds
REDRAWS = 8  # attempts at an item that the user has not met


@dataclass(frozen=True)
class Catalog:
    """C items numbered from the most popular on, and the leaves that they lie in."""

    leaf: Integers
    """(C,) leaf of each item."""
    popularity: Floats
    """(C,), sums to 1."""
    by_leaf: Integers
    """(C,) items ordered by leaf."""
    ends: Floats
    """(C,) cumulated popularity in the order of `by_leaf`."""
    leaf_ends: Floats
    """(leaves,) cumulated popularity at the end of each leaf."""

    def leaves(self, point: Floats) -> Integers:
        """Return the leaf at each point of the cumulated popularity."""
        return np.searchsorted(self.leaf_ends, point, side="right").clip(max=len(self.leaf_ends) - 1)

    def items(self, leaf: Integers, uniform: Floats) -> Integers:
        """Return an item of each leaf by popularity, for draws from 0..1."""
        begin = np.concatenate([[0.0], self.leaf_ends])[leaf]  # (U,) cumulated popularity before each leaf
        index = np.searchsorted(self.ends, begin + uniform * (self.leaf_ends[leaf] - begin), side="right")
        return self.by_leaf[index.clip(max=len(self.by_leaf) - 1)]  # (U,); a rounded sum may end below 1

    def neighbors(self, leaf: Integers, uniform: Floats) -> Integers:
        """Return a leaf of the same parent by popularity, for draws from 0..1."""
        ends = np.concatenate([[0.0], self.leaf_ends])  # (leaves + 1,)
        first = leaf // LEAVES * LEAVES  # (U,) first leaf of the parent
        begin, end = ends[first], ends[np.minimum(first + LEAVES, len(self.leaf_ends))]
        return self.leaves(begin + uniform * (end - begin))


@dataclass(frozen=True)
class Visits:
    """U users' events by position, L the longest."""

    item: Integers
    """(U, L) item of the catalog."""
    favor: NDArray[np.bool_]
    """(U, L) True: a favor, False: a click."""
    second: Integers
    """(U, L) time since the first, below `PERIOD`; no two events of a user share one."""
    lengths: Integers
    """(U,) positions from here on are empty."""

    @property
    def real(self) -> NDArray[np.bool_]:
        """(U, L) True where there is an event."""
        return np.arange(self.item.shape[1]) < self.lengths[:, None]


def plant_catalog(scale: float, rng: np.random.Generator) -> Catalog:
    """Return a catalog of which the kept users of this scale meet as many distinct items as the paper's."""
    popularity = _popularity(PAIRS * scale, ITEMS / SPREAD * scale)
    size = len(popularity)
    leaf = rng.integers(max(2 * LEAVES, size // LEAF), size=size)  # (C,)
    by_leaf = np.argsort(leaf, kind="stable")  # (C,)
    ends = np.cumsum(popularity[by_leaf])  # (C,)
    counts = np.bincount(leaf, minlength=int(leaf.max()) + 1)  # (leaves,) items in each
    leaf_ends = np.concatenate([[0.0], ends])[np.cumsum(counts)]  # (leaves,)
    return Catalog(leaf, popularity, by_leaf, ends, leaf_ends)


def _popularity(draws: float, distinct: float) -> Floats:
    """Return the long tail of the size from which this many draws meet this many distinct items."""
    low, high = int(distinct), int(distinct * 8)
    while high - low > 1:
        size = (low + high) // 2
        met = -np.expm1(-draws * _long_tail(size)).sum()
        low, high = (size, high) if met < distinct else (low, size)
    return _long_tail(high)


def _long_tail(size: int) -> Floats:
    weights = np.arange(1.0, size + 1) ** -SKEW
    return weights / weights.sum()


def long_visits(catalog: Catalog, users: int, rng: np.random.Generator) -> Visits:
    """Return users that the paper's preparation keeps: 5 events or more, one favor or more."""
    more = CLICKS + FAVORS - SHORTEST
    lengths = (SHORTEST - 1 + rng.geometric(1 / (1 + more), users)).clip(max=LONGEST)  # (U,)
    positions = np.arange(lengths.max(initial=SHORTEST))  # (L,)
    chance = (FAVORS - 1) / (CLICKS + FAVORS - 2)  # of every position but the first and the one drawn next
    favor = (rng.random((users, len(positions))) < chance) & (positions > 0)  # (U, L)
    favor[np.arange(users), rng.integers(1, lengths)] = True
    return _visits(catalog, favor, lengths, rng)


def short_visits(catalog: Catalog, users: int, rng: np.random.Generator) -> Visits:
    """Return users that are too short to be kept: 1 to 4 events, some of them favors."""
    lengths = rng.choice(np.arange(1, SHORTEST), size=users, p=[0.5, 0.25, 0.15, 0.1])
    favor = (rng.random((users, SHORTEST - 1)) < 0.1) & (np.arange(SHORTEST - 1) > 0)  # (U, L)
    return _visits(catalog, favor, lengths, rng)


def _visits(
    catalog: Catalog, favor: NDArray[np.bool_], lengths: Integers, rng: np.random.Generator
) -> Visits:
    """Draw the item of every event, position by position."""
    users, length = favor.shape
    item = np.full(favor.shape, -1)  # (U, L)
    free = ~favor  # (U, L) clicks whose item was not favored yet
    heart = catalog.leaves(rng.random((users,)))  # (U,)
    leaf = heart
    for position in range(length):
        leaf = _next_leaf(catalog, heart, leaf, rng)  # (U,)
        new = catalog.items(leaf, rng.random((users,)))  # (U,)
        for _ in range(REDRAWS):
            met = np.flatnonzero((item[:, :position] == new[:, None]).any(axis=1))  # users who know the item
            new[met] = catalog.items(leaf[met], rng.random(len(met)))
        item[:, position] = new
        again = np.flatnonzero(favor[:, position] & (rng.random(users) < REPEATING * REPEATED / FAVORS))
        _favor_a_click(item, free, again, position, (catalog.leaf, heart), rng)
    is_real = np.arange(length) < lengths[:, None]  # (U, L)
    return Visits(item, favor, _seconds(is_real, rng), lengths)


def _next_leaf(catalog: Catalog, heart: Integers, before: Integers, rng: np.random.Generator) -> Integers:
    step = rng.random(len(heart))
    near = catalog.neighbors(heart, rng.random(len(heart)))
    far = catalog.leaves(rng.random(len(heart)))
    return np.select([step < HEART, step < BEFORE, step < NEAR], [heart, before, near], far)


def _favor_a_click(
    item: Integers,
    free: NDArray[np.bool_],
    users: Integers,
    position: int,
    taste: tuple[Integers, Integers],
    rng: np.random.Generator,
) -> None:
    """Give the favors of some users at a position the item of an earlier click, of the leaf at heart first.

    Args:
        item: (U, L) items drawn so far; changed at the position.
        free: (U, L) clicks whose item was not favored yet; those that are repeated leave it.
        users: (n,) users whose favor repeats a click.
        position: of the favors.
        taste: (C,) leaf of each item, and (U,) leaf at heart of each user.
        rng: chooses among the clicks of one kind.
    """
    if not position:
        return
    leaf, heart = taste
    earlier = item[users, :position]  # (n, position)
    # From 1 on for the leaf at heart, below 1 for others, -1 for what is no free click.
    liking = rng.random(earlier.shape) + (leaf[earlier] == heart[users, None])  # (n, position)
    liking[~free[users, :position]] = -1
    source = liking.argmax(axis=1)  # (n,) position of the click
    has_click = liking[np.arange(len(users)), source] >= 0  # (n,)
    users, source = users[has_click], source[has_click]
    item[users, position] = item[users, source]
    free[users, source] = False


def _seconds(is_real: NDArray[np.bool_], rng: np.random.Generator) -> Integers:
    """Return (U, L) seconds below the period, rising inside a user by one at least."""
    drawn = np.where(is_real, rng.random(is_real.shape), 1.0)  # (U, L); 1 sorts empty positions to the end
    drawn.sort(axis=1)
    length = is_real.shape[1]
    return (drawn * (PERIOD - length)).astype(np.int64) + np.arange(length)  # + 0, 1, ...: none is shared
