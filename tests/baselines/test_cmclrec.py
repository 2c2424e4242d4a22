"""CMCLRec against its spec: both views of a user, the simulator, what a bank may hold, cut histories."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.baselines.cmclrec import CMCLRec, user_contrast
from bench.baselines.cmclrec.config import CMCLRecConfig
from bench.baselines.cmclrec.cuts import cut_short, random_prefix
from bench.baselines.cmclrec.simulator import Simulator, warm_threshold
from bench.interface import Batch, TrainingEvents
from tests.baselines.multimodal import HISTORY, ITEMS, LABELS, NO_TEXT, USERS, D, L, batch, events, info

SMALL = {"hidden_size": D, "max_history": L, "warm_events": 4, "max_simulated": 3, "num_neighbors": 2}
CANDIDATES = torch.arange(1, ITEMS + 1).expand(USERS, -1)


def build(modalities: tuple[str, ...] = ("image", "text"), filled: bool = True, **options: object) -> CMCLRec:
    torch.manual_seed(0)
    model = CMCLRec(CMCLRecConfig(**{**SMALL, **options}), info(modalities)).eval()
    model.set_up(events())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        model.items.weight[0] = 0
    if filled and model.config.simulator:
        model.fill_bank()
    return model


def log(sequences: list[list[int]], items: int = ITEMS) -> TrainingEvents:
    user = np.repeat(np.arange(len(sequences)), [len(row) for row in sequences])
    item = np.concatenate([np.array(row, np.int32) for row in sequences])
    return TrainingEvents(user, item, np.ones(len(item), np.int8), np.arange(len(item)), items)


def simulator(sequences: list[list[int]], vectors: Tensor, warm: list[int], length: int = L) -> Simulator:
    made = Simulator(len(sequences), ITEMS, vectors.shape[1], length)
    made.set_up(log(sequences), np.array(warm))
    made.bank.copy_(vectors)
    return made


def test_without_simulator_or_short_histories_the_scores_are_the_backbone_s() -> None:
    plain = build(simulator=False)
    model = build()
    model.load_state_dict(plain.state_dict(), strict=False)
    expected = plain.score(batch(), CANDIDATES)
    actual = model.score(batch(), CANDIDATES)
    assert torch.equal(actual[1:3], expected[1:3])  # five and six events
    assert not torch.allclose(actual[[0, 3]], expected[[0, 3]], atol=1e-3)  # three and one
    empty = build(filled=False)
    empty.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(empty.score(batch(), CANDIDATES), expected)  # before there is a bank


def test_both_views_have_length_one_and_the_contrast_is_symmetric() -> None:
    model = build()
    data = batch()
    first = model.feature_view(data.history, data.behavior, data.timestamp)
    second = model.behavior_view(model.states(model.vectors(data.history), data.mask)[:, -1])
    for view in (first, second):
        assert torch.allclose(view.norm(dim=1), torch.ones(USERS), atol=1e-5)
    assert torch.allclose(user_contrast(first, second, 0.1), user_contrast(second, first, 0.1))


def test_the_contrast_at_known_points() -> None:
    same = torch.nn.functional.normalize(torch.ones(16, 8), dim=1)
    assert user_contrast(same, same, 0.1).item() == pytest.approx(math.log(16), abs=1e-5)
    assert user_contrast(torch.eye(8), torch.eye(8), 0.05).item() < 1e-7
    torch.manual_seed(0)
    pair = [torch.nn.functional.normalize(torch.randn(256, 64), dim=1) for _ in range(2)]
    value = user_contrast(*pair, 0.1).item()
    assert math.log(256) < value < math.log(256) + 1 / (2 * 64 * 0.1**2) + 0.1


def test_simulated_items_are_new_distinct_and_few_and_real_events_stay_last() -> None:
    model = build()
    data = batch().rows(torch.tensor([0, 3]))
    whole, real, _ = model.filled(data)
    assert whole.history.shape == (2, L)
    for row, count in ((0, 3), (1, 1)):
        own = data.history[row][data.history[row] > 0]
        assert torch.equal(whole.history[row, -count:], own)
        made = whole.history[row, :-count]
        made = made[made > 0]
        assert 0 < len(made) <= 3 and len(made.unique()) == len(made)
        assert not torch.isin(made, own).any()
        assert torch.equal(real[row], whole.history[row] > 0)
        assert real[row].int().diff().min() >= 0  # one block at the right


def test_no_more_is_simulated_than_fits() -> None:
    made = simulator([[1, 2, 3, 4, 5, 6], [8, 9], [7]], torch.eye(3)[:, :2], [0, 1], length=6)
    history = torch.tensor([[0, 11, 12, 13, 14, 15]])
    found = made.simulate(torch.tensor([1]), torch.tensor([[1.0, 0.0]]), history, 3, 1, 0.1)
    assert (found > 0).sum() == 1


def test_votes_order_and_places_by_hand() -> None:
    # items 1 and 2 stand with one warm user, item 3 with two: rarity log(4 / 2) and log(4 / 3)
    made = simulator(
        [[1, 2, 3], [3, 4], [5], [6]], torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1], [0, -1]]), [0, 1]
    )
    view = torch.tensor([[1.0, 0.0]])
    share = torch.softmax(torch.tensor([1.0, 0.6]) / 0.5, 0)
    votes = {
        1: share[0] * math.log(2),
        2: share[0] * math.log(2),
        3: math.log(4 / 3),
        4: share[1] * math.log(2),
    }
    best = sorted(votes, key=lambda item: (-float(votes[item]), item))[:3]
    place = {1: 0.0, 2: 0.5, 3: float(share[0] * 1 + share[1] * 0), 4: 1.0}
    expected = sorted(best, key=lambda item: place[item])
    found = made.simulate(torch.tensor([2]), view, torch.tensor([[0, 5]]), 3, 2, 0.5)
    assert found[0].tolist() == expected
    again = made.simulate(torch.tensor([2]), view, torch.tensor([[0, 5]]), 3, 2, 0.5)
    assert torch.equal(found, again)


def test_an_item_met_twice_counts_once_for_a_neighbor() -> None:
    made = simulator([[1, 2, 1, 3]], torch.ones(1, 1), [0])
    assert made.items[0].tolist()[-4:] == [0, 2, 1, 3]
    assert made.place[0, -2:].tolist() == pytest.approx([2 / 3, 1])


def test_nobody_is_their_own_neighbor_and_a_user_alone_gets_nothing() -> None:
    made = simulator([[1, 2], [3, 4], [5]], torch.eye(3)[:, :2], [0, 1])
    found = made.simulate(torch.tensor([0]), torch.tensor([[1.0, 0]]), torch.tensor([[5]]), 3, 1, 0.1)
    assert set(found[0].tolist()) <= {0, 3, 4} and (found > 0).any()
    alone = simulator([[1, 2], [3]], torch.tensor([[1.0, 0], [0.0, 1]]), [0])
    assert not alone.simulate(
        torch.tensor([0]), torch.tensor([[1.0, 0]]), torch.tensor([[5]]), 3, 1, 0.1
    ).any()


def test_the_bank_holds_training_events_alone() -> None:
    model = build()
    held = set(events().item.tolist())
    assert set(model.simulator.items.unique().tolist()) - {0} <= held
    assert set(model.simulator.warm.tolist()) == {0, 1, 2}  # 4, 6 and 7 events


def test_the_threshold_falls_where_too_few_users_would_be_warm() -> None:
    many = log([[1] * 12] * 3 + [[1]] * 7)
    assert warm_threshold(many, 10, 10)[0] == 10
    few = log([[1] * 12] + [[1] * 3] * 3 + [[1]] * 6)
    assert warm_threshold(few, 10, 10)[0] == 3


def test_features_of_a_prefix_do_not_know_what_follows_and_ignore_absent_content() -> None:
    model = build()
    data = batch()
    before = model.features(data.history[:, :4], data.behavior[:, :4], data.timestamp[:, :4])
    later = replace(data, history=data.history.clone())
    later.history[:, 4:] = 18
    after = model.features(later.history[:, :4], later.behavior[:, :4], later.timestamp[:, :4])
    assert torch.equal(before, after)
    model.content[1].features[NO_TEXT] += 4
    assert torch.equal(
        model.features(data.history[:, :4], data.behavior[:, :4], data.timestamp[:, :4]), before
    )
    assert model.features(data.history, data.behavior, data.timestamp).shape == (USERS, model.features.size)


def test_an_empty_history_has_finite_scores_with_and_without_a_bank() -> None:
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    data = Batch(torch.tensor([0, 3]), nothing, nothing, nothing)
    for filled in (False, True):
        assert torch.isfinite(build(filled=filled).score(data, CANDIDATES[:2])).all()


def test_cut_users_get_items_of_their_own_group() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    groups = [rng.choice(np.arange(1, 11) + 10 * (user % 2), 6).tolist() for user in range(40)]
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[torch.arange(40) % 2] + 0.1 * torch.randn(40, 2)
    made = simulator(groups, torch.nn.functional.normalize(vectors, dim=1), list(range(40)))
    view = torch.nn.functional.normalize(vectors, dim=1)
    found = made.simulate(torch.arange(40), view, torch.zeros(40, 1, dtype=torch.int64), 4, 5, 0.1)
    right = ((found - 1) // 10 == (torch.arange(40) % 2)[:, None])[found > 0]
    assert (found > 0).sum() > 100 and right.float().mean() > 0.8


def test_a_neutral_start_leaves_the_encoder_s_input_as_it_is() -> None:
    model = build(max_simulated=1)
    model.simulator.rarity.zero_()  # nobody gets a vote
    data = batch().rows(torch.tensor([0]))
    whole, real, x = model.filled(data)
    assert whole.history[0].tolist() == [0] * (L - 3) + [5, 9, 2]
    assert torch.equal(x, model.vectors(whole.history))
    expected = model.states(model.vectors(data.history), data.mask)[:, -1]
    assert torch.allclose(model.states(x, real)[:, -1], expected, atol=1e-5)


def test_prefixes_are_long_enough_and_cuts_keep_the_newest_events_and_their_labels() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        part = random_prefix(batch(), 4)
        assert len(part) == 2 and (part.mask.sum(1) >= 4).all()
        for row, user in zip(part.history.tolist(), part.user.tolist(), strict=True):
            own = [item for item in row if item]
            assert own == [item for item in HISTORY[user].tolist() if item][: len(own)]
        short = cut_short(batch(), most=2)
        for row in range(USERS):
            items, labels = short.history[row].tolist(), short.labels[row].tolist()
            assert labels[-1] > 0 and 0 <= sum(item > 0 for item in items) <= 2
            end = LABELS[row].tolist().index(labels[-1]) if labels.count(labels[-1]) == 1 else None
            if end is not None and items[-1]:
                assert items[-1] in HISTORY[row].tolist()
            assert all(label > 0 for item, label in zip(items, labels, strict=True) if item)


def test_the_stages_and_what_moves_in_them() -> None:
    model = build()
    names = [stage.name for stage in model.stages()]
    assert names == ["backbone", "mapping", "tuning"]
    assert [stage.name for stage in build(simulator=False).stages()] == ["backbone"]
    model.train()
    model.stage_name = "mapping"
    model.loss(batch())["loss"].backward()
    assert model.feature_tower[0].weight.grad.any() and model.behavior_tower[0].weight.grad.any()
    model.stage_name = "tuning"
    torch.manual_seed(0)
    assert {"prediction", "contrast"} < set(model.loss(batch()))
