"""Scores of candidates by dot product."""

import torch
from torch import Tensor


def dot_scores(hidden: Tensor, table: Tensor, candidates: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the dot products of users and candidate items.

    Args:
        hidden: (B, D) float.
        table: (N + 1, D) item vectors, or more rows.
        candidates: (B, C) int64, or (C,) int64 shared by all users.
        bias: (N + 1,) added to the scores.

    Returns:
        (B, C) float scores.
    """
    if candidates.dim() == 1:
        scores = hidden @ rows_of(table, candidates).T  # (B, C)
    else:
        scores = torch.einsum("bd,bcd->bc", hidden, table[candidates])
    return scores if bias is None else scores + bias[candidates]


def rows_of(table: Tensor, items: Tensor) -> Tensor:
    """Return the rows (C, D) of a table for items (C,); a run of consecutive items is a view, not a copy.

    Ranking against the whole catalog asks for nothing but runs, and copying them is slow.
    """
    ids = items.cpu().numpy()  # NumPy: its small steps are several times as quick as those of torch
    if len(ids) > 1 and ids[-1] - ids[0] == len(ids) - 1 and (ids[1:] > ids[:-1]).all():
        first = int(ids[0])
        return table[first : first + len(items)]
    return table[items]
