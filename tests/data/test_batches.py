from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.batches.histories import DropTargetClick
from bench.data.batches.loader import TrainingBatches, evaluation_batches, target_in_history, training_events
from bench.data.protocol.split import split
from bench.data.schema import Interactions
from bench.errors import UserError
from bench.interface import Causal, Cloze, Impressions, Next, Pairs, View

FAVOR = 2
Logs = Callable[..., Interactions]
Build = Callable[..., TrainingBatches]
RULES: tuple[DropTargetClick, ...] = ("same_timestamp", "none", "all")
ALL_VIEWS: tuple[View, ...] = (
    Causal(7),
    Cloze(7, 0.4, last_share=0.3, copies=2),
    Next(7, "all"),
    Pairs(max_history=7),
    Impressions(7, 3),
)


def test_training_events_end_where_the_held_out_ones_begin(tiny: Interactions) -> None:
    events = training_events(tiny, split(tiny, FAVOR), 9)
    assert events.user.tolist() == [0] * 6 + [1, 2, 2, 4]
    assert events.item.tolist() == [1, 2, 2, 3, 3, 4, 7, 1, 9, 2]
    assert events.item_counts().tolist() == [0, 2, 3, 2, 1, 0, 0, 1, 0, 1]
    assert events.item_counts(FAVOR).tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: type(view).__name__)
def test_the_same_epoch_gives_the_same_batches_and_the_next_one_others(
    random_log: Logs, view: View, batches_of: Build
) -> None:
    batches = batches_of(random_log(6), view, num_items=60)
    first, again, other = (list(batches.epoch(number, 16)) for number in (2, 2, 3))
    for one, two in zip(first, again, strict=True):
        assert all(_same(getattr(one, name), getattr(two, name)) for name in vars(one))
    assert not all(_same(one.user, two.user) for one, two in zip(first, other, strict=True))


def _same(one: Tensor | None, two: Tensor | None) -> bool:
    return (one is None and two is None) or (one is not None and two is not None and torch.equal(one, two))


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: type(view).__name__)
def test_rows_are_sorted_left_padded_trimmed_and_counted(
    random_log: Logs, view: View, batches_of: Build
) -> None:
    batches = batches_of(random_log(6), view, num_items=60)
    seen = list(batches.epoch(0, 16))
    assert len(seen) == batches.num_batches(16)
    assert sum(len(batch) for batch in seen) == batches.num_samples
    assert all(len(batch) == len(seen[0]) for batch in seen[:-1])
    for batch in seen:
        lengths = batch.mask.sum(1)
        assert lengths.tolist() == sorted(lengths.tolist())
        assert batch.history.shape[1] == max(1, int(lengths.max()))
        assert torch.equal(batch.mask, torch.arange(-batch.history.shape[1], 0) >= -lengths[:, None])
        assert torch.equal(batch.behavior > 0, batch.mask)
        assert (
            batch.history.dtype
            == batch.behavior.dtype
            == batch.timestamp.dtype
            == batch.user.dtype
            == torch.int64
        )


def test_a_micro_batch_is_trimmed_to_its_longest_history(tiny: Interactions, batches_of: Build) -> None:
    batch = next(batches_of(tiny, Causal(), "none").epoch(0, 8))
    assert batch.history.shape == (2, 5)
    part = batch.rows(slice(0, 1))
    assert part.history.tolist() == [[1]] and part.labels is not None and part.labels.tolist() == [[9]]


def test_a_training_part_without_samples_is_an_error(tiny: Interactions, batches_of: Build) -> None:
    nobody = Interactions(
        np.array([0, 1, 2]), np.array([1, 2], np.int32), np.array([2, 2], np.int8), np.array([0, 0])
    )
    with pytest.raises(UserError, match="gives no sample"):
        batches_of(nobody, Next())


@pytest.mark.parametrize(
    "view", [Causal(0), Next(max_targets_per_user=0), Pairs(negatives=0), Cloze(last_share=1.0)]
)
def test_an_option_out_of_range_is_an_error(tiny: Interactions, view: View, batches_of: Build) -> None:
    with pytest.raises(UserError, match="expected"):
        batches_of(tiny, view)


