"""Softmax over all items, or over a sample of them where the catalog is large, for items that are computed.

Letters: n rows (labelled positions), N items, S columns of the softmax, D width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.nn.losses import chunked_cross_entropy

WHOLE_CATALOG = 100_000
"""Most items for which the softmax is exact."""
NUM_NEGATIVES = 2048
"""Uniform negatives of a step over more items than that; the step's own targets join them."""


class ItemSoftmax(nn.Module):
    """Cross entropy over items whose vectors a model makes: it says which it needs, and takes their vectors.

    Over large catalogs the columns are uniform draws and the targets of the step, with the correction of
    Bengio and Senecal 2008 for how often an item is drawn: log of 2048 / N + 1 - (1 - p)^n, p the share of
    the item among the training events.
    """

    share: Tensor

    def __init__(self, num_items: int, whole: int = WHOLE_CATALOG) -> None:
        super().__init__()
        self.num_items, self.whole = num_items, whole
        self.register_buffer("share", torch.zeros(num_items + 1), persistent=False)

    def set_up(self, counts: NDArray[np.int64]) -> None:
        """Note how often each item is a target: counts (N + 1,)."""
        known = torch.from_numpy(counts).to(self.share)
        self.share.copy_(known / known.sum().clamp(min=1))

    def columns(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the items (S,) that the loss of labels (n,) is over, ascending, and what is added to their
        logits (S,), None over the whole catalog.
        """
        if self.num_items <= self.whole:
            return torch.arange(1, self.num_items + 1, device=labels.device), None
        drawn = torch.randint(1, self.num_items + 1, (NUM_NEGATIVES,), device=labels.device)
        items = torch.unique(torch.cat([labels, drawn]))
        met = -torch.expm1(len(labels) * torch.log1p(-self.share[items].clamp(max=1 - 1e-6)))
        return items, -(NUM_NEGATIVES / self.num_items + met).log()

    def loss(
        self,
        hidden: Tensor,
        columns: tuple[Tensor, Tensor | None],
        vectors: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted mean of the rows' cross entropies, natural log; 0 where there is no row.

        Args:
            hidden: (n, D).
            columns: what `columns` returned.
            vectors: (S, D) of its items.
            labels: (n,) int64, 1..N.
            weights: (n,) non-negative constants; None weighs all alike.
        """
        items, correction = columns
        bias = None if correction is None else F.pad(correction, (1, 0))
        place = torch.searchsorted(items, labels.contiguous()) + 1
        return chunked_cross_entropy(hidden, F.pad(vectors, (0, 0, 1, 0)), place, weights, bias)
