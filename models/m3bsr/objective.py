"""Main loss (Eq. 24): softmax over the catalog, full or sampled."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.models.m3bsr.config import Softmax
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy


def main_loss(
    interest: Tensor,
    target: Tensor,
    vectors: Callable[[Tensor | None], Tensor],
    bias: Tensor,
    share: Tensor,
    options: Softmax,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean cross entropy of the targets.

    Args:
        interest: y, (B, width) float32.
        target: (B,) int64.
        vectors: gives E of some items (K,), or with None of all, (N + 1, width).
        bias: b, (N + 1,).
        share: (N + 1,) share of each item among the training targets.
        options: full or sampled.
        weights: (B,) of the targets; None weighs all alike.
    """
    num_items = len(bias) - 1
    if options.kind == "full" or (options.kind == "auto" and num_items <= options.full_up_to):
        return chunked_cross_entropy(interest, vectors(None), target, weights, bias=bias)
    negatives = torch.randint(1, num_items + 1, (options.num_negatives,), device=target.device)
    ids, column = torch.unique(torch.cat([target, negatives]), return_inverse=True)
    labels, drawn = column.split([len(target), len(negatives)])
    # uniform draws are equally likely, so their correction cancels
    log_q = expected_columns(share[ids], len(target), options, num_items).log() if options.in_batch else None
    return sampled_cross_entropy(
        interest, vectors(ids), labels, drawn, weights, bias[ids], log_q, in_batch=options.in_batch
    )


def expected_columns(share: Tensor, rows: int, options: Softmax, num_items: int) -> Tensor:
    """Return Q, how often each item is expected among the columns: uniform draws and targets of the batch.

    Args:
        share: (K,) share of the items among the training targets.
        rows: B.
        options: with the number of draws.
        num_items: N.

    Returns:
        (K,), above 0.
    """
    return options.num_negatives / num_items + 1 - (1 - share) ** rows
