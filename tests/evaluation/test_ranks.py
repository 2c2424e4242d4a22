import numpy as np
import pytest
import torch

from bench.data.schema import ItemContent, Touched
from bench.errors import UserError
from bench.evaluation import catalog as module
from bench.evaluation.metrics import chance, hit_rate, ndcg
from bench.evaluation.ranks import Held, rank
from bench.interface import Batch, DatasetInfo, Recommender

USERS, ITEMS = 60, 40


class Fixed(Recommender):
    """Scores from a table, user by item."""

    def __init__(self, table):
        super().__init__(
            None, DatasetInfo(USERS, table.shape[1] - 1, ("click",), ItemContent(table.shape[1] - 1))
        )
        self.table = table

    def score(self, batch, candidates):
        return self.table[batch.user[:, None], candidates]


def batches(count, size=16):
    for rows in np.array_split(np.arange(count), max(count // size, 1)):
        zeros = torch.zeros(len(rows), 1, dtype=torch.int64)
        yield rows, Batch(torch.from_numpy(rows), zeros, zeros, zeros)


def touched_by(lists):
    counts = [len(items) for items in lists]
    return Touched(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.concatenate(lists).astype(np.int32)
    )


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    touched = [np.sort(rng.choice(np.arange(1, ITEMS + 1), 6, replace=False)) for _ in range(USERS)]
    targets = np.array([items[2] for items in touched])
    free = [np.setdiff1d(np.arange(1, ITEMS + 1), items) for items in touched]
    negatives = np.stack([rng.choice(items, 9, replace=False) for items in free]).astype(np.int32)
    return touched, targets, negatives, rng


def test_sampled_rank_equals_sorting(world):
    touched, targets, negatives, rng = world
    table = torch.from_numpy(rng.standard_normal((USERS, ITEMS + 1)))
    held = Held(np.arange(USERS), targets, negatives, touched_by(touched), 0)
    found = rank(Fixed(table), held, batches(USERS), torch.device("cpu"))
    for user in range(USERS):
        order = sorted([targets[user], *negatives[user]], key=lambda item: -table[user, item])
        assert found[user] == 1 + order.index(targets[user])


@pytest.mark.parametrize("tile_bytes", [4 * 16 * 7, module.TILE_BYTES])
def test_full_rank_equals_sorting_the_untouched_catalog_for_any_tile(world, monkeypatch, tile_bytes):
    monkeypatch.setattr(module, "TILE_BYTES", tile_bytes)
    touched, targets, _, rng = world
    table = torch.from_numpy(rng.standard_normal((USERS, ITEMS + 1)))
    held = Held(np.arange(USERS), targets, None, touched_by(touched), 0)
    found = rank(Fixed(table), held, batches(USERS), torch.device("cpu"))
    for user in range(USERS):
        rivals = np.setdiff1d(np.arange(1, ITEMS + 1), touched[user])
        assert found[user] == 1 + int((table[user, rivals] > table[user, targets[user]]).sum())
    assert set(held.sizes(ITEMS)) == {ITEMS - 6 + 1}


def test_constant_scorer_lands_on_chance_in_sampled_and_full_ranking():
    users, items = 3000, 400
    rng = np.random.default_rng(1)
    touched = touched_by([np.array([user % items + 1]) for user in range(users)])
    targets = np.arange(users) % items + 1
    negatives = (
        targets[:, None] + rng.permuted(np.tile(np.arange(1, items), (users, 1)), axis=1)[:, :99] - 1
    ) % items + 1
    for chosen in (negatives.astype(np.int32), None):
        held = Held(np.arange(users), targets, chosen, touched, 5)
        model = Fixed(torch.zeros(users, items + 1))
        found = rank(model, held, batches(users, 256), torch.device("cpu"))
        level = chance(held.sizes(items), 10)
        assert hit_rate(found, 10).mean() == pytest.approx(level["HR@10"], abs=2 / users)
        assert ndcg(found, 10).mean() == pytest.approx(level["NDCG@10"], abs=2 / users)


def test_ties_are_broken_between_the_tied_places_only():
    table = torch.zeros(USERS, 12)
    table[:, 5:8] = 1.0  # three negatives above, the target and four negatives level, the rest below
    table[:, 8:] = -1.0
    negatives = np.tile(np.arange(2, 12, dtype=np.int32), (USERS, 1))
    held = Held(np.arange(USERS), np.ones(USERS, np.int64), negatives, touched_by([np.array([1])] * USERS), 0)
    found = rank(Fixed(table), held, batches(USERS), torch.device("cpu"))
    assert set(found) == {4, 5, 6, 7}


def test_missing_negatives_are_not_counted():
    table = torch.ones(USERS, 5)
    table[:, 1] = 0.5
    negatives = np.tile(np.array([2, 3, 0, 0], np.int32), (USERS, 1))
    held = Held(np.arange(USERS), np.ones(USERS, np.int64), negatives, touched_by([np.array([1])] * USERS), 0)
    assert set(held.sizes(4)) == {3}
    assert set(rank(Fixed(table), held, batches(USERS), torch.device("cpu"))) == {3}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampled", [True, False])
def test_scores_that_are_not_finite_are_an_error_naming_model_and_user(bad, sampled, world):
    touched, targets, negatives, rng = world
    table = torch.from_numpy(rng.standard_normal((USERS, ITEMS + 1)))
    table[7, negatives[7, 0]] = bad
    held = Held(np.arange(USERS), targets, negatives if sampled else None, touched_by(touched), 0)
    with pytest.raises(UserError, match="Fixed, epoch 3: a score of user 7 is NaN or infinite"):
        rank(Fixed(table), held, batches(USERS), torch.device("cpu"), "Fixed, epoch 3")
