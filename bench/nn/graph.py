"""Sparse matrices, bipartite graphs of users and items, and propagation over them.

Letters: U users, N items, P distinct pairs, D width. User u is node u, item i is node U + i (node U is the
padding item), so a graph has U + N + 1 nodes and is symmetric: it is its own transpose, in the gradient too.
"""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor


class _Product(torch.autograd.Function):
    """A X for a symmetric sparse A, which gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.matrix = matrix
        return torch.sparse.mm(matrix, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(grads[0], ctx.matrix), None


def product(graph: Tensor, x: Tensor) -> Tensor:
    """Return A X, (nodes, D), of a symmetric sparse graph A and values X (nodes, D)."""
    result: Tensor = _Product.apply(x, graph)
    return result


class SparseRows:
    """A sparse matrix of any shape, of which some rows at a time are multiplied with values.

    Args:
        matrix: scipy sparse (rows, columns).
        device: where it lies.
    """

    def __init__(self, matrix: sparse.sparray, device: torch.device) -> None:
        rows = sparse.csr_array(matrix)
        self.starts, self.columns = (
            torch.from_numpy(part.astype(np.int64)).to(device) for part in (rows.indptr, rows.indices)
        )
        self.values = torch.from_numpy(rows.data.astype(np.float32)).to(device)

    def __call__(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Return (n, D), these rows of the product: work and memory grow with their entries alone.

        Args:
            x: (columns, D).
            chosen: (n,) int64.
        """
        begin, count = self.starts[chosen], self.starts[chosen + 1] - self.starts[chosen]  # (n,)
        offsets = count.cumsum(0) - count
        entry = torch.arange(int(count.sum()), device=x.device) + (begin - offsets).repeat_interleave(count)
        weights = self.values[entry].to(x.dtype)
        return F.embedding_bag(self.columns[entry], x, offsets, mode="sum", per_sample_weights=weights)


def _quiet_csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*[Ss]parse.*")  # torch calls CSR a beta; it is fast
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def propagate(graph: Tensor, x: Tensor, layers: int) -> Tensor:
    """Return the mean of A^0 X .. A^K X, (nodes, D): LightGCN (He et al., SIGIR 2020, Eq. 8), K layers."""
    total = x
    for _ in range(layers):
        x = product(graph, x)
        total = total + x
    return total / (layers + 1)


class BipartiteGraph:
    """The graph of distinct user-item pairs, of which matrices with values of their own can be made.

    Args:
        user: (P,) int64, 0..U-1.
        item: (P,) int64, 1..N.
        num_users: U.
        num_items: N.
    """

    def __init__(self, user: Tensor, item: Tensor, num_users: int, num_items: int) -> None:
        self.user, self.item, self.size = user, item + num_users, num_users + num_items + 1
        row, column = torch.cat([self.user, self.item]), torch.cat([self.item, self.user])  # (2 P,)
        order = torch.argsort(row * self.size + column)
        self.columns = column[order]
        self.edge = order % max(len(user), 1)  # (2 P,) the pair of each entry
        self.starts = torch.zeros(self.size + 1, dtype=torch.int64, device=user.device)
        self.starts[1:] = torch.bincount(row, minlength=self.size).cumsum(0)

    def matrix(self, values: Tensor) -> Tensor:
        """Return the symmetric sparse matrix, CSR (nodes, nodes), with a value (P,) for each pair."""
        return _quiet_csr(self.starts, self.columns, values[self.edge], (self.size, self.size))

    def normalised(self, keep: Tensor | None = None) -> Tensor:
        """Return (P,) values of D^-1/2 A D^-1/2 over the kept pairs, 0 for the others.

        Args:
            keep: (P,) bool; None keeps all.
        """
        weight = torch.ones(len(self.user), device=self.user.device) if keep is None else keep.float()
        degree = torch.zeros(self.size, device=weight.device)
        degree = degree.index_add(0, self.user, weight).index_add(0, self.item, weight)
        return weight * (degree[self.user] * degree[self.item]).clamp(min=1).rsqrt()
