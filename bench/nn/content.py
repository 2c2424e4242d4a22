"""Frozen (or trainable) item features behind a projection, with a learned vector where an item has none."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Content(Protocol):
    """The part of the item content that `FeatureTable` reads."""

    @property
    def num_items(self) -> int:
        """N."""

    @property
    def features(self) -> Mapping[str, NDArray[Any]]:
        """Modality -> (N + 1, raw width)."""

    @property
    def present(self) -> Mapping[str, NDArray[Any]]:
        """Modality -> (N + 1,) bool."""


def held_modalities(content: Content, names: tuple[str, ...] = ("image", "text")) -> tuple[str, ...]:
    """Return those of the modalities that some item has."""
    return tuple(name for name in names if name in content.present and content.present[name].any())


class ModalityTable(nn.Module):
    """What tables of one modality share: rows that can be exchanged once a model is trained."""

    features: Tensor
    present: Tensor
    modality: str

    def exchange_content(self, owner: Mapping[str, Tensor]) -> None:
        """Let each item show the vector of another, or none; see `Recommender.exchange_content`."""
        if self.modality in owner:
            rows = owner[self.modality]
            self.features.data = self.features.data[rows]
            self.present = self.present[rows]


class LinearContent(ModalityTable):
    """One modality of the items behind a linear map; an item without it gives zeros, whatever its row says.

    Features are frozen, kept in their stored precision and not part of the state dict.

    Args:
        content: has `num_items`, `features` and `present` by modality.
        modality: its name, one that the data set has.
        size: D, output width.
        bias: whether the map has one; absent items get none of it.
    """

    def __init__(self, content: Content, modality: str, size: int, bias: bool = True) -> None:
        super().__init__()
        self.modality = modality
        self.register_buffer(
            "features", torch.from_numpy(content.features[modality].copy()), persistent=False
        )
        self.register_buffer("present", torch.from_numpy(content.present[modality].copy()), persistent=False)
        self.project = nn.Linear(self.features.shape[1], size, bias=bias)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        projected: Tensor = self.project(self.features[items].to(self.project.weight.dtype))
        return projected * self.present[items][..., None]


def has_content(table: nn.Module, items: Tensor) -> Tensor:
    """Return (...) bool, whether items (...) have the modality of a `LinearContent`."""
    assert isinstance(table, LinearContent)
    return table.present[items]


class FeatureTable(ModalityTable):
    """One modality of the items, projected: Linear + LayerNorm, absent items replaced by a learned vector
    before the norm.

    Absent is not zero: the mask `present` decides, never the values. Features are kept in their stored
    precision and are not part of the state dict unless trainable.

    Args:
        content: has `num_items`, `features` and `present` by modality.
        modality: its name; one that the data set lacks gives the learned vector for every item.
        size: D, output width.
        trainable: whether the features move in training.
    """

    def __init__(self, content: Content, modality: str, size: int, trainable: bool = False) -> None:
        super().__init__()
        self.modality = modality
        rows = content.num_items + 1
        array = content.features.get(modality, np.zeros((rows, 1), np.float16))
        mask = content.present.get(modality, np.zeros(rows, bool))
        features = torch.from_numpy(np.array(array))  # (N + 1, raw width)
        if trainable:
            self.features = nn.Parameter(features.float())
        else:
            self.register_buffer("features", features, persistent=False)
        self.register_buffer("present", torch.from_numpy(np.array(mask)), persistent=False)
        self.project = nn.Linear(features.shape[1], size)
        self.missing = nn.Parameter(torch.randn(size) * 0.02)
        self.norm = nn.LayerNorm(size)

    def forward(self, items: Tensor) -> Tensor:
        """Return (..., D) for item ids (...)."""
        raw = self.features[items].to(self.project.weight.dtype)
        return self.norm(torch.where(self.present[items][..., None], self.project(raw), self.missing))
