"""Disentanglement of a user's interest vectors (Eq. 20), with the index of the numerator corrected."""

import torch
import torch.nn.functional as F
from torch import Tensor


def disentanglement(vectors: Tensor, temperature: float) -> Tensor:
    """Return the loss that drives a user's own vectors apart; never compares users.

    Printed, Eq. 20 takes every other vector as the positive of a vector and is minimal for any set of equal
    cosines, total collapse included. Here the positive of a vector is itself, which leaves mean_i log sum_k
    exp((s_ik - 1) / tau) with s the cosine: log n when all n vectors are one, smallest at the regular simplex
    (every cosine -1 / (n - 1)).

    Args:
        vectors: (n, B, D).
        temperature: tau, above 0.

    Returns:
        Scalar, mean over users.
    """
    unit = F.normalize(vectors, dim=-1)
    cosine = torch.einsum("nbd,mbd->bnm", unit, unit)  # (B, n, n)
    return torch.logsumexp((cosine - 1) / temperature, -1).mean()
