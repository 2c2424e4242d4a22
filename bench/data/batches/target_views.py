"""Samples and batches of the views that judge one event at a time: `next`, `pairs` and `impressions`."""

import numpy as np

from bench.data.batches.histories import to_batch
from bench.data.batches.training_log import Samples, TrainingLog, capped, capped_size
from bench.interface import Batch, Impressions, Next, Pairs


class NextSampler:
    """A sample is an event to predict from what came before it."""

    rows_per_sample = 1

    def __init__(self, log: TrainingLog, view: Next) -> None:
        self.log, self.view = log, view
        self.events = log.predictable(None if view.targets == "all" else log.target_behavior)
        self.users = log.events.user_of(self.events)
        if view.targets == "last":
            final = np.diff(self.users, append=-1) != 0  # (S,) the next event is of another user
            self.events, self.users = self.events[final], self.users[final]
        self.num_samples = self.num_targets = capped_size(self.users, view.max_targets_per_user)

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S,) event indices, at most `max_targets_per_user` random ones of each user."""
        return self.events[capped(rng, self.users, self.view.max_targets_per_user)]

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return histories with the target and its behavior."""
        events = self.log.events
        columns = self.log.before(chosen, self.view.max_history) | {
            "target": events.item[chosen].astype(np.int64),
            "target_behavior": events.behavior[chosen].astype(np.int64),
        }
        return to_batch(columns)[0]


class PairsSampler:
    """A sample is the first training event of a distinct (user, item, behavior), or of a distinct
    (user, item) in its deepest behavior.

    Users who touched the whole catalog in training have no negative and give no pair.
    """

    rows_per_sample = 1

    def __init__(self, log: TrainingLog, view: Pairs) -> None:
        self.log, self.view, self.negatives = log, view, log.untouched()
        behaviors = (
            np.arange(1, log.target_behavior + 1) if view.behaviors is None else np.array(view.behaviors)
        )
        chosen = np.flatnonzero(log.trained() & np.isin(log.events.behavior, behaviors))
        users = log.events.user_of(chosen)
        pair = users * (log.num_items + 1) + log.events.item[chosen]  # (n,) one number per (user, item)
        triples, first = np.unique(
            pair * (log.target_behavior + 1) + log.events.behavior[chosen], return_index=True
        )  # ascending: the deepest behavior of a pair is its last triple
        if view.distinct:
            first = first[np.diff(triples // (log.target_behavior + 1), append=-1) != 0]
        self.events = chosen[first[self.negatives.free[users[first]] > 0]]
        self.num_samples = self.num_targets = len(self.events)

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S,) event indices of all pairs."""
        return self.events

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return pairs with `negatives` untouched items each."""
        events = self.log.events
        columns = self.log.before(chosen, self.view.max_history)
        columns |= {
            "target": events.item[chosen].astype(np.int64),
            "target_behavior": events.behavior[chosen].astype(np.int64),
            "negatives": self.negatives.draw(rng, columns["user"], self.view.negatives),
        }
        return to_batch(columns)[0]


class ImpressionsSampler:
    """A sample is a target-behavior event and its negatives: 1 + `negatives` rows with one history."""

    def __init__(self, log: TrainingLog, view: Impressions) -> None:
        self.log, self.view, self.negatives = log, view, log.untouched()
        events = log.predictable(log.target_behavior)
        users = log.events.user_of(events)
        possible = self.negatives.free[users] > 0
        self.events, self.users = events[possible], users[possible]
        self.rows_per_sample = 1 + view.negatives
        self.num_samples = capped_size(self.users, view.max_targets_per_user)
        self.num_targets = self.num_samples * self.rows_per_sample

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S,) event indices, at most `max_targets_per_user` random ones of each user."""
        return self.events[capped(rng, self.users, self.view.max_targets_per_user)]

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return each event with label 1, followed by its negatives with label 0."""
        columns = self.log.before(chosen, self.view.max_history)
        items = np.concatenate(
            [
                self.log.events.item[chosen][:, None],
                self.negatives.draw(rng, columns["user"], self.view.negatives),
            ],
            1,
        )  # (S, 1 + negatives)
        label = np.zeros(items.shape, np.float32)
        label[:, 0] = 1
        columns = {name: np.repeat(values, self.rows_per_sample, axis=0) for name, values in columns.items()}
        return to_batch(columns | {"target": items.ravel(), "label": label.ravel()})[0]
