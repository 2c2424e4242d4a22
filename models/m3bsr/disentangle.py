"""Disentanglement of a user's interest vectors (Eq. 20), as printed and in three readings that separate."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.m3bsr.config import Disentanglement


def cosines(vectors: Tensor) -> Tensor:
    """Return the cosines (B, n, n) between the vectors (n, B, D) of each user."""
    unit = F.normalize(vectors, dim=-1)
    return torch.einsum("nbd,mbd->bnm", unit, unit)


def disentanglement(vectors: Tensor, options: Disentanglement) -> Tensor:
    """Return the loss that drives a user's own vectors apart; never compares users.

    With s the cosine and n vectors:

    - `self_infonce`: mean_i log sum_k exp((s_ik - 1) / tau), Eq. 20 with the vector itself in the numerator:
      log n when all vectors are one, smallest at the regular simplex, where every cosine is -1 / (n - 1).
    - `mean_cos`: mean of s_ij over pairs; pairs may stay aligned.
    - `sq_cos`: mean of s_ij^2 over pairs; smallest where all are orthogonal.
    - `printed`: mean over i and j != i of -log(exp(s_ij / tau) / sum over k != i of exp(s_ik / tau)), which
      takes every other vector as the positive of a vector: log(n - 1) and smallest for any set of equal
      cosines, total collapse included.

    Args:
        vectors: (n, B, D), n at least 2.
        options: the reading and tau.

    Returns:
        Scalar, mean over users.
    """
    cosine = cosines(vectors)
    if options.loss == "self_infonce":
        return torch.logsumexp((cosine - 1) / options.temperature, -1).mean()
    same = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    if options.loss == "printed":
        logits = cosine / options.temperature
        total = torch.logsumexp(logits.masked_fill(same, -torch.inf), -1, keepdim=True)
        return (total - logits)[:, ~same].mean()
    pairs = cosine[:, ~same]  # (B, n (n - 1)), each pair twice
    return pairs.square().mean() if options.loss == "sq_cos" else pairs.mean()
