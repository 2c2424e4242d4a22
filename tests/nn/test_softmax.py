"""Softmax over computed item vectors: the whole catalog, and a corrected sample of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.nn.softmax import NUM_NEGATIVES, ItemSoftmax

ITEMS = 3000


def counts() -> NDArray[np.int64]:
    return np.bincount([7] * 50 + list(range(1, 51)), minlength=ITEMS + 1)


def test_over_a_small_catalog_it_is_the_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    softmax = ItemSoftmax(20)
    hidden, table, labels = torch.randn(5, 4), torch.randn(21, 4), torch.tensor([3, 1, 20, 3, 9])
    columns = softmax.columns(labels)
    assert columns[0].tolist() == list(range(1, 21)) and columns[1] is None
    found = softmax.loss(hidden, columns, table[columns[0]], labels)
    assert torch.allclose(found, F.cross_entropy(hidden @ table[1:].T, labels - 1))


def test_a_sample_holds_the_targets_once_and_says_how_often_each_item_is_drawn() -> None:
    torch.manual_seed(0)
    softmax = ItemSoftmax(ITEMS, whole=100)
    softmax.set_up(counts())
    labels = torch.tensor([7, 7, 2999])
    items, correction = softmax.columns(labels)
    assert correction is not None and len(items) == len(items.unique())
    assert {7, 2999} <= set(items.tolist()) and items.min() >= 1 and items.max() <= ITEMS
    # item 7 is 51 of 100 events: in three draws it is met with chance 1 - 0.49^3
    expected = -np.log(NUM_NEGATIVES / ITEMS + 1 - 0.49**3)
    assert correction[items == 7].item() == pytest.approx(expected, rel=1e-5)
    assert correction[items == 2999].item() == pytest.approx(-np.log(NUM_NEGATIVES / ITEMS), rel=1e-5)


def test_the_sampled_loss_is_a_softmax_over_its_columns_with_the_correction() -> None:
    torch.manual_seed(0)
    softmax = ItemSoftmax(ITEMS, whole=100)
    softmax.set_up(counts())
    hidden, labels = torch.randn(6, 4), torch.tensor([7, 8, 9, 7, 100, 2])
    columns = softmax.columns(labels)
    vectors = torch.randn(len(columns[0]), 4)
    logits = hidden @ vectors.T + columns[1]
    place = torch.tensor([columns[0].tolist().index(label) for label in labels.tolist()])
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])
    expected = (F.cross_entropy(logits, place, reduction="none") * weights).sum() / weights.sum()
    assert torch.allclose(softmax.loss(hidden, columns, vectors, labels, weights), expected, atol=1e-6)
