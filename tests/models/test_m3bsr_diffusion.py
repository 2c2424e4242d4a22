"""The reverse chain, the noise predictors and the denoising losses (points 2 and 14 of the checklist)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from m3bsr_cases import SIZE, block, given

from bench.models.m3bsr.config import BehaviorDenoising, Denoising
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.schedule import Schedule


def table(**options):
    return Schedule(Denoising(**options))()


def test_starts_of_the_chain_are_what_they_are_called():
    clean, *rest = given()
    abar = table().abar[10]
    found = {}
    for start in ("mean", "clean", "noised"):
        one = block(infer_start=start).eval()
        chain = one._prepare(clean, *rest)
        found[start] = one._start(clean, start, chain)
    torch.testing.assert_close(found["mean"], abar.sqrt() * clean)
    assert torch.equal(found["clean"], clean)
    noise = (found["noised"] - found["mean"]) / (1 - abar).sqrt()
    assert noise.var().item() == pytest.approx(1, abs=0.2)
    assert torch.equal(block(infer_start="none").eval()(clean, *rest)[0], clean)


def test_ancestral_sampler_adds_noise_of_the_step_in_all_but_the_last():
    spread = table(sampler="ancestral").spread
    torch.testing.assert_close(spread[:-1], table().beta.flip(0)[:9].sqrt())
    assert spread[-1] == 0
    means, noisy = (block(sampler=name).eval()(*given())[0] for name in ("mean", "ancestral"))
    assert not torch.allclose(means, noisy)
    assert torch.equal(noisy, block(sampler="ancestral").eval()(*given())[0])


def test_trajectory_loss_of_one_step_is_the_scaled_error_of_the_noise():
    """(1 - alpha) / alpha |e - e_hat|^2, once for each of the two terms, which are one with a single step."""
    one = block(loss="trajectory", diffusion_steps=1, beta_last=0.1).train()
    clean, mask, condition, seen, user = given()
    torch.manual_seed(4)
    _, error = one(clean, mask, condition, seen, user)
    torch.manual_seed(4)
    noise = torch.randn_like(clean)
    x = math.sqrt(0.9) * clean + math.sqrt(0.1) * noise
    time = one.predictor.times(torch.tensor([1]))[:, :, None]
    predicted = one.predictor(x, one.predictor.cross.condition(condition, seen), time)
    expected = 2 * 0.1 / 0.9 * (noise - predicted).square().mean(-1)
    torch.testing.assert_close(error, expected, atol=1e-5, rtol=1e-4)


def test_trajectory_term_from_the_true_state_is_the_scaled_error_at_every_step():
    coefficients = table(loss="trajectory")
    before, noise, predicted = torch.randn(3, 50, 16)
    for place, step in enumerate(range(10, 0, -1)):
        x = coefficients.one_step(before, noise, step)
        gap = (before - coefficients.reverse(x, predicted, place)).square().sum(-1)
        beta = coefficients.beta[step]
        expected = beta / (1 - beta) * (noise - predicted).square().sum(-1)
        torch.testing.assert_close(gap, expected, atol=1e-4, rtol=1e-4)


def test_printed_loss_is_zero_where_nothing_is_denoised():
    """e_hat = (1 - sqrt(alpha)) / sqrt(1 - alpha) x leaves every state as it is."""
    one = block(loss="printed", diffusion_steps=3).train()
    beta = one.schedule().beta.flip(0)[:3]

    class Idle(torch.nn.Module):
        calls = 0

        def forward(self, x, condition, time):
            place = self.calls // 2  # a step is taken from the true and from the recovered state
            self.calls += 1
            return (1 - (1 - beta[place]).sqrt()) / beta[place].sqrt() * x

    idle = Idle()
    idle.cross, idle.times = one.predictor.cross, one.predictor.times
    one.predictor = idle
    assert one(*given())[1].max().item() < 1e-10


@pytest.mark.parametrize(("options", "terms"), [(Denoising, 2), (BehaviorDenoising, 1)])
def test_the_printed_loss_has_two_terms_of_modalities_and_one_of_behaviors(options, terms):
    """With T = 1 both chains start at the same state: each term is |x_1 - x_0'|^2, here a coordinate."""
    torch.manual_seed(0)
    one = ConditionalDenoising(1, SIZE, SIZE, options(loss="printed", diffusion_steps=1, norm="mean")).train()
    clean, mask, condition, seen, user = given()
    torch.manual_seed(4)
    denoised, error = one(clean, mask, condition, seen, user)
    torch.manual_seed(4)
    state = math.sqrt(0.9) * clean + math.sqrt(0.1) * torch.randn_like(clean)
    torch.testing.assert_close(error, terms * (state - denoised).square().mean(-1))


@pytest.mark.parametrize("loss", ["eps", "trajectory", "printed"])
def test_squared_length_is_the_sum_over_coordinates(loss):
    found = []
    for norm in ("mean", "length"):
        one = block(loss=loss, norm=norm, size=6).train()
        torch.manual_seed(4)
        found.append(one(*given(size=6))[1])
    torch.testing.assert_close(6 * found[0], found[1])


