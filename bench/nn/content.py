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


class FeatureTable(nn.Module):
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

    features: Tensor
    present: Tensor

    def __init__(self, content: Content, modality: str, size: int, trainable: bool = False) -> None:
        super().__init__()
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
