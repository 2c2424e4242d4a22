"""A small data set with texts and images that the tests of the multi-modal baselines share."""

import numpy as np
import torch
from torch import Tensor

from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS, USERS, L, D = 20, 4, 8, 8
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
BEHAVIOR = torch.where(HISTORY % 2 == 0, 1, 2) * (HISTORY > 0)
LABELS = torch.tensor([[0, 0, 0, 9, 2, 13], [0, 8, 8, 1, 7, 14], [6, 2, 9, 10, 11, 15], [0, 0, 0, 0, 0, 16]])
KIND = torch.where(LABELS % 2 == 0, 1, 2) * (LABELS > 0)
NO_TEXT, NO_IMAGE, NOTHING = 2, 9, 17
"""Items without a text, without an image, and without either."""


def info(modalities: tuple[str, ...] = ("image", "text"), items: int = ITEMS, seed: int = 1) -> DatasetInfo:
    """Return items with vectors of width 6 (image) and 5 (text); absent ones have values."""
    rng = np.random.default_rng(seed)
    features, present = {}, {}
    for name, width, absent in (("image", 6, NO_IMAGE), ("text", 5, NO_TEXT)):
        if name not in modalities:
            continue
        features[name] = rng.standard_normal((items + 1, width)).astype(np.float32)
        present[name] = np.ones(items + 1, bool)
        present[name][[0, absent, NOTHING]] = False
    return DatasetInfo(USERS, items, ("click", "favor"), ItemContent(items, features, present))


def events() -> TrainingEvents:
    """Return the windows with their labels as a training part; items 17 to 20 are not in it."""
    users = np.repeat(np.arange(USERS), [4, 6, 7, 2])
    items = np.concatenate([row[row > 0].numpy() for row in torch.cat([HISTORY, LABELS[:, -1:]], 1)])
    kind = np.where(items % 2 == 0, 1, 2).astype(np.int8)
    return TrainingEvents(users, items.astype(np.int32), kind, np.arange(len(items)) * 3600, ITEMS)


def batch(history: Tensor = HISTORY, behavior: Tensor | None = None) -> Batch:
    """Return windows with labels."""
    times = torch.arange(history.shape[1]).expand_as(history) * 3600 * (history > 0)
    kind = torch.where(history % 2 == 0, 1, 2) * (history > 0) if behavior is None else behavior
    users = torch.arange(len(history))
    return Batch(
        users, history, kind, times, labels=LABELS[: len(history)], label_behavior=KIND[: len(history)]
    )


def prefixes(history: Tensor = HISTORY) -> Batch:
    """Return histories with one target each."""
    whole = batch(history)
    return Batch(
        whole.user,
        history,
        whole.behavior,
        whole.timestamp,
        target=LABELS[:, -1],
        target_behavior=KIND[:, -1],
    )
