"""A small log that every model can be run on: twelve users, thirty items, two behaviors.

It has ties in time, absent images and texts, a user with one event, one without a target event, and one with
target events alone.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.data.batches.loader import evaluation_batches
from bench.data.protocol.split import Split, split
from bench.data.schema import Interactions, ItemContent
from bench.interface import Batch, DatasetInfo

USERS, ITEMS, TARGET = 12, 30, 2
HISTORY = 10
"""Events shown in scoring; leaves room for more padding below any model's `max_history`."""


@cache
def example_log() -> Interactions:
    """Return the log: users mostly step from item i to item i + 1, so that there is something to learn."""
    rng = np.random.default_rng(7)
    lengths = np.array([1, 3, 5, 7, 9, 11, 13, 15, 6, 8, 10, 12])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    noise = np.where(rng.random(len(step)) < 0.2, rng.integers(0, ITEMS, len(step)), 0)
    item = (np.repeat(rng.integers(0, ITEMS, USERS), lengths) + step + noise) % ITEMS + 1
    behavior = np.where(rng.random(len(step)) < 0.4, TARGET, 1)
    user = np.repeat(np.arange(USERS), lengths)
    behavior[user == 2] = 1  # no target event
    behavior[user == 3] = TARGET  # no other event
    return Interactions(offsets, item.astype(np.int32), behavior.astype(np.int8), 100 + step // 2)


@cache
def example_split() -> Split:
    """Return which events train."""
    return split(example_log(), TARGET)


@cache
def example_info() -> DatasetInfo:
    """Return what the models know: image and text vectors, some absent, and a category."""
    rng = np.random.default_rng(8)
    features, present = {}, {}
    for name, size in (("image", 6), ("text", 8)):
        present[name] = np.concatenate([[False], rng.random(ITEMS) < 0.8])
        vectors = rng.standard_normal((ITEMS + 1, size)).astype(np.float32)
        features[name] = vectors * present[name][:, None]
    category = np.concatenate([[0], rng.integers(0, 4, ITEMS)]).astype(np.int32)
    return DatasetInfo(
        USERS, ITEMS, ("click", "favor"), ItemContent(ITEMS, features, present, {"category": category})
    )


def example_batch() -> Batch:
    """Return the histories before the test events, and below them one without any event."""
    batches = evaluation_batches(
        example_log(),
        example_split().test,
        max_history=HISTORY,
        batch_size=USERS,
        target_behavior=TARGET,
        drop_target_click="same_timestamp",
    )
    batch = next(batches)[1]
    blank = torch.zeros_like(batch.history[:1])
    return Batch(
        user=torch.cat([batch.user, torch.zeros_like(batch.user[:1])]),
        history=torch.cat([batch.history, blank]),
        behavior=torch.cat([batch.behavior, blank]),
        timestamp=torch.cat([batch.timestamp, blank]),
    )


def example_candidates(batch: Batch) -> Tensor:
    """Return (B, 12) candidates, others for each row."""
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randperm(ITEMS, generator=generator)[:12] + 1 for _ in range(len(batch))])
