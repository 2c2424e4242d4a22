from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.data.batches.loader import TrainingBatches, evaluation_batches
from bench.data.protocol.leaks import find_leaks
from bench.data.protocol.split import DropTargetClick, Rule, Split, split
from bench.data.schema import Interactions
from bench.interface import Batch, Causal, Cloze, Impressions, Next, Pairs, View

VIEWS: tuple[View, ...] = (
    Causal(6),
    Cloze(6, 0.5, last_share=0.4, copies=2),
    Next(6, "all", None),
    Next(6, "last"),
    Pairs(max_history=6),
    Pairs(),
    Impressions(6, 2),
)


def training(
    log: Interactions, parts: Split, view: View, num_items: int, drop: DropTargetClick = "same_timestamp"
) -> Iterator[Batch]:
    return TrainingBatches(log, parts, view, num_items, 2, drop, 0).epoch(0, 16)


def evaluation(log: Interactions, targets: np.ndarray) -> Iterator[Batch]:
    for _, batch in evaluation_batches(
        log, targets, max_history=6, batch_size=8, target_behavior=2, drop_target_click="none"
    ):
        yield batch


def planted(user: int, item: int, behavior: int, timestamp: int) -> Batch:
    return Batch(*(torch.tensor(value) for value in ([user], [[item]], [[behavior]], [[timestamp]])))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["leave-last-out", "global-time"])
@pytest.mark.parametrize("drop", ["same_timestamp", "none", "all"])
def test_no_view_shows_anything_but_training_events(
    random_log: Callable[..., Interactions], seed: int, rule: Rule, drop: DropTargetClick
) -> None:
    log = random_log(seed, num_items=15)
    parts = split(log, 2, rule)
    for view in VIEWS:
        assert find_leaks(training(log, parts, view, 15, drop), log, parts, "training") == [], view


@pytest.mark.parametrize("rule", ["leave-last-out", "global-time"])
def test_evaluation_shows_nothing_at_or_after_the_held_out_event(
    random_log: Callable[..., Interactions], rule: Rule
) -> None:
    log = random_log(2)
    parts = split(log, 2, rule)
    assert find_leaks(evaluation(log, parts.validation), log, parts, "validation") == []
    assert find_leaks(evaluation(log, parts.test), log, parts, "test") == []


def test_test_histories_are_leaks_when_taken_for_validation(random_log: Callable[..., Interactions]) -> None:
    log = random_log(2)
    parts = split(log, 2)
    both = np.isin(log.user_of(parts.test), log.user_of(parts.validation))
    leaks = find_leaks(evaluation(log, parts.test[both]), log, parts, "validation")
    # every user's history now holds the validation favor itself (histories of 6 may miss an old one)
    assert len({leak.user for leak in leaks}) > 0.8 * both.sum()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_training_part_that_runs_too_far_is_found(
    random_log: Callable[..., Interactions], view: View
) -> None:
    log = random_log(1)
    parts = split(log, 2)
    too_far = replace(parts, train_end=log.offsets[1:])
    assert find_leaks(training(log, too_far, view, 60), log, parts, "training") != []


def test_a_test_item_in_a_training_history_is_found(tiny: Interactions) -> None:
    parts = split(tiny, 2)
    (leak,) = find_leaks([planted(0, 6, 2, 60)], tiny, parts, "training")  # event 8, the test favor of user 0
    assert (leak.user, leak.item, leak.behavior, leak.timestamp) == (0, 6, 2, 60)
    assert leak.why == "history: comes after the training part ends"


def test_a_training_event_with_another_time_or_type_is_no_event(tiny: Interactions) -> None:
    parts = split(tiny, 2)
    assert find_leaks([planted(0, 3, 2, 35)], tiny, parts, "training") == []
    for item, behavior, timestamp in ((3, 2, 36), (3, 1, 35), (4, 2, 35), (99, 2, 35)):
        (leak,) = find_leaks([planted(0, item, behavior, timestamp)], tiny, parts, "training")
        assert leak.why == "history: no such event of this user"


def test_the_validation_event_may_be_shown_for_test_but_not_for_validation(tiny: Interactions) -> None:
    parts, batch = split(tiny, 2), [planted(0, 5, 2, 50)]  # event 6, the validation favor of user 0
    assert find_leaks(batch, tiny, parts, "test") == []
    (leak,) = find_leaks(batch, tiny, parts, "validation")
    assert leak.why == "history: comes after the validation event, or is it"


def test_nothing_may_be_shown_of_a_user_without_held_out_event(tiny: Interactions) -> None:
    (leak,) = find_leaks([planted(2, 1, 1, 12)], tiny, split(tiny, 2), "test")
    assert leak.user == 2


def test_a_planted_label_and_target_are_found(tiny: Interactions) -> None:
    parts, clean = split(tiny, 2), planted(0, 1, 1, 10)
    six, favor = torch.tensor([6]), torch.tensor([2])
    cases = {
        "labels": replace(clean, labels=six[:, None], label_behavior=favor[:, None]),
        "target": replace(clean, target=six, target_behavior=favor),
    }
    for field, batch in cases.items():
        (leak,) = find_leaks([batch], tiny, parts, "training")
        assert (leak.item, leak.behavior, leak.timestamp) == (6, 2, None)
        assert leak.why.startswith(field)
    impression = replace(clean, target=six, label=torch.tensor([1.0]))
    (leak,) = find_leaks([impression], tiny, parts, "training")
    assert (leak.item, leak.behavior) == (6, 2)  # item 6 was also clicked, which is no excuse
    assert find_leaks([replace(impression, label=torch.tensor([0.0]))], tiny, parts, "training") == []


def test_an_evaluation_batch_that_carries_its_target_is_found(tiny: Interactions) -> None:
    # user 0 clicked item 6 before the test favor, so the pair alone would pass
    batch = replace(planted(0, 1, 1, 10), target=torch.tensor([6]), target_behavior=torch.tensor([1]))
    (leak,) = find_leaks([batch], tiny, split(tiny, 2), "test")
    assert leak.item == 6 and leak.why == "target: an evaluation batch gives an answer away"
