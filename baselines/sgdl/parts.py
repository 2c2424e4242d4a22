"""Parts of SGDL: pair losses and their gradients, the weights, the scheduler, the memory.

Letters: U users, N items, D width, B pairs of a batch, P distinct training pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIXTURE_PAIRS = 1_000_000
"""Most losses to which the mixture of two normals is fitted; of more pairs a random part."""


def pair_loss(vectors: Tensor, nodes: Tensor) -> Tensor:
    """Return (B,) BPR losses, softplus(s_uj - s_ui), of nodes (3, B): user, item, negative."""
    user, item, negative = vectors[nodes]
    return F.softplus((user * (negative - item)).sum(-1))


def pair_gradients(vectors: Tensor, nodes: Tensor) -> Tensor:
    """Return (3, B, D) gradients of `pair_loss` in the vectors of user, item and negative."""
    user, item, negative = vectors[nodes]
    slope = torch.sigmoid((user * (negative - item)).sum(-1, keepdim=True))
    return slope * torch.stack([negative - item, -user, user])


class LossWeight(nn.Module):
    """From a pair's loss to its weight in (0, 1)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(1, size), nn.Linear(size, 1)

    def forward(self, loss: Tensor) -> Tensor:
        """Return (B,) weights from losses (B,), which get no gradient."""
        return torch.sigmoid(self.outer(F.relu(self.inner(loss.detach()[:, None])))).squeeze(1)


class Scheduler(nn.Module):
    """From a memorised pair's loss and gradient cosines to the log probability that it is asked."""

    def __init__(self, hidden: int = 10) -> None:
        super().__init__()
        self.cosines = nn.LSTM(2, hidden, bidirectional=True, batch_first=True)
        self.loss = nn.LSTM(1, hidden, bidirectional=True, batch_first=True)
        self.inner, self.outer = nn.Linear(4 * hidden, 2 * hidden), nn.Linear(2 * hidden, 1)

    def forward(self, loss: Tensor, cosines: Tensor) -> Tensor:
        """Return (B,) log probabilities from losses (B,) and cosines (B, 2)."""
        parts = self.cosines(cosines[:, None])[0], self.loss(loss[:, None, None])[0]  # sequences of length 1
        hidden = torch.cat(parts, -1)[:, 0]
        return self.outer(torch.tanh(self.inner(hidden))).squeeze(1).log_softmax(0)

    def reset(self) -> None:
        """Start anew."""
        for part in (self.cosines, self.loss, self.inner, self.outer):
            part.reset_parameters()


def in_upper_half(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return (P,) bool: a pair is among the n best of its user's n pairs and n negatives.

    Args:
        user: (P,) int64, ascending.
        positive: (P,) scores of the pairs.
        negative: (P,) scores of a negative for each.
    """
    owner = torch.cat([user, user])
    order = torch.cat([positive, negative]).argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]  # by user, best first
    count = torch.bincount(user)  # (U,) n
    start = 2 * (count.cumsum(0) - count)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - start[owner[order]]
    return rank[: len(user)] < count[user]


def clean_share(user: Tensor, loss: Tensor, seed: int = 0) -> float:
    """Return the estimated share of clean pairs: losses, scaled to 0..1 within each user, are a mixture of
    two normals, and the one of the larger mean is noise.

    Args:
        user: (P,) int64, 0..U-1.
        loss: (P,) losses.
        seed: of the mixture's start and of the part that is fitted.
    """
    from sklearn.mixture import GaussianMixture

    size = int(user.max()) + 1
    least = loss.new_full((size,), torch.inf).scatter_reduce(0, user, loss, "amin")[user]
    most = loss.new_full((size,), -torch.inf).scatter_reduce(0, user, loss, "amax")[user]
    scaled = torch.where(most > least, (loss - least) / (most - least).clamp(min=1e-12), loss)
    values = scaled.cpu().double()
    if len(values) > MIXTURE_PAIRS:
        values = values[
            torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:MIXTURE_PAIRS]
        ]
    column = values[:, None].numpy()
    mixture = GaussianMixture(2, max_iter=100, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(column)
    noise = mixture.predict_proba(column)[:, mixture.means_[:, 0].argmax()]
    return float(1 - noise.mean())
