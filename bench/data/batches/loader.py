"""Batches for training and evaluation, built from flat arrays by gathers.

Inside a batch the rows are sorted by history length and trimmed to the longest, so that micro-batches cut by
`Batch.rows` are short too. All randomness of an epoch comes from `[seed, epoch number]`: an epoch can be
repeated without those before it.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.batches.histories import before, to_batch
from bench.data.batches.sequence_views import CausalSampler, ClozeSampler
from bench.data.batches.target_views import ImpressionsSampler, NextSampler, PairsSampler
from bench.data.batches.training_log import Samples, TrainingLog
from bench.data.protocol.split import DropTargetClick, Split
from bench.data.schema import Interactions
from bench.errors import UserError
from bench.interface import Batch, Causal, Cloze, Impressions, Next, Pairs, TrainingEvents, View


class Sampler(Protocol):
    """One view over one training log."""

    num_samples: int
    """Samples of an epoch, in the order `epoch` counts them."""
    num_targets: int
    """Predicted positions (or judged items) of an epoch."""
    rows_per_sample: int
    """Rows that one sample takes in a batch."""

    def epoch(self, rng: np.random.Generator) -> Samples:
        """Return (S,) or (S, k) the samples of an epoch."""
        ...

    def batch(self, chosen: Samples, rng: np.random.Generator) -> Batch:
        """Return the batch of some samples."""
        ...


def sampler(log: TrainingLog, view: View) -> Sampler:
    """Return the sampler of a view."""
    match view:
        case Causal():
            return CausalSampler(log, view)
        case Cloze():
            return ClozeSampler(log, view)
        case Next():
            return NextSampler(log, view)
        case Pairs():
            return PairsSampler(log, view)
        case Impressions():
            return ImpressionsSampler(log, view)


class TrainingBatches:
    """The batches of one view over the training part of a log.

    Args:
        interactions: the log; events at or after `split.train_end` are never read.
        split: where the training part of each user ends.
        view: what a sample is.
        num_items: N.
        target_behavior: behavior id A of the target.
        drop_target_click: which shallower events on a target item are hidden (see
            `bench.data.batches.histories`).
        seed: of shuffling, masks, negatives and drawn targets.

    Raises:
        UserError: an option of the view is out of range, or the training part gives no sample.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        view: View,
        num_items: int,
        target_behavior: int,
        drop_target_click: DropTargetClick,
        seed: int,
    ) -> None:
        _check(view)
        self.seed = seed
        self.sampler = sampler(
            TrainingLog(interactions, split.train_end, num_items, target_behavior, drop_target_click), view
        )
        if not self.sampler.num_samples:
            raise UserError(
                f"{view}: the training part gives no sample; "
                "loosen the preparation (events per user) or map another behavior to the target"
            )

    @property
    def num_samples(self) -> int:
        """Rows of all batches of one epoch."""
        return self.sampler.num_samples * self.sampler.rows_per_sample

    @property
    def num_targets(self) -> int:
        """Predicted positions (or judged items) of one epoch."""
        return self.sampler.num_targets

    def num_batches(self, batch_size: int) -> int:
        """Return the number of batches of one epoch; the last may be smaller."""
        return -(-self.sampler.num_samples // self._step(batch_size))

    def epoch(self, number: int, batch_size: int) -> Iterator[Batch]:
        """Yield the shuffled batches of an epoch.

        Args:
            number: of the epoch; the same number gives the same batches.
            batch_size: rows of a batch; a positive of `impressions` and its negatives count one row each and
            stay together.
        """
        rng = np.random.default_rng([self.seed, number])
        samples = self.sampler.epoch(rng)
        order, step = rng.permutation(len(samples)), self._step(batch_size)
        for start in range(0, len(samples), step):
            yield self.sampler.batch(samples[order[start : start + step]], rng)

    def _step(self, batch_size: int) -> int:
        return max(1, batch_size // self.sampler.rows_per_sample)


def training_events(interactions: Interactions, split: Split, num_items: int) -> TrainingEvents:
    """Return the training part of a log, flat."""
    chosen = np.arange(len(interactions)) < np.repeat(split.train_end, np.diff(interactions.offsets))
    return TrainingEvents(
        user=interactions.users()[chosen],
        item=interactions.item[chosen],
        behavior=interactions.behavior[chosen],
        timestamp=interactions.timestamp[chosen],
        num_items=num_items,
    )


def evaluation_batches(
    interactions: Interactions,
    targets: NDArray[np.int64],
    *,
    max_history: int,
    batch_size: int,
    target_behavior: int,
    drop_target_click: DropTargetClick,
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield (rows, batch): what came before each held-out event, short histories first, without the event.

    Args:
        interactions: the log.
        targets: (S,) event indices of the held-out events.
        max_history: events before the held-out one; those that the drop rule hides are not made up for.
        batch_size: most rows of a batch.
        target_behavior: behavior id A of the target.
        drop_target_click: which shallower events on the held-out item are hidden.

    Yields:
        rows (B,) int64, positions in `targets`, and the batch; an empty history is one or more padded
        positions.
    """
    lengths = np.minimum(targets - interactions.offsets[interactions.user_of(targets)], max_history)  # (S,)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        columns = before(interactions, targets[rows], max_history, target_behavior, drop_target_click)
        batch, sorting = to_batch(columns)
        yield rows[sorting], batch


def target_in_history(
    interactions: Interactions,
    targets: NDArray[np.int64],
    *,
    max_history: int,
    target_behavior: int,
    drop_target_click: DropTargetClick,
) -> float:
    """Return the fraction of held-out events whose item is in the history that the model sees, 0 without any.

    The arguments are those of `evaluation_batches`.
    """
    repeats = 0
    for start in range(0, len(targets), 4096):
        part = targets[start : start + 4096]
        history = before(interactions, part, max_history, target_behavior, drop_target_click)["history"]
        repeats += int((history == interactions.item[part][:, None]).any(1).sum())
    return repeats / max(len(targets), 1)


def _check(view: View) -> None:
    least = {"max_history": 0 if isinstance(view, Pairs) else 1, "negatives": 1, "copies": 1, "max_masked": 1}
    least["max_targets_per_user"] = 1
    for name, bound in least.items():
        value = getattr(view, name, None)
        if value is not None and value < bound:
            raise UserError(f"{type(view).__name__}: {name} is {value}, expected {bound} or more")
    if isinstance(view, Cloze) and not (0 <= view.mask_ratio <= 1 and 0 <= view.last_share < 1):
        raise UserError(f"{view}: expected mask_ratio from 0 to 1 and last_share from 0 to below 1")
