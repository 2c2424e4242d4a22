"""Gaussians with diagonal covariance as points, between which the 2-Wasserstein distance is Euclidean."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_VARIANCE = 1e-24
"""Variances below this are raised to it: their root has no gradient at 0."""


def variance(x: Tensor) -> Tensor:
    """Return ELU(x) + 1, above zero for any finite x."""
    return (F.elu(x) + 1).clamp(min=LEAST_VARIANCE)


def point(mean: Tensor, variances: Tensor) -> Tensor:
    """Return (..., 2 D), mean and standard deviations side by side, of a Gaussian (..., D), (..., D)."""
    return torch.cat([mean, variances.sqrt()], -1)
