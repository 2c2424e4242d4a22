"""Routing fusion (Eq. 21-22): a gate between what behaviors share and what each of them adds.

As printed the two terms of Eq. 22 have widths d and 6 d and cannot be mixed. Three readings can.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from bench.models.m3bsr.layout import mean_vector


class RoutingFusion(nn.Module):
    """y = g * h_common + (1 - g) * J, g = sigmoid(gate([h_common ; u])), with u the n unique vectors.

    - `project`: J = P u, a gate for each of the D coordinates.
    - `mean`: J the mean of the unique vectors, one gate, from a network with a hidden layer.
    - `tile`: J = u itself, h_common repeated n times, a gate for each of the n D coordinates.

    Without a shared expert y = J.

    Args:
        kind: the reading.
        unique: n.
        size: D.
        shared: whether there is an h_common.
    """

    def __init__(
        self, kind: Literal["project", "mean", "tile"], unique: int, size: int, shared: bool = True
    ) -> None:
        super().__init__()
        self.kind, self.repeats = kind, unique if kind == "tile" else 1
        self.width = self.repeats * size
        """Width of y."""
        self.gate = self._gate(kind, (1 + unique) * size, size, self.width) if shared else None
        self.project = nn.Linear(unique * size, size) if kind == "project" else None

    @staticmethod
    def _gate(kind: str, inputs: int, size: int, width: int) -> nn.Module:
        if kind == "mean":
            return nn.Sequential(nn.Linear(inputs, size), nn.ReLU(), nn.Linear(size, 1))
        return nn.Linear(inputs, width)

    def forward(self, common: Tensor | None, unique: Tensor) -> Tensor:
        """Fuse h_common (B, D) with the unique vectors (n, B, D) to y (B, width)."""
        joined = self.joined(unique)
        gate = self.gates(common, unique)
        if gate is None or common is None:
            return joined
        return gate * common.repeat(1, self.repeats) + (1 - gate) * joined  # Eq. 22

    def gates(self, common: Tensor | None, unique: Tensor) -> Tensor | None:
        """Return g, (B, width or 1); None without a shared expert.  # Eq. 22"""
        if self.gate is None or common is None:
            return None
        return torch.sigmoid(self.gate(torch.cat([common, *unique.unbind(0)], -1)))

    def joined(self, unique: Tensor) -> Tensor:
        """Return J, (B, width)."""
        if self.kind == "mean":
            return unique.mean(0)
        flat = torch.cat(unique.unbind(0), -1)  # Eq. 21; (B, n D)
        return flat if self.project is None else self.project(flat)

    def shares(self, common: Tensor | None, unique: Tensor) -> Tensor:
        """Return how much of y each vector is: |its term of y| over the sum of these lengths.

        The term of h_common is g * h_common, that of a unique vector (1 - g) * its part of J (P_k u_k under
        `project`, u_k / n under `mean`, its own n-th under `tile`); the offset of P belongs to none.

        Returns:
            (1 + n, B), each user's sum is 1; row 0 is h_common's, 0 where there is none.
        """
        gate = self.gates(common, unique)
        terms = self._terms(unique)  # (n, B, width)
        lengths = (terms if gate is None else (1 - gate) * terms).norm(dim=-1)  # (n, B)
        first = torch.zeros_like(lengths[:1])
        if gate is not None and common is not None:
            first = (gate * common.repeat(1, self.repeats)).norm(dim=-1)[None]
        lengths = torch.cat([first, lengths])
        return lengths / lengths.sum(0).clamp(min=1e-12)

    def _terms(self, unique: Tensor) -> Tensor:
        """Return each unique vector's part of J, (n, B, width)."""
        count, batch, size = unique.shape
        if self.kind == "mean":
            return unique / count
        if self.project is not None:
            weight = self.project.weight.view(-1, count, size)  # (D, n, D)
            return torch.einsum("nbi,oni->nbo", unique, weight)
        own = torch.eye(count, device=unique.device)[:, None, :, None]  # (n, 1, n, 1)
        return (own * unique[:, :, None]).reshape(count, batch, count * size)


class MeanFusion(nn.Module):
    """The ablation without experts: y = Linear([mean of each stream]), n D -> D.

    Args:
        unique: n streams.
        size: D.
    """

    def __init__(self, unique: int, size: int) -> None:
        super().__init__()
        self.width = size
        """Width of y."""
        self.project = nn.Linear(unique * size, size)

    def forward(self, streams: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return y (B, D) from the streams (M, B, Lb, D) of each behavior and their masks (B, Lb)."""
        return self.of(torch.cat([mean_vector(stream, mask) for stream, mask in streams]))

    def of(self, means: Tensor) -> Tensor:
        """Return y (B, D) from the means (n, B, D)."""
        y: Tensor = self.project(torch.cat(means.unbind(0), -1))
        return y
