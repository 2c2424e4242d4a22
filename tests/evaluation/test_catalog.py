"""One pass over the catalog counts what two passes over the same tiles count, to the bit."""

import numpy as np
import pytest
import torch

from bench.data.schema import ItemContent
from bench.errors import UserError
from bench.evaluation import catalog as module
from bench.evaluation.catalog import Catalog, checked, count_above
from bench.evaluation.pairs import score_pairs
from bench.evaluation.ranks import Held, rank
from bench.interface import DatasetInfo, Recommender
from bench.nn.scoring import dot_scores
from tests.evaluation.test_ranks import batches, touched_by

CPU = torch.device("cpu")


class Dots(Recommender):
    """Dot products with an item table; `shift` makes a score alone differ from the one in a tile."""

    def __init__(self, table, shift=0.0):
        super().__init__(None, DatasetInfo(1, len(table) - 1, ("click",), ItemContent(len(table) - 1)))
        self.table, self.shift, self.calls = table, shift, 0

    def score_encoded(self, encoded, candidates, items):
        self.calls += candidates.dim() == 1
        scores = dot_scores(encoded, self.table, candidates)
        return scores + self.shift if candidates.dim() == 2 else scores


def two_passes(catalog, target, touched):
    """Read each target's score from its tile, then compare cell by cell."""
    size, step = len(target), catalog.starts.step
    higher, tied = [0] * size, [0] * size
    tiles = [catalog.tile(start) for start in catalog.starts]
    level = [float(tiles[(int(t) - 1) // step][row, (int(t) - 1) % step]) for row, t in enumerate(target)]
    pairs = {(int(row), int(item)) for row, item in touched}
    for start, tile in zip(catalog.starts, tiles, strict=True):
        for row, scores in enumerate(tile.tolist()):
            for column, score in enumerate(scores):
                if (row, start + column) not in pairs:
                    higher[row] += score > level[row]
                    tied[row] += score == level[row]
    return higher, tied


def worlds():
    """Yield (name, users (B, D), table (N + 1, D))."""
    generator = torch.Generator().manual_seed(0)
    users, table = torch.randn(12, 8, generator=generator), torch.randn(301, 8, generator=generator)
    yield "random", users, table
    yield "tiny values", users * 1e-4, table * 1e-4
    yield "large values", users * 1e4, table
    yield "duplicates", users, table[torch.arange(301) % 40]
    yield "whole numbers", users.round(), table.round()
    yield "constant", users * 0, table
    yield "signed zeros", users, torch.where(torch.arange(301)[:, None] % 2 == 0, 0.0, -0.0).expand(301, 8)
    yield "nearly equal", users, 1 + 1e-7 * table


@pytest.mark.parametrize("name", [name for name, *_ in worlds()])
@pytest.mark.parametrize("tile_bytes", [4 * 12 * 7, 4 * 12 * 64, 2**22])
@pytest.mark.parametrize("most", [0, 2**18])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_counts_equal_those_of_two_passes(monkeypatch, name, tile_bytes, most, shift):
    monkeypatch.setattr(module, "TILE_BYTES", tile_bytes)
    monkeypatch.setattr(module, "MOST_CLOSE", most)
    (users, table) = next(world[1:] for world in worlds() if world[0] == name)
    rng = np.random.default_rng(1)
    target = torch.from_numpy(rng.integers(1, 301, 12))
    rows = np.repeat(np.arange(12), 20)
    pairs = np.stack([rows, rng.integers(1, 301, 240)], 1)  # some stand twice
    touched = torch.from_numpy(np.concatenate([pairs, np.stack([np.arange(12), target], 1)]))
    catalog = Catalog(Dots(table, shift), users, None, 12, CPU)
    higher, tied = count_above(catalog, target, touched)
    assert (higher.tolist(), tied.tolist()) == two_passes(catalog, target, touched)


def test_a_random_world_takes_one_pass_and_a_constant_one_two(monkeypatch):
    monkeypatch.setattr(module, "TILE_BYTES", 4 * 12 * 50)
    monkeypatch.setattr(module, "MOST_CLOSE", 1000)
    for name, passes in (("random", 1), ("constant", 2)):
        users, table = next(world[1:] for world in worlds() if world[0] == name)
        model = Dots(table)
        target = torch.arange(1, 13)
        count_above(Catalog(model, users, None, 12, CPU), target, torch.stack([torch.arange(12), target], 1))
        assert model.calls == 6 * passes, name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("item", [5, 299])
def test_a_score_that_is_not_finite_marks_its_user(bad, item):
    users, table = next(world[1:] for world in worlds())
    users[:, 0], table[item, 0] = 0, 0
    users[3, 0], table[item, 0] = 1.0, bad
    users = torch.cat([users[3:4], users[:0]])  # one user: 0 times infinity is not finite either
    target = torch.tensor([7])
    higher, _ = count_above(Catalog(Dots(table), users, None, 1, CPU), target, torch.tensor([[0, 7]]))
    assert higher.tolist() == [-1]


def test_large_finite_scores_whose_sum_overflows_are_finite():
    table = torch.full((301, 1), 3e38)
    table[9] = 2e38
    higher, _ = count_above(
        Catalog(Dots(table), torch.ones(1, 1), None, 1, CPU), torch.tensor([9]), torch.tensor([[0, 9]])
    )
    assert higher.tolist() == [299]


class Wrong(Recommender):
    """Scores of a shape or type that broadcasting would accept."""

    def __init__(self, form):
        super().__init__(None, DatasetInfo(4, 30, ("click",), ItemContent(30)))
        self.form = form

    def score(self, batch, candidates):
        right = torch.zeros(candidates.shape)
        return {
            "one row": right[:1], "one column": right[:, :1], "flat": right[:, 0], "turned": right.T,
            "whole numbers": right.long(), "numpy": right.numpy(),
        }[self.form]  # fmt: skip


@pytest.mark.parametrize("form", ["one row", "one column", "flat", "whole numbers", "numpy", "turned"])
@pytest.mark.parametrize("sampled", [True, False])
def test_scores_of_a_wrong_shape_or_type_are_refused_by_the_models_name(form, sampled):
    negatives = np.tile(np.arange(2, 12, dtype=np.int32), (4, 1)) if sampled else None
    held = Held(np.arange(4), np.ones(4, np.int64), negatives, touched_by([np.array([1])] * 4), 0)
    with pytest.raises(UserError, match="Wrong: scores (have shape|are)"):
        rank(Wrong(form), held, batches(4), CPU)
    if sampled:
        with pytest.raises(UserError, match="Wrong: scores (have shape|are)"):
            score_pairs(Wrong(form), held, 2, batches(4), CPU)


def test_the_message_names_both_shapes():
    with pytest.raises(UserError, match=r"Wrong: scores have shape \(1, 5\), expected \(4, 5\)"):
        checked(Wrong("flat"), torch.zeros(1, 5), 4, 5)
