"""Which events train a model and which are held out.

Both rules work on the order of events inside a user (timestamp, then file order). A held-out event with
nothing before it is kept as a target: its history is all padding, and a model must cope with that.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.schema import Interactions
from bench.errors import UserError

Rule = Literal["leave-last-out", "global-time"]
DropTargetClick = Literal["same_timestamp", "none", "all"]


@dataclass(frozen=True)
class Split:
    """The training part and the held-out events, as indices into the flat events."""

    rule: str
    """`leave-last-out` or `global-time`."""
    train_end: NDArray[np.int64]
    """(U,) the training events of user u are `offsets[u]:train_end[u]`."""
    validation: NDArray[np.int64]
    """(V,) event indices, ascending, at most one per user."""
    test: NDArray[np.int64]
    """(S,) event indices, ascending, at most one per user."""


def split(
    interactions: Interactions,
    target_behavior: int,
    rule: Rule = "leave-last-out",
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> Split:
    """Divide a log into a training part, validation events and test events.

    `leave-last-out`: a user's last target event is test, the last but one validation (where there is only
    one, it is test), and everything before the earlier of them is training; a user without target event is
    training altogether. `global-time`: two moments cut the whole log; everything before the first is
    training, a user's last target event between them is validation, the last one at or after the second is
    test. Only this rule keeps other users' future out of training.

    Args:
        interactions: the log.
        target_behavior: behavior id of the held-out events, 1..A.
        rule: which rule.
        validation_share: `global-time`: fraction of all events between the two moments.
        test_share: `global-time`: fraction of all events at or after the second moment.

    Raises:
        UserError: `global-time` with shares that leave no training, or a log that no moment divides.
    """
    if rule == "global-time":
        return _global_time(interactions, target_behavior, validation_share, test_share)
    offsets = interactions.offsets
    targets = np.flatnonzero(interactions.behavior == target_behavior)  # event indices, ascending
    # (U,) each: the target events of user u are targets[begins[u] : ends[u]].
    begins, ends = np.searchsorted(targets, offsets[:-1]), np.searchsorted(targets, offsets[1:])
    has_test, has_validation = ends - begins >= 1, ends - begins >= 2  # (U,)
    test, validation = targets[ends[has_test] - 1], targets[ends[has_validation] - 2]
    train_end = offsets[1:].copy()
    train_end[has_test] = test
    train_end[has_validation] = validation
    return Split(rule, train_end, validation, test)


def restrict(interactions: Interactions, parts: Split, keep: NDArray[np.bool_]) -> tuple[Interactions, Split]:
    """Return some of the events and the same split among them; all users stay.

    Args:
        interactions: the log.
        parts: its split.
        keep: (E,) events that stay, every held-out one among them.
    """
    before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)  # (E + 1,) kept events before each event
    left = Interactions(
        offsets=before[interactions.offsets],
        item=interactions.item[keep],
        behavior=interactions.behavior[keep],
        timestamp=interactions.timestamp[keep],
    )
    return left, Split(parts.rule, before[parts.train_end], before[parts.validation], before[parts.test])


def answers_in_training(
    interactions: Interactions, parts: Split, target_behavior: int, rule: DropTargetClick
) -> NDArray[np.bool_]:
    """Return (E,) the training events that give a held-out event of their user away.

    They are what the rule hides from the history before that event: shallower events on its item, at its
    time (`same_timestamp`) or at any (`all`). Hidden there, they must be no label in training either: a
    model would learn the answer by heart.
    """
    away = np.zeros(len(interactions), np.bool_)
    if rule == "none":
        return away
    users, end = interactions.users(), np.repeat(parts.train_end, np.diff(interactions.offsets))  # (E,) each
    trained = (np.arange(len(interactions)) < end) & (interactions.behavior < target_behavior)
    for held in (parts.validation, parts.test):  # at most one event per user each
        answer = np.full(interactions.num_users, -1)
        answer[interactions.user_of(held)] = held
        own = answer[users]  # (E,) held-out event of the user, -1 without one
        twin = trained & (own >= 0) & (interactions.item == interactions.item[own])
        if rule == "same_timestamp":
            twin &= interactions.timestamp == interactions.timestamp[own]
        away |= twin
    return away


def _global_time(
    interactions: Interactions, target_behavior: int, validation_share: float, test_share: float
) -> Split:
    if not (validation_share > 0 and test_share > 0 and validation_share + test_share < 1):
        raise UserError(
            f"validation_share {validation_share} and test_share {test_share}: "
            "expected two fractions above 0 with a sum below 1"
        )
    time, offsets = interactions.timestamp, interactions.offsets
    first, second = _moment(time, 1 - validation_share - test_share), _moment(time, 1 - test_share)
    trained = np.concatenate([[0], np.cumsum(time < first)])  # (E + 1,) training events before each event
    if trained[-1] == 0:
        raise UserError(
            f"global-time: no event lies before the first cut at timestamp {first}, "
            "too many share one timestamp; use the leave-last-out rule"
        )
    train_end = offsets[:-1] + trained[offsets[1:]] - trained[offsets[:-1]]  # (U,)
    target = interactions.behavior == target_behavior  # (E,)
    validation = _last_of_each_user(target & (time >= first) & (time < second), offsets)
    return Split("global-time", train_end, validation, _last_of_each_user(target & (time >= second), offsets))


def _moment(timestamps: NDArray[np.int64], share: float) -> int:
    """Return a timestamp that at most a share of the events lies before, exact for 64-bit times."""
    if not len(timestamps):
        return 0
    rank = min(int(share * len(timestamps)), len(timestamps) - 1)
    return int(np.partition(timestamps, rank)[rank])


def _last_of_each_user(chosen: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    events = np.flatnonzero(chosen)  # event indices, ascending
    begins, ends = np.searchsorted(events, offsets[:-1]), np.searchsorted(events, offsets[1:])  # (U,)
    return events[ends[ends > begins] - 1]
