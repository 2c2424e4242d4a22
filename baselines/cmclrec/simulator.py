"""The simulator of CMCLRec: what a user with few events might have met before, told by warm users like them.

Letters: B users, U users of the data set, W warm users, L history length, K neighbors, N items, D width.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.interface import TrainingEvents

LEAST_WARM = 0.2
"""Share of the users with events that must stay warm."""


def warm_threshold(events: TrainingEvents, num_users: int, wanted: int) -> tuple[int, NDArray[np.int64]]:
    """Return from how many events on a user is warm, at most `wanted`, and each user's events (U,)."""
    counts = np.bincount(events.user, minlength=num_users)
    some = np.sort(counts[counts > 0])
    if not len(some):
        return wanted, counts
    reached = int(some[math.ceil((1 - LEAST_WARM) * len(some)) - 1])  # a fifth has as many or more
    return max(min(wanted, reached), 1), counts


class Simulator(nn.Module):
    """A bank of warm users: their behavior vectors and the last items of their training part.

    Votes are summed over the K L items of the neighbors, sorted; no users x items array is made. The bank of
    vectors is part of the state, so that stored weights and bank belong together.
    """

    bank: Tensor
    filled: Tensor
    """() bool, whether the bank has been written."""

    def __init__(self, num_users: int, num_items: int, size: int, length: int) -> None:
        super().__init__()
        self.num_items, self.length = num_items, length
        self.register_buffer("bank", torch.zeros(num_users, size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))
        self.warm = torch.zeros(0, dtype=torch.int64)
        """(W,) ids of the warm users, ascending."""
        self.items = torch.zeros(0, length, dtype=torch.int64)
        """(W, L) their last training items, left-padded; of an item met twice the last alone."""
        self.place = torch.zeros(0, length)
        """(W, L) where an item stands in the sequence, from 0, oldest, to 1."""
        self.rarity = torch.zeros(num_items + 1)
        """(N + 1,) log(U / (1 + number of warm users whose sequence shows the item)), 0 or more."""

    def set_up(self, events: TrainingEvents, warm: NDArray[np.int64]) -> None:
        """Collect the sequences of warm users (W,) from the training part."""
        device = self.bank.device
        stops = np.searchsorted(events.user, warm, side="right")
        starts = np.maximum(np.searchsorted(events.user, warm), stops - self.length)
        index = stops[:, None] - self.length + np.arange(self.length)  # (W, L)
        real = index >= starts[:, None]
        items = np.where(real, events.item[np.where(real, index, 0)], 0).astype(np.int64)
        key = np.where(real, items, -np.arange(self.length))  # padding differs from all
        order = np.argsort(key, axis=1, kind="stable")
        ordered = np.take_along_axis(key, order, 1)
        later = np.zeros_like(real)
        later[:, :-1] = ordered[:, 1:] == ordered[:, :-1]
        again = np.zeros_like(real)
        np.put_along_axis(again, order, later, 1)
        place = np.where(real, (index - starts[:, None]) / np.maximum((stops - starts)[:, None] - 1, 1), 0)
        items[again] = 0
        self.warm = torch.from_numpy(warm).to(device)
        self.items = torch.from_numpy(items).to(device)
        self.place = torch.from_numpy(place.astype(np.float32)).to(device)
        count = np.bincount(items.ravel(), minlength=self.num_items + 1)
        rarity = np.log(len(self.bank) / (1 + count)).clip(min=0)
        self.rarity = torch.from_numpy(rarity.astype(np.float32)).to(device)

    @torch.no_grad()
    def simulate(
        self, user: Tensor, view: Tensor, history: Tensor, most: int, neighbors: int, temperature: float
    ) -> Tensor:
        """Return (B, most) simulated items, oldest first and left-padded: never more than `most` less what
        would not fit into L with the history.

        Args:
            user: (B,) ids; nobody is a neighbor of themselves.
            view: (B, D) unit vectors of their features.
            history: (B, any) their items; none of these is simulated.
            most: simulated items at most.
            neighbors: K.
            temperature: of the neighbors' weights.
        """
        near = view @ self.bank[self.warm].T  # (B, W)
        near = near.masked_fill(self.warm == user[:, None], -torch.inf)
        value, index = near.topk(min(neighbors, len(self.warm)), 1)  # (B, K)
        share = torch.softmax(value / temperature, 1).nan_to_num(0.0)  # no warm user but oneself: no vote
        ids = self.items[index].flatten(1)  # (B, K L)
        weight = share[..., None].expand(-1, -1, self.length).flatten(1)
        known = (ids[:, :, None] == history[:, None, :]).any(2) if history.shape[1] else ids < 0
        weight = weight * ((ids > 0) & ~known)
        place = self.place[index].flatten(1)
        # equal items of a row summed up: one key per (row, item)
        key, inverse = torch.unique(
            ids + torch.arange(len(ids), device=ids.device)[:, None] * (self.num_items + 1),
            return_inverse=True,
        )
        votes = weight.new_zeros(len(key)).index_add_(0, inverse.flatten(), weight.flatten())
        middle = weight.new_zeros(len(key)).index_add_(0, inverse.flatten(), (weight * place).flatten())
        row, item = key // (self.num_items + 1), key % (self.num_items + 1)
        middle = middle / votes.clamp(min=1e-12)
        return self._best(row, item, votes * self.rarity[item], middle, (history > 0).sum(1), most)

    def _best(
        self, row: Tensor, item: Tensor, votes: Tensor, place: Tensor, length: Tensor, most: int
    ) -> Tensor:
        """Return (B, most) of each row's items with the most votes, ties to the smaller id, oldest first."""
        order = torch.argsort(votes, descending=True, stable=True)
        order = order[torch.argsort(row[order], stable=True)]
        row, item, votes, place = row[order], item[order], votes[order], place[order]
        first = torch.searchsorted(row, torch.arange(len(length), device=row.device))
        rank = torch.arange(len(row), device=row.device) - first[row]
        room = (self.length - length).clamp(0, most)
        chosen = (rank < room[row]) & (votes > 0)
        row, item, place = row[chosen], item[chosen], place[chosen]
        order = torch.argsort(place, stable=True)
        order = order[torch.argsort(row[order], stable=True)]
        row, item = row[order], item[order]
        count = torch.bincount(row, minlength=len(length))
        rank = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        simulated = item.new_zeros(len(length), most)
        simulated[row, most - count[row] + rank] = item
        return simulated
