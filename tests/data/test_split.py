from collections.abc import Callable

import numpy as np
import pytest

from bench.data.protocol.split import DropTargetClick, answers_in_training, restrict, split
from bench.data.schema import Interactions
from bench.errors import UserError

CLICK, FAVOR = 1, 2
RULES: tuple[DropTargetClick, ...] = ("none", "same_timestamp", "all")


def only_favors(log: Interactions) -> Interactions:
    return restrict(log, split(log, FAVOR), log.behavior == FAVOR)[0]


def test_last_favor_is_test_and_last_but_one_is_validation(tiny: Interactions) -> None:
    parts = split(tiny, FAVOR)
    # user 0: favors at events 2, 4, 6, 8; user 1: 10; user 2: none; user 3: 14; user 4: 16, 18
    assert parts.test.tolist() == [8, 10, 14, 18]
    assert parts.validation.tolist() == [6, 16]
    assert parts.rule == "leave-last-out"


def test_training_ends_before_the_earlier_held_out_event(tiny: Interactions) -> None:
    # user 1 has one favor and training ends there; user 2 has none and trains on all; user 3 on nothing
    assert split(tiny, FAVOR).train_end.tolist() == [6, 10, 14, 14, 16]


def test_only_the_last_event_counts_when_one_behavior_is_logged(tiny: Interactions) -> None:
    favors = only_favors(tiny)
    parts = split(favors, FAVOR)
    assert favors.offsets.tolist() == [0, 4, 5, 5, 6, 8]
    assert parts.test.tolist() == [3, 4, 5, 7]
    assert parts.validation.tolist() == [2, 6]
    assert parts.train_end.tolist() == [2, 4, 5, 5, 6]


def test_restricting_keeps_items_and_times_of_the_behavior(tiny: Interactions) -> None:
    favors = only_favors(tiny)
    assert favors.item.tolist() == [2, 3, 5, 6, 8, 3, 4, 1]
    assert favors.timestamp.tolist() == [20, 35, 50, 60, 21, 13, 24, 44]
    assert favors.behavior.tolist() == [2] * 8
    assert favors.num_users == tiny.num_users


def test_held_out_favors_are_the_same_with_and_without_clicks(
    random_log: Callable[..., Interactions],
) -> None:
    log = random_log(3)
    favors = only_favors(log)
    whole, narrow = split(log, FAVOR), split(favors, FAVOR)
    assert log.item[whole.test].tolist() == favors.item[narrow.test].tolist()
    assert log.user_of(whole.validation).tolist() == favors.user_of(narrow.validation).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_leave_last_out_agrees_with_a_walk_over_every_user(
    random_log: Callable[..., Interactions], seed: int
) -> None:
    log = random_log(seed)
    parts = split(log, FAVOR)
    test, validation, train_end = [], [], []
    for first, end in zip(log.offsets[:-1].tolist(), log.offsets[1:].tolist(), strict=True):
        favors = [event for event in range(first, end) if log.behavior[event] == FAVOR]
        test += favors[-1:]
        validation += favors[-2:-1]
        train_end.append(favors[-2:][0] if favors else end)
    assert parts.test.tolist() == test
    assert parts.validation.tolist() == validation
    assert parts.train_end.tolist() == train_end


def test_global_time_cuts_the_whole_log_at_two_moments(tiny: Interactions) -> None:
    # 19 events; sorted times 10 11 12 13 14 20 20 21 22 24 30 31 34 35 40 44 50 60 60
    # first cut: place int(.5 * 19) = 9 -> 24; second: place int(.8 * 19) = 15 -> 44
    parts = split(tiny, FAVOR, "global-time", validation_share=0.3, test_share=0.2)
    assert parts.train_end.tolist() == [3, 11, 14, 15, 16]
    # favors in [24, 44): user 0 at 35 (event 4), user 4 at 24 (event 16); at or after 44: events 6, 8 and 18
    assert parts.validation.tolist() == [4, 16]
    assert parts.test.tolist() == [8, 18]


