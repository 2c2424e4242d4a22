"""Losses over items: exact softmax without an (n, N) matrix, sampled softmax, binary losses.

Letters: n rows (labelled positions), N items, D hidden size, S shared negatives, k negatives of one row.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**26}
"""Most logits held at one time by `chunked_cross_entropy`, by device: 8 MiB in float32 stay in a CPU's cache,
a GPU wants large products."""


def chunked_cross_entropy(
    hidden: Tensor,
    table: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    bias: Tensor | None = None,
    most: int | None = None,
) -> Tensor:
    """Return the exact softmax cross entropy over items 1..N, natural log, holding a bounded number of
    logits.

    Blocks of rows are taken one after the other. Where a gradient is wanted it is computed in the same pass,
    since its logits are there: three products a block instead of four, and half of the exponentials. Where
    all logits are few enough, plain `F.cross_entropy` is faster and used.

    Args:
        hidden: (n, D) float.
        table: (N + 1, D) item vectors; row 0 is padding, is no class and gets no gradient.
        labels: (n,) int64, 1..N.
        weights: (n,) non-negative weights of the rows, constants; None weighs all alike.
        bias: (N + 1,) added to the logits; entry 0 is ignored.
        most: logits held at a time, those of one row at least; None takes `LOGITS_AT_ONCE`.

    Returns:
        () the weighted mean; 0 where there is no row.
    """
    share = _shares(labels, weights, hidden.dtype)
    most = most or LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cpu"])
    if hidden.shape[0] * (table.shape[0] - 1) <= most:
        logits = hidden @ table[1:].T  # (n, N)
        logits = logits if bias is None else logits + bias[1:]
        return (share * F.cross_entropy(logits, labels - 1, reduction="none")).sum()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, table, bias, labels, share, most)
    return loss


class _ChunkedCrossEntropy(Function):
    """Sum over rows of share * (log sum_j exp(h . e_j + b_j) - h . e_label - b_label)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor | None, labels: Tensor, share: Tensor, most: int
    ) -> Tensor:
        items, offset = table[1:], None if bias is None else bias[1:]
        wanted = any(ctx.needs_input_grad)
        grad_hidden, grad_table = torch.empty_like(hidden), torch.zeros_like(table)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        size = max(1, most // len(items))  # rows of a block
        buffer = hidden.new_empty(min(size, len(hidden)), len(items))  # fresh memory for each block is slow
        loss = hidden.new_zeros(())
        for block in (slice(start, start + size) for start in range(0, len(hidden), size)):
            rows, own, label = hidden[block], share[block, None], labels[block, None] - 1
            part = buffer[: len(rows)]  # (b, N)
            if offset is None:
                torch.mm(rows, items.T, out=part)
            else:
                torch.addmm(offset, rows, items.T, out=part)
            top, level = part.amax(1, keepdim=True), part.gather(1, label)
            total = part.sub_(top).exp_().sum(1, keepdim=True)
            loss += (own * (top + total.log() - level)).sum()
            if not wanted:
                continue
            part.mul_(own / total).scatter_add_(1, label, -own)  # share * (softmax - one hot)
            torch.mm(part, items, out=grad_hidden[block])
            grad_table[1:].addmm_(part.T, rows)
            if grad_bias is not None:
                grad_bias[1:] += part.sum(0)
        ctx.save_for_backward(grad_hidden, grad_table, grad_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if one is None else one * grad for one in ctx.saved_tensors)
        return *scaled, None, None, None


def _shares(labels: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return each row's share of the mean, shaped as `labels`; all 0 where the weights are."""
    weights = torch.ones_like(labels, dtype=dtype) if weights is None else weights.to(dtype)
    total = weights.sum()
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def sampled_cross_entropy(
    hidden: Tensor,
    table: Tensor,
    labels: Tensor,
    negatives: Tensor,
    weights: Tensor | None = None,
    bias: Tensor | None = None,
    log_q: Tensor | None = None,
    in_batch: bool = False,
) -> Tensor:
    """Return softmax cross entropy of the label against sampled negatives, natural log.

    With s_j = h . e_j + b_j - log Q_j, a row's loss is -s_label + log(exp s_label + sum over negatives j of
    exp s_j), where Q_j is the expected number of times that item j stands among the columns (Bengio and
    Senecal 2008; Yi et al., RecSys 2019). A negative equal to the row's label is left out.

    Args:
        hidden: (..., n, D) float; leading dimensions are groups with negatives of their own (users, say).
        table: (N + 1, D) item vectors.
        labels: (..., n) int64, 1..N.
        negatives: (..., S) int64, shared by the n rows of a group.
        weights: (..., n) non-negative constants; rows of weight 0 may have label 0. None weighs all alike.
        bias: (N + 1,) added to the scores.
        log_q: (N + 1,) log of Q; None corrects nothing (right for uniform negatives without `in_batch`).
        in_batch: adds the distinct labels of the batch to the negatives; for ungrouped rows only.

    Returns:
        () the weighted mean; 0 where there is no row.
    """
    if in_batch:
        negatives = torch.cat([negatives, labels.unique()])
    offset = _offset(bias, log_q)
    positive = (hidden * table[labels]).sum(-1)  # (..., n)
    negative = hidden @ table[negatives].transpose(-1, -2)  # (..., n, S)
    if offset is not None:
        positive, negative = positive + offset[labels], negative + offset[negatives][..., None, :]
    negative = negative.masked_fill(negatives[..., None, :] == labels[..., None], -torch.inf)
    total = torch.logsumexp(torch.cat([positive[..., None], negative], -1), -1)
    return (_shares(labels, weights, hidden.dtype) * (total - positive)).sum()


def _offset(bias: Tensor | None, log_q: Tensor | None) -> Tensor | None:
    if log_q is None:
        return bias
    return -log_q if bias is None else bias - log_q


def bce(positive: Tensor, negative: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return binary cross entropy of one positive and the sum of its negatives (SASRec 2018, Eq. 7).

    Args:
        positive: (n,) logits of real next items.
        negative: (n, k) logits of negatives.
        weights: (n,) non-negative constants; None weighs all alike.

    Returns:
        () weighted mean of softplus(-positive) + sum over k of softplus(negative).
    """
    terms = F.softplus(-positive) + F.softplus(negative).sum(1)
    return (_shares(positive, weights, positive.dtype) * terms).sum()


def gbce(
    positive: Tensor, negative: Tensor, num_items: int, calibration: float, weights: Tensor | None = None
) -> Tensor:
    """Return generalised binary cross entropy (Petrov and Macdonald, gSASRec, RecSys 2023).

    With alpha = k / (N - 1) and beta = 1 - t (1 - alpha), a row's loss is
    (beta softplus(-positive) + sum over k of softplus(negative)) / (k + 1).

    Args:
        positive: (n,) logits of real next items.
        negative: (n, k) logits of negatives.
        num_items: N.
        calibration: t, fraction; 0 is plain binary cross entropy, 1 calibrates fully.
        weights: (n,) non-negative constants; None weighs all alike.

    Returns:
        () weighted mean.
    """
    count = negative.shape[1]
    beta = 1 - calibration * (1 - count / (num_items - 1))
    terms = (beta * F.softplus(-positive) + F.softplus(negative).sum(1)) / (count + 1)
    return (_shares(positive, weights, positive.dtype) * terms).sum()
