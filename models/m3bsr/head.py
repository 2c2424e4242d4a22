"""Head (Eq. 23): the scores of all items for y, with a bias.

The printed head is a free matrix over the catalog; on large catalogs most of its rows are never a training
target. The default reads id, image and text of the item. Both may be added up: what content tells of any
item, and what only its own targets tell.
"""

import torch
from torch import Tensor, nn

from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.inputs import InputLayer


class ItemEncoder(nn.Module):
    """E_i = Linear([id ; image ; text]), or of the id alone, plus a free row where that is asked for, and the
    item's bias b_i.

    Args:
        num_items: N.
        id_size: width of the ids.
        size: D.
        width: of y.
        content: how many modalities beside the id are read.
        free: add the free rows, W_y.
    """

    def __init__(
        self, num_items: int, id_size: int, size: int, width: int, content: int, free: bool = False
    ) -> None:
        super().__init__()
        self.content = content
        self.join = nn.Linear(id_size + content * size, width)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        nn.init.normal_(self.join.weight, std=0.01)  # y has entries of order 1: logits start small
        self.free = nn.Parameter(torch.randn(num_items + 1, width) * 0.01) if free else None

    def forward(self, inputs: InputLayer, items: Tensor) -> Tensor:
        """Return (..., width) for item ids (...)."""
        parts = [inputs.ids(items)]
        parts += [inputs.modality(1 + index, items) for index in range(self.content)]
        encoded: Tensor = self.join(torch.cat(parts, -1))
        return encoded if self.free is None else encoded + self.free[items]

    def table(self, inputs: InputLayer, chunk: int = 16_384) -> Tensor:
        """Return (N + 1, width), in chunks of items that bound the memory of the raw features."""
        ids = torch.arange(len(self.bias), device=self.bias.device)
        return torch.cat([self(inputs, part) for part in ids.split(chunk)])


class FreeMatrix(nn.Module):
    """W_y and b of Eq. 23 as printed: nothing of an item's content reaches its score.

    Args:
        num_items: N.
        width: of y.
    """

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_items + 1, width) * 0.01)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))

    def forward(self, inputs: InputLayer, items: Tensor) -> Tensor:
        """Return (..., width) for item ids (...)."""
        return self.weight[items]

    def table(self, inputs: InputLayer) -> Tensor:
        """Return (N + 1, width)."""
        return self.weight


def make_head(config: M3BSRConfig, num_items: int, width: int, content: int) -> ItemEncoder | FreeMatrix:
    """Return the head that the options ask for, for a y of some width and `content` modalities beside the
    id.
    """
    if config.head == "linear":
        return FreeMatrix(num_items, width)
    read = 0 if config.head == "tied_id" else content
    return ItemEncoder(num_items, config.id_size, config.hidden_size, width, read, free=config.head == "sum")