def test_global_time_never_trains_on_anything_later_than_a_held_out_event(
    random_log: Callable[..., Interactions],
) -> None:
    log = random_log(1, num_users=200)
    parts = split(log, FAVOR, "global-time")
    trained = np.arange(len(log)) < np.repeat(parts.train_end, np.diff(log.offsets))
    assert log.timestamp[trained].max() < log.timestamp[parts.validation].min()
    assert log.timestamp[parts.validation].max() < log.timestamp[parts.test].min()
    assert 0.7 < trained.mean() <= 0.8  # 80 % less what shares the timestamp of the cut


def test_global_time_is_exact_for_nanoseconds(tiny: Interactions) -> None:
    late = Interactions(tiny.offsets, tiny.item, tiny.behavior, tiny.timestamp + 1_700_000_000_000_000_000)
    early_parts, late_parts = (split(log, FAVOR, "global-time", 0.25, 0.25) for log in (tiny, late))
    assert early_parts.train_end.tolist() == late_parts.train_end.tolist()
    assert early_parts.test.tolist() == late_parts.test.tolist()


def test_global_time_refuses_shares_that_leave_no_training(tiny: Interactions) -> None:
    with pytest.raises(UserError, match="validation_share 0.5 and test_share 0.5"):
        split(tiny, FAVOR, "global-time", 0.5, 0.5)


def test_global_time_refuses_a_log_of_one_moment(tiny: Interactions) -> None:
    flat = Interactions(tiny.offsets, tiny.item, tiny.behavior, np.full(len(tiny), 7))
    with pytest.raises(UserError, match="timestamp 7"):
        split(flat, FAVOR, "global-time")


def test_restricting_moves_the_split_along(tiny: Interactions) -> None:
    parts = split(tiny, FAVOR)
    favors, moved = restrict(tiny, parts, tiny.behavior == FAVOR)
    assert (moved.test.tolist(), moved.validation.tolist()) == ([3, 4, 5, 7], [2, 6])
    assert moved.train_end.tolist() == [2, 4, 5, 5, 6]
    assert favors.item[moved.test].tolist() == tiny.item[parts.test].tolist()


def log_of(*events: tuple[int, int, int, int]) -> Interactions:
    """Events (user, item, behavior, time) in order."""
    user, item, behavior, time = (np.array(column) for column in zip(*events, strict=True))
    offsets = np.searchsorted(user, np.arange(user.max() + 2))
    return Interactions(offsets, item.astype(np.int32), behavior.astype(np.int8), time)


def test_a_click_at_the_time_of_a_held_out_favor_is_an_answer_in_training() -> None:
    log = log_of(
        (0, 5, CLICK, 1), (0, 7, CLICK, 3), (0, 5, CLICK, 3), (0, 5, FAVOR, 3), (0, 6, CLICK, 4),
        (0, 6, FAVOR, 4),
        (1, 5, CLICK, 3), (1, 8, CLICK, 9), (1, 8, FAVOR, 9),
    )  # fmt: skip
    parts = split(log, FAVOR)
    away = {rule: answers_in_training(log, parts, FAVOR, rule).nonzero()[0].tolist() for rule in RULES}
    # event 4 is hidden at test time by the history's own rule, and lies behind the training part
    assert away == {"none": [], "same_timestamp": [2, 7], "all": [0, 2, 7]}


def test_only_the_users_own_held_out_events_hide_a_click(random_log: Callable[..., Interactions]) -> None:
    log = random_log(5)
    parts = split(log, FAVOR)
    users = log.users()
    for rule in RULES:
        away = answers_in_training(log, parts, FAVOR, rule)
        for event in range(len(log)):
            own = [h for h in (*parts.validation, *parts.test) if users[h] == users[event]]
            same = [h for h in own if log.item[h] == log.item[event]]
            if rule == "same_timestamp":
                same = [h for h in same if log.timestamp[h] == log.timestamp[event]]
            trained = event < parts.train_end[users[event]] and log.behavior[event] < FAVOR
            assert away[event] == (trained and bool(same) and rule != "none")
