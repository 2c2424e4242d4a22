"""Routing fusion (Eq. 21-22): a gate between what behaviors share and what each of them adds."""

import torch
from torch import Tensor, nn


class RoutingFusion(nn.Module):
    """y = g * h_common + (1 - g) * P [u], with g = sigmoid(W_g [h_common ; u] + b_g).

    As printed the two terms have widths D and 6 D; P projects the second to D.
    """

    def __init__(self, unique: int, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear((1 + unique) * size, size)
        self.project = nn.Linear(unique * size, size)

    def forward(self, common: Tensor, unique: Tensor) -> Tensor:
        """Fuse h_common (B, D) with the unique vectors (n, B, D) to y (B, D)."""
        joined = torch.cat(unique.unbind(0), -1)  # (B, n D)
        gate = torch.sigmoid(self.gate(torch.cat([common, joined], -1)))  # Eq. 21
        return gate * common + (1 - gate) * self.project(joined)  # Eq. 22
