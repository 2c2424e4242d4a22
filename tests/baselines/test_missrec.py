"""MISSRec against its spec: cosines and their mixture, interests, clustering, readings, pre-training."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.missrec import MISSRec, drop_events
from bench.baselines.missrec.config import MISSRecConfig
from bench.baselines.missrec.interests import density_peaks, distinct_interests, find_interests
from bench.baselines.missrec.scores import Items, mixed, scores
from bench.errors import UserError
from tests.baselines.multimodal import (
    HISTORY,
    ITEMS,
    NO_IMAGE,
    NO_TEXT,
    NOTHING,
    USERS,
    D,
    L,
    batch,
    events,
    info,
    prefixes,
)

SMALL = {"hidden_size": D, "max_history": L, "inner_size": 16, "num_heads": 2}
CANDIDATES = torch.arange(1, ITEMS + 1).expand(USERS, -1)


def build(modalities: tuple[str, ...] = ("image", "text"), **options: object) -> MISSRec:
    torch.manual_seed(0)
    model = MISSRec(MISSRecConfig(**{**SMALL, **options}), info(modalities)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter is not model.level:
                parameter.normal_(std=0.5)
        if model.items is not None:
            model.items.weight[0] = 0
    model.set_up(events())
    return model


def test_the_user_has_length_one_and_scores_are_at_most_one() -> None:
    for reading in ("causal", "prefix"):
        model = build(reading=reading)
        assert torch.allclose(model.encode(batch()).norm(dim=1), torch.ones(USERS), atol=1e-5)
        assert model.score(batch(), CANDIDATES).abs().max() <= 1 + 1e-5


def test_the_mixture_is_mean_at_zero_and_maximum_and_minimum_far_out() -> None:
    first, second = torch.tensor([[0.2, -0.5]]), torch.tensor([[0.6, 0.1]])
    both = torch.ones(2, 2, dtype=torch.bool)
    level = torch.zeros(1)
    assert torch.allclose(mixed(first, second, both, level), (first + second) / 2)
    assert torch.allclose(mixed(first, second, both, level + 1e4), torch.maximum(first, second))
    assert torch.allclose(mixed(first, second, both, level - 1e4), torch.minimum(first, second))
    weight = torch.softmax(torch.stack([first, second], -1) * 0.7, -1)
    expected = (weight * torch.stack([first, second], -1)).sum(-1)
    assert torch.allclose(mixed(first, second, both, level + 0.7), expected)
    has = torch.tensor([[True, False], [False, False]])
    assert torch.allclose(mixed(first, second, has, level + 0.7), torch.tensor([[0.2, 0.0]]))


@pytest.mark.parametrize("fusion", ["dynamic_shared", "dynamic_instance", "static"])
def test_with_ids_the_score_is_a_third_id_and_two_thirds_content(fusion: str) -> None:
    model = build(fusion=fusion)
    if model.level is not None:
        with torch.no_grad():
            model.level += torch.linspace(0.5, 2, len(model.level))[:, None]
    z, items = model.encode(batch()), CANDIDATES[0]
    parts = [F.normalize(table(items), dim=1) for table in model.content]
    similar = torch.stack([z @ part.T for part in parts], -1)
    level = torch.zeros(1) if model.level is None else model.level[:, 0]
    level = level[items][None, :, None] if len(level) > 1 else level
    has = torch.stack([table.present[items] for table in model.content], -1)
    weight = torch.softmax((similar * level).masked_fill(~has, -1e9), -1) * has
    expected = (z @ F.normalize(model.items(items), dim=1).T + 2 * (weight * similar).sum(-1)) / 3
    assert torch.allclose(model.score(batch(), CANDIDATES), expected, atol=1e-5)
    inductive = build(inductive=True, fusion=fusion)
    assert inductive.items is None and inductive.score(batch(), CANDIDATES).shape == (USERS, ITEMS)


def test_one_modality_is_a_dot_product() -> None:
    model = build(("text",))
    items = model.encode_items()
    assert items.single() is not None and model.level is None
    z = model.encode(batch())
    expected = torch.stack(
        [scores(z, items.of(torch.tensor([item])))[:, 0] for item in range(1, ITEMS + 1)], 1
    )
    assert torch.allclose(model.score(batch(), CANDIDATES), expected, atol=1e-5)
    assert Items(None, (), torch.zeros(1, 0, dtype=torch.bool), torch.zeros(1, 1)).single() is None


def test_interests_of_a_history_are_distinct_in_order_and_carry_the_event_that_brings_them() -> None:
    codes = torch.tensor([[[0, 0], [3, 5], [3, 0], [7, 5]], [[0, 0], [0, 0], [2, 2], [0, 1]]])
    found, since = distinct_interests(codes)
    assert found.tolist() == [[3, 5, 7], [2, 1, 0]]
    assert since.tolist() == [[1, 1, 3], [2, 3, 4]]
    assert distinct_interests(torch.zeros(2, 3, 2, dtype=torch.int64))[0].shape == (2, 0)


def test_the_set_of_interests_does_not_depend_on_the_order_of_the_history() -> None:
    model = build(reading="prefix")
    moved = HISTORY.clone()
    moved[2] = HISTORY[2][[3, 1, 4, 0, 2, 5]]
    found = [model.interests(rows, False) for rows in (HISTORY[2:3], moved[2:3])]
    hidden = [part[0][0][part[1][0]] for part in found]
    order = [sorted(range(len(one)), key=lambda row, one=one: one[row].tolist()) for one in hidden]
    assert torch.allclose(hidden[0][order[0]], hidden[1][order[1]], atol=1e-5)


def test_without_positions_only_the_last_event_of_a_prefix_has_a_place() -> None:
    model = build(reading="prefix")
    with torch.no_grad():
        model.positions.weight.zero_()
    moved = HISTORY.clone()
    moved[2] = HISTORY[2][[3, 1, 4, 0, 2, 5]]
    assert torch.allclose(model.encode(batch(moved))[2], model.encode(batch())[2], atol=1e-5)
    moved[2] = HISTORY[2][[0, 1, 2, 3, 5, 4]]
    assert not torch.allclose(model.encode(batch(moved))[2], model.encode(batch())[2], atol=1e-3)


@pytest.mark.parametrize("sequence", ["add", "stack"])
def test_the_causal_reading_at_each_position_is_that_of_the_prefix_alone(sequence: str) -> None:
    model = build(sequence=sequence)
    states, _ = model.states(HISTORY, True)
    for row, stop in itertools.product((1, 2), range(2, 7)):
        if not HISTORY[row, stop - 1]:
            continue
        alone, _ = model.states(HISTORY[row : row + 1, :stop], True)
        assert torch.allclose(alone[0, -1], states[row, stop - 1], atol=1e-5)
    changed = HISTORY.clone()
    changed[:, 4] = 18
    assert torch.allclose(model.states(changed, True)[0][:, :4], states[:, :4], rtol=0, atol=1e-6)


def test_both_readings_agree_where_the_order_of_interests_cannot_matter() -> None:
    model = build(reading="prefix", interest_ratio=0.01)  # one interest for all
    assert model.num_interests == 1
    causal, prefix = model.states(HISTORY, True)[0][:, -1], model.states(HISTORY, False)[0][:, -1]
    assert torch.allclose(causal, prefix, atol=1e-5)
    many = build(reading="prefix")
    assert not torch.allclose(many.states(HISTORY, True)[0][2, -1], many.states(HISTORY, False)[0][2, -1])


@pytest.mark.parametrize("reading", ["causal", "prefix"])
def test_padding_changes_neither_the_user_nor_the_diversity(reading: str) -> None:
    model, causal = build(reading=reading), reading == "causal"
    plain, wide = model.states(HISTORY, causal), model.states(F.pad(HISTORY, (2, 0)), causal)
    assert torch.allclose(plain[0][:, -1], wide[0][:, -1], atol=1e-5)
    assert torch.allclose(plain[1], wide[1], atol=1e-5)
    assert torch.isfinite(model.states(torch.zeros(1, 3, dtype=torch.int64), causal)[0]).all()


def test_diversity_is_small_for_orthogonal_interests_and_does_not_grow_with_the_batch() -> None:
    model = build()
    real = torch.ones(1, 2, dtype=torch.bool)
    equal, orthogonal = torch.ones(1, 2, D), torch.eye(D)[None, :2] * D**0.5
    assert model.diversity(orthogonal, real).item() == pytest.approx(2)
    assert model.diversity(equal, real).item() == pytest.approx(4)
    twice = model.diversity(equal.repeat(2, 1, 1), real.repeat(2, 1))
    assert torch.allclose(twice, model.diversity(equal, real))
    released = build(reg="code")
    padded = torch.cat([equal, torch.zeros(1, 2, D)], 1)
    half = torch.tensor([[True, True, False, False]])
    assert released.diversity(padded, half).item() == pytest.approx(4 / 4 / 512)


def test_density_peaks_find_separate_blobs_and_equal_vectors_do_not_take_all_centers() -> None:
    torch.manual_seed(0)
    middle = 20 * torch.eye(4)
    blobs = torch.cat([middle[index] + torch.randn(25, 4) for index in range(4)])
    centers, member = density_peaks(torch.cat([torch.zeros(10, 4), blobs]), 4, 5)
    groups = member[10:].view(4, 25)
    assert all(len(group.unique()) == 1 for group in groups) and len(groups[:, 0].unique()) == 4
    assert len(member[:10].unique()) == 1
    for index in range(4):
        own = 25 + (10 if groups[index, 0] == member[0] else 0)  # the zeros join the nearest blob
        expected = blobs[25 * index : 25 * index + 25].sum(0) / (own + 1e-4)
        assert torch.allclose(centers[groups[index, 0]], expected, atol=1e-4)


def test_density_and_gap_are_those_of_the_plain_formulas() -> None:
    torch.manual_seed(1)
    x, neighbors, clusters = torch.randn(30, 3, dtype=torch.float64), 4, 6
    distance = (x[:, None] - x).norm(dim=-1) / 3**0.5
    density = [math.exp(-sum(sorted((row**2).tolist())[:neighbors]) / neighbors) for row in distance]
    gap = []
    for i in range(30):
        denser = [float(distance[i, j]) for j in range(30) if density[j] > density[i]]
        gap.append(min(denser) if denser else float(distance.max()))
    best = sorted(range(30), key=lambda i: -density[i] * gap[i])[:clusters]
    _, member = density_peaks(x, clusters, neighbors)
    for i in range(30):
        nearest = min(range(clusters), key=lambda c: float(distance[i, best[c]]))
        assert member[i] == member[best[nearest]]
    assert len({int(member[one]) for one in best}) == clusters


@pytest.mark.parametrize("way", ["dpc_knn", "kmeans"])
def test_lookups_hold_zero_for_absent_vectors_alone(way: str) -> None:
    model = build(clustering=way)
    for place, absent in enumerate((NO_TEXT, NO_IMAGE)):
        zero = (model.codes[:, place] == 0).nonzero()[:, 0].tolist()
        assert zero == sorted([0, absent, NOTHING])
    assert int(model.codes.max()) <= model.num_interests and not model.centroids[0].any()
    x = torch.randn(300, 3)
    centers, member = find_interests(x, 7, "dpc_knn", 5, most=50)
    assert len(member) == 300 and torch.equal(member, torch.cdist(x, centers).argmin(1))


def test_no_gradient_reaches_the_adapters_through_interests_but_through_the_decoder() -> None:
    model = build().train()
    assert not model.centroids.requires_grad
    model.loss(batch())["loss"].backward()
    assert all(table.project.weight.grad.any() for table in model.content)
    before = [table.features.clone() for table in model.content]
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(torch.equal(table.features, one) for table, one in zip(model.content, before, strict=True))


def test_an_absent_text_does_not_count_in_sums_interests_or_scores() -> None:
    model = build()
    states, scored = model.states(HISTORY, True)[0], model.score(batch(), CANDIDATES)
    model.content[0].features[NO_TEXT] += 3
    model.content[0].features[NOTHING] += 3
    assert torch.equal(model.states(HISTORY, True)[0], states)
    assert torch.equal(model.score(batch(), CANDIDATES), scored)


def test_the_loss_is_the_softmax_of_the_scores_over_the_temperature() -> None:
    for options in ({}, {"fusion": "static"}, {"inductive": True}):
        model = build(**options)
        row, column = torch.nonzero(batch().labels, as_tuple=True)
        z = model.states(HISTORY, True)[0][row, column]
        logits = scores(z, model.described(torch.arange(1, ITEMS + 1))) / model.config.temperature
        expected = F.cross_entropy(logits, batch().labels[row, column] - 1)
        assert torch.allclose(model.loss(batch())["prediction"], expected, atol=1e-4)
    prefix = build(reading="prefix")
    z = prefix.states(HISTORY, False)[0][:, -1]
    logits = scores(z, prefix.described(torch.arange(1, ITEMS + 1))) / 0.07
    found = prefix.loss(prefixes())["prediction"]
    assert torch.allclose(found, F.cross_entropy(logits, prefixes().target - 1), atol=1e-4)


def test_pretraining_reads_no_id_and_the_stages_follow_the_options() -> None:
    model = build(pretrain="in_domain").train()
    assert [stage.name for stage in model.stages()] == ["pretrain", "train"]
    assert [stage.name for stage in build(("text",)).stages()] == ["train"]
    model.stage_name = "pretrain"
    model.loss(batch())["loss"].backward()
    assert model.items.weight.grad is None
    with pytest.raises(UserError, match="no item has an image or a text"):
        build((), inductive=True)
    assert torch.isfinite(build(()).score(batch(), CANDIDATES)).all()


def test_dropped_events_leave_the_others_in_order_and_the_first_stays() -> None:
    torch.manual_seed(0)
    history = torch.arange(1, 31).repeat(200, 1)
    history[:, :5] = 0
    dropped = drop_events(history)
    assert (dropped[dropped > 0] >= 6).all()
    for row in dropped:
        own = row[row > 0]
        assert own[0] == 6 and (own.diff() > 0).all() and (row[-1] > 0)
    share = (dropped > 0).sum() / (history > 0).sum()
    assert share.item() == pytest.approx((1 + 24 * 0.8) / 25, abs=0.02)


def with_seed(model: MISSRec, seed: int) -> Tensor:
    torch.manual_seed(seed)
    model.start_epoch(0, events())
    return model.centroids


def test_interests_are_searched_before_an_epoch_and_belong_to_the_state() -> None:
    model = build(recluster_every=2)
    before = model.centroids.clone()
    with torch.no_grad():
        model.content[0].project.weight += 1
    model.start_epoch(1, events())
    assert torch.equal(model.centroids, before)
    assert not torch.equal(with_seed(model, 0), before)
    assert {"centroids", "codes"} <= set(model.state_dict())
