"""Scores by dot product."""

import pytest
import torch

from bench.nn.scoring import dot_scores


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
