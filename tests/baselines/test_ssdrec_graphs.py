import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.ssdrec.graphs import relation_graphs
from tests.baselines.test_ssdrec import USERS, D, L, build, events, log

TOY = [[1, 2, 3, 4], [1, 2], [3, 4, 5]]


def test_the_graphs_of_three_users_by_hand() -> None:
    graphs, weights = relation_graphs(log(TOY, 5), 3, 50, 0, (0.0, 0.0), 50)
    assert weights.following[1, 2] == 3 / 4 + 1 / 2 and weights.following[2, 1] == 0
    assert weights.following[1, 4] == 1 / 4 and weights.following[3, 5] == 1 / 3
    assert {(i, j) for i, j in zip(*weights.incompatible.nonzero(), strict=True)} == {
        (1, 5),
        (5, 1),
        (2, 5),
        (5, 2),
    }
    assert weights.incompatible[1, 5] == weights.incompatible[2, 5] == 4
    assert weights.similar[0, 1] == pytest.approx(4 / 6) and weights.similar[0, 2] == pytest.approx(4 / 7)
    assert weights.similar[0, 0] == 1 and weights.similar[1, 2] == 0
    # users 1 and 2 share no item, but user 0 with both: 4 events with the one, 4 with the other
    assert weights.dissimilar[1, 2] == weights.dissimilar[2, 1] == 8 and weights.dissimilar.nnz == 2
    assert graphs.bought.toarray()[0].tolist() == [0, 1, 1, 1, 1, 0]


def test_rows_of_the_graphs_sum_to_one_or_nothing() -> None:
    graphs, _ = relation_graphs(log(TOY, 7), 3, 50, 0, (0.0, 0.0), 50)
    for name in ("following", "preceding", "incompatible", "similar", "dissimilar"):
        total = getattr(graphs, name).sum(1)
        assert np.all(np.isclose(total, 1) | (total == 0)), name
    assert np.allclose(graphs.following.sum(1)[[6, 7]], 0)  # items without events


def test_edges_below_the_threshold_and_rare_items_take_no_part() -> None:
    _, weights = relation_graphs(log(TOY, 5), 3, 50, 1, (0.0, 0.0), 50)
    assert {(i, j) for i, j in zip(*weights.following.nonzero(), strict=True)} == {(1, 2), (3, 4)}
    _, weights = relation_graphs(log(TOY, 5), 3, 50, 0, (0.5, 0.0), 50)
    rare = np.argsort(np.bincount([i for one in TOY for i in one], minlength=6)[1:], kind="stable")[:2] + 1
    assert not weights.incompatible[rare].sum() and not weights.incompatible[:, rare].sum()


def test_a_threshold_is_chosen_that_leaves_as_many_edges_as_items() -> None:
    sequences = [[1, 2, 3]] * 3 + [[4, 5]]
    _, weights = relation_graphs(log(sequences, 5), 4, 50, None, (0.0, 0.0), 50)
    assert weights.following[4, 5] > 0  # 4 edges at most, fewer than 5 items: the threshold is 0
    _, weights = relation_graphs(log([[1, 2, 3, 4]] * 3 + [[3, 2]], 4), 4, 50, None, (0.0, 0.0), 50)
    assert weights.following.nnz == 7  # six pairs meet more than twice, one of them in both directions


def test_the_largest_neighbors_are_kept() -> None:
    sequences = [[1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2], [1]]
    _, weights = relation_graphs(log(sequences, 5), 4, 50, 0, (0.0, 0.0), 2)
    assert {int(column) for column in weights.similar[[1]].nonzero()[1]} == {0, 1}


def test_graph_vectors_may_be_kept_for_some_steps() -> None:
    model = build(graph_refresh=2).train()
    these = torch.tensor([3, 0]), torch.tensor([7, 2, 5])
    first = model.global_vectors(*these)
    model.anneal()
    second = model.global_vectors(*these)
    assert first[0].requires_grad and not second[0].requires_grad
    assert all(torch.equal(a.detach(), b) for a, b in zip(first, second, strict=True))
    model.anneal()
    assert model.global_vectors(*these)[0].requires_grad


def test_graph_vectors_of_some_nodes_are_those_by_the_whole_matrices() -> None:
    model, graphs = build(), relation_graphs(events(), USERS, L, 0, (0.8, 0.9), 50)[0]
    dense = {name: torch.tensor(getattr(graphs, name).toarray()).float() for name in vars(graphs)}
    e_u, e_i, r = model.users.weight, model.items.weight, model.relations

    def near(table: Tensor, own: Tensor, mix: Tensor) -> Tensor:
        return mix[0] * table + mix[1] * own + mix[2]

    def around(before: Tensor, after: Tensor) -> Tensor:
        scores = [
            F.leaky_relu((e_i * n) @ w, 0.2).sum(1) / D**0.5
            for n, w in ((before, r.incoming), (after, r.outgoing))
        ]
        first = torch.sigmoid(scores[0] - scores[1])[:, None]  # a softmax over two
        return near(e_i, first * before + (1 - first) * after, r.item_mix.numbers)

    def table(own: Tensor, relations: list[Tensor], join: Tensor, gate: Tensor, out: Tensor) -> Tensor:
        mean = sum(torch.cat([own, part], 1) @ join for part in relations) / 2
        return torch.sigmoid(mean @ gate) @ out

    users = [near(dense[name] @ e_u, e_u, r.user_mix.numbers) for name in ("similar", "dissimilar")]
    apart = dense["incompatible"] @ e_i
    items = [around(dense["preceding"] @ e_i, dense["following"] @ e_i), around(apart, apart)]
    whole = (
        table(dense["bought"] @ e_i, users, r.user_join, r.user_gate, r.user_out),
        table(dense["bought"].T @ e_u, items, r.item_join, r.item_gate, r.item_out),
    )
    these = torch.tensor([3, 0]), torch.tensor([0, 7, 2, 5])
    for some, every, rows in zip(model.global_vectors(*these), whole, these, strict=True):
        assert torch.allclose(some, every[rows], atol=1e-6)
