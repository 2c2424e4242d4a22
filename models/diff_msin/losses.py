"""Losses beside the click: knowledge decoupling (L_dec) and synergy (L_syn)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(streams: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real events, (..., B, D), of (..., B, L, D); zero where a row has none."""
    real = mask[..., None].to(streams.dtype)
    return (streams * real).sum(-2) / real.sum(-2).clamp(min=1)


def pairwise_cosine(vectors: Tensor) -> Tensor:
    """Return (pairs, ...) cosines of all unordered pairs of n vectors (n, ..., D); pairs = n (n - 1) / 2."""
    first, second = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    unit = F.normalize(vectors, dim=-1)
    return (unit[first] * unit[second]).sum(-1)


def decoupling(vectors: Tensor, mode: Literal["mean_cos", "sq_cos"]) -> Tensor:
    """Return L_dec of n pooled streams (n, B, D): the mean over pairs and rows of the cosine, or its square.

    The mean cosine is smallest, -1 / (n - 1), for any n unit vectors that sum to zero; the squared one is
    smallest for orthogonal ones.
    """
    cosine = pairwise_cosine(vectors)
    return (cosine.square() if mode == "sq_cos" else cosine).mean()


def unique_minus_shared(unique: Tensor, shared: Tensor) -> Tensor:
    """Return the mean pairwise cosine of unique outputs less that of shared ones, both (M, ..., D).

    0 for a single modality, which has no pair.
    """
    if len(unique) < 2:
        return unique.new_zeros(())
    return pairwise_cosine(unique).mean() - pairwise_cosine(shared).mean()


def synergy_loss(
    synergy: Tensor, target: Tensor, label: Tensor, mode: str, row: Tensor | None = None
) -> Tensor:
    """Return L_syn, the mean over rows of a function of the cosine c and the label y.

    `hinge`: y max(0, 1 - c) + (1 - y) max(0, c). `hinge_margin`: y max(0, 1 - c) + (1 - y) max(0, c + 1).
    `released`: y max(0, c), added, so that positives are pushed away from the target: a sign error.

    Args:
        synergy: (n, D) pooled synergy streams, or (B, D) with `row`.
        target: (n, D) mean target vectors.
        label: (n,) float, 0 or 1.
        mode: of the loss.
        row: (n,) int64, the history of each row; None where synergy has n rows.
    """
    synergy = F.normalize(synergy, dim=-1)
    cosine = ((synergy if row is None else synergy[row]) * F.normalize(target, dim=-1)).sum(-1)
    if mode == "released":
        return (label * cosine.clamp(min=0)).mean()
    margin = 1.0 if mode == "hinge_margin" else 0.0
    return (label * (1 - cosine).clamp(min=0) + (1 - label) * (cosine + margin).clamp(min=0)).mean()
