"""Our evaluator beside RecBole's trainer, collector and metrics, fed with the same scores.

RecBole scores a row of all items per user, sets what is no candidate to minus infinity, takes `topk`, and
computes HR, NDCG and MRR from the positions of the held-out items. Its MRR is cut at K: with K as large as
the candidates it is ours.

Ties: `topk` puts tied items in an order that follows from where they stand in the row, ours draws one. What
can be compared is the mean over all orders of the columns, which frees RecBole's figure of it: that is the
expectation of our draw.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.evaluation.metrics import chance, per_user
from bench.evaluation.ranks import Held, rank
from tests.evaluation.test_ranks import Fixed, batches, touched_by

CUTS = (1, 5, 10, 20)
CPU = torch.device("cpu")


class Scores:
    """What RecBole's trainer asks a model for: `full_sort_predict` and `predict` from a table."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def full_sort_predict(self, interaction) -> Tensor:
        return self.table.clone()

    def predict(self, interaction) -> Tensor:
        return self.table[interaction["user_id"], interaction["item_id"]]


@pytest.fixture
def recbole(monkeypatch):
    """Return RecBole's figures of a table (users, N + 1): its own trainer, collector and evaluator."""
    pytest.importorskip("recbole")
    for name, kind in {"float": float, "int": int}.items():  # removed from NumPy, and still used there
        monkeypatch.setattr(np, name, kind, raising=False)
    from recbole.data.interaction import Interaction
    from recbole.evaluator import Collector, Evaluator
    from recbole.trainer import Trainer
    from recbole.utils import EvaluatorType

    def figures(table: Tensor, held: Held, longest: int) -> dict[str, float]:
        cuts = [cut for cut in CUTS if cut <= longest]
        config = {
            "metrics": ["Hit", "NDCG", "MRR"], "topk": sorted({*cuts, longest}), "metric_decimal_place": 30,
            "eval_args": {"mode": {"test": "full"}}, "device": CPU, "ITEM_ID_FIELD": "item_id",
            "eval_type": EvaluatorType.RANKING,
        }  # fmt: skip
        trainer = Trainer.__new__(Trainer)
        trainer.model, trainer.device, trainer.config = Scores(table), CPU, config
        trainer.tot_item_num, trainer.test_batch_size = table.shape[1], 10**9
        row, item = torch.arange(len(table)), torch.from_numpy(held.items)
        if held.negatives is None:
            pairs = [(user, one) for user in held.users for one in touched(held, user)]
            history = tuple(torch.tensor(part) for part in zip(*pairs, strict=True)) if pairs else None
            asked = trainer._full_sort_batch_eval((Interaction({"user_id": row}), history, row, item))
        else:
            candidates = torch.cat([item[:, None], torch.from_numpy(held.negatives).long()], 1)
            users = row.repeat_interleave(candidates.shape[1])
            flat = Interaction({"user_id": users, "item_id": candidates.flatten()})
            asked = trainer._neg_sample_batch_eval((flat, users, row, item))
        collector = Collector(config)
        collector.eval_batch_collect(asked[1], asked[0], *asked[2:])
        found = Evaluator(config).evaluate(collector.get_data_struct())
        names = {f"{ours}@{cut}": found[f"{theirs}@{cut}"] for ours, theirs in NAMES for cut in cuts}
        return names | {"MRR": found[f"mrr@{longest}"]}

    return figures


NAMES = (("HR", "hit"), ("NDCG", "ndcg"))


def touched(held: Held, user: int) -> set[int]:
    """Return what a user touched but for the held-out item."""
    start, stop = held.touched.offsets[user : user + 2]
    return set(held.touched.item[start:stop].tolist()) - {int(held.items[user])}


def ours(table: Tensor, held: Held, names) -> dict[str, float]:
    found = rank(Fixed(table), held, batches(len(table), 64), CPU)
    return {name: per_user(name, found).mean() for name in names}


def world(users: int, items: int, sampled: bool) -> Held:
    rng = np.random.default_rng(3)
    seen = [np.sort(rng.choice(np.arange(1, items + 1), rng.integers(2, 30), False)) for _ in range(users)]
    target = np.array([rng.choice(part) for part in seen])
    free = [np.setdiff1d(np.arange(1, items + 1), part) for part in seen]
    negatives = np.stack([rng.choice(part, 99, False) for part in free]).astype(np.int32)
    return Held(np.arange(users), target, negatives if sampled else None, touched_by(seen), 0)


