"""What training may see: the training part and the validation part, cut out physically.

`TrainingData` is built from events that end at each user's validation item, so neither the loop, a model nor
a tuning objective can reach a test event, whatever it does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.batches.loader import TrainingBatches, evaluation_batches, training_events
from bench.data.protocol.blind import without_test
from bench.data.protocol.candidates import Candidates
from bench.data.protocol.split import DropTargetClick, Split
from bench.data.protocol.task import Task
from bench.data.schema import Dataset, Interactions
from bench.evaluation.ranks import Held
from bench.interface import Batch, DatasetInfo, TrainingEvents, View


@dataclass(frozen=True)
class HeldPart:
    """Held-out events with their histories and candidates."""

    interactions: Interactions
    targets: NDArray[np.int64]
    """(S,) event indices, ascending."""
    held: Held
    target_behavior: int
    drop_target_click: DropTargetClick

    def batches(self, max_history: int, batch_size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Yield (rows, batch): histories before each held-out event, without the event itself."""
        return evaluation_batches(
            self.interactions,
            self.targets,
            max_history=max_history,
            batch_size=batch_size,
            target_behavior=self.target_behavior,
            drop_target_click=self.drop_target_click,
        )


@dataclass(frozen=True)
class TrainingData:
    """Training events and the validation part; holds no test event."""

    info: DatasetInfo
    interactions: Interactions
    split: Split
    events: TrainingEvents
    validation: HeldPart

    def batches(self, view: View, seed: int) -> TrainingBatches:
        """Return the batches of a view over the training part."""
        target, rule = self.validation.target_behavior, self.validation.drop_target_click
        return TrainingBatches(self.interactions, self.split, view, self.info.num_items, target, rule, seed)


def training_data(task: Task) -> TrainingData:
    """Cut the training and validation parts out of a task."""
    blind = without_test(task)
    events, split = blind.interactions, blind.split
    return TrainingData(
        info=dataset_info(task.dataset),
        interactions=events,
        split=split,
        events=training_events(events, split, task.dataset.num_items),
        validation=held_part(task, events, split.validation, task.validation),
    )


def held_part(
    task: Task, events: Interactions, targets: NDArray[np.int64], candidates: Candidates
) -> HeldPart:
    """Join held-out events with their candidates."""
    users, items = events.user_of(targets), events.item[targets].astype(np.int64)
    held = Held(users, items, candidates.negatives, task.dataset.touched, task.protocol.candidates_seed)
    return HeldPart(events, targets, held, task.dataset.target_behavior, task.protocol.drop_target_click)


def dataset_info(dataset: Dataset) -> DatasetInfo:
    """Return what a model may know of a data set."""
    return DatasetInfo(dataset.interactions.num_users, dataset.num_items, dataset.behaviors, dataset.content)
