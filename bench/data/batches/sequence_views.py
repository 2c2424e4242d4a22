"""Samples and batches of the views that predict many positions of one sequence: `causal` and `cloze`."""

import numpy as np
from numpy.typing import NDArray

from bench.data.batches.histories import Columns, event_indices, gather, to_batch, twins
from bench.data.batches.training_log import Samples, TrainingLog, windows
from bench.interface import Batch, Causal, Cloze


class CausalSampler:
    """A sample is a window of labels (start, stop); its inputs are the events one step earlier.

    A target-behavior label is dropped (0) where the window shows, before it, a shallower event that the rule
    hides.
    """

    rows_per_sample = 1

    def __init__(self, log: TrainingLog, view: Causal) -> None:
        self.log = log
        start, stop = windows(
            np.minimum(log.events.offsets[:-1] + 1, log.train_end), log.train_end, view.max_history
        )  # (W,) each: windows of labels; a user's first event is an input only
        sizes = stop - start  # (W,)
        first = np.cumsum(sizes) - sizes  # (W,) where the labels of each window begin in `label`
        label = np.arange(sizes.sum()) + np.repeat(start - first, sizes)  # (P,) each label once, by window
        # Inputs begin at start - 1: a twin before that is not in the window and gives nothing away.
        keep = twins(log.events, log.target_behavior, log.rule)[label] < np.repeat(start - 1, sizes)  # (P,)
        self.labelled = np.zeros(len(log.events), np.bool_)
        """(E,) True for events that are predicted."""
        self.labelled[label] = keep
        # (W,) windows with a label; `reduceat` refuses to sum up nothing.
        some = np.add.reduceat(keep, first, dtype=np.int64) > 0 if len(first) else np.zeros(0, np.bool_)
        self.windows = np.stack([start[some], stop[some]], axis=1)  # (S, 2)
        self.num_samples, self.num_targets = len(self.windows), int(keep.sum())

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S, 2) all windows with a label."""
        return self.windows

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return inputs with the label of each position."""
        events = self.log.events
        event_index, is_real = event_indices(chosen[:, 0] - 1, chosen[:, 1] - 1)  # (B, L)
        label = event_index + is_real  # (B, L) the next event; padding stays at index 0
        keep = is_real & self.labelled[label]  # (B, L)
        columns = gather(events, event_index, is_real) | {
            "user": events.user_of(chosen[:, 0]),
            "labels": events.item[label].astype(np.int64) * keep,
            "label_behavior": events.behavior[label].astype(np.int64) * keep,
        }
        return to_batch(columns)[0]


class ClozeSampler:
    """A sample is a window of events (start, stop) and whether its last event alone is masked.

    Behavior and time of a masked event stay visible: at test time the question is also put as "which item,
    given the target behavior". A shallower event on a masked target item that the rule hides is masked too,
    on either side of it, without a label.
    """

    rows_per_sample = 1

    def __init__(self, log: TrainingLog, view: Cloze) -> None:
        self.log, self.view = log, view
        start, stop = windows(log.events.offsets[:-1], log.train_end, view.max_history)  # (W,) each
        self.windows = np.repeat(np.stack([start, stop, np.zeros_like(start)], axis=1), view.copies, axis=0)
        """(W * copies, 3)"""
        self.ends = np.flatnonzero(log.trained() & (log.events.behavior == log.target_behavior))
        """Event indices of the target-behavior events that may be masked as the last of a history."""
        share = view.last_share / (1 - view.last_share)
        self.num_last = round(len(self.windows) * share) if len(self.ends) else 0
        self.num_samples = len(self.windows) + self.num_last
        self.num_targets = int(self._masked(self.windows[:, 1] - self.windows[:, 0]).sum()) + self.num_last

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S, 3): all windows, and histories cut right after randomly drawn target-behavior events."""
        if not self.num_last:
            return self.windows
        ends = np.resize(rng.permutation(self.ends), self.num_last)  # repeats them if there are too few
        stop = ends + 1  # (num_last,)
        first = self.log.events.offsets[self.log.events.user_of(stop - 1)]  # each user's first event
        start = np.maximum(first, stop - self.view.max_history)
        return np.concatenate([self.windows, np.stack([start, stop, np.ones_like(stop)], axis=1)])

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return histories with id N + 1 at masked positions and the masked items as labels."""
        events, last = self.log.events, chosen[:, 2] == 1
        event_index, is_real = event_indices(chosen[:, 0], chosen[:, 1])  # (B, L)
        columns = gather(events, event_index, is_real)
        # Masked are the positions whose key has a rank below `count`: padding (2) comes last, and the last
        # event of a row that masks it alone (-1) comes first.
        key = np.where(is_real, rng.random(is_real.shape), 2)  # (B, L)
        key[last, -1] = -1
        count = np.where(last, 1, self._masked(chosen[:, 1] - chosen[:, 0]))  # (B,)
        masked = np.argsort(np.argsort(key, axis=1), axis=1) < count[:, None]  # (B, L)
        hidden = masked | self._twins(columns, masked)  # (B, L)
        columns |= {
            "user": events.user_of(chosen[:, 0]),
            "labels": columns["history"] * masked,
            "label_behavior": columns["behavior"] * masked,
            "history": np.where(hidden, self.log.num_items + 1, columns["history"]),
        }
        return to_batch(columns)[0]

    def _masked(self, lengths: Samples) -> Samples:
        """Return how many positions of a sequence are masked."""
        wanted = np.rint(lengths * self.view.mask_ratio).astype(np.int64)
        return np.minimum(self.view.max_masked, np.maximum(1, wanted))

    def _twins(self, columns: Columns, masked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return (B, L) True at shallower events on a masked target-behavior item that the rule hides."""
        history, behavior, time = columns["history"], columns["behavior"], columns["timestamp"]
        hidden = np.zeros_like(masked)
        if self.log.rule == "none":
            return hidden
        row, column = np.nonzero(masked & (behavior == self.log.target_behavior))  # (T,) each: masked targets
        twin = (history[row] == history[row, column][:, None]) & (behavior[row] < self.log.target_behavior)
        if self.log.rule == "same_timestamp":
            twin &= time[row] == time[row, column][:, None]  # (T, L)
        target, column = np.nonzero(twin)
        hidden[row[target], column] = True
        return hidden
