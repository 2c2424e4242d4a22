"""A task whose test part is cut out: what a tuning objective may see."""

from dataclasses import replace

import numpy as np

from bench.data.protocol.candidates import Candidates
from bench.data.protocol.split import Split
from bench.data.protocol.task import Task
from bench.data.schema import Dataset, Interactions


def without_test(task: Task) -> Task:
    """Return a task without its test events and whatever follows each user's validation event.

    What is left ends at the validation event of a user, or at the training part where there is none, and the
    candidates of the test part are gone: neither a model, the loop nor an objective can reach a test event.
    The hash of the candidates stays that of the whole task.
    """
    events, parts = task.interactions, task.split
    stops = parts.train_end.copy()
    stops[task.held_users(parts.validation)] = parts.validation + 1
    kept = np.arange(len(events)) < np.repeat(stops, np.diff(events.offsets))  # (E,)
    offsets = np.concatenate([[0], np.cumsum(stops - events.offsets[:-1])]).astype(np.int64)
    left = Interactions(offsets, events.item[kept], events.behavior[kept], events.timestamp[kept])
    place = np.cumsum(kept) - 1
    ends = offsets[:-1] + (parts.train_end - events.offsets[:-1])
    none = np.empty(0, np.int64)
    split = Split(parts.rule, ends, place[parts.validation].astype(np.int64), none)
    empty = replace(task.test, negatives=None if task.test.negatives is None else task.test.negatives[:0])
    return replace(
        task, dataset=_cut(task.dataset, left), interactions=left, split=split, test=_hashed(empty, task.test)
    )


def _cut(dataset: Dataset, events: Interactions) -> Dataset:
    return replace(dataset, interactions=events)


def _hashed(empty: Candidates, whole: Candidates) -> Candidates:
    return replace(empty, hash=whole.hash)
