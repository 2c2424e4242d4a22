from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.batches.histories import DropTargetClick
from bench.data.batches.loader import TrainingBatches
from bench.data.batches.untouched import Untouched
from bench.data.protocol.split import split
from bench.data.schema import Interactions
from bench.interface import Causal, Cloze, Impressions, Next, Pairs

FAVOR = 2
Logs = Callable[..., Interactions]
Build = Callable[..., TrainingBatches]
Rows = Callable[..., list[tuple[Any, ...]]]
RULES: tuple[DropTargetClick, ...] = ("same_timestamp", "none", "all")


def test_causal_predicts_the_next_training_event_at_every_position(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    batches = batches_of(tiny, Causal(), "none")
    assert rows(batches.epoch(0, 8), "history", "labels", "label_behavior") == [
        (0, (1, 2, 2, 3, 3), (2, 2, 3, 3, 4), (1, 2, 1, 2, 1)),
        (2, (1,), (9,), (1,)),  # users 1 and 4 have one training event, user 3 none
    ]
    assert batches.num_targets == 6


def test_causal_drops_a_favor_whose_click_at_the_same_time_is_shown(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    labels = {rule: rows(batches_of(tiny, Causal(), rule).epoch(0, 8), "labels")[0][1] for rule in RULES}
    # item 2 is clicked and favored at 20; item 3 is clicked at 30 and favored at 35
    assert labels == {"same_timestamp": (2, 0, 3, 3, 4), "none": (2, 2, 3, 3, 4), "all": (2, 0, 3, 0, 4)}
    assert batches_of(tiny, Causal(), "same_timestamp").num_targets == 5


def test_causal_keeps_a_favor_whose_click_lies_before_the_window(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    apart = Interactions(  # item 5 is clicked, then item 6, then 5 is favored; two more favors are held out
        np.array([0, 5]),
        np.array([5, 6, 5, 7, 8], np.int32),
        np.array([1, 1, 2, 2, 2], np.int8),
        np.arange(5),
    )
    assert rows(batches_of(apart, Causal(2), "all").epoch(0, 8), "history", "labels") == [(0, (5, 6), (6, 0))]
    short = rows(batches_of(apart, Causal(1), "all").epoch(0, 8), "history", "labels")
    assert short == [(0, (5,), (6,)), (0, (6,), (5,))]


def test_a_window_without_any_label_is_no_sample(tiny: Interactions, batches_of: Build, rows: Rows) -> None:
    # with one position a window, the window (click 2 -> favor 2) loses its only label
    found = rows(batches_of(tiny, Causal(1)).epoch(0, 8), "history", "labels")
    assert found == [(0, (1,), (2,)), (0, (2,), (3,)), (0, (3,), (3,)), (0, (3,), (4,)), (2, (1,), (9,))]


@pytest.mark.parametrize("max_history", [1, 3, 50])
def test_causal_labels_every_training_event_but_the_first_once(
    random_log: Logs, max_history: int, batches_of: Build
) -> None:
    log = random_log(7)
    parts = split(log, FAVOR)
    wanted = Counter(
        (user, int(log.item[event]), int(log.behavior[event]))
        for user, (first, end) in enumerate(zip(log.offsets[:-1], parts.train_end, strict=True))
        for event in range(first + 1, end)
    )
    batches = batches_of(log, Causal(max_history), "none", 60)
    found: Counter[tuple[int, int, int]] = Counter()
    for batch in batches.epoch(1, 8):
        assert (
            batch.history.shape[1] <= max_history
            and batch.labels is not None
            and batch.label_behavior is not None
        )
        for user, items, behaviors in zip(
            batch.user.tolist(), batch.labels.tolist(), batch.label_behavior.tolist(), strict=True
        ):
            found.update(
                (user, item, behavior) for item, behavior in zip(items, behaviors, strict=True) if item
            )
    assert found == wanted
    assert batches.num_targets == wanted.total()


@pytest.mark.parametrize("rule", RULES)
def test_causal_keeps_the_labels_that_no_shown_click_gives_away(
    random_log: Logs, rule: DropTargetClick, batches_of: Build, rows: Rows
) -> None:
    log = random_log(3, num_items=12, behaviors=3)
    shown, wanted = expected_next(log, rule, 50, 3), Counter[Any]()
    for event, count in expected_next(log, "none", 50, 3).items():
        user, item, *_ = event
        wanted[user, item if event in shown else 0] += count  # a history that the rule shortens is not shown
    found: Counter[Any] = Counter()
    for user, labels in rows(batches_of(log, Causal(50), rule, 12, 3).epoch(0, 16), "labels"):
        found.update((user, item) for item in labels)
    assert found == wanted


def test_cloze_masks_the_stated_number_of_events_and_labels_them(random_log: Logs, batches_of: Build) -> None:
    log = random_log(4)
    batches = batches_of(log, Cloze(10, 0.3, max_masked=2, last_share=0.0), "none", 60)
    targets = 0
    for batch in batches.epoch(0, 16):
        assert batch.labels is not None and batch.label_behavior is not None
        masked = batch.history == 61
        assert torch.equal(masked, batch.labels > 0)
        assert torch.equal(batch.label_behavior, batch.behavior * masked)
        lengths = batch.mask.sum(1).tolist()
        assert masked.sum(1).tolist() == [min(2, max(1, round(0.3 * length))) for length in lengths]
        targets += int(masked.sum())
    assert targets == batches.num_targets


def test_cloze_windows_cover_the_training_part(tiny: Interactions, batches_of: Build) -> None:
    found = []
    for batch in batches_of(tiny, Cloze(4, last_share=0.0), "none").epoch(0, 8):
        assert batch.labels is not None
        whole = torch.where(batch.labels > 0, batch.labels, batch.history)
        found += [
            (int(user), tuple(row[row > 0].tolist())) for user, row in zip(batch.user, whole, strict=True)
        ]
    assert sorted(found) == [(0, (1, 2)), (0, (2, 3, 3, 4)), (1, (7,)), (2, (1, 9)), (4, (2,))]


def test_cloze_mask_last_cuts_right_after_a_favor(tiny: Interactions, batches_of: Build, rows: Rows) -> None:
    # four windows and as many mask-last instances: the training favors, events 2 and 4, are drawn twice each
    batches = batches_of(tiny, Cloze(50, last_share=0.5), "none")
    assert batches.num_samples == 8
    found = Counter(rows(batches.epoch(0, 8), "history", "labels"))
    assert found[(0, (1, 2, 10), (0, 0, 2))] == 2
    assert found[(0, (1, 2, 2, 3, 10), (0, 0, 0, 0, 3))] == 2


def test_cloze_hides_the_click_that_gives_a_masked_favor_away(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    batches = batches_of(tiny, Cloze(50, last_share=0.5), "same_timestamp")
    found = rows(batches.epoch(0, 8), "history", "labels")
    assert (0, (1, 10, 10), (0, 0, 2)) in found  # the click at 20 is masked too, without a label
    assert (0, (1, 2, 2, 3, 10), (0, 0, 0, 0, 3)) in found  # the click at 30 stays before the favor at 35
    every = rows(batches_of(tiny, Cloze(50, last_share=0.5), "all").epoch(0, 8), "history", "labels")
    assert (0, (1, 2, 2, 10, 10), (0, 0, 0, 0, 3)) in every


def test_cloze_draws_other_masks_for_copies_and_epochs(
    random_log: Logs, batches_of: Build, rows: Rows
) -> None:
    log = random_log(4)
    batches = batches_of(log, Cloze(30, 0.5, copies=2, last_share=0.0), "none", 60)
    first, second = (Counter(rows(batches.epoch(epoch, 16), "history")) for epoch in (0, 1))
    assert first != second
    assert first.total() == batches.num_samples == 2 * len({user for user, _ in first})
    assert len(first) > batches.num_samples / 2


def expected_next(log: Interactions, rule: DropTargetClick, max_history: int, target: int) -> Counter[Any]:
    """Walk over every training event but the users' first, one by one."""
    found: Counter[Any] = Counter()
    for user, (first, end) in enumerate(zip(log.offsets[:-1], split(log, target).train_end, strict=True)):
        for event in range(first + 1, end):
            item, behavior, time = log.item[event], log.behavior[event], log.timestamp[event]
            history = []
            for past in range(max(first, event - max_history), event):
                twin = behavior == target and log.item[past] == item and log.behavior[past] < target
                if rule == "none" or not twin or (rule == "same_timestamp" and log.timestamp[past] != time):
                    history.append((int(log.item[past]), int(log.behavior[past]), int(log.timestamp[past])))
            found[(user, int(item), int(behavior), tuple(history))] += 1
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("behaviors", [1, 2, 3])
def test_next_histories_agree_with_a_walk_over_every_event(
    random_log: Logs, rule: DropTargetClick, behaviors: int, batches_of: Build, rows: Rows
) -> None:
    log = random_log(behaviors, num_items=12, behaviors=behaviors)
    view = Next(max_history=8, targets="all", max_targets_per_user=None)
    batches = batches_of(log, view, rule, 12, behaviors)
    found = rows(batches.epoch(0, 16), "target", "target_behavior", "history", "behavior", "timestamp")
    zipped = Counter((user, item, b, tuple(zip(*columns, strict=True))) for user, item, b, *columns in found)
    assert zipped == expected_next(log, rule, 8, behaviors)


def test_next_predicts_the_favors_by_default(tiny: Interactions, batches_of: Build, rows: Rows) -> None:
    found = rows(batches_of(tiny, Next()).epoch(0, 8), "target", "target_behavior", "history")
    assert found == [(0, 2, 2, (1,)), (0, 3, 2, (1, 2, 2, 3))]


def test_next_last_predicts_the_last_favor_only(tiny: Interactions, batches_of: Build, rows: Rows) -> None:
    found = rows(batches_of(tiny, Next(targets="last")).epoch(0, 8), "target", "history")
    assert found == [(0, 3, (1, 2, 2, 3))]


def test_next_caps_the_targets_of_a_user_and_draws_others_each_epoch(
    random_log: Logs, batches_of: Build, rows: Rows
) -> None:
    log = random_log(9)
    batches = batches_of(log, Next(targets="all", max_targets_per_user=3), num_items=60)
    everything = batches_of(log, Next(targets="all", max_targets_per_user=None), num_items=60)
    most = Counter(row[0] for row in rows(everything.epoch(0, 32), "target"))
    epochs = [rows(batches.epoch(number, 32), "target", "history") for number in range(2)]
    for epoch in epochs:
        assert Counter(row[0] for row in epoch) == {user: min(3, count) for user, count in most.items()}
    assert epochs[0] != epochs[1]
    assert batches.num_samples == len(epochs[0])


def test_pairs_are_the_distinct_training_pairs_with_untouched_negatives(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    batches = batches_of(tiny, Pairs(negatives=40))
    found = rows(batches.epoch(0, 4), "target", "target_behavior", "negatives")
    first = [(0, 1, 1), (0, 2, 1), (0, 2, 2), (0, 3, 1), (0, 3, 2), (0, 4, 1)]
    assert [row[:3] for row in found] == first + [(1, 7, 1), (2, 1, 1), (2, 9, 1), (4, 2, 1)]
    assert set(found[0][3]) == {5, 6, 7, 8, 9}  # 5 and 6 are touched after training only, and may be drawn
    assert set(found[7][3]) == {2, 3, 4, 5, 6, 7, 8}
    assert next(batches.epoch(0, 4)).history.shape == (4, 0)


def test_pairs_of_one_behavior_and_their_history(tiny: Interactions, batches_of: Build, rows: Rows) -> None:
    found = rows(batches_of(tiny, Pairs(behaviors=(2,), max_history=2)).epoch(0, 4), "target", "history")
    assert found == [(0, 2, (1,)), (0, 3, (2, 3))]


def test_distinct_pairs_stand_once_with_their_deepest_behavior(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    batches = batches_of(tiny, Pairs(distinct=True))
    found = rows(batches.epoch(0, 4), "target", "target_behavior")
    assert found == [
        (0, 1, 1), (0, 2, 2), (0, 3, 2), (0, 4, 1), (1, 7, 1), (2, 1, 1), (2, 9, 1), (4, 2, 1)
    ]  # fmt: skip
    assert batches.num_samples == batches.num_targets == 8


def test_a_repeated_pair_stands_for_its_first_event(batches_of: Build, rows: Rows) -> None:
    log = Interactions(
        np.array([0, 4]), np.array([3, 5, 3, 9], np.int32), np.array([1, 1, 1, 2], np.int8), np.arange(4)
    )
    found = rows(batches_of(log, Pairs(max_history=5)).epoch(0, 4), "target", "history")
    assert found == [(0, 3, ()), (0, 5, (3,))]


def test_a_user_who_touched_the_whole_catalog_gives_no_pair(rows: Rows) -> None:
    log = Interactions(
        np.array([0, 3, 4]), np.array([1, 2, 3, 1], np.int32), np.ones(4, np.int8), np.arange(4)
    )
    parts = split(log, FAVOR)  # nobody has a favor: all events train
    batches = TrainingBatches(log, parts, Pairs(), 3, FAVOR, "none", 0)
    assert rows(batches.epoch(0, 4), "target") == [(1, 1)]


def test_untouched_draws_are_uniform_over_what_the_user_left() -> None:
    sampler = Untouched(np.array([0, 0, 2, 0]), np.array([2, 5, 1, 2], np.int32), num_users=3, num_items=6)
    assert sampler.free.tolist() == [4, 6, 5]
    drawn = sampler.draw(np.random.default_rng(0), np.array([0, 1, 2]), 60_000)
    for row, free in zip(drawn, ([1, 3, 4, 6], [1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6]), strict=True):
        items, counts = np.unique(row, return_counts=True)
        assert items.tolist() == free
        assert np.abs(counts / 60_000 - 1 / len(free)).max() < 0.01


def test_impressions_show_a_favor_and_its_negatives_with_one_history(
    tiny: Interactions, batches_of: Build, rows: Rows
) -> None:
    batches = batches_of(tiny, Impressions(negatives=4))
    found = rows(batches.epoch(0, 10), "history", "label", "target")
    assert [row[1:3] for row in found] == [((1,), 0.0)] * 4 + [((1,), 1.0)] + [((1, 2, 2, 3), 0.0)] * 4 + [
        ((1, 2, 2, 3), 1.0)
    ]
    assert [row[3] for row in found if row[2] == 1] == [2, 3]
    assert {row[3] for row in found if row[2] == 0} <= {5, 6, 7, 8, 9}
    assert batches.num_samples == batches.num_targets == 10


def test_impressions_of_one_event_stay_in_one_batch_no_larger_than_asked(
    random_log: Logs, batches_of: Build
) -> None:
    batches = batches_of(random_log(5), Impressions(negatives=4), num_items=60)
    sizes = [len(batch) for batch in batches.epoch(0, 12)]
    assert set(sizes[:-1]) == {10} and sum(sizes) == batches.num_samples
    for batch in batches.epoch(0, 12):
        assert batch.label is not None and float(batch.label.sum()) * 5 == len(batch)
