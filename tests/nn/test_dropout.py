"""Dropout with a cheap mask: its rate, its scale, and where it does nothing."""

import pytest
import torch

from bench.nn.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_the_share_dropped_and_the_mean_are_right(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(300_001)
    out = Dropout(rate).train()(x)
    error = (rate * (1 - rate) / len(x)) ** 0.5
    assert abs((out == 0).float().mean().item() - rate) < 4 * error + 1 / 65_536
    kept = out[out != 0]
    assert torch.allclose(kept, kept[0].expand_as(kept))
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert out.mean().item() == pytest.approx(1, abs=0.02 if rate == 0.9 else 0.01)


def test_neighboring_entries_are_independent() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5).train()(torch.ones(400_000)) > 0).float()
    for lag in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([kept[lag:], kept[:-lag]]))[0, 1].item()) < 0.01


def test_it_is_the_identity_in_evaluation_and_at_rate_zero_and_follows_the_seed() -> None:
    x, module = torch.randn(3, 5), Dropout(0.3)
    assert torch.equal(module.eval()(x), x) and torch.equal(Dropout(0.0).train()(x), x)
    torch.manual_seed(1)
    first = module.train()(x)
    torch.manual_seed(1)
    assert torch.equal(module(x), first)


def test_gradients_pass_where_entries_are_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, requires_grad=True)
    out = Dropout(0.5).train()(x)
    out.sum().backward()
    assert x.grad is not None and torch.equal(x.grad != 0, out != 0)
