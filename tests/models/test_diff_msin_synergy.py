"""SRC of Diff-MSIN, repaired: schedule, rounds and weights against formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.synergy import CrossModal, SynergyCapture, reverse_factors, schedule

M, B, L, D = 3, 4, 6, 8


def randomize(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def mask():
    lengths = torch.tensor([6, 3, 1, 0])
    return torch.arange(L) >= L - lengths[:, None]


@pytest.mark.parametrize("steps", [1, 3, 10, 12])
def test_schedule_falls_from_one_to_the_square_of_the_cosine(steps):
    abar, alpha = schedule(steps)
    assert abar[0] == 1 and abar[steps] == pytest.approx(0.0245, abs=1e-4)
    assert len(abar) == len(alpha) == steps + 1
    assert all(0 < value < 1 for value in alpha[1:])
    assert math.prod(alpha[1:]) == pytest.approx(abar[steps])


def test_first_reverse_factor_is_the_root_of_one_minus_alpha():
    factors = reverse_factors(12, released=False)
    assert factors[1] == pytest.approx(0.1175, abs=1e-4)
    assert factors[1] == pytest.approx(math.sqrt(1 - schedule(12)[1][1]))
    assert factors[12] == pytest.approx(0.68, abs=0.01) and factors[2] == pytest.approx(0.18, abs=0.01)


def attended(query, key, value, real):
    """Single-head attention of one history, query by query, over real events."""
    out = torch.zeros_like(query)
    for place in range(len(query)):
        if real[place]:
            weight = torch.softmax(key[real] @ query[place] / math.sqrt(D), 0)
            out[place] = weight @ value[real]
    return out


@pytest.mark.parametrize("own", [0.0, 1.0, 0.3])
def test_one_round_is_the_formula_with_six_modules(own):
    torch.manual_seed(0)
    capture = SynergyCapture(M, D, DiffMSINConfig(diffusion_steps=4, own_share=own)).eval()
    randomize(capture)
    cross, streams, real = capture.cross, torch.randn(M, B, L, D), mask()
    assert len(cross.query) == len(cross.gamma) == 6
    allowed = torch.where(real[:, None, None], 0.0, -torch.inf)
    abar, alpha = schedule(4)
    noised = math.sqrt(alpha[2]) * streams
    found = capture.round(streams, allowed.masked_fill(torch.eye(L, dtype=torch.bool), 0.0), 2)
    pair = 0
    for m in range(M):
        weight = torch.softmax(cross.weight[m], 0)
        eps = torch.zeros(B, L, D)
        for place, k in enumerate(other for other in range(M) if other != m):
            q, key, v = (t[pair] for t in (cross.query, cross.key, cross.value))
            attention = torch.stack(
                [attended(noised[m, b] @ q, noised[k, b] @ key, noised[k, b] @ v, real[b]) for b in range(B)]
            )
            eps += weight[place] * (own * noised[m] + cross.gamma[pair] * attention)
            pair += 1
        expected = (noised[m] - (1 - alpha[2]) / math.sqrt(1 - abar[2]) * eps) / math.sqrt(alpha[2])
        torch.testing.assert_close(found[m][real], expected[real], atol=1e-4, rtol=1e-4)


def test_source_weights_sum_to_one_and_start_equal():
    assert CrossModal(3, D, False).weights().tolist() == [[0.5, 0.5]] * 3
    assert CrossModal(2, D, False).weights().tolist() == [[1.0], [1.0]]


def size_after(training, **options):
    """Norm of the streams after SRC at its start, relative to before."""
    torch.manual_seed(0)
    capture = SynergyCapture(M, D, DiffMSINConfig(**options)).train(training)
    streams = torch.randn(M, 16, 20, D)
    with torch.no_grad():
        return float(capture.refine(streams, torch.ones(16, 20).bool()).norm() / streams.norm())


@pytest.mark.parametrize("steps", [3, 10, 12, 15])
def test_src_keeps_the_size_of_features_at_the_start(steps):
    assert size_after(False, diffusion_steps=steps) == pytest.approx(1.0, abs=1e-4)
    added = sum((1 - alpha) / alpha for alpha in schedule(steps)[1][1:])  # variance of all rounds' noise
    assert size_after(True, diffusion_steps=steps, noise=1.0) == pytest.approx(math.sqrt(1 + added), rel=0.02)


def test_an_own_share_of_one_leaves_noise_alone():
    assert size_after(False, own_share=1.0) == pytest.approx(0.0079, abs=1e-4)
    assert size_after(True, own_share=1.0, noise=1.0) == pytest.approx(0.46, abs=0.02)


def test_synergy_is_the_net_over_the_refined_streams_and_their_mean():
    capture = SynergyCapture(M, D, DiffMSINConfig(noise=0.0, diffusion_steps=2))
    streams = torch.randn(M, B, L, D)
    refined = capture.refine(streams, mask())
    first, _, last = capture.join
    wide = torch.cat([refined[0], refined[1], refined[2]], -1)
    expected = last(F.gelu(first(wide))) + (streams[0] + streams[1] + streams[2]) / 3
    torch.testing.assert_close(capture(streams, mask()), expected)


def test_one_modality_has_no_source_and_is_left_as_it_is():
    capture = SynergyCapture(1, D, DiffMSINConfig()).train()
    streams = torch.randn(1, B, L, D)
    assert torch.equal(capture.refine(streams, mask()), streams)


def test_gradient_of_the_last_rounds_alone_keeps_the_values():
    streams = torch.randn(M, B, L, D)
    whole, part = (
        SynergyCapture(M, D, DiffMSINConfig(noise=0.0, diffusion_steps=4, grad_last=k)) for k in (None, 2)
    )
    randomize(whole)
    part.load_state_dict(whole.state_dict())
    losses = [capture.refine(streams, mask()).square().sum() for capture in (whole, part)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    assert part.cross.query.grad.any() and not torch.allclose(part.cross.query.grad, whole.cross.query.grad)
