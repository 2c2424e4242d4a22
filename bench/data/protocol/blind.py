"""A task whose test part is cut out: what training and a tuning objective may see."""

from dataclasses import replace

import numpy as np

from bench.data.protocol.split import Split
from bench.data.protocol.task import Task
from bench.data.schema import Interactions


def without_test(task: Task) -> Task:
    """Return a task without its test events and whatever follows each user's validation event.

    What is left ends at the validation event of a user, or at the training part where there is none, and
    the candidates of the test part are gone: no test event is among the events. The items that a user
    touched stay as a set without behavior or time, since they are no negatives; the hash of the candidates
    is that of the whole task.
    """
    events, parts = task.interactions, task.split
    stops = parts.train_end.copy()
    stops[task.held_users(parts.validation)] = parts.validation + 1
    kept = np.arange(len(events)) < np.repeat(stops, np.diff(events.offsets))  # (E,)
    offsets = np.concatenate([[0], np.cumsum(stops - events.offsets[:-1])]).astype(np.int64)
    left = Interactions(offsets, events.item[kept], events.behavior[kept], events.timestamp[kept])
    position = np.cumsum(kept) - 1
    ends = offsets[:-1] + (parts.train_end - events.offsets[:-1])
    validation = position[parts.validation].astype(np.int64)
    negatives = task.test.negatives
    return replace(
        task,
        dataset=replace(task.dataset, interactions=left),
        interactions=left,
        split=Split(parts.rule, ends, validation, np.empty(0, np.int64)),
        test=replace(task.test, negatives=None if negatives is None else negatives[:0]),
    )
