"""Schedule, coefficients of the reverse process, noise of inference (points 1-3)."""

import math

import pytest
import torch
from m3bsr_cases import block, given

from bench.models.m3bsr.config import BehaviorDenoising, Denoising
from bench.models.m3bsr.noise import seeded_normal
from bench.models.m3bsr.schedule import Schedule


def table(**options):
    return Schedule(Denoising(**options))()


def test_schedule_has_the_values_of_the_paper():
    ten = table()
    assert ten.beta[1].item() == pytest.approx(0.001) and ten.beta[10].item() == pytest.approx(0.1)
    assert ten.abar[0] == 1 and (ten.abar.diff() < 0).all()
    assert ten.abar[10].item() == pytest.approx(0.5923, abs=1e-4)
    assert table(diffusion_steps=15).abar[15].item() == pytest.approx(0.4561, abs=1e-4)


def test_cosine_schedule_follows_its_formula():
    abar = table(schedule="cosine", diffusion_steps=8).abar
    assert abar[4].item() == pytest.approx(math.cos(0.45 * math.pi / 2) ** 2, abs=1e-6)
    assert abar[8].item() == pytest.approx(math.cos(0.45 * math.pi) ** 2, abs=1e-6)


def test_learnable_schedule_starts_linear_stays_sorted_and_gets_gradients():
    schedule = Schedule(Denoising(schedule="learnable"))
    torch.testing.assert_close(schedule().beta[2:-1], table().beta[2:-1], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        schedule.level.copy_(torch.randn(10) * 30)
    beta = schedule().beta[1:]
    assert (beta.diff() >= 0).all() and beta.min() >= 0.001 - 1e-9 and beta.max() <= 0.1 + 1e-9
    learned = block(schedule="learnable")
    denoised, error = learned.train()(*given())
    (denoised.square().sum() + error.sum()).backward()
    assert learned.schedule.level.grad.abs().min() > 0


def test_true_noise_recovers_the_input_from_the_closed_form():
    coefficients = table()
    clean, noise = torch.randn(2, 1000, 16)
    for step in range(1, 11):
        x = coefficients.noised(clean, noise, torch.tensor(step))
        abar = coefficients.abar[step]
        torch.testing.assert_close((x - (1 - abar).sqrt() * noise) / abar.sqrt(), clean, atol=1e-5, rtol=1e-5)


def test_printed_pair_of_one_step_noise_recovers_the_state_before():
    """Eq. 7 without the bar and Eq. 8 as printed belong together."""
    coefficients = table(loss="trajectory")
    before, noise = torch.randn(2, 100, 16)
    for place, step in enumerate(range(10, 0, -1)):
        x = coefficients.one_step(before, noise, step)
        torch.testing.assert_close(coefficients.reverse(x, noise, place), before, atol=1e-5, rtol=1e-5)


def test_marginal_noise_in_the_printed_step_is_subtracted_twice():
    """sqrt((1 - abar_10) / (1 - alpha_10)) with abar_10 = 0.5923 and alpha_10 = 0.9."""
    ratio = table(loss="trajectory").shift[0] / table().shift[0]
    assert ratio.item() == pytest.approx(math.sqrt((1 - 0.5923) / 0.1), abs=1e-3)


def test_the_printed_step_of_behaviors_has_the_bar_and_that_of_modalities_has_not():
    """beta / sqrt(1 - abar) / sqrt(alpha) at step 10 in Eq. 12, beta / sqrt(beta) / sqrt(alpha) in Eq. 8.

    With noise of one step as the target, `trajectory` has no bar in either.
    """
    factors = {
        (kind, loss): Schedule(kind(loss=loss))().shift[0].item()
        for kind in (Denoising, BehaviorDenoising)
        for loss in ("printed", "trajectory")
    }
    with_bar, without = -0.1 / math.sqrt(0.4077 * 0.9), -math.sqrt(0.1 / 0.9)
    assert factors[BehaviorDenoising, "printed"] == pytest.approx(with_bar, abs=1e-4)
    del factors[BehaviorDenoising, "printed"]
    assert list(factors.values()) == pytest.approx([without] * 3, abs=1e-4)


def test_reverse_step_is_the_mean_of_the_gaussian_posterior():
    """q(x_{t-1} | x_t, x_0) in the textbook form of Ho et al. 2020, Eq. 7: an independent expression."""
    coefficients = table()
    clean, noise = torch.randn(2, 50, 16).double()
    for place, step in enumerate(range(10, 0, -1)):
        beta, abar, before = (
            float(v) for v in (coefficients.beta[step], coefficients.abar[step], coefficients.abar[step - 1])
        )
        x = math.sqrt(abar) * clean + math.sqrt(1 - abar) * noise
        expected = (math.sqrt(before) * beta * clean + math.sqrt(1 - beta) * (1 - before) * x) / (1 - abar)
        torch.testing.assert_close(coefficients.reverse(x, noise, place), expected, atol=1e-5, rtol=1e-5)


def test_a_leap_is_the_posterior_mean_over_the_steps_left_out():
    """With alpha = abar_t / abar_s the textbook form holds for any s < t."""
    schedule = Schedule(Denoising(reverse_steps=3))
    coefficients, path = schedule(), schedule.path.tolist()
    assert path == [10, 7, 3]
    clean, noise = torch.randn(2, 50, 16).double()
    for place, (step, before) in enumerate(zip(path, [7, 3, 0], strict=True)):
        abar, earlier = coefficients.abar[step].item(), coefficients.abar[before].item()
        alpha = abar / earlier
        x = math.sqrt(abar) * clean + math.sqrt(1 - abar) * noise
        mean = math.sqrt(earlier) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - earlier) * x
        found = coefficients.reverse(x, noise, place)
        torch.testing.assert_close(found, mean / (1 - abar), atol=1e-5, rtol=1e-5)


def test_all_steps_in_order_are_a_path_without_leaps():
    assert Schedule(Denoising()).path.tolist() == list(range(10, 0, -1))
    whole, named = block(), block(reverse_steps=10)
    for one in (whole, named):
        one.eval()
    assert torch.equal(whole(*given())[0], named(*given())[0])


def test_noise_keeps_unit_variance_at_every_step():
    coefficients = table()
    for step in range(1, 11):
        x = coefficients.noised(torch.randn(200_000), torch.randn(200_000), torch.tensor(step))
        assert x.var().item() == pytest.approx(1.0, abs=0.02)


def test_noise_of_inference_is_standard_normal_and_differs_by_seed_user_and_place():
    noise = seeded_normal(torch.arange(400), (2, 400, 10, 16), 0)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.var().item() == pytest.approx(1, abs=0.01)
    assert noise.pow(4).mean().item() == pytest.approx(3, abs=0.1)  # kurtosis of the normal distribution
    for axis in range(4):
        rolled = noise.roll(1, axis)
        assert (noise * rolled).mean().abs().item() < 0.01
    other = seeded_normal(torch.arange(400), (2, 400, 10, 16), 1)
    assert (noise * other).mean().abs().item() < 0.01


def test_noise_of_inference_depends_on_nobody_else_and_not_on_padding():
    whole = seeded_normal(torch.tensor([7, 3, 11]), (2, 3, 10, 16), 5)
    alone = seeded_normal(torch.tensor([3]), (2, 1, 4, 16), 5)
    assert torch.equal(whole[:, 1:2, -4:], alone)
