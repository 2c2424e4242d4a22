"""Scores by dot product."""

import pytest
import torch

from bench.nn.scoring import dot_scores, rows_of


def test_dot_scores_are_alike_for_own_and_shared_candidates() -> None:
    torch.manual_seed(0)
    hidden, table, bias = torch.randn(9, 5), torch.randn(38, 5), torch.randn(38)
    candidates = torch.tensor([4, 1, 30])
    own = dot_scores(hidden, table, candidates.expand(9, -1), bias)
    assert torch.allclose(own, dot_scores(hidden, table, candidates, bias), atol=1e-6)
    assert own.tolist()[2][1] == pytest.approx(
        sum((hidden[2] * table[1]).tolist()) + bias.tolist()[1], abs=1e-5
    )
    assert torch.allclose(own - bias[candidates], dot_scores(hidden, table, candidates), atol=1e-6)


def test_a_run_of_items_is_a_view_and_any_other_list_a_copy():
    table = torch.randn(9, 4)
    run = rows_of(table, torch.arange(2, 6))
    assert torch.equal(run, table[2:6]) and run.data_ptr() == table[2].data_ptr()
    for items in ([3], [5, 4], [2, 4], [2, 2], [7, 8, 7]):
        assert torch.equal(rows_of(table, torch.tensor(items)), table[items])
