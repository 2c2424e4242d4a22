"""MFE, multi-modal feature enhancement: an expert of its own for each modality, and a common one.

Letters: M modalities, S = M + 1 outputs.
"""

from typing import Literal

import torch
from torch import Tensor, nn


class Expert(nn.Module):
    """x + F(x), F: D -> 2 D -> D with ReLU, token by token."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return x + self.net(x)


class FeatureEnhancement(nn.Module):
    """h^m = H^m + F_m(H^m) for each modality and h^co = Hbar + F_co(Hbar), Hbar the mean over modalities.

    `gated`: the common expert reads every modality, s is the mean of what it gives, h^co = s, and
    h^m <- g^m h^m + (1 - g^m) s with g^m = sigmoid(MLP(h^m)), coordinate by coordinate.

    Args:
        modalities: M.
        size: D.
        mode: of mixing.
    """

    def __init__(self, modalities: int, size: int, mode: Literal["residual", "gated"]) -> None:
        super().__init__()
        self.unique = nn.ModuleList(Expert(size) for _ in range(modalities))
        self.common = Expert(size)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.Sigmoid())
            for _ in range(modalities if mode == "gated" else 0)
        )

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unique streams (M, ..., D) and the common one (..., D) of streams (M, ..., D)."""
        unique = self.own(streams)
        if not self.gates:
            return unique, self.common(streams.mean(0))
        shared = self.common(streams).mean(0)
        gate = torch.stack([net(part) for net, part in zip(self.gates, unique, strict=True)])
        return gate * unique + (1 - gate) * shared, shared

    def own(self, streams: Tensor) -> Tensor:
        """Return what each modality's own expert gives, (M, ..., D)."""
        return torch.stack([expert(part) for expert, part in zip(self.unique, streams, strict=True)])
