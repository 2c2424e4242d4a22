"""The heuristics against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from bench.baselines.heuristics import (
    ItemKNN,
    ItemKNNConfig,
    LastClickedFirst,
    NoOptions,
    Popularity,
    Random,
    nearest,
)
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS = 6
INFO = DatasetInfo(4, ITEMS, ("click", "favor"), ItemContent(ITEMS))
# user 0: 1 2 3 2, user 1: 2 3, user 2: 1 2, user 3: 4
EVENTS = TrainingEvents(
    user=np.array([0, 0, 0, 0, 1, 1, 2, 2, 3]),
    item=np.array([1, 2, 3, 2, 2, 3, 1, 2, 4], np.int32),
    behavior=np.array([1, 1, 2, 2, 1, 1, 1, 2, 1], np.int8),
    timestamp=np.arange(9),
    num_items=ITEMS,
)


def batch(*histories: list[int]) -> Batch:
    width = max(map(len, histories))
    history = torch.tensor([[0] * (width - len(h)) + h for h in histories])
    zeros = torch.zeros_like(history)
    return Batch(torch.arange(len(histories)), history, zeros, zeros)


def test_popularity_orders_by_training_events_of_all_behaviors() -> None:
    model = Popularity(NoOptions(), INFO)
    model.set_up(EVENTS)
    scores = model.score(batch([1], [4]), torch.tensor([[1, 2, 3, 4, 5]] * 2))
    assert torch.allclose(scores * 5, torch.tensor([[2.0, 4.0, 2.0, 1.0, 0.0]] * 2))


def test_random_is_fixed_by_user_item_and_seed() -> None:
    torch.manual_seed(0)
    model = Random(NoOptions(), INFO)
    candidates = torch.tensor([[1, 2, 3], [1, 2, 3]])
    scores = model.score(batch([1], [4]), candidates)
    assert torch.equal(scores, model.score(batch([5, 6], [2]), candidates))
    assert not torch.equal(scores[0], scores[1])
    assert not torch.equal(scores, Random(NoOptions(), INFO).score(batch([1], [4]), candidates))


def test_random_scores_are_uniform_and_unrelated_between_neighbouring_pairs() -> None:
    torch.manual_seed(1)
    model = Random(NoOptions(), DatasetInfo(200, 500, ("click",), ItemContent(500)))
    users = torch.arange(200)
    scores = model.score_encoded(users, torch.arange(1, 501), None)
    counts = torch.histc(scores, 20, 0, 1)
    assert float(((counts - 5000) ** 2 / 5000).sum()) < 50  # chi-square, 19 degrees of freedom: p about 1e-4
    for one, other in ((scores[:, 1:], scores[:, :-1]), (scores[1:], scores[:-1])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.015


def test_items_of_the_history_come_first_newest_first_then_popularity() -> None:
    model = LastClickedFirst(NoOptions(), INFO)
    model.set_up(EVENTS)
    candidates = torch.tensor([[1, 2, 3, 4, 5, 6]] * 3)
    scores = model.score(batch([4, 1, 4, 5], [6], []), candidates)
    order = scores.argsort(dim=1, descending=True, stable=True) + 1
    assert order.tolist() == [[5, 4, 1, 2, 3, 6], [6, 2, 1, 3, 4, 5], [2, 1, 3, 4, 5, 6]]


def test_similarities_equal_the_shrunk_cosine_by_hand() -> None:
    """Users of item 1: 0, 2; of item 2: 0, 1, 2; of item 3: 0, 1; of item 4: 3."""
    model = ItemKNN(ItemKNNConfig(num_neighbors=2, shrinkage=0.5), INFO)
    model.set_up(EVENTS)
    close, far = 2 / (math.sqrt(6) + 0.5), 1 / (math.sqrt(4) + 0.5)
    assert model.neighbors[1:].tolist() == [[2, 3], [1, 3], [2, 1], [0, 0], [0, 0], [0, 0]]
    assert model.similarity[1:4].tolist() == [
        pytest.approx(row) for row in ([close, far], [close] * 2, [close, far])
    ]
    assert not model.similarity[4:].any() and not model.similarity[0].any()


def test_scores_add_up_the_similarities_weighted_by_age() -> None:
    model = ItemKNN(ItemKNNConfig(num_neighbors=2, shrinkage=0.5, decay=0.5), INFO)
    model.set_up(EVENTS)
    close, far = 2 / (math.sqrt(6) + 0.5), 1 / (math.sqrt(4) + 0.5)
    scores = model.score(batch([3, 1], [4], []), torch.tensor([[1, 2, 3, 4]] * 3))
    # item 1 is the newest event (weight 1), item 3 the one before it (weight one half)
    assert scores[0].tolist() == pytest.approx([far / 2, close + close / 2, far, 0.0])
    assert not scores[1:].any()


def test_neighbors_do_not_depend_on_the_block_size_and_equal_a_dense_computation() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((40, 25)) < 0.2).astype(np.float32)
    dense[:, 0] = 0
    ids, values = nearest(sparse.csr_array(dense), count=5, shrinkage=3.0)
    for budget in (1, 60, 300):
        again = nearest(sparse.csr_array(dense), count=5, shrinkage=3.0, budget=budget)
        assert np.array_equal(ids, again[0]) and np.array_equal(values, again[1])
    common = dense.T @ dense
    users = np.diag(common)
    cosine = common / (np.sqrt(np.outer(users, users)) + 3.0)
    np.fill_diagonal(cosine, 0)
    expected = -np.sort(-cosine, axis=1)[:, :5]
    assert np.allclose(values, expected)
    assert np.allclose(np.where(ids > 0, np.take_along_axis(cosine, ids.astype(np.int64), 1), 0), expected)
