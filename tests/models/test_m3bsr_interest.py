"""Experts, disentanglement, fusion (Eq. 14-22; points 9 and 10 of the checklist)."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.models.m3bsr.config import Disentanglement, Experts
from bench.models.m3bsr.disentangle import cosines, disentanglement
from bench.models.m3bsr.experts import Encoder, SharedExpert
from bench.models.m3bsr.fusion import MeanFusion, RoutingFusion

D, TAU, SEVEN = 16, 0.3, 7


def contrast(vectors, loss="self_infonce"):
    return disentanglement(vectors, Disentanglement(loss=loss, temperature=TAU))


def equal_cosines(c):
    """Return seven vectors with every cosine c, (7, 1, 7): the factor of the matrix of cosines."""
    matrix = torch.full((SEVEN, SEVEN), c) + (1 - c + 1e-6) * torch.eye(SEVEN)
    return torch.linalg.cholesky(matrix.double())[:, None]


def test_disentanglement_is_log_n_at_collapse_and_smallest_at_the_simplex():
    assert contrast(torch.ones(SEVEN, 2, 8)).item() == pytest.approx(math.log(SEVEN), abs=1e-5)
    simplex = (torch.eye(SEVEN) - 1 / SEVEN)[:, None]  # unit directions with equal cosines -1 / (n - 1)
    best = math.log(1 + (SEVEN - 1) * math.exp((-1 / (SEVEN - 1) - 1) / TAU))
    assert contrast(simplex).item() == pytest.approx(best, abs=1e-5)
    assert best == pytest.approx(0.116, abs=5e-4)


def test_disentanglement_pushes_two_vectors_apart():
    vectors = torch.tensor([[[1.0, 0.0]], [[0.9, 0.4]]], requires_grad=True)
    contrast(vectors).backward()
    moved = (vectors - 0.1 * vectors.grad).detach()
    before, after = (F.cosine_similarity(v[0], v[1]).item() for v in (vectors.detach(), moved))
    assert after < before


@pytest.mark.parametrize("c", [1.0, 0.5, 0.0, -0.1])
def test_printed_contrast_is_the_same_for_every_set_of_equal_cosines(c):
    assert contrast(equal_cosines(c), "printed").item() == pytest.approx(math.log(SEVEN - 1), abs=1e-4)


def test_printed_contrast_has_its_minimum_and_no_gradient_at_collapse():
    vectors = torch.ones(SEVEN, 1, D, requires_grad=True)
    value = contrast(vectors, "printed")
    value.backward()
    assert SEVEN * (SEVEN - 1) * value.item() == pytest.approx(75.254, abs=2e-3)
    assert vectors.grad.abs().max().item() < 1e-6
    torch.manual_seed(0)
    assert all(contrast(torch.randn(SEVEN, 1, D), "printed") > value for _ in range(20))


def test_mean_and_squared_cosine_are_means_over_pairs():
    vectors = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-2.0, 0.0]]])  # cosines 0, 0, -1
    assert contrast(vectors, "mean_cos").item() == pytest.approx(-1 / 3)
    assert contrast(vectors, "sq_cos").item() == pytest.approx(1 / 3)


def test_users_are_never_compared():
    vectors = torch.randn(SEVEN, 3, D)
    each = torch.stack([contrast(vectors[:, user : user + 1]) for user in range(3)])
    torch.testing.assert_close(contrast(vectors), each.mean())


def test_gate_mixes_between_the_shared_and_the_unique_experts():
    fusion = RoutingFusion("project", 6, D)
    common, unique = torch.randn(5, D), torch.randn(6, 5, D)
    torch.nn.init.zeros_(fusion.gate.weight)
    joined = fusion.project(torch.cat(unique.unbind(0), -1))
    for bias, expected in ((50.0, common), (-50.0, joined), (0.0, 0.5 * common + 0.5 * joined)):
        torch.nn.init.constant_(fusion.gate.bias, bias)
        torch.testing.assert_close(fusion(common, unique), expected)


@pytest.mark.parametrize(("kind", "gates"), [("project", D), ("mean", 1), ("tile", 6 * D)])
def test_gates_lie_between_0_and_1(kind, gates):
    fusion = RoutingFusion(kind, 6, D)
    found = fusion.gates(torch.randn(5, D), torch.randn(6, 5, D))
    assert found.shape == (5, gates) and (found > 0).all() and (found < 1).all()


def test_mean_fusion_takes_the_plain_mean_and_tile_keeps_every_vector():
    common, unique = torch.randn(5, D), torch.randn(6, 5, D)
    mean, tile = RoutingFusion("mean", 6, D), RoutingFusion("tile", 6, D)
    for fusion in (mean, tile):
        last = fusion.gate[-1] if fusion.kind == "mean" else fusion.gate
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, -50.0)
    torch.testing.assert_close(mean(common, unique), sum(unique) / 6)
    torch.testing.assert_close(tile(common, unique), unique.movedim(0, 1).reshape(5, 6 * D))
    torch.nn.init.constant_(tile.gate.bias, 50.0)
    torch.testing.assert_close(tile(common, unique), torch.cat([common] * 6, 1))


@pytest.mark.parametrize("kind", ["project", "mean", "tile"])
def test_without_a_shared_expert_y_is_what_the_unique_ones_give(kind):
    fusion = RoutingFusion(kind, 6, D, shared=False)
    unique = torch.randn(6, 5, D)
    assert fusion.gate is None
    torch.testing.assert_close(fusion(None, unique), fusion.joined(unique))
    shares = fusion.shares(None, unique)
    assert (shares[0] == 0).all() and torch.allclose(shares.sum(0), torch.ones(5))


@pytest.mark.parametrize("kind", ["project", "mean", "tile"])
def test_shares_measure_terms_that_add_up_to_y(kind):
    """Each share is recomputed by leaving all other vectors out of y; the gate is held."""
    fusion = RoutingFusion(kind, 6, D)
    common, unique = torch.randn(5, D), torch.randn(6, 5, D)
    gate = fusion.gates(common, unique)
    offset = fusion.joined(torch.zeros_like(unique))
    terms = [gate * common.repeat(1, fusion.repeats)]
    for place in range(6):
        alone = torch.zeros_like(unique)
        alone[place] = unique[place]
        terms.append((1 - gate) * (fusion.joined(alone) - offset))
    torch.testing.assert_close(sum(terms) + (1 - gate) * offset, fusion(common, unique))
    lengths = torch.stack(terms).norm(dim=-1)
    torch.testing.assert_close(fusion.shares(common, unique), lengths / lengths.sum(0))


def test_mean_of_streams_leaves_padding_out():
    fusion = MeanFusion(3, 2)
    stream = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]).expand(3, 1, 3, 2)
    mask = torch.tensor([[True, True, False]])
    expected = fusion.project(torch.tensor([[2.0, 3.0] * 3]))
    torch.testing.assert_close(fusion([(stream, mask)]), expected)


def sequences(rows=4, length=5):
    """Return three streams and a mask padded on the left, the last row empty."""
    torch.manual_seed(1)
    mask = torch.arange(length) >= torch.tensor([[0], [2], [4], [length]])
    return torch.randn(3, rows, length, D), mask


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_an_encoder_ignores_padding_and_gives_a_constant_without_events(pool):
    encoder = Encoder(3, D, 8, Experts(pool=pool, num_layers=2)).eval()
    x, mask = sequences()
    found = encoder(x, mask)
    other = torch.where(mask[None, :, :, None], x, torch.randn_like(x))
    torch.testing.assert_close(encoder(other, mask), found)
    torch.testing.assert_close(encoder(x[:, 2:3, 4:], mask[2:3, 4:]), found[:, 2:3])
    nothing = encoder(torch.zeros(3, 1, 0, D), torch.zeros(1, 0, dtype=torch.bool))
    torch.testing.assert_close(nothing, found[:, 3:])


def test_pooling_at_the_last_event_skips_no_number():
    """The last layer runs at one position alone; run in full it gives the same vector there."""
    encoder = Encoder(3, D, 8, Experts(num_layers=2)).eval()
    x, mask = sequences()
    found = encoder(x[:, :3], mask[:3])
    full = x[:, :3] + encoder.positions[:, :, -5:]
    for layer in encoder.layers:
        full = layer(full, mask[:3], last_only=False)
    torch.testing.assert_close(found, encoder.norm(full[:, :, -1]))


def test_mean_pooling_is_the_mean_over_events():
    encoder = Encoder(3, D, 8, Experts(pool="mean")).eval()
    x, mask = sequences()
    full = encoder.norm(encoder.layers[0](x + encoder.positions[:, :, -5:], mask, last_only=False))
    torch.testing.assert_close(encoder(x, mask)[:, 1], full[:, 1, 2:].mean(1))


def test_both_directions_average_what_each_behavior_reads_of_the_other():
    expert = SharedExpert(D, 8, Experts(share="both")).eval()
    clicks, mask = sequences()
    favors, favor_mask = torch.randn(3, 4, 2, D), torch.ones(4, 2, dtype=torch.bool)
    there = expert._read(*expert._fused(clicks, mask), *expert._fused(favors, favor_mask))
    back = expert._read(*expert._fused(favors, favor_mask), *expert._fused(clicks, mask))
    torch.testing.assert_close(expert(clicks, mask, favors, favor_mask), (there + back) / 2)
    swapped = expert(favors, favor_mask, clicks, mask)
    torch.testing.assert_close(swapped, (there + back) / 2)


def test_concatenation_in_time_gives_three_tokens_an_event_and_ignores_padding():
    expert = SharedExpert(D, 8, Experts(concat="time")).eval()
    assert expert.concat is None and expert.encoder.positions.shape[2] == 24
    clicks, mask = sequences()
    tokens, token_mask = expert._fused(clicks, mask)
    assert tokens.shape == (1, 4, 15, D)
    torch.testing.assert_close(tokens[0, 0, -3:], clicks[:, 0, -1])
    assert token_mask.sum(1).tolist() == [15, 9, 3, 0]
    whole = expert(clicks, mask, clicks, mask)
    cut = expert(clicks[:, 2:3, 4:], mask[2:3, 4:], clicks[:, 2:3, 4:], mask[2:3, 4:])
    torch.testing.assert_close(cut, whole[2:3])


def test_cosines_are_those_of_each_user():
    vectors = torch.randn(3, 4, D)
    found = cosines(vectors)
    assert found.shape == (4, 3, 3)
    assert found[2, 0, 1].item() == pytest.approx(F.cosine_similarity(vectors[0, 2], vectors[1, 2], 0).item())
