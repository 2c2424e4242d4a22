"""Losses of bench/nn against plain PyTorch, closed forms and sums by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.nn import losses
from bench.nn.losses import bce, chunked_cross_entropy, gbce, sampled_cross_entropy

ROWS, ITEMS, SIZE = 9, 37, 5


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, SIZE, dtype=dtype, requires_grad=True)
    table = torch.randn(ITEMS + 1, SIZE, dtype=dtype, requires_grad=True)
    bias = torch.randn(ITEMS + 1, dtype=dtype, requires_grad=True)
    return hidden, table, bias, torch.randint(1, ITEMS + 1, (ROWS,)), torch.rand(ROWS, dtype=dtype)


def plain(hidden: Tensor, table: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor) -> Tensor:
    logits = hidden @ table[1:].T + (0 if bias is None else bias[1:])
    return (weights * F.cross_entropy(logits, labels - 1, reduction="none")).sum() / weights.sum()


@pytest.mark.parametrize("most", [1, ITEMS, 3 * ITEMS, ROWS * ITEMS - 1, ROWS * ITEMS])
def test_chunked_cross_entropy_and_its_gradients_equal_the_plain_ones(most: int) -> None:
    hidden, table, bias, labels, weights = problem()
    expected = plain(hidden, table, bias, labels, weights)
    gradients = torch.autograd.grad(expected, (hidden, table, bias))
    found = chunked_cross_entropy(hidden, table, labels, weights, bias, most)
    assert torch.allclose(found, expected)
    for one, other in zip(torch.autograd.grad(3 * found, (hidden, table, bias)), gradients, strict=True):
        assert torch.allclose(one, 3 * other)


def test_chunked_cross_entropy_passes_the_numerical_gradient_check() -> None:
    hidden, table, bias, labels, weights = problem()
    assert torch.autograd.gradcheck(
        lambda h, t, b: chunked_cross_entropy(h, t, labels, weights, b, 2 * ITEMS), (hidden, table, bias)
    )


def test_chunked_cross_entropy_works_without_bias_and_weights_in_single_precision() -> None:
    hidden, table, _, labels, _ = problem(torch.float32)
    expected = plain(hidden, table, None, labels, torch.ones(ROWS))
    found = chunked_cross_entropy(hidden, table, labels, most=2 * ITEMS)
    assert abs(float(found.detach() - expected.detach())) < 1e-5
    gradients = torch.autograd.grad(expected, (hidden, table))
    for one, other in zip(torch.autograd.grad(found, (hidden, table)), gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("most", [2 * ITEMS, 10**6])
def test_padding_row_is_no_class_and_gets_no_gradient(most: int) -> None:
    hidden, table, bias, labels, weights = problem()
    with torch.no_grad():
        table[0], bias[0] = 100.0, 100.0
    loss = chunked_cross_entropy(hidden, table, labels, weights, bias, most)
    gradients = torch.autograd.grad(loss, (table, bias))
    assert loss.item() < 20
    assert not gradients[0][0].any() and gradients[1][0].item() == 0.0


def test_no_more_logits_than_the_budget_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[torch.Size] = []
    original = torch.mm

    def seen(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        shapes.append(out.shape)
        return original(left, right, out=out)

    monkeypatch.setitem(losses.LOGITS_AT_ONCE, "cpu", 5 * ITEMS)
    monkeypatch.setattr(torch, "mm", seen)
    hidden, table, _, labels, _ = problem()
    chunked_cross_entropy(hidden, table, labels).backward()
    rows = [shape[0] for shape in shapes if shape[1] == ITEMS]  # the logits, not the gradient of `hidden`
    assert max(rows) == 5 and sum(rows) == ROWS


def test_a_loss_without_gradients_computes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, table, bias, labels, weights = (one.detach() for one in problem())
    monkeypatch.setattr(Tensor, "addmm_", None)  # what sums up the gradient of the table
    found = chunked_cross_entropy(hidden, table, labels, weights, bias, 2 * ITEMS)
    assert torch.allclose(found, plain(hidden, table, bias, labels, weights)) and not found.requires_grad


@pytest.mark.parametrize("most", [2 * ITEMS, 10**6])
def test_loss_is_zero_and_has_finite_gradients_where_no_row_counts(most: int) -> None:
    hidden, table, bias, labels, weights = problem()
    for rows, weighed in ((slice(0, 0), weights[:0]), (slice(None), torch.zeros_like(weights))):
        loss = chunked_cross_entropy(hidden[rows], table, labels[rows], weighed, bias, most)
        (gradient,) = torch.autograd.grad(loss, table)
        assert float(loss.detach()) == 0.0 and not gradient.any()


def test_huge_logits_do_not_overflow() -> None:
    hidden, table, _, labels, _ = problem(torch.float32)
    loss = chunked_cross_entropy(hidden * 1e4, table, labels, most=2 * ITEMS)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_sampled_softmax_over_all_items_equals_the_exact_one() -> None:
    hidden, table, bias, labels, weights = problem()
    everything = torch.arange(1, ITEMS + 1)
    found = sampled_cross_entropy(hidden, table, labels, everything, weights, bias)
    assert torch.allclose(found, plain(hidden, table, bias, labels, weights))


def test_negatives_equal_to_the_label_are_left_out() -> None:
    hidden, table, _, labels, _ = problem()
    only = torch.full((3,), int(labels[0]))
    assert float(sampled_cross_entropy(hidden[:1], table, labels[:1], only).detach()) == 0.0


def test_in_batch_columns_are_the_distinct_labels_of_the_batch() -> None:
    hidden, table, _, _, _ = problem()
    labels = torch.tensor([3, 3, 4, 5, 3, 4, 5, 5, 3])
    negatives = torch.tensor([9, 11])
    found = sampled_cross_entropy(hidden, table, labels, negatives, in_batch=True)
    assert torch.allclose(found, sampled_cross_entropy(hidden, table, labels, torch.tensor([9, 11, 3, 4, 5])))


def test_log_q_correction_makes_the_sampled_partition_unbiased() -> None:
    """With Q_j = S p_j, the columns' exp(s_j - log Q_j) add up, in the mean, to the items' exp(s_j)."""
    torch.manual_seed(1)
    level = torch.randn(
        ITEMS + 1, dtype=torch.float64
    )  # scores of one row; the label, item 1, is never drawn
    p = torch.rand(ITEMS + 1, dtype=torch.float64)
    p[:2] = 0
    p /= p.sum()
    draws = torch.multinomial(p, 400_000, replacement=True)
    log_q = torch.log(400_000 * p)
    log_q[1] = 0.0
    found = sampled_cross_entropy(
        torch.ones(1, 1, dtype=torch.float64), level[:, None], torch.tensor([1]), draws, log_q=log_q
    )
    exact = torch.logsumexp(level[1:], 0) - level[1]
    assert abs(float(found - exact)) < 0.01


def test_groups_have_negatives_of_their_own() -> None:
    hidden, table, bias, labels, weights = problem()
    grouped = [tensor.reshape(3, 3, *tensor.shape[1:]) for tensor in (hidden, labels, weights)]
    negatives = torch.randint(1, ITEMS + 1, (3, 4))
    found = sampled_cross_entropy(grouped[0], table, grouped[1], negatives, grouped[2], bias)
    total = torch.zeros((), dtype=torch.float64)
    for h, label, weight, own in zip(*grouped, negatives, strict=True):
        total += sampled_cross_entropy(h, table, label, own, weight, bias).detach() * weight.sum()
    assert torch.allclose(found, total / weights.sum())


def test_bce_of_zero_logits_is_two_logs_of_two() -> None:
    assert float(bce(torch.zeros(3), torch.zeros(3, 1))) == pytest.approx(2 * math.log(2))


def test_bce_by_hand() -> None:
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([[0.5], [1.0]])
    first = -math.log(1 / (1 + math.exp(-2))) - math.log(1 - 1 / (1 + math.exp(-0.5)))
    second = -math.log(1 / (1 + math.exp(1))) - math.log(1 - 1 / (1 + math.exp(-1)))
    assert float(bce(positive, negative)) == pytest.approx((first + second) / 2)
    assert float(bce(positive, negative, torch.tensor([1.0, 3.0]))) == pytest.approx((first + 3 * second) / 4)


def test_gbce_without_calibration_is_half_of_bce_and_with_full_calibration_weighs_by_alpha() -> None:
    torch.manual_seed(2)
    positive, negative = torch.randn(6), torch.randn(6, 1)
    assert float(gbce(positive, negative, ITEMS, 0.0)) == pytest.approx(float(bce(positive, negative)) / 2)
    alpha = 1 / (ITEMS - 1)
    full = (alpha * F.softplus(-positive) + F.softplus(negative[:, 0])) / 2
    assert float(gbce(positive, negative, ITEMS, 1.0)) == pytest.approx(float(full.mean()))


def test_gbce_equals_the_published_power_of_the_sigmoid() -> None:
    """-(log sigmoid(r)^beta + sum log(1 - sigmoid(r_k))) / (k + 1), beta as the paper prints it."""
    torch.manual_seed(3)
    positive, negative = torch.randn(4, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    alpha, t = 6 / (ITEMS - 1), 0.75
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    terms = torch.log(torch.sigmoid(positive) ** beta) + torch.log(1 - torch.sigmoid(negative)).sum(1)
    assert float(gbce(positive, negative, ITEMS, t)) == pytest.approx(float((-terms / 7).mean()))
