"""Bipartite graphs against dense matrices and RecBole's LightGCN."""

import pytest
import torch
from scipy import sparse
from torch import Tensor

from bench.nn.graph import BipartiteGraph, SparseRows, product, propagate

USERS, ITEMS = 4, 5
USER = torch.tensor([0, 0, 1, 2, 2, 2])
ITEM = torch.tensor([1, 3, 3, 1, 2, 5])


def graph() -> BipartiteGraph:
    return BipartiteGraph(USER, ITEM, USERS, ITEMS)


def dense(keep: Tensor | None = None) -> Tensor:
    """D^-1/2 A D^-1/2, written out."""
    adjacency = torch.zeros(USERS + ITEMS + 1, USERS + ITEMS + 1)
    for index, (user, item) in enumerate(zip(USER.tolist(), ITEM.tolist(), strict=True)):
        if keep is None or keep[index]:
            adjacency[user, USERS + item] = adjacency[USERS + item, user] = 1
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    return scale[:, None] * adjacency * scale


def test_a_matrix_has_the_value_of_each_pair_in_both_directions() -> None:
    values = torch.arange(1.0, 7.0)
    matrix = graph().matrix(values).to_dense()
    assert torch.equal(matrix, matrix.T) and matrix.count_nonzero() == 12
    assert torch.equal(matrix[USER, USERS + ITEM], values)


@pytest.mark.parametrize("keep", [None, torch.tensor([True, False, True, True, False, True])])
def test_normalised_values_are_those_of_the_dense_graph_over_kept_pairs(keep: Tensor | None) -> None:
    assert torch.allclose(graph().matrix(graph().normalised(keep)).to_dense(), dense(keep))


def test_product_and_its_gradient_are_those_of_the_dense_matrix() -> None:
    x = torch.randn(USERS + ITEMS + 1, 3, requires_grad=True)
    weight = torch.randn_like(x)
    matrix = graph().matrix(graph().normalised())
    (product(matrix, x) * weight).sum().backward()
    assert torch.allclose(product(matrix, x), dense() @ x, atol=1e-6)
    assert torch.allclose(x.grad, dense() @ weight, atol=1e-6)


def test_rows_of_a_product_and_its_gradient_are_those_of_the_dense_matrix() -> None:
    torch.manual_seed(0)
    whole = torch.tensor([[0.0, 2, 0], [0, 0, 0], [1, 0, 3], [0.5, 4, 0]])
    x, chosen, weight = torch.randn(3, 2, requires_grad=True), torch.tensor([3, 1, 0, 3]), torch.randn(4, 2)
    some = SparseRows(sparse.csr_array(whole.numpy()), x.device)
    assert torch.allclose(some(x, chosen), whole[chosen] @ x) and some(x, chosen[:0]).shape == (0, 2)
    assert not some(x, chosen[1:2]).any()
    (some(x, chosen) * weight).sum().backward()
    assert torch.allclose(x.grad, whole[chosen].T @ weight)


def test_propagation_is_the_mean_of_powers() -> None:
    x, a = torch.randn(USERS + ITEMS + 1, 3), dense()
    matrix = graph().matrix(graph().normalised())
    assert torch.allclose(propagate(matrix, x, 3), (x + a @ x + a @ a @ x + a @ a @ a @ x) / 4, atol=1e-6)
    assert torch.equal(propagate(matrix, x, 0), x)


def test_propagation_equals_that_of_recbole_with_copied_weights() -> None:
    lightgcn = pytest.importorskip("recbole.model.general_recommender.lightgcn")
    matrix, x = graph().matrix(graph().normalised()), torch.randn(USERS + ITEMS + 1, 4)

    class Bare:
        n_layers, n_users, n_items = 2, USERS, ITEMS + 1
        norm_adj_matrix = matrix.to_sparse_coo()

        def get_ego_embeddings(self) -> Tensor:
            return x

    assert torch.allclose(propagate(matrix, x, 2), torch.cat(lightgcn.LightGCN.forward(Bare())), atol=1e-5)
