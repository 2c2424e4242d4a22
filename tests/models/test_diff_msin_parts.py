"""Diff-MSIN, repaired: experts, FDAF and losses against formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.experts import FeatureEnhancement
from bench.models.diff_msin.fusion import GatedCross, ScoreMap, State, cross_step
from bench.models.diff_msin.losses import (
    decoupling,
    masked_mean,
    pairwise_cosine,
    synergy_loss,
    unique_minus_shared,
)

M, B, L, D, C = 3, 4, 6, 8, 5


def randomize(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def mask():
    lengths = torch.tensor([6, 3, 1, 0])
    return torch.arange(L) >= L - lengths[:, None]


def state(streams=M + 2):
    real = mask()[..., None]
    torch.manual_seed(3)
    return State(
        torch.randn(B, streams, L, D) * real[:, None], mask(), torch.randn(B, L, D) * real, torch.zeros(B, D)
    )


def test_residual_experts_add_to_their_own_modality_and_to_the_mean():
    experts, streams = FeatureEnhancement(M, D, "residual"), torch.randn(M, B, L, D)
    unique, common = experts(streams)
    for m in range(M):
        torch.testing.assert_close(unique[m], streams[m] + experts.unique[m].net(streams[m]))
    mean = (streams[0] + streams[1] + streams[2]) / 3
    torch.testing.assert_close(common, mean + experts.common.net(mean))


def test_gated_experts_mix_their_own_and_the_shared_output():
    experts, streams = FeatureEnhancement(M, D, "gated"), torch.randn(M, B, L, D)
    unique, common = experts(streams)
    shared = sum(streams[m] + experts.common.net(streams[m]) for m in range(M)) / 3
    torch.testing.assert_close(common, shared)
    own = streams[1] + experts.unique[1].net(streams[1])
    gate = experts.gates[1](own)
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(unique[1], gate * own + (1 - gate) * shared)


def test_cross_step_adds_a_tenth_of_the_mean_product():
    x = torch.randn(5, 2, 3)
    expected = torch.stack([x[i] + 0.1 * sum(x[i] * x[j] for j in range(5)) / 5 for i in range(5)])
    torch.testing.assert_close(cross_step(x), expected)


def test_attention_is_a_softmax_over_real_events_and_not_uniform():
    fusion, target = ScoreMap(M + 2, D, DiffMSINConfig(max_history=L)), torch.randn(B, C, M + 2, D)
    found = fusion.attention(state(), target)
    torch.testing.assert_close(found[:3].sum(-1), torch.ones(3, C, M + 2))
    assert not found[3].any() and not found[1, ..., :3].any()
    scores = torch.stack([state().streams[0, 2, place] @ target[0, 1, 2] for place in range(L)]) / math.sqrt(
        D
    )
    torch.testing.assert_close(found[0, 1, 2], torch.softmax(scores, 0))
    assert (found[0] - 1 / L).abs().max() > 0.05


@pytest.mark.parametrize("pool", ["flat", "sum"])
def test_score_map_is_the_summed_net_of_the_triple_product(pool):
    fusion = ScoreMap(M + 2, D, DiffMSINConfig(max_history=8, score_pool=pool))
    data, target = state(), torch.randn(B, C, M + 2, D)
    attention = fusion.attention(data, target)
    expected = torch.zeros(B, C, M + 2, 8)
    for b, place in mask().nonzero().tolist():
        for c in range(C):
            for s in range(M + 2):
                context = attention[b, c, s] @ data.streams[b, s]
                product = context * data.streams[b, s, place] * target[b, c, s]
                expected[b, c, s, place + 2] = fusion.narrow(F.relu(fusion.wide(product))).sum()
    expected = expected.sum(-1) if pool == "sum" else expected.flatten(2)
    assert fusion.outputs == expected.shape[-1]
    torch.testing.assert_close(fusion(data, target), expected, atol=1e-5, rtol=1e-4)


def test_gated_cross_is_three_cross_layers_and_attention_over_ids():
    fusion = GatedCross(4, D, DiffMSINConfig(num_heads=1))
    randomize(fusion)
    data, target = state(4), torch.randn(B, C, 4, D)
    found = fusion(data, target)
    b, c = 1, 2  # three events
    pooled = data.streams[b, :, 3:].mean(1)
    first = torch.sigmoid(fusion.gate(target[b, c, 0])) * torch.cat([pooled[1], pooled[2], pooled[3]])
    x = first
    for layer, bias in zip(fusion.crosses, fusion.biases, strict=True):
        x = first * (layer.weight[0] @ x) + bias + x
    query = fusion.query((x[:D] + x[D : 2 * D] + x[2 * D :]) / 3)
    key, value = fusion.key_and_value(data.streams[b, 0, 3:]).chunk(2, -1)
    mixed = torch.softmax(key @ query / math.sqrt(D), 0) @ value
    torch.testing.assert_close(found[b, c], torch.cat([x, mixed]), atol=1e-3, rtol=1e-4)
    assert torch.isfinite(found).all()


def test_decoupling_is_one_for_equal_streams_and_zero_for_orthogonal_ones():
    same, orthogonal = torch.randn(1, B, 5).expand(5, B, 5), torch.eye(5)[:, None].expand(5, B, 5) * 3
    for mode in ("mean_cos", "sq_cos"):
        assert decoupling(same, mode).item() == pytest.approx(1.0, abs=1e-5)
        assert decoupling(orthogonal, mode).item() == pytest.approx(0.0, abs=1e-6)
    assert len(pairwise_cosine(same)) == 10


@pytest.mark.parametrize("mode", ["mean_cos", "sq_cos"])
def test_the_gradient_of_decoupling_lowers_it(mode):
    vectors = (torch.randn(5, B, D) + 1).requires_grad_()
    before = decoupling(vectors, mode)
    before.backward()
    assert decoupling(vectors - 0.5 * vectors.grad, mode) < before


def test_r_style_is_unique_less_shared_cosine():
    same, orthogonal = torch.ones(2, B, 4), torch.eye(4)[:2, None].expand(2, B, 4)
    assert unique_minus_shared(same, orthogonal).item() == pytest.approx(1.0)
    assert unique_minus_shared(orthogonal, same).item() == pytest.approx(-1.0)
    assert unique_minus_shared(same[:1], same[:1]).item() == 0


def test_synergy_hinge_has_its_zeros_and_values():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    yes, no = torch.ones(1), torch.zeros(1)
    assert synergy_loss(one, 3 * one, yes, "hinge") == 0 and synergy_loss(one, other, no, "hinge") == 0
    assert synergy_loss(one, -one, no, "hinge") == 0 and synergy_loss(one, -one, yes, "hinge") == 2
    assert synergy_loss(one, one, no, "hinge") == 1
    assert (
        synergy_loss(one, other, no, "hinge_margin") == 1 and synergy_loss(one, one, no, "hinge_margin") == 2
    )


@pytest.mark.parametrize(("mode", "rises"), [("hinge", True), ("hinge_margin", True), ("released", False)])
def test_the_gradient_of_synergy_raises_the_cosine_of_positives_unless_released(mode, rises):
    target = torch.tensor([[1.0, 0.0]])
    synergy = torch.tensor([[1.0, 1.0]], requires_grad=True)
    synergy_loss(synergy, target, torch.ones(1), mode).backward()
    moved = F.cosine_similarity(synergy - 0.1 * synergy.grad, target)
    assert bool(moved > F.cosine_similarity(synergy, target)) is rises


def test_masked_mean_counts_real_events_alone():
    x = torch.arange(6.0).view(1, 1, 6, 1).expand(1, B, 6, 1)
    assert masked_mean(x, mask())[0, :, 0].tolist() == [2.5, 4.0, 5.0, 0.0]
