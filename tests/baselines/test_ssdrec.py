"""SSDRec against its spec: sparse graphs, insertion and removal, gates, determinism, what training reads."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.baselines.ssdrec import SSDRec
from bench.baselines.ssdrec.config import SSDRecConfig
from bench.baselines.ssdrec.denoise import (
    Gates,
    TwoWay,
    compact,
    inconsistency,
    insert,
    one_hot,
    real,
    reverse,
    to_left,
)
from bench.interface import Batch, DatasetInfo, ItemContent, TrainingEvents

ITEMS, USERS, L, D = 20, 4, 10, 8
HISTORY = torch.tensor([[0, 0, 0, 5, 9, 2], [0, 3, 8, 8, 1, 7], [4, 6, 2, 9, 10, 11], [0, 0, 0, 0, 0, 12]])
BEHAVIOR = torch.where(HISTORY % 2 == 0, 1, 2) * (HISTORY > 0)
TARGET, KIND = torch.tensor([13, 14, 15, 16]), torch.tensor([2, 1, 2, 1])


def log(sequences: list[list[int]], num_items: int) -> TrainingEvents:
    users = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    items = np.concatenate([np.array(one, np.int32) for one in sequences])
    return TrainingEvents(users, items, np.ones(len(items), np.int8), np.arange(len(items)), num_items)


def events() -> TrainingEvents:
    sequences = [row[row > 0].tolist() for row in torch.cat([HISTORY, TARGET[:, None]], 1)]
    return log(sequences, ITEMS)


def build(**options: object) -> SSDRec:
    torch.manual_seed(0)
    config = SSDRecConfig(**{"hidden_size": D, "max_history": L, "min_cooc": 0, **options})
    model = SSDRec(config, DatasetInfo(USERS, ITEMS, ("click", "favor"), ItemContent(ITEMS))).eval()
    model.set_up(events())
    return model


def batch(history: Tensor = HISTORY, behavior: Tensor = BEHAVIOR) -> Batch:
    users, times = torch.arange(len(history)), torch.zeros_like(history)
    return Batch(users, history, behavior, times, target=TARGET, target_behavior=KIND)


def test_histories_move_to_the_left_and_keep_the_newest() -> None:
    items, size = to_left(HISTORY, 4)
    assert items.tolist() == [[5, 9, 2, 0], [8, 8, 1, 7], [2, 9, 10, 11], [12, 0, 0, 0]]
    assert size.tolist() == [3, 4, 4, 1]
    wide, _ = to_left(HISTORY, 8)
    assert wide[3].tolist() == [12] + [0] * 7


def test_sequences_are_reversed_within_their_size() -> None:
    x = torch.tensor([[1.0, 2, 3, 0], [4, 0, 0, 0]])[..., None]
    turned = reverse(x, torch.tensor([3, 1]))[..., 0]
    assert turned[0, :3].tolist() == [3, 2, 1] and turned[1, 0] == 4


def test_states_around_an_item_do_not_contain_it_and_padding_does_not_matter() -> None:
    torch.manual_seed(0)
    two_way, x, size = TwoWay(D), torch.randn(1, 5, D), torch.tensor([4])
    start, end = torch.randn(2, D)
    before, after = two_way.around(x, size, start, end)
    forwards = two_way.forwards(torch.cat([start[None], x[0, :3]])[None])[0][0]
    assert torch.allclose(before[0, :4], forwards, atol=1e-6)
    backwards = two_way.backwards(torch.cat([end[None], x[0, 1:4].flip(0)])[None])[0][0].flip(0)
    assert torch.allclose(after[0, :4], backwards, atol=1e-6)
    other = x.clone()
    other[0, 4] = 9.0
    for a, b in zip(two_way.around(other, size, start, end), (before, after), strict=True):
        assert torch.allclose(a[0, :4], b[0, :4])
    assert torch.allclose(two_way.summed(other, size)[0, :4], two_way.summed(x, size)[0, :4], atol=1e-6)


def test_the_inconsistency_of_items_by_its_formula() -> None:
    torch.manual_seed(0)
    x, before, after = torch.randn(3, 1, 4, D)
    value = inconsistency(x, torch.tensor([3]), (before, after))[0]
    cut = x[0, :3].clamp(-1, 1)
    p = torch.softmax(torch.stack([(x[0, t] * before[0, t] * after[0, t]).sum() for t in range(3)]), 0)
    q = torch.softmax(torch.stack([sum(cut[t] @ cut[s] for s in range(3) if s != t) for t in range(3)]), 0)
    assert torch.allclose(value[:3], 1 - p * q, atol=1e-6) and value[3] == -torch.inf
    assert torch.isinf(inconsistency(x, torch.tensor([0]), (before, after))).all()


def test_a_choice_is_one_hot_and_never_behind_the_items() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.5, 0.1, -torch.inf], [-torch.inf] * 3]).repeat(200, 1)
    drawn = one_hot(logits, 0.5, training=True)
    assert not drawn[:, 2].any() and drawn[0::2].sum(1).allclose(torch.ones(200)) and not drawn[1::2].any()
    assert one_hot(logits[:2], 0.5, training=False).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_two_items_are_inserted_around_the_position_in_order() -> None:
    values = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    left, right = torch.tensor([70, 71]), torch.tensor([80, 81])
    result = insert(values, torch.tensor([1, 0]), left, right)
    assert result.tolist() == [[1, 70, 2, 80, 3, 0], [71, 4, 81, 5, 0, 0]]
    last = insert(values[:1], torch.tensor([2]), left[:1], right[:1])
    assert last.tolist() == [[1, 2, 70, 3, 80, 0]]
    vectors = values[..., None].float().expand(-1, -1, 3)
    wide = insert(
        vectors, torch.tensor([1, 0]), *(part[:, None].expand(2, 3).float() for part in (left, right))
    )
    assert torch.equal(wide[..., 0], result.float()) and torch.equal(wide[..., 2], result.float())


def test_sequences_of_like_length_give_what_each_gives_alone() -> None:
    torch.manual_seed(0)
    model, size = build(), torch.tensor([3, 1, L, 4, 0, 2, 4])
    x = torch.randn(7, L, D) * real(size, L)[..., None]
    states = model.gates(x, size, torch.zeros(7, D))[2]
    for row in range(7):
        alone = model.gates.decoded(size[row : row + 1], x[row : row + 1])
        assert torch.allclose(states[row], alone[0], atol=1e-6)
        last = model.last_state(size[row : row + 1], x[row : row + 1])[0]
        assert torch.allclose(model.ranked(x, size)[row], last, atol=1e-6)


def test_positions_are_mixed_as_by_a_convolution_whose_channels_they_are() -> None:
    model = build()
    items, size = to_left(HISTORY, L)
    x = model.items(items)
    sequence, _, decoded = model.gates(x, size, model.users.weight)
    wide = F.relu(model.gates.mixed(torch.stack([decoded, x], -1))[..., 0])
    assert torch.allclose(sequence, torch.sigmoid(model.gates.by_sequence(wide)), atol=1e-6)


def recovered(model: SSDRec, x: Tensor) -> list[list[int]]:
    """Return the item ids of vectors that are rows of the item table."""
    table = model.items.weight
    ids = [[int((table - vector).abs().sum(1).argmin()) for vector in row if vector.any()] for row in x]
    return ids


def in_order(part: list[int], whole: list[int]) -> bool:
    """Return whether a list is what is left of another when elements are taken out."""
    rest = iter(whole)
    return all(item in rest for item in part)


def test_augmentation_keeps_the_order_and_the_newest_event_and_takes_out_at_most_one() -> None:
    model = build().train()
    items, size = to_left(HISTORY, L)
    for seed in range(30):
        torch.manual_seed(seed)
        x, kept = model.augmented(items, size, torch.arange(USERS))
        for row, (ids, count) in enumerate(zip(recovered(model, x), kept.tolist(), strict=True)):
            own = items[row][: size[row]].tolist()
            assert len(ids) == count and count in (len(own) + 1, len(own) + 2)
            without = [own, *(own[:cut] + own[cut + 1 :] for cut in range(len(own)))]
            assert any(in_order(part, ids) for part in without)  # the original may be the one taken out
            if count == len(own) + 2:
                assert ids[-1] == own[-1] or ids[-2] == own[-1]


def test_full_sequences_are_not_augmented() -> None:
    model = build(max_history=6).train()
    items, size = to_left(HISTORY, 6)  # sizes 3, 5, 6 and 1 of 6
    x, kept = model.augmented(items, size, torch.arange(USERS))
    assert kept[1:3].tolist() == [5, 6]
    assert torch.equal(x[1:3], model.items(items)[1:3])
    assert kept[0] in (4, 5) and kept[3] in (2, 3)


def test_an_item_goes_only_where_both_levels_call_it_noise() -> None:
    keep, drop = torch.tensor([2.0, -2.0]), torch.tensor([-2.0, 2.0])
    sequence, item = torch.stack([keep, keep, drop, drop])[None], torch.stack([keep, drop, keep, drop])[None]
    assert Gates.noise(sequence, item, 0.5, training=False).tolist() == [[0, 0, 0, 1]]
    torch.manual_seed(0)
    drawn = Gates.noise(sequence.expand(4000, -1, -1), item.expand(4000, -1, -1), 0.5, training=True).mean(0)
    yes, no = torch.softmax(drop, 0)[1], torch.softmax(keep, 0)[1]
    assert torch.allclose(drawn, torch.stack([no * no, no * yes, yes * no, yes * yes]), atol=0.03)


def test_kept_items_stand_one_after_the_other_and_the_newest_is_never_lost(monkeypatch) -> None:
    model = build()
    items, size = to_left(HISTORY, L)
    x = model.items(items)
    monkeypatch.setattr(
        Gates, "noise", staticmethod(lambda *given: torch.tensor([[1.0, 0] * 5]).expand(4, -1))
    )
    kept, count, _ = model.cleaned(x, size, model.users.weight)
    assert recovered(model, kept) == [[9, 2], [8, 1, 7], [6, 9, 11], [12]]  # the newest stays though noise
    assert count.tolist() == [2, 3, 3, 1]
    monkeypatch.setattr(Gates, "noise", staticmethod(lambda *given: torch.ones(4, L)))
    for training in (False, True):
        kept, count, _ = model.train(training).cleaned(x, size, model.users.weight)
        assert recovered(model, kept) == [[2], [7], [11], [12]] and count.tolist() == [1] * 4
    assert compact(torch.tensor([[False, True, True]])).tolist() == [[1, 2, 0]]


def test_ranking_is_deterministic_and_padding_and_batch_mates_do_not_matter() -> None:
    model = build()
    candidates = torch.arange(1, 6).repeat(4, 1)
    scores = model.score(batch(), candidates)
    torch.manual_seed(5)
    assert torch.equal(model.score(batch(), candidates), scores)
    wide = batch(F.pad(HISTORY, (3, 0)), F.pad(BEHAVIOR, (3, 0)))
    assert torch.allclose(model.score(wide, candidates), scores, atol=1e-6)
    alone = model.score(batch().rows(slice(3, 4)), candidates[:1])
    assert torch.allclose(alone[0], scores[3], atol=1e-6)
    empty = batch(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3, dtype=torch.int64))
    assert torch.isfinite(model.score(empty, candidates)).all()


@pytest.mark.parametrize(("query", "same"), [("user", True), ("target", False)])
def test_what_is_kept_in_training_depends_on_the_target_only_in_the_release(query: str, same: bool) -> None:
    model = build(gate_query=query, augment=False).train()
    model.dropout.p = 0.0
    with torch.no_grad():
        model.items.weight.mul_(20)
    asked = []
    model.gates.of_query.register_forward_hook(lambda module, given, result: asked.append(given[0].detach()))
    for target in (TARGET, TARGET + 1):
        data = batch()
        data.target = target
        model.loss(data)
    assert torch.equal(*asked) is same


def test_gradients_reach_the_graphs_and_all_weights_are_finite() -> None:
    model = build().train()
    assert all(torch.isfinite(p).all() and p.abs().max() < 10 for p in model.parameters())
    for seed in range(4):
        torch.manual_seed(seed)
        model.loss(batch())["loss"].backward()
    for name in ("user_out", "item_out", "incoming", "outgoing", "user_join", "item_join"):
        gradient = getattr(model.relations, name).grad
        assert gradient is not None and torch.isfinite(gradient).all() and gradient.any(), name
    assert model.ends.grad.any() and model.gates.by_sequence.weight.grad.any()


def test_the_curriculum_leaves_out_the_samples_of_largest_error_and_ends_after_ten_epochs() -> None:
    model = build()
    shares = []
    for epoch in (0, 5, 10, 50):
        model.start_epoch(epoch, events())
        shares.append(model.left_out)
    assert shares == pytest.approx([0.2, 0.1, 0.0, 0.0])
    model.train().start_epoch(0, events())
    model.config = SSDRecConfig(**{**vars(model.config), "augment": False, "curriculum": 0.5})
    model.left_out = 0.5
    errors = torch.tensor([3.0, 1.0, 4.0, 2.0])
    cleaned = model.cleaned
    model.cleaned = lambda *given: (*cleaned(*given)[:2], errors)
    assert model.loss(batch())["rec"].item() == pytest.approx(1.5)  # the two smallest of four


def test_the_user_loss_by_hand_and_without_its_largest_terms() -> None:
    model = build(curriculum=0.5)
    model.left_out = 0.5  # the start: nothing is left out
    items, size = to_left(HISTORY, L)
    torch.manual_seed(2)
    value = model.user_loss(items, torch.arange(USERS))
    torch.manual_seed(2)
    negative = model.untouched.draw(torch.arange(USERS), (1,))[:, 0]
    own, table = model.users.weight, model.items.weight
    terms = [
        [-F.logsigmoid((table[item] - table[negative[u]]) @ own[u]).item() for item in items[u][: size[u]]]
        for u in range(USERS)
    ]
    assert value.item() == pytest.approx(np.mean([sum(row) for row in terms]), rel=1e-5)
    model.left_out = 0.0
    torch.manual_seed(2)
    value = model.user_loss(items, torch.arange(USERS))
    least = [sum(sorted(row)[: len(row) - len(row) // 2]) for row in terms]
    assert value.item() == pytest.approx(np.mean(least), rel=1e-5)


def test_the_temperature_falls_at_every_fortieth_step_down_to_its_floor() -> None:
    model = build()
    for _ in range(40):
        model.anneal()
    assert float(model.temperature) == pytest.approx(0.5 * math.exp(-0.04), rel=1e-5)
    for _ in range(2000):
        model.anneal()
    assert float(model.temperature) == pytest.approx(1e-3)


def test_only_frequent_items_are_inserted_where_there_are_more() -> None:
    model = build(item_pool=3)
    counts = events().item_counts()
    assert sorted(counts[model.pool.numpy()], reverse=True) == sorted(counts[1:], reverse=True)[:3]


def test_the_backbone_is_causal_over_what_is_kept() -> None:
    model = build()
    x, size = torch.randn(2, L, D), torch.tensor([4, 4])
    x[1, :4] = x[0, :4]
    assert torch.allclose(*model.ranked(x, size), atol=1e-6)  # what stands behind is not read
    assert real(size, 5).tolist() == [[True] * 4 + [False]] * 2


@pytest.mark.parametrize("options", [{}, {"backbone": "gru4rec"}, {"augment": False}, {"num_negatives": 5}])
@pytest.mark.parametrize("behaviors", [("favor",), ("a", "b", "c", "d")])
def test_variants_train_with_any_number_of_behaviors(options: dict, behaviors: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = SSDRecConfig(**{"hidden_size": D, "max_history": L, "min_cooc": 0, **options})
    model = SSDRec(config, DatasetInfo(USERS, ITEMS, behaviors, ItemContent(ITEMS))).train()
    model.set_up(events())
    loss = model.loss(batch())["loss"]
    loss.backward()
    assert torch.isfinite(loss) and model.items.weight.grad.any()
