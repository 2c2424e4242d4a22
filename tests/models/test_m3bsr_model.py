"""The whole model: shapes, padding, batch mates, denoising across behaviors, head and loss."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from m3bsr_cases import L, N, batch, build, content, denoised, loss_of, scores, with_other_item

from bench.interface import Batch, DatasetInfo
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.layout import Events, gather, layout, masked_mean, scatter
from bench.models.m3bsr.model import M3BSR

STARTS = ("mean", "clean", "noised")


def start_everywhere(start):
    return build({"cdmd_m.infer_start": start, "cdmd_b.infer_start": start})


def padded(data, columns):
    wide = {n: F.pad(getattr(data, n), (columns, 0)) for n in ("history", "behavior", "timestamp")}
    return dataclasses.replace(data, **wide)


def test_shapes_are_finite_for_unequal_missing_and_single_histories():
    model = build()
    terms = model.loss(batch())
    assert set(terms) == {"loss", "main", "contrast", "modality", "behavior"}
    assert all(torch.isfinite(value) and value.dim() == 0 for value in terms.values())
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert scores(model, batch()).shape == (6, N)
    assert torch.isfinite(scores(model, batch())).all()
    assert scores(model, batch().rows(slice(3, 4))).shape == (1, N)


def test_loss_is_the_weighted_sum_of_its_terms():
    terms = build().loss(batch())
    total = terms["main"] + 0.05 * terms["contrast"] + 0.02 * terms["modality"] + 0.02 * terms["behavior"]
    torch.testing.assert_close(terms["loss"], total)


@pytest.mark.parametrize(
    "options", [{}, {"head": "linear"}, {"head": "tied_id"}, {"head": "sum"}, {"fusion": "tile"}]
)
def test_full_softmax_equals_cross_entropy_over_the_scores_of_all_candidates(options):
    model = build(options).eval()
    data = batch()
    expected = F.cross_entropy(scores(model, data), data.target - 1)
    torch.testing.assert_close(model.loss(data)["main"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("start", STARTS)
def test_padding_does_not_change_scores(start):
    model, data = start_everywhere(start), batch()
    cut = {n: getattr(data, n)[:, 3:] for n in ("history", "behavior", "timestamp")}
    short = dataclasses.replace(data, **cut)
    torch.testing.assert_close(scores(model, short), scores(model, padded(short, 3)), atol=1e-5, rtol=1e-5)


def test_content_under_the_mask_does_not_change_scores():
    """Item 0 is padding: whatever its table rows and features hold reaches nobody."""
    model, data = build(), batch()
    before = scores(model, data)
    with torch.no_grad():
        model.inputs.item.weight[0] = 7.0
        for table in model.inputs.content:
            table.features[0] = 7.0
            table.present[0] = ~table.present[0]
    torch.testing.assert_close(scores(model, data), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"cdmd_m.sampler": "ancestral", "cdmd_b.sampler": "ancestral"}])
@pytest.mark.parametrize("start", STARTS)
def test_inference_repeats_to_the_bit_and_ignores_batch_mates(start, options):
    ends = {f"{stage}.infer_start": start for stage in ("cdmd_m", "cdmd_b")}
    model, data = build(options | ends), batch()
    whole = scores(model, data)
    torch.manual_seed(77)
    assert torch.equal(whole, scores(model, data))
    for row in range(len(data)):
        alone = scores(model, data.rows(slice(row, row + 1)))
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("start", STARTS)
def test_other_batch_mates_change_no_bit(start):
    """In a batch of one shape; the shape itself chooses how products are added and moves the last bits."""
    model = build({f"{stage}.infer_start": start for stage in ("cdmd_m", "cdmd_b")})
    g = torch.Generator().manual_seed(1)
    history = torch.randint(1, N + 1, (9, L), generator=g)
    behavior = torch.tensor([1, 2]).repeat(9, L // 2)
    data = Batch(torch.arange(9), history, behavior, torch.zeros_like(history))
    mates = ([0, 1, 2, 3, 4], [8, 7, 2, 5, 6])
    first, second = (scores(model, data.rows(torch.tensor(rows))) for rows in mates)
    assert torch.equal(first[2], second[2])


def test_noised_start_differs_by_user_and_by_seed():
    data = batch()
    ends = {"cdmd_m.infer_start": "noised", "cdmd_b.infer_start": "noised"}
    model = build(ends)
    twin = dataclasses.replace(data, user=data.user + 1)
    blind = build({**ends, "id_fields": ()})
    other = build({**ends, "id_fields": (), "cdmd_m.noise_seed": 1})
    assert not torch.allclose(scores(blind, data)[3], scores(blind, twin)[3])
    assert not torch.allclose(scores(blind, data)[3], scores(other, data)[3])
    assert not torch.allclose(scores(model, data)[3], scores(build(), data)[3])


def test_both_stages_draw_noise_of_their_own():
    model = build()
    seeds = [block.seed for block in (*model.cdmd_m.blocks, model.cdmd_b.block)]
    assert len(set(seeds)) == len(seeds)


def test_favors_reach_the_denoised_clicks():
    model, data = build(), batch()
    changed = with_other_item(data, behavior=2)
    before, after = (denoised(model, part).behavior for part in (data, changed))
    clicks = data.behavior[3] == 1
    assert not torch.allclose(before[:, 3, clicks], after[:, 3, clicks])
    assert torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("replace", ["identity", "mlp"])
def test_favors_do_not_reach_the_clicks_without_behavior_denoising(replace):
    model, data = build({"cdmd_b.replace": replace}), batch()
    before, after = (denoised(model, part).behavior for part in (data, with_other_item(data, behavior=2)))
    clicks = data.behavior[3] == 1
    assert torch.equal(before[:, 3, clicks], after[:, 3, clicks])


def favor_text_changed(cond):
    """Return Z of clicks before and after the texts change of all items favored and not clicked."""
    model, data = build({"cdmd_b.cond": cond}), batch()
    row = (data.behavior[3] == 1, data.history[3])
    only = sorted(set(row[1][data.behavior[3] == 2].tolist()) - set(row[1][row[0]].tolist()))
    before = denoised(model, data).behavior[:, 3, row[0]]
    table = model.inputs.content[1]
    table.features[only] += 3.0
    table.present[only] = True
    return before, denoised(model, data).behavior[:, 3, row[0]]


def test_under_the_image_condition_favor_texts_change_no_click_stream():
    before, after = favor_text_changed("image")
    assert torch.equal(before, after)


def test_under_the_same_modality_favor_texts_change_click_texts_alone():
    before, after = favor_text_changed("same")
    assert torch.equal(before[:2], after[:2])  # id, image
    assert not torch.allclose(before[2], after[2])


def test_under_all_modalities_favor_texts_change_every_click_stream():
    before, after = favor_text_changed("all")
    assert all(not torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_modalities_are_denoised_under_ids_of_their_own_behavior_only():
    model, data = build(), batch()
    before, after = (denoised(model, d).modality[1:, 3] for d in (data, with_other_item(data, behavior=2)))
    favors, clicks = (data.behavior[3] == 2), (data.behavior[3] == 1)
    assert torch.equal(before[:, clicks], after[:, clicks])
    assert not torch.allclose(before[:, favors], after[:, favors])


def test_ids_and_target_behavior_pass_the_stages_untouched():
    model, data = build(), batch()
    found = denoised(model, data)
    ids = model.inputs.id_stream(data.history, data.user)
    assert torch.equal(found.modality[0], ids)
    favors = data.behavior == 2
    assert torch.equal(found.behavior[:, favors], found.modality[:, favors])


def test_one_masked_call_equals_separate_calls_for_each_behavior():
    """The merged layout is an identity: denoise clicks and favors as two padded streams and compare."""
    model, data = build().eval(), batch()
    ids = model.inputs.id_stream(data.history, data.user)
    (streams,) = model.inputs.content_streams(data.history)
    merged = denoised(model, data).modality[1:]
    for events in layout(data, 2).each:
        real = events.mask[None, :, :, None]
        condition = events.of(ids.expand(2, *ids.shape)) * real
        part = events.of(streams) * real
        with torch.no_grad():
            block = model.cdmd_m.blocks[0]
            alone, _ = block(part, events.mask, condition, events.mask[:, None], data.user)
        torch.testing.assert_close(alone, events.of(merged) * real, atol=1e-5, rtol=1e-5)


def test_every_shallower_behavior_is_denoised_under_the_deepest():
    """One call over views and carts together equals a call for each of them, both under the buys."""
    model, data = build(behaviors=("view", "cart", "buy")).eval(), batch(behaviors=3)
    found, events = denoised(model, data), layout(data, 3)
    deep = events.target
    for each in events.each[:2]:
        with torch.no_grad():
            alone, _ = model.cdmd_b(
                each.of(found.modality), each.mask, deep.of(found.modality), deep.mask[:, None], data.user
            )
        real = each.mask[None, :, :, None]
        torch.testing.assert_close(alone, each.of(found.behavior) * real, atol=1e-5, rtol=1e-5)
    buys = data.behavior == 3
    assert torch.equal(found.behavior[:, buys], found.modality[:, buys])


@pytest.mark.parametrize("behaviors", [("favor",), ("view", "cart", "buy"), ("view", "cart", "fav", "buy")])
def test_any_number_of_behaviors_trains_every_parameter_and_scores(behaviors):
    model = build(behaviors=behaviors)
    data = batch(behaviors=len(behaviors), rows=12)
    data.user %= 6
    model.loss(data)["loss"].backward()
    assert torch.isfinite(scores(model, data)).all()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    missing = {f"unique.{b}.empty" for b in range(len(behaviors))} | {"shared.encoder.empty"}
    assert set(idle) <= (missing if len(behaviors) > 2 else set())


def test_one_behavior_has_no_behavior_denoising_and_reads_itself():
    model, data = build(behaviors=("favor",)), batch(behaviors=1)
    assert model.cdmd_b is None
    assert set(model.loss(data)) == {"loss", "main", "contrast", "modality"}
    events = layout(data, 1)
    common, _ = model.eval().experts(denoised(model, data).behavior, events)
    assert not torch.allclose(common[3], common[4])


def test_no_favors_at_all_trains_and_scores():
    data = batch()
    data.behavior[data.behavior == 2] = 1
    model = build()
    assert torch.isfinite(loss_of(model, data)["loss"])
    found = scores(model, data)
    assert torch.isfinite(found).all() and not torch.allclose(found[3], found[4])


@pytest.mark.parametrize("space", ["projected", "raw_standardized"])
@pytest.mark.parametrize("kept", [{"image": False}, {"text": False}, {"image": False, "text": False}])
def test_a_data_set_without_a_modality_trains_and_scores_with_a_constant_stream(kept, space):
    model, data = build({"space": space}, **kept), batch()
    model.loss(data)["loss"].backward()
    assert torch.isfinite(scores(model, data)).all()
    stream = model.inputs.modality(1 if "image" in kept else 2, torch.arange(1, N + 1))
    assert torch.equal(stream, stream[:1].expand_as(stream))


def test_every_parameter_gets_a_gradient_in_one_step():
    model = build()
    model.loss(batch())["loss"].backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_targets_are_all_favors_or_the_last_one():
    assert build().stages()[0].view.targets == "target"
    assert build({"targets": "last_only"}).stages()[0].view.targets == "last"


def test_autocast_runs_experts_in_bfloat16_and_diffusion_in_float32():
    kinds = {}

    def note(name):
        return lambda module, inputs, output: kinds.update({name: output.dtype})

    model = build({"autocast": True})
    model.cdmd_b.block.predictor.narrow.register_forward_hook(note("chain"))
    model.unique[0].layers[0].narrow.register_forward_hook(note("expert"))
    model.items.join.register_forward_hook(note("head"))
    terms = loss_of(model, batch())
    assert kinds == {"chain": torch.float32, "expert": torch.bfloat16, "head": torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in terms.values())
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert scores(model, batch()).dtype == torch.float32
    exact = loss_of(build(), batch())
    assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.02)


def test_gather_and_scatter_are_inverse_where_there_are_events():
    data = batch()
    streams = torch.randn(3, 6, L, 5)
    items, places = data.stream(1)
    back = scatter(torch.zeros_like(streams), places, gather(streams, places), items > 0)
    kept = (data.behavior == 1)[None, :, :, None]
    assert torch.equal(back, streams * kept)
    assert torch.equal(Events(places, items > 0).of(streams), gather(streams, places))


def test_masked_mean_ignores_padding():
    values = torch.tensor([[[1.0, 5.0], [3.0, 7.0]]])
    assert masked_mean(values, torch.tensor([[True, False], [True, False]])) == 2.0
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)) == 0.0


def test_a_batch_without_any_event_scores_all_users_alike():
    zeros = torch.zeros(2, 1, dtype=torch.int64)
    config = M3BSRConfig(hidden_size=16, id_size=4, max_history=L, id_fields=("brand",))
    model = M3BSR(config, DatasetInfo(2, N, ("a", "b"), content()))
    found = scores(model, Batch(torch.arange(2), zeros, zeros, zeros))
    assert torch.isfinite(found).all() and torch.equal(found[0], found[1])
