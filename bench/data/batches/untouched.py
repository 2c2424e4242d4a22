"""Exact uniform draws from the items that a user did not touch in training, without rejection."""

import numpy as np
from numpy.typing import NDArray


class Untouched:
    """Draws negatives for training; memory grows with the log, not with users x items.

    Args:
        user: (E,) 0-based user of each training event, any order.
        item: (E,) its item, 1..N.
        num_users: U.
        num_items: N.
    """

    def __init__(
        self, user: NDArray[np.int64], item: NDArray[np.int32], num_users: int, num_items: int
    ) -> None:
        self.num_items = num_items
        owner, touched = np.divmod(np.unique(user * (num_items + 1) + item), num_items + 1)  # (T,) each
        counts = np.bincount(owner, minlength=num_users)  # (U,)
        self.starts = np.cumsum(counts) - counts
        """(U,) where the touched items of each user begin."""
        self.free = num_items - counts
        """(U,) number of untouched items of each user."""
        rank = np.arange(len(owner)) - self.starts[owner]  # (T,) touched items of the user that are smaller
        self.below = owner * (num_items + 1) + touched - 1 - rank
        """(T,) the number of untouched items smaller than each touched item, keyed by user, ascending."""

    def draw(self, rng: np.random.Generator, users: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return (B, size) untouched items of the users (B,), uniform, with replacement.

        Every user must have an untouched item.
        """
        number = rng.integers(
            0, self.free[users][:, None], (len(users), size)
        )  # (B, size) the number-th untouched item of the user, from 0
        # Its id is number + 1 plus the touched items before it: those above at most `number` untouched ones.
        smaller = np.searchsorted(self.below, users[:, None] * (self.num_items + 1) + number, side="right")
        return number + (smaller - self.starts[users][:, None]) + 1
