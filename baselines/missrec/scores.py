"""Scores of MISSRec: cosines by id, image and text, mixed by what the user looks at.

Letters: n users, C candidates, N items, D width, M modalities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Items:
    """Unit vectors of items, and what mixes them."""

    ids: Tensor | None
    """(C, D), or None where items have no ids."""
    content: tuple[Tensor, ...]
    """(C, D) of each modality."""
    present: Tensor
    """(C, M) bool."""
    level: Tensor
    """(C, 1) or (1, 1): phi."""

    def of(self, rows: Tensor) -> "Items":
        """Return some of the items."""
        level = self.level[rows] if len(self.level) > 1 else self.level
        ids = None if self.ids is None else self.ids[rows]
        return Items(ids, tuple(part[rows] for part in self.content), self.present[rows], level)

    def single(self) -> Tensor | None:
        """Return (C, D) whose dot product with a user is the score, where there is no mixture: at most one
        modality.
        """
        if len(self.content) > 1:
            return None
        if not self.content:
            return self.ids
        vectors = self.content[0] * self.present[:, :1]
        return vectors if self.ids is None else (self.ids + 2 * vectors) / 3


def mixed(first: Tensor, second: Tensor, present: Tensor, level: Tensor) -> Tensor:
    """Return sum over two modalities of alpha s, alpha = softmax(s phi) over those that an item has, 0 where
    it has none.

    Of two, the softmax is a logistic function of the difference, ten times as fast on a CPU.

    Args:
        first: (n, C) cosines.
        second: (n, C) cosines.
        present: (..., C, 2) bool.
        level: phi, broadcast to (n, C).
    """
    certain = torch.where(present[..., 0] == present[..., 1], 0.0, torch.where(present[..., 0], 1e9, -1e9))
    gap = first - second
    share = torch.sigmoid(gap * level + certain)  # alpha of the first
    return (second + share * gap) * present.any(-1)


def scores(user: Tensor, items: Items, own: bool = False) -> Tensor:
    """Return the scores (n, C) of unit vectors (n, D), from -1 to 1.

    Args:
        user: (n, D).
        items: C items for all users, or n C items in rows of C for each (`own`).
        own: whether each user has candidates of their own.
    """

    def cosine(vectors: Tensor) -> Tensor:
        if own:
            return torch.einsum("nd,ncd->nc", user, vectors.view(len(user), -1, vectors.shape[-1]))
        return user @ vectors.T

    if (vectors := items.single()) is not None:
        return cosine(vectors)
    present, level = items.present, items.level[:, 0]
    if own:
        present = present.view(len(user), -1, present.shape[-1])
        level = level.view(len(user), -1) if len(level) > 1 else level
    content = mixed(cosine(items.content[0]), cosine(items.content[1]), present, level)
    return content if items.ids is None else (cosine(items.ids) + 2 * content) / 3
