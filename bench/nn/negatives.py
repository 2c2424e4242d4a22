"""Exact uniform draws from the items that a user has not touched in training."""

import torch
from torch import Tensor, nn


class UntouchedItems(nn.Module):
    """Draws items uniformly from 1..N less a user's training items: no rejection, no loop.

    For a user with t distinct training items a_0 < ... < a_(t-1), a draw r from 0..N-t-1 means the r-th
    untouched item, r + 1 + #{k : a_k - k - 1 <= r}; the count is one binary search in an array sorted over
    all users.

    Args:
        user: (E,) int64, 0..U-1, of the training events, in any order.
        item: (E,) int64, 1..N.
        num_users: U.
        num_items: N.
    """

    keys: Tensor
    offsets: Tensor

    def __init__(self, user: Tensor, item: Tensor, num_users: int, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        pairs = torch.unique(user * (num_items + 1) + item)  # sorted by user, then item
        users = pairs // (num_items + 1)
        offsets = torch.zeros(num_users + 1, dtype=torch.int64)
        offsets[1:] = torch.bincount(users, minlength=num_users).cumsum(0)
        rank = torch.arange(len(pairs)) - offsets[users]  # k
        self.register_buffer("keys", pairs - rank - 1, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def draw(self, user: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Draw with replacement, by torch's global generator.

        Args:
            user: (B,) int64.
            shape: draws of each user.

        Returns:
            (B, *shape) int64 item ids; 1..N of any kind for a user who has touched every item.
        """
        user = user.view(-1, *(1 for _ in shape))
        free = self.num_items - (self.offsets[user + 1] - self.offsets[user])
        rank = torch.randint(
            2**62, (len(user), *shape), device=user.device
        )  # bias of the remainder below 1e-12
        untouched = rank % free.clamp(min=1)
        query = user * (self.num_items + 1) + untouched
        below = torch.searchsorted(self.keys, query, right=True) - self.offsets[user]
        return torch.where(free > 0, untouched + 1 + below, rank % self.num_items + 1)
