"""Input layer (Eq. 3-5): ids, image and text of items brought to one width.

Eq. 3 is called an MLP and an embedding layer at once: here each field (item, the item's attributes, the
user) has a table of width 16, and an MLP joins them to 16. One projection a modality serves both behaviors
and the item encoder.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError, hint
from bench.interface import DatasetInfo, ItemContent
from bench.models.m3bsr.cells import Packed
from bench.models.m3bsr.config import M3BSRConfig
from bench.nn.content import FeatureTable, ModalityTable

MODALITIES = ("id", "image", "text")
PAPER_FIELDS = ("user", "brand", "seller")
"""Fields that the paper has beside the item: Rec-Tmall brand, user and seller, Kuaishou the user."""


def modalities(content: ItemContent, absent: str) -> tuple[str, ...]:
    """Return the modalities that a model has streams of: the id, and image and text that some item has, or
    both where an absent one is `constant`.
    """
    held = [name for name in MODALITIES[1:] if name in content.present and content.present[name].any()]
    return MODALITIES if absent == "constant" else ("id", *held)


def id_fields(wanted: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fields of the ID modality beside the item: those that are wanted, the paper's, or all.

    Args:
        wanted: names, ("all",), or None for those of the paper that the data set has.
        known: `user` and the attributes of the data set.

    Raises:
        UserError: a wanted field that the data set does not have.
    """
    if wanted is None:
        return tuple(name for name in known if name in PAPER_FIELDS)
    if wanted == ("all",):
        return known
    for name in wanted:
        if name not in known:
            raise UserError(f"id_fields={name}: the data set has no such field; {hint(name, known)}")
    return wanted


class RawTable(ModalityTable):
    """One modality as it came, each coordinate at mean 0 and variance 1 over the items that have it.

    The diffusion of `raw_standardized` runs on it and the projection follows.

    Vectors of a CLIP model have length 1, hence a variance of 1/512 a coordinate: noise of the usual schedule
    would drown them.
    """

    def __init__(self, content: ItemContent, modality: str, size: int, trainable: bool) -> None:
        super().__init__()
        self.modality = modality
        rows = content.num_items + 1
        present = np.array(content.present.get(modality, np.zeros(rows, bool)))
        array = torch.from_numpy(np.array(content.features.get(modality, np.zeros((rows, 1))), np.float32))
        known = array[torch.from_numpy(present)]
        if len(known):
            array = (array - known.mean(0)) / known.std(0, correction=0).clamp(min=1e-6)
        if trainable:
            self.features = nn.Parameter(array)
        else:
            self.register_buffer("features", array, persistent=False)
        self.register_buffer("present", torch.from_numpy(present), persistent=False)
        self.missing = nn.Parameter(torch.randn(array.shape[1]) * 0.02)
        self.finish = nn.Sequential(nn.Linear(array.shape[1], size), nn.LayerNorm(size))

    def raw(self, items: Tensor) -> Tensor:
        """Return (..., raw width) for item ids (...), a learned vector where an item has none."""
        return torch.where(self.present[items][..., None], self.features[items], self.missing)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        projected: Tensor = self.finish(self.raw(items))
        return projected


