"""Draws items from exact softmax distributions, without replacement, for all users at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LARGEST_LOG_WEIGHT = 30.0  # keeps products of two weights inside float32
CELLS = 2**20  # users times items worked on at once


def choose(
    taste: Callable[[slice], Floats],
    interests: Floats,
    popularity: Floats,
    course: tuple[Integers, Integers, Integers],
    uniform: Floats,
) -> Integers:
    """Draw the item of every event, with probability popularity * exp(taste + interest), by inverting it.

    An item is never drawn twice for one user.

    Args:
        taste: some users -> (2, users, N) log weights of the persistent taste, for clicks and favors.
        interests: (2, K, N) log weights of the moving interests.
        popularity: (N,), above 0.
        course: (U,) events of each user, at most N; (U, L) 0..K-1, the interest at each event; (U, L) its
            kind: 0 click, 1 favor, 2 a click by popularity alone.
        uniform: (U, L) draws from 0..1.

    Returns:
        (U, L) items as 0..N-1, 0 beyond a user's length.
    """
    moving = _weights(interests)
    chosen = np.zeros(uniform.shape, np.int64)
    size = max(1, CELLS // len(popularity))
    for start in range(0, len(uniform), size):
        rows = slice(start, start + size)
        fixed = _weights(taste(rows)) * popularity.astype(np.float32)  # (3, users, N)
        lengths, interest, kind = (part[rows] for part in course)
        _fill(chosen[rows], fixed, moving, (lengths, interest, kind), uniform[rows])
    return chosen


def _weights(logs: Floats) -> NDArray[np.float32]:
    """Return (3, ..., N) weights: of clicks and favors, and 1 for what ignores preference."""
    weights = np.ones((3, *logs.shape[1:]), np.float32)
    weights[:2] = np.exp(np.clip(logs - logs.max(-1, keepdims=True), -LARGEST_LOG_WEIGHT, 0))
    return weights


def _fill(
    chosen: Integers,
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    course: tuple[Integers, Integers, Integers],
    uniform: Floats,
) -> None:
    """Fill `chosen` (users, L) position by position; a drawn item gets weight 0 for its user."""
    lengths, interest, kind = course
    for position in range(int(lengths.max())):
        user = np.flatnonzero(lengths > position)
        of_kind = kind[user, position]
        weights = fixed[of_kind, user] * moving[of_kind, interest[user, position]]  # (active, N)
        summed = np.cumsum(weights, axis=1, out=weights)
        point = uniform[user, position] * summed[:, -1]
        item = (summed > point[:, None]).argmax(1)
        chosen[user, position] = item
        fixed[:, user, item] = 0
