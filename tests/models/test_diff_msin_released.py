"""`variant=released` has the defects of the released code, each beside the repaired number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.fusion import ScoreMap, State
from bench.models.diff_msin.model import DiffMSIN
from bench.models.diff_msin.synergy import CrossModal, SynergyCapture, reverse_factors
from bench.registry import entries, variants

N, D = 20, 8


def model(variant, text_width=6, **options):
    rng = np.random.default_rng(0)
    features = {"image": rng.standard_normal((N + 1, D)).astype(np.float32),
                "text": rng.standard_normal((N + 1, text_width)).astype(np.float32)}  # fmt: skip
    present = {name: np.ones(N + 1, bool) for name in features}
    torch.manual_seed(0)
    config = DiffMSINConfig(variant=variant, hidden_size=16, max_history=6, **options)
    return DiffMSIN(config, DatasetInfo(3, N, ("click", "favor"), ItemContent(N, features, present, {})))


def batch():
    history = torch.randint(1, N + 1, (3, 6), generator=torch.Generator().manual_seed(0))
    return Batch(torch.arange(3), history, torch.ones_like(history), torch.zeros_like(history))


def scored(given):
    with torch.no_grad():
        return given.eval().score(batch(), torch.arange(1, N + 1).expand(3, -1))


def test_first_reverse_factor_is_over_a_thousand_times_too_large():
    factors = reverse_factors(12, released=True)
    assert factors[1] == pytest.approx(138.15, abs=0.01)
    assert all(0.28 <= factor <= 0.70 for factor in factors[2:])
    assert factors[1] / reverse_factors(12, released=False)[1] > 1000


def test_first_round_multiplies_the_features_by_about_minus_171():
    capture = SynergyCapture(3, D, DiffMSINConfig(variant="released", noise=0.0))
    assert capture.config.rounds == 12
    streams = torch.randn(3, 2, 4, D)
    found = capture.round(streams, torch.zeros(2, 1, 4, 4), 1)
    expected = 1 - 138.15 * 2 / (1 + np.exp(-0.5))
    assert expected == pytest.approx(-171, abs=0.1)
    torch.testing.assert_close(found, expected * streams, rtol=1e-3, atol=1e-3)


def test_size_of_features_leaves_the_bounds_that_the_repaired_chain_keeps():
    streams, mask = torch.randn(3, 2, 4, D), torch.ones(2, 4, dtype=torch.bool)
    released = SynergyCapture(3, D, DiffMSINConfig(variant="released", noise=0.0))
    after = released.round(streams, torch.zeros(2, 1, 4, 4), 1).norm() / streams.norm()
    repaired = SynergyCapture(3, D, DiffMSINConfig(noise=0.0)).refine(streams, mask).norm() / streams.norm()
    assert after > 100 and 0.01 < repaired < 100


def test_scores_change_from_run_to_run():
    released, repaired = model("released"), model("repaired")
    assert not torch.equal(scored(released), scored(released))
    assert torch.equal(scored(repaired), scored(repaired))


def test_one_attention_module_serves_all_pairs():
    released, repaired = (CrossModal(3, D, flag) for flag in (True, False))
    assert [len(cross.query) for cross in (released, repaired)] == [1, 6]
    noised, allowed = torch.randn(3, 2, 4, D), torch.zeros(2, 1, 4, 4)
    for cross, receivers in ((released, 3), (repaired, 1)):
        before = cross(noised, allowed)
        with torch.no_grad():
            cross.gamma[0] = 1.0  # the module of the first pair: the first modality listens to the second
        moved = (cross(noised, allowed) - before).abs().amax((1, 2, 3)) > 1e-6
        assert moved.sum() == receivers


def test_source_weights_are_sigmoids_that_sum_to_one_and_a_quarter():
    assert CrossModal(3, D, True).weights().sum(1).tolist() == pytest.approx([1.2449] * 3, abs=1e-4)


def test_attention_of_fdaf_is_exactly_uniform():
    mask = torch.tensor([[True] * 4, [False, False, True, True]])
    state = State(torch.randn(2, 5, 4, D), mask, torch.randn(2, 4, D), torch.zeros(2, D))
    target = torch.randn(2, 3, 5, D)
    found = ScoreMap(5, D, DiffMSINConfig(variant="released")).attention(state, target)
    assert torch.equal(found[0], torch.full((3, 5, 4), 0.25))
    assert torch.equal(found[1], torch.tensor([0, 0, 0.5, 0.5]).expand(3, 5, 4))
    assert not torch.equal(ScoreMap(5, D, DiffMSINConfig()).attention(state, target)[0], found[0])


def test_sign_of_the_synergy_loss_is_the_released_one_unless_another_is_asked_for():
    assert DiffMSINConfig(variant="released").synergy == "released"
    assert DiffMSINConfig(variant="released", syn_loss="hinge").synergy == "hinge"
    assert DiffMSINConfig().synergy == "hinge"


def test_synergy_term_charges_positives_for_agreement_and_negatives_for_nothing():
    def term(variant, label):
        given = model(variant, noise=0.0, diffusion_steps=1, head_hidden=(4,)).eval()
        data = batch()
        data.target, data.label = data.history[:, -1], torch.full((3,), label)
        cosine = F.cosine_similarity(given.encode(data).synergy, given.inputs(data.target).mean(0))
        return given.loss(data)["synergy"], cosine

    value, cosine = term("released", 1.0)
    torch.testing.assert_close(value, cosine.clamp(min=0).mean())
    assert cosine.max() > 0 and term("released", 0.0)[0] == 0
    value, cosine = term("repaired", 1.0)
    torch.testing.assert_close(value, (1 - cosine).mean())


def test_activation_unit_has_the_widths_of_the_released_one():
    assert model("released").din.first.out_features == 256
    assert model("repaired").din.first.out_features == 80
    assert model("released", attention_hidden=(12, 6)).din.first.out_features == 12


def test_tables_name_the_variant():
    default = entries()["diff_msin"]
    assert default.card.label == "Diff-MSIN" and default.card.options == {}
    released = next(entry.card for entry in variants(default) if entry.card.name == "diff_msin:released")
    assert released.label == "Diff-MSIN (released)" and released.options == {"variant": "released"}


def test_features_enter_unprojected_at_length_one_and_are_tuned():
    released = model("released")
    items = torch.arange(1, N + 1)
    streams = released.inputs(items)
    assert released.inputs.size == D  # the widest table, whatever hidden_size says
    raw = torch.from_numpy(np.array(released.info.content.features["text"]))[1:]
    torch.testing.assert_close(streams[2, :, :6], F.normalize(raw, dim=-1))
    assert not streams[2, :, 6:].any()
    torch.testing.assert_close(streams.norm(dim=-1), torch.ones(3, N))
    assert isinstance(released.inputs.tables["text"].table, torch.nn.Parameter)
    assert "inputs.tables.text.features" not in model("repaired").state_dict()


def test_twelve_rounds_unless_told_otherwise():
    assert DiffMSINConfig(variant="released").rounds == 12 and DiffMSINConfig().rounds == 10
    assert DiffMSINConfig(variant="released", diffusion_steps=3).rounds == 3