class InputLayer(nn.Module):
    """Turns item ids into the streams X[m], m in (id, image, text).

    Of a data set without images or texts these have no stream, or (absent=constant) a constant one: the
    learned vector stands in.

    Packed, padding is not computed, and image and text of an item are projected once in a batch.

    Raises:
        UserError: an id field that the data set does not have.
    """

    def __init__(self, config: M3BSRConfig, info: DatasetInfo) -> None:
        super().__init__()
        width, size = config.id_size, config.hidden_size
        known = ("user", *sorted(info.content.attributes))
        chosen = id_fields(config.id_fields, known)
        self.packed, self.size = config.packed, size
        self.item = nn.Embedding(info.num_items + 1, width, padding_idx=0)
        self.user = nn.Embedding(info.num_users + 1, width) if "user" in chosen else None
        self.attribute_names = tuple(name for name in known[1:] if name in chosen)
        self.attributes = nn.ModuleList()
        for name in self.attribute_names:
            ids = torch.from_numpy(info.content.attributes[name].astype("int64"))
            self.register_buffer(f"ids_{name}", ids, persistent=False)
            self.attributes.append(nn.Embedding(int(ids.max()) + 1, width, padding_idx=0))
        fields = 1 + len(self.attribute_names) + (self.user is not None)
        self.join = nn.Sequential(
            nn.Linear(fields * width, width), nn.GELU(), nn.Linear(width, width)
        )  # Eq. 3
        self.no_user = info.num_users
        self.modalities = modalities(info.content, config.absent)
        """The id first; M of them."""
        self.project_id = nn.Sequential(nn.Linear(width, size), nn.LayerNorm(size))
        table = RawTable if config.space == "raw_standardized" else FeatureTable
        self.content = nn.ModuleList(
            table(info.content, name, size, trainable=config.trainable_features)
            for name in self.modalities[1:]
        )  # Eq. 4, 5
        self._start()
        self.shapes = self._shapes(size)
        """Groups and width of each part of the content streams."""

    def _start(self) -> None:
        """Draw small tables, without biases behind them: offsets would drown what sets the items apart, and
        the normalisation would make nearly constant streams of the ids.
        """
        for table in (self.item, *([] if self.user is None else [self.user]), *self.attributes):
            nn.init.normal_(table.weight, std=0.1)
        for layer in (*self.join, self.project_id[0]):
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def _shapes(self, size: int) -> tuple[tuple[int, int], ...]:
        if not len(self.content):
            return ()
        raw = tuple((1, table.features.shape[1]) for table in self._raw_tables())
        return raw or ((len(self.content), size),)

    def _raw_tables(self) -> list[RawTable]:
        return [table for table in self.content if isinstance(table, RawTable)]

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
        """Return (..., D) for the modality at an index from 1 on."""
        return self.content[index - 1](items)

    def id_stream(self, items: Tensor, user: Tensor) -> Tensor:
        """Return X[id], (B, L, D), zero where padded."""
        if self.packed:
            real = Packed(items > 0)
            event = real.of_rows(user[None, :, None, None].expand(1, -1, -1, 1)).flatten()  # (n,)
            ids = self.ids(items.flatten()[real.index][:, None], event.expand(len(real.index)))  # (n, 1, 16)
            return real.unpack(self.project_id(ids[None, None, :, 0]))[0]
        stream: Tensor = self.project_id(self.ids(items, user)) * (items > 0)[..., None]
        return stream

    def content_streams(self, items: Tensor) -> tuple[Tensor, ...]:
        """Return what CDMD-M denoises of items (B, L), in parts (G, B, L, width) of the `shapes`, zero where
        padded: X[image] and X[text] together, or the raw vectors each alone.
        """
        if not self.shapes:
            return ()
        real = (items > 0)[None, ..., None]
        if raw := self._raw_tables():
            return tuple(table.raw(items)[None] * real for table in raw)
        if self.packed:
            events = Packed(items > 0)
            distinct, which = torch.unique(items.flatten()[events.index], return_inverse=True)
            vectors = [F.embedding(which, table(distinct)) for table in self.content]  # (n, D) each
            return (events.unpack(torch.stack(vectors)[:, None]),)
        return (torch.stack([table(items) for table in self.content]) * real,)

    def finished(self, parts: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """Return image and text, (M - 1, B, L, D), from the parts of the content streams; mask is (B, L)."""
        raw = self._raw_tables()
        if not parts:
            return self.item.weight.new_zeros(0, *mask.shape, self.size)
        if not raw:
            return parts[0]
        done = [table.finish(part) for table, part in zip(raw, parts, strict=True)]
        return torch.cat(done) * mask[None, ..., None]