def shown(
    log: Interactions, max_history: int, rule: DropTargetClick, batch_size: int = 3
) -> dict[int, list[int]]:
    """Return the history shown of each held-out test event."""
    test = split(log, FAVOR).test
    batches = evaluation_batches(
        log,
        test,
        max_history=max_history,
        batch_size=batch_size,
        target_behavior=FAVOR,
        drop_target_click=rule,
    )
    found: dict[int, list[int]] = {}
    for places, batch in batches:
        assert batch.target is None and batch.labels is None and batch.history.shape[1] >= 1
        assert batch.user.tolist() == log.user_of(test[places]).tolist()
        found |= {int(test[p]): row[row > 0].tolist() for p, row in zip(places, batch.history, strict=True)}
    return found


def test_evaluation_shows_what_came_before_the_held_out_favor(tiny: Interactions) -> None:
    assert shown(tiny, 50, "none") == {8: [1, 2, 2, 3, 3, 4, 5, 6], 10: [7], 14: [], 18: [2, 4, 4]}


def test_evaluation_hides_the_click_at_the_time_of_the_favor(tiny: Interactions) -> None:
    assert shown(tiny, 50, "same_timestamp") == {8: [1, 2, 2, 3, 3, 4, 5], 10: [7], 14: [], 18: [2, 4, 4]}


def test_evaluation_looks_at_the_last_events_and_does_not_make_up_for_hidden_ones(tiny: Interactions) -> None:
    assert shown(tiny, 3, "same_timestamp") == {8: [4, 5], 10: [7], 14: [], 18: [2, 4, 4]}


def test_the_rule_all_hides_clicks_of_any_time() -> None:
    log = Interactions(
        np.array([0, 3]), np.array([4, 5, 4], np.int32), np.array([1, 1, 2], np.int8), np.array([1, 2, 3])
    )
    assert [shown(log, 50, rule)[2] for rule in RULES] == [[4, 5], [4, 5], [5]]


def test_an_empty_history_is_one_padded_position(tiny: Interactions) -> None:
    places, batch = next(
        evaluation_batches(
            tiny,
            np.array([14]),
            max_history=5,
            batch_size=4,
            target_behavior=2,
            drop_target_click="same_timestamp",
        )
    )
    assert places.tolist() == [0] and batch.history.tolist() == [[0]] and batch.behavior.tolist() == [[0]]


def test_every_held_out_event_is_evaluated_once_short_histories_first(random_log: Logs) -> None:
    log = random_log(8)
    test = split(log, FAVOR).test
    pairs = list(
        evaluation_batches(
            log, test, max_history=9, batch_size=4, target_behavior=2, drop_target_click="none"
        )
    )
    assert sorted(np.concatenate([places for places, _ in pairs]).tolist()) == list(range(len(test)))
    lengths = torch.cat([batch.mask.sum(1) for _, batch in pairs]).tolist()
    assert lengths == sorted(lengths)


def test_rows_name_the_held_out_event_also_where_hiding_shortens_histories(random_log: Logs) -> None:
    log = random_log(8, num_items=4, num_users=200)
    test = split(log, FAVOR).test
    full, short = shown(log, 6, "none", batch_size=64), shown(log, 6, "all", batch_size=64)
    for event in test.tolist():
        past = range(event - len(full[event]), event)
        assert short[event] == [
            log.item[e] for e in past if log.item[e] != log.item[event] or log.behavior[e] == FAVOR
        ]
    assert sum(map(len, short.values())) < sum(map(len, full.values()))


def test_share_of_targets_already_in_the_history(tiny: Interactions) -> None:
    test = split(tiny, FAVOR).test  # of the four, only item 6 of user 0 was met before, at the same time

    def share(rule: DropTargetClick, max_history: int = 50) -> float:
        return target_in_history(
            tiny, test, max_history=max_history, target_behavior=2, drop_target_click=rule
        )

    assert (share("none"), share("same_timestamp"), share("all")) == (0.25, 0.0, 0.0)
    assert (
        target_in_history(tiny, test[:0], max_history=5, target_behavior=2, drop_target_click="none") == 0.0
    )
