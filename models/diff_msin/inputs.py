"""Input layer (section 1 of the model): an item as one vector per modality, all of one width."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import ItemContent
from bench.models.diff_msin.config import DiffMSINConfig
from bench.nn.content import FeatureTable

FEATURES = ("image", "text")


class ProjectedId(nn.Module):
    """The id's table with the layer norm that the other modalities have."""

    def __init__(self, num_items: int, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_items + 1, size)
        self.norm = nn.LayerNorm(size)
        nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        return self.norm(self.table(items))


class RawTable(nn.Module):
    """A fine-tuned table without projection, its rows brought to length 1, as in the released code."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(rows)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        return F.normalize(self.table[items], dim=-1)


class InputLayer(nn.Module):
    """Turns item ids into the streams of the modalities that the data set has; `id` is always there.

    Args:
        config: of the model.
        content: features and their presence.
    """

    def __init__(self, config: DiffMSINConfig, content: ItemContent) -> None:
        super().__init__()
        present = [name for name in FEATURES if name in content.features]
        self.modalities = ("id", *present)
        self.size = config.hidden_size
        tables: dict[str, nn.Module]
        if config.released:
            raw = {name: np.asarray(content.features[name], np.float32) for name in present}
            self.size = max((rows.shape[1] for rows in raw.values()), default=config.hidden_size)
            tables = {"id": RawTable(torch.randn(content.num_items + 1, self.size))}
            # zeros to the right change no length and no angle
            tables |= {
                n: RawTable(F.pad(torch.tensor(r), (0, self.size - r.shape[1]))) for n, r in raw.items()
            }
        else:
            tables = {"id": ProjectedId(content.num_items, self.size)}
            tables |= {n: FeatureTable(content, n, self.size, config.trainable_features) for n in present}
        self.tables = nn.ModuleDict(tables)

    def exchange_content(self, owner: Mapping[str, Tensor]) -> None:
        """Exchange the rows of the released form's tables; the others see to it themselves."""
        for name, rows in owner.items():
            table = self.tables[name] if name in self.tables else None
            if isinstance(table, RawTable):
                table.table.data = table.table.data[rows]

    def forward(self, items: Tensor) -> Tensor:
        """Return (M, ..., D) for item ids (...), in the order of `modalities`."""
        return torch.stack([self.tables[name](items) for name in self.modalities])
