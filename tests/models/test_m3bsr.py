"""The points of the checklist that concern the repaired preset."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.m3bsr.config import Denoising, Disentanglement, M3BSRConfig, Softmax
from bench.models.m3bsr.diffusion import ConditionalDenoising, Schedule
from bench.models.m3bsr.disentangle import disentanglement
from bench.models.m3bsr.fusion import RoutingFusion
from bench.models.m3bsr.model import M3BSR, gather, masked_mean, scatter

N, USERS, L = 30, 9, 8


def content(image=True):
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((N + 1, 12)).astype(np.float32) for name in ("image", "text")}
    present = {name: rng.random(N + 1) > 0.2 for name in features}
    if not image:
        del features["image"], present["image"]
    brands = {"brand": rng.integers(0, 4, N + 1).astype(np.int32)}
    return ItemContent(N, features, present, brands)


def build(image=True, behaviors=("click", "favor"), **options):
    torch.manual_seed(0)
    config = M3BSRConfig(hidden_size=16, id_size=4, max_history=L, micro_batch=4, **options)
    return M3BSR(config, DatasetInfo(USERS, N, behaviors, content(image)))


def batch(seed=0, rows=6, behaviors=2):
    g = torch.Generator().manual_seed(seed)
    history = torch.randint(1, N + 1, (rows, L), generator=g)
    behavior = torch.randint(1, behaviors + 1, (rows, L), generator=g)
    start = torch.randint(0, L - 1, (rows, 1), generator=g)
    real = torch.arange(L) >= start
    behavior[0] = 1  # a user without favors
    behavior[1] = behaviors  # a user with favors alone
    real[2] = False  # a user without any event
    history, behavior = history * real, behavior * real
    return Batch(torch.arange(rows), history, behavior, torch.zeros_like(history),
                 target=torch.randint(1, N + 1, (rows,), generator=g))  # fmt: skip


def scores(model, data, candidates=None):
    everything = torch.arange(1, N + 1).expand(len(data), -1)
    with torch.no_grad():
        return model.eval().score(data, everything if candidates is None else candidates)


def test_schedule_has_the_values_of_the_paper():
    schedule = Schedule(Denoising())
    assert schedule.beta[1].item() == pytest.approx(0.001) and schedule.beta[10].item() == pytest.approx(0.1)
    assert schedule.abar[0] == 1 and (schedule.abar.diff() < 0).all()
    assert schedule.abar[10].item() == pytest.approx(0.5923, abs=1e-4)
    assert Schedule(Denoising(steps=15)).abar[15].item() == pytest.approx(0.4561, abs=1e-4)


def test_true_noise_recovers_the_input_from_the_closed_form():
    schedule = Schedule(Denoising())
    clean, noise = torch.randn(2, 1000, 16)
    for step in range(1, 11):
        x = schedule.noised(clean, noise, torch.tensor(step))
        abar = schedule.abar[step]
        torch.testing.assert_close((x - (1 - abar).sqrt() * noise) / abar.sqrt(), clean, atol=1e-5, rtol=1e-5)


def test_reverse_step_is_the_mean_of_the_gaussian_posterior():
    """q(x_{t-1} | x_t, x_0) in the textbook form of Ho et al. 2020, Eq. 7: an independent expression."""
    schedule = Schedule(Denoising())
    clean, noise = torch.randn(2, 50, 16).double()
    for step in range(1, 11):
        beta, abar, before = (
            float(v) for v in (schedule.beta[step], schedule.abar[step], schedule.abar[step - 1])
        )
        x = math.sqrt(abar) * clean + math.sqrt(1 - abar) * noise
        expected = (math.sqrt(before) * beta * clean + math.sqrt(1 - beta) * (1 - before) * x) / (1 - abar)
        torch.testing.assert_close(schedule.reverse(x, noise, step), expected, atol=1e-5, rtol=1e-5)


def test_noise_keeps_unit_variance_at_every_step():
    schedule = Schedule(Denoising())
    for step in range(1, 11):
        x = schedule.noised(torch.randn(200_000), torch.randn(200_000), torch.tensor(step))
        assert x.var().item() == pytest.approx(1.0, abs=0.02)


def test_shapes_are_finite_for_unequal_missing_and_single_histories():
    model = build()
    terms = model.loss(batch())
    assert set(terms) == {"loss", "main", "contrast", "modality", "behavior"}
    assert all(torch.isfinite(value) and value.dim() == 0 for value in terms.values())
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert scores(model, batch()).shape == (6, N)
    assert torch.isfinite(scores(model, batch())).all()
    single = batch().rows(slice(3, 4))
    assert scores(model, single).shape == (1, N)


def test_loss_is_the_weighted_sum_of_its_terms():
    terms = build().loss(batch())
    total = terms["main"] + 0.05 * terms["contrast"] + 0.02 * terms["modality"] + 0.02 * terms["behavior"]
    torch.testing.assert_close(terms["loss"], total)


def test_main_loss_equals_cross_entropy_over_the_scores():
    model = build().eval()
    data = batch()
    expected = F.cross_entropy(scores(model, data), data.target - 1)
    torch.testing.assert_close(model.loss(data)["main"], expected, atol=1e-5, rtol=1e-5)


def test_padding_does_not_change_scores():
    model, data = build(), batch()
    grown = Batch(data.user, *(F.pad(x, (0, 0)) for x in (data.history, data.behavior, data.timestamp)))
    grown = Batch(data.user, *(x[:, 3:] for x in (grown.history, grown.behavior, grown.timestamp)))
    wide = Batch(grown.user, *(F.pad(x, (3, 0)) for x in (grown.history, grown.behavior, grown.timestamp)))
    torch.testing.assert_close(scores(model, grown), scores(model, wide), atol=1e-5, rtol=1e-5)


def test_inference_repeats_to_the_bit_and_ignores_batch_mates():
    model, data = build(), batch()
    whole = scores(model, data)
    assert torch.equal(whole, scores(model, data))
    for row in range(len(data)):
        alone = scores(
            model,
            Batch(
                data.user[row : row + 1],
                *(x[row : row + 1] for x in (data.history, data.behavior, data.timestamp)),
            ),
        )
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=1e-6)


def test_favors_reach_the_denoised_clicks():
    model, data = build().eval(), batch()
    changed = Batch(data.user, data.history.clone(), data.behavior, data.timestamp)
    row, place = 3, int((data.behavior[3] == 2).nonzero()[-1])
    changed.history[row, place] = changed.history[row, place] % N + 1

    def denoised_clicks(part):
        streams = model.denoise_modalities(model.streams(part), part)[0]
        places, mask = model._places(part, 1)
        deep_places, deep_mask = model._places(part, 2)
        return model.denoise_behaviors(
            gather(streams, places), mask, gather(streams, deep_places), deep_mask
        )[0]

    before, after = denoised_clicks(data), denoised_clicks(changed)
    assert not torch.allclose(before[:, row], after[:, row])
    assert torch.equal(before[:, 4:], after[:, 4:])


def test_modalities_are_denoised_under_ids_of_their_own_behavior_only():
    model, data = build().eval(), batch()
    changed = Batch(data.user, data.history.clone(), data.behavior, data.timestamp)
    row, place = 3, int((data.behavior[3] == 2).nonzero()[-1])
    changed.history[row, place] = changed.history[row, place] % N + 1
    before = model.denoise_modalities(model.streams(data), data)[0][1:, row]
    after = model.denoise_modalities(model.streams(changed), changed)[0][1:, row]
    favors, clicks = (data.behavior[row] == 2), (data.behavior[row] == 1)
    assert torch.equal(before[:, clicks], after[:, clicks])
    assert not torch.allclose(before[:, favors], after[:, favors])


def test_one_masked_call_equals_separate_calls_for_each_behavior():
    """The merged layout is an identity: denoise clicks and favors as two padded streams and compare."""
    model, data = build().eval(), batch()
    streams = model.streams(data)
    merged = model.denoise_modalities(streams, data)[0]
    for behavior in (1, 2):
        places, mask = model._places(data, behavior)
        part = gather(streams, places) * mask[None, :, :, None]
        alone, _ = model.cdmd_m(part[1:], mask, part[:1].expand(2, -1, -1, -1), mask[:, None])
        taken = gather(merged[1:], places) * mask[None, :, :, None]
        torch.testing.assert_close(alone, taken, atol=1e-5, rtol=1e-5)


def test_gather_and_scatter_are_inverse_where_there_are_events():
    data = batch()
    streams = torch.randn(3, 6, L, 5)
    items, places = data.stream(1)
    back = scatter(torch.zeros_like(streams), places, gather(streams, places), items > 0)
    kept = (data.behavior == 1)[None, :, :, None]
    assert torch.equal(back, streams * kept)


def test_gate_mixes_between_the_shared_and_the_unique_experts():
    fusion = RoutingFusion(6, 16)
    common, unique = torch.randn(5, 16), torch.randn(6, 5, 16)
    torch.nn.init.zeros_(fusion.gate.weight)
    joined = fusion.project(torch.cat(unique.unbind(0), -1))
    for bias, expected in ((50.0, common), (-50.0, joined), (0.0, 0.5 * common + 0.5 * joined)):
        torch.nn.init.constant_(fusion.gate.bias, bias)
        torch.testing.assert_close(fusion(common, unique), expected)


def test_disentanglement_is_log_n_at_collapse_and_smallest_at_the_simplex():
    n, tau = 7, 0.3
    collapsed = torch.ones(n, 2, 8)
    assert disentanglement(collapsed, tau).item() == pytest.approx(math.log(n), abs=1e-5)
    simplex = (torch.eye(n) - 1 / n)[:, None]  # n unit directions with equal cosines -1 / (n - 1)
    best = math.log(1 + (n - 1) * math.exp((-1 / (n - 1) - 1) / tau))
    assert disentanglement(simplex, tau).item() == pytest.approx(best, abs=1e-5)
    assert best == pytest.approx(0.116, abs=5e-4)


def test_disentanglement_pushes_two_vectors_apart():
    vectors = torch.tensor([[[1.0, 0.0]], [[0.9, 0.4]]], requires_grad=True)
    disentanglement(vectors, 0.3).backward()
    moved = (vectors - 0.1 * vectors.grad).detach()
    before, after = (F.cosine_similarity(v[0], v[1]).item() for v in (vectors.detach(), moved))
    assert after < before


def test_every_parameter_gets_a_gradient_in_one_step():
    model = build()
    model.loss(batch())["loss"].backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_noise_prediction_learns_to_denoise_correlated_features():
    """The prediction error falls below 0.9 within 200 steps; no skill is 1.0."""
    torch.manual_seed(0)
    block = ConditionalDenoising(1, 16, Denoising())
    optimizer = torch.optim.Adam(block.parameters(), lr=3e-3)
    mask = torch.ones(32, 6, dtype=torch.bool)
    basis = torch.randn(4, 16)
    errors = []
    for _ in range(200):
        clean = F.layer_norm(torch.randn(1, 32, 6, 4) @ basis, (16,))
        _, error = block.train()(clean, mask, clean, mask[:, None])
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
        errors.append(error.mean().item())
    assert np.mean(errors[-20:]) < 0.9 < np.mean(errors[:5])


def test_checkpointed_steps_give_equal_gradients():
    grads = []
    for kept in (False, True):
        model = build(cdmd_m=Denoising(checkpoint=kept), cdmd_b=Denoising(checkpoint=kept))
        torch.manual_seed(1)
        model.loss(batch())["loss"].backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_grad_last_keeps_the_values_and_shortens_the_gradient():
    losses = []
    for last in (None, 3):
        model = build(cdmd_m=Denoising(grad_last=last), cdmd_b=Denoising(grad_last=last))
        torch.manual_seed(1)
        losses.append(model.loss(batch())["loss"])
        losses[-1].backward()
        assert model.cdmd_m.predictor.narrow.weight.grad.abs().sum() > 0
    torch.testing.assert_close(losses[0], losses[1])


def test_sampled_softmax_trains_above_the_limit():
    model = build(softmax=Softmax(full_up_to=10, negatives=16))
    terms = model.loss(batch())
    terms["loss"].backward()
    assert torch.isfinite(terms["main"]) and model.items.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("behaviors", [("favor",), ("view", "cart", "buy")])
def test_other_numbers_of_behaviors_train_and_score(behaviors):
    model = build(behaviors=behaviors)
    data = batch(behaviors=len(behaviors))
    data.behavior.clamp_(max=len(behaviors))
    model.loss(data)["loss"].backward()
    assert torch.isfinite(scores(model, data)).all()


def test_a_data_set_without_images_trains_and_scores():
    model = build(image=False)
    model.loss(batch())["loss"].backward()
    assert torch.isfinite(scores(model, batch())).all()


def test_without_disentanglement_weight_the_term_is_shown_but_not_minimised():
    terms = build(disent=Disentanglement(weight=0.0)).loss(batch())
    total = terms["main"] + 0.02 * terms["modality"] + 0.02 * terms["behavior"]
    torch.testing.assert_close(terms["loss"], total)


def test_masked_mean_ignores_padding():
    values = torch.tensor([[[1.0, 5.0], [3.0, 7.0]]])
    assert masked_mean(values, torch.tensor([[True, False], [True, False]])) == 2.0
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)) == 0.0
