"""Head (Eq. 23): scores from an item encoder over id, image and text, and a bias.

The printed head is a free matrix over the catalog; on large catalogs most of its rows are never a training
target.
"""

import torch
from torch import Tensor, nn

from bench.models.m3bsr.inputs import InputLayer


class ItemEncoder(nn.Module):
    """E_i = Linear([id ; image ; text]) and the item's bias b_i."""

    def __init__(self, num_items: int, id_size: int, size: int) -> None:
        super().__init__()
        self.join = nn.Linear(id_size + 2 * size, size)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        nn.init.normal_(self.join.weight, std=0.01)  # y has entries of order 1: logits start small

    def forward(self, inputs: InputLayer, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        parts = [inputs.ids(items), inputs.modality(1, items), inputs.modality(2, items)]
        return self.join(torch.cat(parts, -1))

    def table(self, inputs: InputLayer, chunk: int = 16_384) -> Tensor:
        """Return (N + 1, D), in chunks of items that bound the memory of the raw features."""
        ids = torch.arange(len(self.bias), device=self.bias.device)
        return torch.cat([self(inputs, part) for part in ids.split(chunk)])
