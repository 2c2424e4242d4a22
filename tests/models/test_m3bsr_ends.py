"""The two ends of M3BSR: input layer and tied scores, full and sampled softmax (points 11 and 13)."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from m3bsr_cases import N, batch, build, scores

from bench.interface import DatasetInfo, ItemContent, TrainingEvents
from bench.models.m3bsr.config import M3BSRConfig, Softmax
from bench.models.m3bsr.inputs import InputLayer
from bench.models.m3bsr.objective import expected_columns, main_loss


def events(items):
    count = len(items)
    item = torch.tensor(items, dtype=torch.int32).numpy()
    zeros = torch.zeros(count, dtype=torch.int64).numpy()
    behavior = torch.full((count,), 2, dtype=torch.int8).numpy()
    return TrainingEvents(zeros, item, behavior, zeros, N)


def test_raw_space_scales_features_to_unit_variance_and_projects_afterwards():
    model = build({"space": "raw_standardized"})
    table = model.inputs.content[0]
    known = table.features[table.present]
    assert known.mean(0).abs().max().item() < 1e-5
    torch.testing.assert_close(known.var(0, correction=0), torch.ones(12))
    assert model.inputs.shapes == ((1, 12), (1, 12))
    vectors = model.inputs.modality(1, torch.arange(1, N + 1))
    assert vectors.shape == (N, 16)


def test_trainable_features_move_in_both_spaces():
    for space in ("projected", "raw_standardized"):
        model = build({"space": space, "trainable_features": True})
        model.loss(batch())["loss"].backward()
        assert model.inputs.content[0].features.grad.abs().sum() > 0


def test_sampled_softmax_masks_accidental_hits():
    """With one item in the catalog every negative is a hit, and the loss of a row without negatives is 0."""
    rows = torch.randn(2, 4)
    value = main_loss(
        torch.randn(3, 4), torch.ones(3, dtype=torch.int64), lambda ids: rows[ids], torch.zeros(2),
        torch.tensor([0.0, 1.0]), Softmax("sampled", num_negatives=5),
    )  # fmt: skip
    assert value.item() == 0.0


def test_sampled_softmax_with_all_items_drawn_nears_the_full_one():
    """Over 40,000 uniform draws every item stands among the columns about equally often: the sampled total is
    40,000 / N times the full one, less the label's own share."""
    torch.manual_seed(0)
    y, table, bias = torch.randn(6, 4), torch.randn(N + 1, 4), torch.randn(N + 1)
    target, share = torch.randint(1, N + 1, (6,)), torch.zeros(N + 1)
    logits = y @ table[1:].T + bias[1:]
    level = logits.gather(1, target[:, None] - 1)
    others = logits.scatter(1, target[:, None] - 1, -math.inf).logsumexp(1, keepdim=True)
    expected = torch.logaddexp(level, others + math.log(40_000 / N)) - level

    def vectors(ids):
        return table if ids is None else table[ids]

    found = main_loss(y, target, vectors, bias, share, Softmax("sampled", num_negatives=40_000))
    assert found.item() == pytest.approx(expected.mean().item(), abs=0.03)


def test_log_q_counts_uniform_draws_and_targets_of_the_batch():
    share = torch.tensor([0.5, 0.0])
    found = expected_columns(share, 2, Softmax(num_negatives=3), 30)
    torch.testing.assert_close(found, torch.tensor([0.1 + 0.75, 0.1]))


@pytest.mark.parametrize("in_batch", [False, True])
def test_sampled_softmax_trains(in_batch):
    options = {"softmax.kind": "auto", "softmax.full_up_to": 10, "softmax.num_negatives": 16,
               "softmax.in_batch": in_batch}  # fmt: skip
    model = build(options)
    terms = model.loss(batch())
    terms["loss"].backward()
    assert torch.isfinite(terms["main"]) and model.items.bias.grad.abs().sum() > 0


def test_item_bias_starts_at_the_log_frequency_of_targets_where_asked():
    for asked in (True, False):
        model = build({"popularity_bias": asked})
        model.set_up(events([4, 4, 4, 9]))
        expected = math.log(4 / (4 + N + 1)) - math.log(2 / (4 + N + 1))
        found = (model.items.bias[4] - model.items.bias[9]).item()
        assert found == pytest.approx(expected if asked else 0.0, abs=1e-6)
        assert model.target_share[4].item() == 0.75


def test_linear_head_reads_nothing_of_an_item_and_tied_id_no_content():
    for head, moved in (("linear", False), ("tied_id", False), ("tied", True)):
        model = build({"head": head})
        before = model.encode_items()
        for table in model.inputs.content:
            table.features += 1.0
        assert torch.equal(before, model.encode_items()) != moved


def test_the_sum_of_both_heads_is_that_of_what_each_gives():
    model = build({"head": "sum"})
    free, model.items.free = model.items.free, None
    tied, model.items.free = model.encode_items(), free
    assert torch.allclose(model.encode_items(), tied + free) and free.std() > 0
    some = torch.tensor([[3, 1], [2, 3]])
    assert torch.allclose(model.item_vectors(some), (tied + free)[some], atol=1e-6)


def test_ids_set_items_apart_from_the_start():
    """An offset behind small tables would leave streams that are nearly constant."""
    inputs = build({"id_fields": ()}).inputs
    stream = inputs.id_stream(torch.arange(1, N + 1)[:, None], torch.zeros(N, dtype=torch.int64))
    assert stream.var(0).mean() > 0.5 * stream.var()


def named(options, names):
    """Return the fields beside the item that a model reads of a data set with such attributes."""
    rows = np.zeros(N + 1, np.int32)
    known = ItemContent(N, {}, {}, dict.fromkeys(names, rows))
    inputs = InputLayer(M3BSRConfig(hidden_size=16, **options), DatasetInfo(9, N, ("click", "favor"), known))
    return (("user",) if inputs.user is not None else ()) + inputs.attribute_names


def test_ids_read_the_fields_of_the_paper_unless_all_are_asked_for():
    tmall, kuaishou = ("brand", "category", "seller"), ("faces", "gender")
    assert named({}, tmall) == ("user", "brand", "seller") and named({}, kuaishou) == ("user",)
    assert named({"id_fields": ("all",)}, tmall) == ("user", *tmall)
    assert named({"id_fields": ("all",)}, kuaishou) == ("user", *kuaishou)
    assert named({"id_fields": ("category",)}, tmall) == ("category",)


def test_id_fields_choose_what_the_ids_read():
    data = batch()
    twin = dataclasses.replace(data, user=data.user + 1)
    with_user, without = build({"id_fields": ("user",)}), build({"id_fields": ("brand",)})
    assert not torch.equal(scores(with_user, data), scores(with_user, twin))
    assert torch.equal(scores(without, data), scores(without, twin))
    assert [len(m.inputs.attributes) for m in (with_user, without, build({"id_fields": ()}))] == [0, 1, 0]
