"""The causal reading: every position of a window is what a prefix alone gives under the causal masks."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from m3bsr_cases import FORMS, VARIANTS, L, N, batch, build, causal, loss_of, scores, windows

from bench.contract import events as example_events
from bench.contract import training_batches
from bench.errors import UserError
from bench.example import example_info
from bench.interface import Batch, Causal, Next
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.layout import Reads, layout
from bench.models.m3bsr.model import M3BSR


def every_position(data):
    return Reads(*torch.nonzero(data.mask, as_tuple=True))


def interests(model, data):
    """Return y at every event, (P, width)."""
    events = layout(data, model.target_behavior)
    with torch.no_grad():
        return model.eval().interest(model.denoised(data, events).behavior, events, every_position(data))[0]


def naive(model, data, row, position):
    """Return y at one position, event by event and without a mask: what came before is all there is."""
    history, behavior = data.history[row], data.behavior[row]
    events = [p for p in range(position + 1) if history[p] > 0]
    user = data.user[row : row + 1]
    ids = model.inputs.id_stream(history[None], user)
    (content,) = model.inputs.content_streams(history[None])
    streams = {}
    for p in events:
        own = [q for q in events if q <= p and behavior[q] == behavior[p]]
        streams[p] = torch.cat(
            [ids[None, :, p : p + 1], alone(model.cdmd_m.blocks[0], content, p, ids[None], own)]
        )
    joined = torch.zeros(3, 1, L, 16)
    for p, value in streams.items():
        joined[:, :, p : p + 1] = value
    favors = [p for p in events if behavior[p] == 2]
    done = joined.clone()
    for p in set(events) - set(favors):
        before = [q for q in favors if q < p]
        done[:, :, p : p + 1] = alone(model.cdmd_b.block, joined, p, joined, before)
    unique = [
        last_vector(model.unique[b], done, [p for p in events if behavior[p] == b + 1]) for b in range(2)
    ]
    return model.fusion(shared_vector(model.shared, done, events, favors)[0], torch.cat(unique))[0]


def alone(block, streams, p, condition, own):
    """Denoise the event at p under the events `own` of the condition, all of which it sees."""
    seen = torch.ones(1, 1, len(own), dtype=torch.bool)
    given = condition.expand(len(streams), -1, -1, -1)[:, :, own]
    one = torch.ones(1, 1, dtype=torch.bool)
    return block(streams[:, :, p : p + 1], one, given, seen, torch.zeros(1, dtype=torch.int64))[0]


def last_vector(encoder, streams, events):
    """Return what an encoder of one layer says at the last of some events, which stand at these positions."""
    x = streams[:, :, events] if events else encoder.empty[:, :, None].expand(-1, 1, -1, -1)
    x = x + encoder.positions[:, :, events or [L - 1]]
    (layer,) = encoder.layers
    return encoder.norm(layer(x, torch.ones(1, x.shape[2], dtype=torch.bool), last_only=True)[:, :, 0])


def shared_vector(expert, streams, events, favors):
    """Return h_common of the default: each event asks the favors before it, then the encoder reads."""
    fused = expert.concat(torch.cat(streams.unbind(0), -1))[None]
    mixed = fused.clone()
    for p in events:
        asked = torch.cat([fused[:, :, [q for q in favors if q < p]], expert.null], 2)
        key, value = expert.key_and_value(asked).chunk(2, -1)
        query = expert.query(fused[:, :, p : p + 1])
        heads = (part.unflatten(-1, (4, -1)).transpose(2, 3) for part in (query, key, value))
        out = F.scaled_dot_product_attention(*heads).transpose(2, 3).flatten(3)
        mixed[:, :, p : p + 1] = fused[:, :, p : p + 1] + expert.output(out)
    return last_vector(expert.encoder, mixed, events)


def test_every_position_equals_a_naive_loop_over_prefixes():
    model, data = causal({"cdmd_m.reverse_steps": 2}).eval(), windows(rows=5)
    found, reads = interests(model, data), every_position(data)
    with torch.no_grad():
        for index, (row, position) in enumerate(
            zip(reads.row.tolist(), reads.position.tolist(), strict=True)
        ):
            expected = naive(model, data, row, position)
            torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=1e-5)


def others_after(data, position):
    """Return the batch with other items and behaviors behind a position."""
    later = (torch.arange(L) > position) & data.mask
    history = torch.where(later, data.history % N + 1, data.history)
    behavior = torch.where(later, 3 - data.behavior, data.behavior)
    return dataclasses.replace(data, history=history, behavior=behavior)


@pytest.mark.parametrize("form", FORMS)
def test_an_event_behind_a_position_changes_nothing_there(form):
    model, data = causal(FORMS[form]), windows()
    whole, position = interests(model, data), every_position(data).position
    for last in range(2, L - 1, 2):
        changed = interests(model, others_after(data, last))
        before = position <= last
        torch.testing.assert_close(changed[before], whole[before], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(changed[~before], whole[~before])


def test_no_label_of_the_training_windows_is_visible_at_its_position():
    """The windows that training reads: whatever stands behind a position, its label first, may change."""
    model = M3BSR(M3BSRConfig(hidden_size=16, id_size=4), example_info())
    data = next(training_batches(model.stages()[0], 0))
    count, width = model.info.num_items, data.history.shape[1]
    row, position = torch.nonzero(data.labels, as_tuple=True)
    following = data.history.roll(-1, 1)[row, position]
    assert torch.equal(data.labels[row, position][position < width - 1], following[position < width - 1])
    model.eval()
    for last in range(width - 8, width - 1, 3):
        later = (torch.arange(width) > last) & data.mask
        other = dataclasses.replace(data, history=torch.where(later, data.history % count + 1, data.history))
        reads = Reads(row[position <= last], position[position <= last])
        found = []
        for one in (data, other):
            events = layout(one, model.target_behavior)
            with torch.no_grad():
                found.append(model.interest(model.denoised(one, events).behavior, events, reads)[0])
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_packing_changes_neither_scores_nor_losses_nor_gradients(form):
    models = [causal({**FORMS[form], "packed": packed}) for packed in (True, False)]
    check_equal(models, windows())


@pytest.mark.parametrize("options", [{}, {"cdmd_b.replace": "mlp"}, {"cdmd_m.loss": "trajectory"}])
def test_packing_changes_nothing_in_the_prefix_reading(options):
    models = [build({**options, "meie.dropout": 0.0, "packed": packed}) for packed in (True, False)]
    check_equal(models, batch())


def check_equal(models, data):
    """Check that two models give equal scores, loss terms and gradients on a batch."""
    first, second = (loss_of(model, data) for model in models)
    assert set(first) == set(second)
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=1e-5)
    for terms in (first, second):
        terms["loss"].backward()
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(scores(models[0], data), scores(models[1], data), atol=1e-5, rtol=1e-5)


def test_inference_reads_the_last_position():
    model, data = causal(), windows()
    reads = every_position(data)
    last = reads.position == L - 1
    items = model.encode_items()
    expected = interests(model, data)[last] @ items[1:].T + model.items.bias[1:]
    torch.testing.assert_close(scores(model, data)[reads.row[last]], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_each_of_its_parameters(form):
    model = causal(FORMS[form])
    found = loss_of(model, windows())
    found["loss"].backward()
    assert all(torch.isfinite(value) for value in found.values())
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_an_ablation_loses_its_term_in_the_causal_reading():
    terms = {"loss", "main", "contrast", "modality", "behavior"}
    lost = {form: terms - set(loss_of(causal(VARIANTS[form]), windows())) for form in VARIANTS}
    expected = {"no_cdmd_m": {"modality"}, "mlp": {"modality"}, "no_cdmd_b": {"behavior"}}
    expected |= {"no_meie": {"contrast"}}
    assert lost == {"no_shared": set(), "no_disent": set(), **expected}


@pytest.mark.parametrize("packed", [True, False])
def test_more_padding_changes_no_score_and_more_events_than_positions_are_an_error(packed):
    model, data = causal({"packed": packed}), windows()
    wide = {name: F.pad(getattr(data, name), (3, 0)) for name in ("history", "behavior", "timestamp")}
    padded = dataclasses.replace(data, **wide)
    torch.testing.assert_close(scores(model, padded), scores(model, data), atol=1e-5, rtol=1e-5)
    padded.history[1], padded.behavior[1] = 1, 2
    with pytest.raises(IndexError):
        scores(model, padded)


@pytest.mark.parametrize("form", ["default", "no_meie", "tokens_both"])
def test_histories_without_a_column_score_as_those_without_an_event(form):
    model, zeros = causal(FORMS[form]), torch.zeros(2, L, dtype=torch.int64)
    nothing = [Batch(torch.arange(2), part, part, part) for part in (zeros, zeros[:, :0])]
    torch.testing.assert_close(*(scores(model, data) for data in nothing))


def test_autocast_trains_near_the_exact_loss_and_scores_in_float32():
    terms, exact = (loss_of(causal({"autocast": asked}), windows()) for asked in (True, False))
    terms["loss"].backward()
    assert terms["loss"].dtype == torch.float32
    assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.02)
    assert scores(causal({"autocast": True}), windows()).dtype == torch.float32


@pytest.mark.parametrize("behaviors", [("favor",), ("view", "cart", "buy")])
def test_any_number_of_behaviors_trains_and_scores_in_the_causal_reading(behaviors):
    model, data = causal(behaviors=behaviors), windows(behaviors=len(behaviors))
    found = loss_of(model, data)
    found["loss"].backward()
    assert torch.isfinite(found["loss"]) and torch.isfinite(scores(model, data)).all()


@pytest.mark.parametrize(("target", "auxiliary"), [(1.0, 1.0), (2.0, 0.5), (1.0, 0.0)])
def test_the_main_loss_is_the_weighted_mean_over_labelled_positions(target, auxiliary):
    weights = {"loss_weight_target": target, "loss_weight_auxiliary": auxiliary}
    model, data = causal(weights).eval(), windows()
    labels = data.labels[data.mask] - 1
    share = torch.where(data.label_behavior[data.mask] == 2, target, auxiliary)
    logits = interests(model, data) @ model.encode_items()[1:].T + model.items.bias[1:]
    expected = (F.cross_entropy(logits, labels, reduction="none") * share).sum() / share.sum()
    torch.testing.assert_close(model.loss(data)["main"], expected, atol=1e-5, rtol=1e-5)


def test_a_batch_without_a_favor_to_predict_has_a_finite_loss():
    data = windows()
    data.label_behavior[data.label_behavior == 2] = 1
    found = loss_of(causal({"loss_weight_auxiliary": 0.0}), data)
    found["loss"].backward()
    assert found["main"] == 0 and torch.isfinite(found["loss"])


def test_the_item_bias_starts_at_the_weighted_frequency_of_all_targets():
    model = M3BSR(M3BSRConfig(hidden_size=16, loss_weight_auxiliary=0.5), example_info())
    events = example_events()
    model.set_up(events)
    favors, every = (torch.from_numpy(events.item_counts(kind)) for kind in (model.target_behavior, None))
    counts = favors + 0.5 * (every - favors)
    one, other = int(counts.argmax()), int(counts[1:].argmin()) + 1
    expected = math.log(counts[one] + 1) - math.log(counts[other] + 1)
    assert (model.items.bias[one] - model.items.bias[other]).item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(model.target_share, (counts / counts.sum()).float())


def test_each_reading_trains_on_its_own_view():
    assert causal().stages()[0].view == Causal(L)
    assert build().stages()[0].view == Next(L, "target", 10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": "last_only"}, "targets=last_only needs reading=prefix"),
        ({"reading": "prefix"}, "reading=prefix needs meie.share=click_to_favor or both"),
        ({"loss_weight_target": 0.0}, "loss_weight_target above 0"),
        ({"loss_weight_auxiliary": -1.0}, "loss_weight_auxiliary"),
    ],
)
def test_options_that_the_reading_does_not_have_are_refused_in_one_line(options, said):
    with pytest.raises(UserError) as error:
        causal(options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_context_of_an_event_is_what_a_layer_says_of_the_ids_of_its_behavior_up_to_it():
    model, data = causal({"cdmd_m.cond": "context"}).eval(), windows()
    context, row = model.cdmd_m.context, 3
    with torch.no_grad():
        ids = model.inputs.id_stream(data.history, data.user)
        condition, _ = model.cdmd_m.condition(ids, data.behavior)
        for p in torch.nonzero(data.mask[row])[:, 0].tolist():
            own = [q for q in range(p + 1) if data.behavior[row, q] == data.behavior[row, p]]
            x = (ids[row, own] + context.positions[own])[None, None]  # (1, 1, n, D)
            alone = context.layer(x, torch.ones(1, len(own), dtype=torch.bool), last_only=True)
            expected = context.norm(alone)[0, 0, -1]
            torch.testing.assert_close(condition[row, p], expected, atol=1e-5, rtol=0)


def test_without_a_predictor_in_cdmd_m_there_is_no_context():
    assert causal({"cdmd_m.cond": "context", "cdmd_m.replace": "mlp"}).cdmd_m.context is None
    assert causal().cdmd_m.context is None


def test_the_context_is_refused_where_events_see_what_follows():
    with pytest.raises(UserError, match="cdmd_m.cond=context needs reading=causal"):
        build({"cdmd_m.cond": "context"})


@pytest.mark.parametrize("options", [{}, {"meie.enabled": False}])
def test_dropout_takes_part_in_training_alone(options):
    data, calm = windows(), {**VARIANTS["no_cdmd_m"], **VARIANTS["no_cdmd_b"], **options}  # no other draws
    plain, dropping = (causal({**calm, "dropout": rate}) for rate in (0.0, 0.5))
    assert torch.equal(scores(plain, data), scores(dropping, data))
    draws = [
        float(loss_of(model, data, seed)["main"].detach()) for model in (plain, dropping) for seed in (1, 2)
    ]
    assert draws[0] == draws[1] and len({*draws}) == 3
