"""Rank every held-out item among its candidates: a user is encoded once, ranks come from counting.

Rank = 1 + number of negatives scored higher + a seeded uniform draw over the number tied. The draws are
stratified over the users, so a scorer that gives everything the same score lands on the chance level.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.schema import Touched
from bench.errors import UserError
from bench.evaluation.catalog import Catalog, checked, count_above
from bench.interface import Batch, Recommender


@dataclass(frozen=True)
class Held:
    """The held-out items of one part (validation or test) and what they are ranked against."""

    users: NDArray[np.int64]
    """(S,) 0-based, ascending."""
    items: NDArray[np.int64]
    """(S,) the held-out items."""
    negatives: NDArray[np.int32] | None
    """(S, 99) item ids, 0 where the user has fewer; None ranks against the full catalog less `touched`."""
    touched: Touched
    """Items of each user under any behavior."""
    seed: int
    """Seed of the tie draws."""

    def sizes(self, num_items: int) -> NDArray[np.int32]:
        """Return (S,) the number of candidates of each user, the held-out item included."""
        if self.negatives is not None:
            return (1 + (self.negatives > 0).sum(1)).astype(np.int32)
        return (1 + num_items - np.diff(self.touched.offsets)[self.users]).astype(np.int32)

    def ties(self) -> NDArray[np.float64]:
        """Return (S,) draws in [0, 1), one per user, stratified: a random permutation of (i + U) / S."""
        rng = np.random.default_rng([self.seed, 7])
        count = len(self.users)
        return (rng.permutation(count) + rng.random(count)) / max(count, 1)


@torch.no_grad()
def rank(
    model: Recommender,
    held: Held,
    batches: Iterable[tuple[NDArray[np.int64], Batch]],
    device: torch.device,
    where: str = "",
) -> NDArray[np.int32]:
    """Return (S,) the 1-based rank of each held-out item.

    Args:
        model: put into eval mode here and left so.
        held: the held-out items.
        batches: pairs of (rows of `held`, evaluation batch); the batches carry no target.
        device: where the model lies.
        where: named in errors: model and epoch.

    Raises:
        UserError: a score is not finite, or the scores have another shape than (users, candidates).
    """
    model.eval()
    items = model.encode_items()
    ranks = np.zeros(len(held.users), np.int32)
    ties = held.ties()
    for rows, batch in batches:
        encoded = model.encode(batch.to(device))
        target = torch.from_numpy(held.items[rows]).to(device)
        if held.negatives is None:
            catalog = Catalog(model, encoded, items, len(rows), device)
            higher, tied = count_above(catalog, target, _touched(held, rows, device))
        else:
            negatives = torch.from_numpy(held.negatives[rows].astype(np.int64)).to(device)
            higher, tied = _count_sampled(model, encoded, items, target, negatives)
        if bool(higher.lt(0).any()):
            user = held.users[rows[int(higher.lt(0).nonzero()[0])]]
            name = where or type(model).__name__
            raise UserError(f"{name}: a score of user {user} is NaN or infinite; lower the learning rate")
        draw = np.floor(ties[rows] * (tied.cpu().numpy() + 1)).astype(np.int32)
        ranks[rows] = 1 + higher.cpu().numpy() + draw
    return ranks


def _count_sampled(
    model: Recommender, encoded: Any, items: Any, target: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Count negatives above and level with the target; `higher` is -1 where a score is not finite."""
    candidates = torch.cat([target[:, None], negatives], 1)  # (B, 1 + 99)
    scores = checked(model, model.score_encoded(encoded, candidates, items), *candidates.shape)
    real = negatives > 0
    higher = ((scores[:, 1:] > scores[:, :1]) & real).sum(1)
    tied = ((scores[:, 1:] == scores[:, :1]) & real).sum(1)
    finite = torch.isfinite(scores[:, 1:]).logical_or(~real).all(1) & torch.isfinite(scores[:, 0])
    return torch.where(finite, higher, -1), tied


def _touched(held: Held, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return (pairs, 2) int64: position in the batch, touched item."""
    users = held.users[rows]
    starts, stops = held.touched.offsets[users], held.touched.offsets[users + 1]
    counts = stops - starts
    row = np.repeat(np.arange(len(rows)), counts)
    flat = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
    return torch.from_numpy(np.stack([row, held.touched.item[flat].astype(np.int64)], 1)).to(device)