@pytest.mark.parametrize("sampled", [True, False], ids=["uni99", "full"])
def test_figures_on_the_same_scores_are_equal(sampled: bool, recbole) -> None:
    held = world(300, 400, sampled)
    table = torch.randn(300, 401, generator=torch.Generator().manual_seed(1))
    theirs = recbole(table, held, 100 if sampled else 401)
    assert ours(table, held, theirs) == pytest.approx(theirs, abs=1e-12, rel=0)
    assert 0.0 < theirs["NDCG@10"] < theirs["HR@10"] < 1.0


@pytest.mark.parametrize("sampled", [True, False], ids=["uni99", "full"])
def test_masking_matters(sampled: bool, recbole) -> None:
    """The items that no user is ranked against score highest: neither evaluator looks at them."""
    held = world(300, 400, sampled)
    table = torch.randn(300, 401, generator=torch.Generator().manual_seed(1))
    lifted = table.clone()
    lifted[:, 0] = 50.0
    for user in range(300):
        lifted[user, sorted(touched(held, user))] = 50.0
    theirs = recbole(lifted, held, 100 if sampled else 401)
    assert theirs == recbole(table, held, 100 if sampled else 401)
    assert ours(lifted, held, theirs) == pytest.approx(theirs, abs=1e-12, rel=0)


@pytest.mark.parametrize("sampled", [True, False], ids=["uni99", "full"])
@pytest.mark.parametrize("scores", [(1, 2, 1, 1, 0, 0), (0, 0, 0, 0, 0, 0), (3, 3, 2, 1, 1, 0)])
def test_the_mean_over_all_orders_of_tied_columns_is_that_of_our_draws(sampled, scores, recbole) -> None:
    """One user per order of six columns; the first score is the held-out item's.

    Our draws are stratified over the 720 users, so each of the 6, 3 or 2 tied ranks comes equally often.
    """
    orders = np.array(list(permutations(range(6))))  # (720, 6), the candidate in each column
    table = torch.cat([torch.full((720, 1), 9.0), torch.tensor(scores)[orders].float()], 1)
    target = 1 + np.argmax(orders == 0, 1)
    others = np.stack([np.setdiff1d(np.arange(1, 7), [item]) for item in target]).astype(np.int32)
    alone = touched_by([np.array([item]) for item in target])
    held = Held(np.arange(720), target, others if sampled else None, alone, 0)
    theirs = recbole(table, held, 6)
    assert set(theirs) == {"HR@1", "HR@5", "NDCG@1", "NDCG@5", "MRR"}
    assert ours(table, held, theirs) == pytest.approx(theirs, abs=1e-12, rel=0)


def test_an_order_given_to_tied_scores_makes_both_equal(recbole) -> None:
    """Scores of four levels tie by the hundred; less than half a level, unlike for all items, unties them."""
    held = world(300, 400, False)
    levels = torch.randint(4, (300, 401), generator=torch.Generator().manual_seed(2)).float()
    small = torch.randperm(401, generator=torch.Generator().manual_seed(3)) / 1024
    theirs = recbole(levels + small, held, 401)
    assert ours(levels + small, held, theirs) == pytest.approx(theirs, abs=1e-12, rel=0)
    assert abs(ours(levels, held, theirs)["NDCG@10"] - theirs["NDCG@10"]) > 1e-6


def test_a_constant_scorer_gets_chance_here_and_what_topk_gives_there(recbole) -> None:
    """All users hold out the same item, so `topk` of equal rows puts it at one rank for all of them."""
    users, items = 1000, 400
    target = np.full(users, 7)
    held = Held(np.arange(users), target, None, touched_by([np.array([7])] * users), 0)
    table = torch.zeros(users, items + 1)
    level, theirs = chance(held.sizes(items), 10), recbole(table, held, items + 1)
    found = ours(table, held, theirs)
    assert found["HR@10"] == pytest.approx(level["HR@10"], abs=2 / users)
    assert found["NDCG@10"] == pytest.approx(level["NDCG@10"], abs=2 / users)
    assert theirs["HR@10"] in (0.0, 1.0)
