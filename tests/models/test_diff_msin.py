"""Diff-MSIN as a model: scores, gradients, switches, missing modalities."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.losses import decoupling
from bench.models.diff_msin.model import DiffMSIN

N, USERS, L, ROWS, SHOWN = 30, 9, 8, 5, 3


def content(modalities=("image", "text"), width=12):
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((N + 1, width)).astype(np.float32) for name in modalities}
    return ItemContent(N, features, {name: rng.random(N + 1) > 0.2 for name in modalities}, {})


def build(modalities=("image", "text"), behaviors=("click", "favor"), **options):
    torch.manual_seed(0)
    base = dict(hidden_size=16, max_history=L, attention_hidden=(12, 6), head_hidden=(20, 10))
    base["diffusion_steps"] = 3
    return DiffMSIN(DiffMSINConfig(**base | options), DatasetInfo(USERS, N, behaviors, content(modalities)))


def histories(seed=0, behaviors=2):
    g = torch.Generator().manual_seed(seed)
    history = torch.randint(1, N + 1, (ROWS, L), generator=g)
    behavior = torch.randint(1, behaviors + 1, (ROWS, L), generator=g)
    real = torch.arange(L) >= torch.tensor([[0], [2], [4], [7], [8]])  # the last user has no event
    behavior[1] = 1
    return Batch(torch.arange(ROWS), history * real, behavior * real, torch.zeros_like(history))


def impressions(seed=0, behaviors=2):
    data = histories(seed, behaviors)
    parts = (x.repeat_interleave(SHOWN, 0) for x in (data.user, data.history, data.behavior, data.timestamp))
    g = torch.Generator().manual_seed(seed + 1)
    label = (torch.arange(ROWS * SHOWN) % SHOWN == 0).float()
    return Batch(*parts, target=torch.randint(1, N + 1, (ROWS * SHOWN,), generator=g), label=label)


def scores(model, data, candidates=None):
    everything = torch.arange(1, N + 1).expand(len(data), -1)
    with torch.no_grad():
        return model.eval().score(data, everything if candidates is None else candidates)


def trained(model, steps=2):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        model.train().loss(impressions(step))["loss"].backward()
        optimizer.step()
    return model


def test_loss_is_the_weighted_sum_of_its_terms():
    terms = build().loss(impressions())
    assert set(terms) == {"loss", "click", "decouple", "synergy"}
    torch.testing.assert_close(
        terms["loss"], terms["click"] + 0.1 * terms["decouple"] + 0.05 * terms["synergy"]
    )


def test_click_loss_is_binary_cross_entropy_of_each_row_alone():
    model, data = trained(build()).eval(), impressions()
    own = torch.cat(
        [scores(model, data.rows(slice(i, i + 1)), data.target[i : i + 1, None]) for i in range(15)]
    )
    expected = F.binary_cross_entropy_with_logits(own[:, 0], data.label)
    torch.testing.assert_close(model.loss(data)["click"], expected, atol=1e-5, rtol=1e-5)


def test_softmax_objective_is_cross_entropy_among_the_items_shown():
    model, data = trained(build(objective="softmax")).eval(), impressions()
    logits = scores(model, histories(), data.target.view(ROWS, SHOWN))
    expected = F.cross_entropy(logits, torch.zeros(ROWS, dtype=torch.int64))
    torch.testing.assert_close(model.loss(data)["click"], expected, atol=1e-5, rtol=1e-5)


def test_a_history_is_encoded_once_for_all_its_rows():
    model, seen = build(), []
    model.capture.register_forward_hook(lambda *given: seen.append(given[1][0].shape[1]))
    model.loss(impressions())
    assert sum(seen) == ROWS


SWITCHES = [{}, {"score_pool": "sum"}, {"fdaf": "gated_cross"}, {"mfe": "gated"}, {"history": "click"}]


@pytest.mark.parametrize("options", SWITCHES)
def test_scores_repeat_to_the_bit_in_eval_mode(options):
    model = trained(build(**options))
    first = scores(model, histories())
    scores(model, histories(7))  # other users in between
    torch.manual_seed(99)
    assert torch.equal(scores(model, histories()), first)


def test_training_noise_follows_the_seed():
    model = build()
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model.train().loss(impressions())["loss"].item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("options", SWITCHES)
def test_padding_and_batch_mates_do_not_change_scores(options):
    model, data = trained(build(**options)), histories()
    whole = scores(model, data)
    wide = (F.pad(x, (3, 0)) for x in (data.history, data.behavior, data.timestamp))
    torch.testing.assert_close(scores(model, Batch(data.user, *wide)), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        scores(model, data.rows(torch.arange(ROWS).flip(0))).flip(0), whole, atol=1e-5, rtol=1e-5
    )
    for row in range(ROWS):
        alone = scores(model, data.rows(slice(row, row + 1)))
        torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=1e-5)


def test_other_batch_mates_change_no_bit():
    """In a batch of one shape; the shape itself chooses how products are added and moves the last bits."""
    model, first, second = trained(build()), histories(0), histories(1)
    mixed = second.history.clone()
    mixed[2], kinds = first.history[2], second.behavior.clone()
    kinds[2] = first.behavior[2]
    second = Batch(first.user, mixed, kinds, first.timestamp)
    assert not torch.equal(scores(model, first)[0], scores(model, second)[0])
    assert torch.equal(scores(model, first)[2], scores(model, second)[2])


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_candidates_score_as_they_do_alone_for_any_chunk(chunk):
    model, data = trained(build(score_chunk=chunk)), histories()
    one_by_one = [scores(model, data, torch.full((ROWS, 1), item)) for item in range(1, N + 1)]
    torch.testing.assert_close(scores(model, data), torch.cat(one_by_one, 1), atol=1e-5, rtol=1e-5)


def test_permuting_candidates_permutes_scores():
    model, data = trained(build()), histories()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    found = scores(model, data, (order + 1).expand(ROWS, -1))
    torch.testing.assert_close(found, scores(model, data)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"mfe": "gated"}, {"fdaf": "gated_cross"}, {"score_pool": "sum"}, {"variant": "released"},
     {"decouple": "r_style"}, {"backbone": "none"}, {"objective": "softmax"}],
)  # fmt: skip
def test_every_parameter_has_a_gradient_after_two_steps(options):
    model = trained(build(**options), steps=3)
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == [] and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_attention_weights_of_src_wait_for_gamma_in_the_first_step():
    model = trained(build(), steps=1)
    assert not model.capture.cross.query.grad.any() and model.capture.cross.gamma.grad.all()


def test_experts_are_saved_and_trained():
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items() if "experts" in name}
    assert len(before) == 4 * 4  # three of their own and a common one, two layers each
    after = trained(model, steps=1).state_dict()
    assert all(not torch.equal(value, after[name]) for name, value in before.items())


def test_each_modality_reads_its_own_table():
    model = build()
    items = torch.arange(1, N + 1)
    before = model.inputs(items)
    assert model.inputs.modalities == ("id", "image", "text")
    model.inputs.tables["text"].features.zero_()
    after = model.inputs(items)
    assert torch.equal(after[:2], before[:2]) and not torch.allclose(after[2], before[2])


def test_each_stream_meets_the_target_of_its_own_modality_and_the_last_two_the_mean():
    model, seen = build().eval(), []
    model.fusion.register_forward_hook(lambda *given: seen.append(given[1][1]))
    items = torch.arange(1, N + 1)
    scores(model, histories(), items[:4].expand(ROWS, -1))
    sides, own = seen[0][0], model.inputs(items[:4])  # (C, S, D) of the first block, (M, C, D)
    torch.testing.assert_close(sides[:, :3], own.transpose(0, 1))
    for position in (3, 4):
        torch.testing.assert_close(sides[:, position], (own[0] + own[1] + own[2]) / 3)


def test_features_move_only_where_they_are_told_to():
    def moves(**options):
        model = build(**options)
        before = model.inputs.tables["image"].features.clone()
        return not torch.equal(trained(model).inputs.tables["image"].features, before)

    assert moves(trainable_features=True) and not moves()


def test_switches_of_the_losses_reach_the_loss():
    plain, margin = build().eval().loss(impressions()), build(syn_loss="hinge_margin").eval()
    assert margin.loss(impressions())["synergy"] > plain["synergy"]
    squared = build(decouple="sq_cos").eval()
    expected = decoupling(squared.encode(histories()).pooled(), "sq_cos")
    torch.testing.assert_close(squared.loss(impressions())["decouple"], expected)
    assert abs(expected - plain["decouple"]) > 1e-3


@pytest.mark.parametrize(("given", "expected"), [((), ("id",)), (("text",), ("id", "text"))])
def test_missing_modalities_leave_fewer_streams(given, expected):
    model = trained(build(given))
    assert model.inputs.modalities == expected
    assert model.encode(histories()).streams.shape == (ROWS, len(expected) + 2, L, 16)
    assert torch.isfinite(scores(model, histories())).all()


@pytest.mark.parametrize(("history", "wanted"), [("merged", (1, 2)), ("click", (1,)), ("favor", (2,))])
def test_history_reads_the_behaviors_it_names(history, wanted):
    model, data = build(history=history), histories()
    items, behavior, mask = model.events(data)
    for row in range(ROWS):
        kept = torch.isin(data.behavior[row], torch.tensor(wanted))
        assert items[row][mask[row]].tolist() == data.history[row][kept].tolist()
        assert set(behavior[row][mask[row]].tolist()) <= set(wanted)


def test_with_one_behavior_every_history_is_the_whole():
    data = histories(behaviors=1)
    for history in ("merged", "click", "favor"):
        assert torch.equal(build(behaviors=("buy",), history=history).events(data)[0], data.history)


def test_nobody_with_a_favor_gives_finite_scores():
    data = histories(behaviors=1)
    model = trained(build(history="favor"))
    assert torch.isfinite(scores(model, data)).all()


def test_behavior_of_an_event_moves_the_scores():
    model, data = trained(build()), histories()
    swapped = Batch(data.user, data.history, (3 - data.behavior) * data.mask, data.timestamp)
    moved = (scores(model, swapped) - scores(model, data)).abs().amax(1)
    assert (moved[:4] > 1e-6).all() and moved[4] == 0


def test_options_out_of_step_are_refused():
    with pytest.raises(ValueError, match="num_heads=4 does not divide hidden_size=6"):
        DiffMSINConfig(hidden_size=6, fdaf="gated_cross")
    for name in ("diffusion_steps", "num_negatives", "max_history"):
        with pytest.raises(ValueError, match=f"{name}=0 must be 1 or more"):
            DiffMSINConfig(**{name: 0})


def test_extra_terms_name_gamma_and_weight_of_each_pair():
    terms = build().extra_terms()
    assert len(terms) == 12 and terms["weight, image to id"] == pytest.approx(0.5)
    assert terms["gamma, text to image"] == 0


@pytest.mark.parametrize("source", ["experts", "streams"])
def test_src_reads_what_the_experts_give_or_the_input_streams(source, monkeypatch):
    model, data = build(synergy_input=source).eval(), histories()
    read = []
    model.capture.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    items, behavior, mask = model.events(data)
    model.streams(items, behavior)
    streams = (model.inputs(items) + model.behavior(behavior)) * mask[..., None]
    expected = model.experts(streams)[0] if source == "experts" else streams
    assert torch.equal(read[0][:, mask], expected[:, mask])