@pytest.mark.parametrize("detached", [True, False])
def test_loss_of_the_noise_trains_streams_and_condition_only_where_asked(detached):
    one = block(detach_streams=detached).train()
    clean, mask, condition, *rest = given()
    denoised, error = one(clean.requires_grad_(), mask, condition.requires_grad_(), *rest)
    slopes = torch.autograd.grad(error.sum(), [clean, condition], retain_graph=True, allow_unused=True)
    assert [slope is None for slope in slopes] == [detached, detached]
    trained = torch.autograd.grad(error.sum(), list(one.parameters()), retain_graph=True)
    assert all(slope.abs().sum() > 0 for slope in trained)
    through = torch.autograd.grad(denoised.sum(), [clean, condition])  # the main loss comes this way
    assert all(slope.abs().sum() > 0 for slope in through)


@pytest.mark.parametrize("loss", ["eps", "trajectory"])
def test_noise_errors_judge_the_noise_that_the_loss_trains_for(loss):
    """For unit Gaussian x_0 the best guess of one-step noise is sqrt(beta) x, and its error 1 - beta."""
    one = block(loss=loss).eval()
    beta = one.schedule().beta[1:]
    steps = iter(range(10))

    class Best(torch.nn.Module):
        def forward(self, x, condition, time):
            return beta[next(steps)].sqrt() * x

    best = Best()
    best.cross, best.times = one.predictor.cross, one.predictor.times
    one.predictor = best
    found = one.noise_errors(*given(rows=400, length=8)).mean((1, 2, 3))
    against = 1 - 2 * (beta * (1 - one.schedule().abar[1:])).sqrt() + beta  # of marginal noise
    expected = against if loss == "eps" else 1 - beta
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_goal_of_a_simulated_loss_gets_a_gradient_only_where_asked():
    slopes = {}
    for detached in (True, False):
        one = block(loss="trajectory", diffusion_steps=2, detach_target=detached).train()
        clean, *rest = given()
        torch.manual_seed(4)
        _, error = one(clean.requires_grad_(), *rest)
        slopes[detached] = torch.autograd.grad(error.sum(), clean)[0]
    assert not torch.allclose(slopes[True], slopes[False])


@pytest.mark.parametrize("predictor", ["decoupled", "residual", "printed"])
def test_a_stream_may_be_wider_or_narrower_than_its_condition(predictor):
    one = block(groups=2, size=6, predictor=predictor).train()
    clean, mask, _, seen, user = given(groups=2, size=6)
    denoised, error = one(clean, mask, torch.randn(2, 5, 3, SIZE), seen, user)
    assert denoised.shape == clean.shape and error.shape == clean.shape[:3]


def test_residual_predictor_starts_at_x_and_the_printed_one_in_the_span_of_its_condition():
    clean, mask, condition, seen, user = given()
    residual = block(predictor="residual")
    ready = residual.predictor.cross.condition(condition, seen)
    assert torch.equal(residual.predictor(clean, ready, torch.zeros(1)), clean)
    printed = block(predictor="printed", num_heads=1)
    out = printed.predictor(clean, printed.predictor.cross.condition(condition, seen), torch.zeros(1))
    basis = torch.cat([condition, printed.predictor.cross.null.expand(1, 5, 1, SIZE)], 2)
    values = printed.predictor.cross.output(printed.predictor.cross.key_and_value(basis).chunk(2, -1)[1])
    left = out - (out @ torch.linalg.pinv(values) @ values)
    assert left.abs().max().item() < 1e-4 < out.abs().max().item()


def errors_of(predictor, steps=200):
    """Return the noise error at the beginning and end of training on correlated features; no skill is 1."""
    one = block(predictor=predictor)
    optimizer = torch.optim.Adam(one.parameters(), lr=3e-3)
    mask = torch.ones(32, 6, dtype=torch.bool)
    basis = torch.randn(4, SIZE)
    errors = []
    for _ in range(steps):
        clean = F.layer_norm(torch.randn(1, 32, 6, 4) @ basis, (SIZE,))
        _, error = one.train()(clean, mask, clean, mask[:, None], torch.arange(32))
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
        errors.append(error.mean().item())
    return np.mean(errors[:5]), np.mean(errors[-20:])


def test_noise_prediction_learns_and_the_printed_predictor_learns_less():
    before, after = errors_of("decoupled")
    assert after < 0.9 < before
    assert errors_of("printed")[1] > after + 0.1


def test_checkpointed_steps_give_equal_gradients():
    found = []
    for kept in (False, True):
        one = block(checkpoint=kept).train()
        torch.manual_seed(1)
        denoised, _ = one(*given())
        denoised.square().sum().backward()
        found.append([p.grad.clone() for p in one.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_grad_last_keeps_the_values_and_shortens_the_gradient():
    values, slopes = [], []
    for last in (None, 3):
        one = block(grad_last=last).train()
        clean, *rest = given()
        clean.requires_grad_()
        torch.manual_seed(1)
        denoised, _ = one(clean, *rest)
        denoised.square().sum().backward()
        values.append(denoised.detach())
        slopes.append((clean.grad, one.predictor.narrow.weight.grad))
    torch.testing.assert_close(*values)
    assert slopes[0][0].abs().sum() > 0 and slopes[1][0] is None
    assert not torch.allclose(slopes[0][1], slopes[1][1]) and slopes[1][1].abs().sum() > 0
