"""Input layer (Eq. 3-5): ids, image and text of items brought to one width.

Eq. 3 is called an MLP and an embedding layer at once: here each field (item, the item's attributes, the
user) has a table of width 16, and an MLP joins them to 16. One projection a modality serves both behaviors
and the item encoder.
"""

import torch
from torch import Tensor, nn

from bench.interface import DatasetInfo
from bench.models.m3bsr.config import M3BSRConfig
from bench.nn.content import FeatureTable

MODALITIES = ("id", "image", "text")


class InputLayer(nn.Module):
    """Turns item ids into the streams X[m], m in (id, image, text).

    A data set without images or texts has all of them absent: the learned vector stands in, and the stream is
    constant.
    """

    def __init__(self, config: M3BSRConfig, info: DatasetInfo) -> None:
        super().__init__()
        width, size = config.id_size, config.hidden_size
        self.item = nn.Embedding(info.num_items + 1, width, padding_idx=0)
        self.user = nn.Embedding(info.num_users + 1, width) if config.user_field else None
        self.attribute_names = tuple(sorted(info.content.attributes))
        self.attributes = nn.ModuleList()
        for name in self.attribute_names:
            ids = torch.from_numpy(info.content.attributes[name].astype("int64"))
            self.register_buffer(f"ids_{name}", ids, persistent=False)
            self.attributes.append(nn.Embedding(int(ids.max()) + 1, width, padding_idx=0))
        fields = 1 + len(self.attribute_names) + config.user_field
        self.join = nn.Sequential(
            nn.Linear(fields * width, width), nn.GELU(), nn.Linear(width, width)
        )  # Eq. 3
        self.no_user = info.num_users
        self.project_id = nn.Sequential(nn.Linear(width, size), nn.LayerNorm(size))
        self.content = nn.ModuleList(
            FeatureTable(info.content, name, size, trainable=config.trainable_features)
            for name in MODALITIES[1:]
        )  # Eq. 4, 5
        for table in (self.item, *([self.user] if self.user is not None else []), *self.attributes):
            nn.init.normal_(table.weight, std=0.1)

    def ids(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Return (..., 16), Eq. 3, for items (...) of users (B,) with B the first axis, or of nobody."""
        fields = [self.item(items)]
        fields += [
            table(self.get_buffer(f"ids_{name}")[items])
            for name, table in zip(self.attribute_names, self.attributes, strict=True)
        ]
        if self.user is not None:
            user = torch.full_like(items, self.no_user) if user is None else user[:, None].expand_as(items)
            fields.append(self.user(user))
        return self.join(torch.cat(fields, -1))

    def modality(self, index: int, items: Tensor) -> Tensor:
        """Return (..., D) for `image` (1) or `text` (2)."""
        return self.content[index - 1](items)
