"""Training batches of a log, and their rows in plain numbers."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from torch import Tensor

from bench.data.batches import TrainingBatches
from bench.data.histories import DropTargetClick
from bench.data.schema import Interactions
from bench.data.split import split
from bench.interface import Batch, View


@pytest.fixture
def batches_of() -> Callable[..., TrainingBatches]:
    """Return a function (log, view, rule, num_items, target behavior) -> training batches."""

    def build(
        log: Interactions,
        view: View,
        rule: DropTargetClick = "same_timestamp",
        num_items: int = 9,
        target: int = 2,
    ) -> TrainingBatches:
        return TrainingBatches(log, split(log, target), view, num_items, target, rule, seed=3)

    return build


@pytest.fixture
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    """Return a function (batches, *fields) -> (user, field, ...) of every row, padding cut off, sorted."""

    def collect(batches: Iterable[Batch], *fields: str) -> list[tuple[Any, ...]]:
        found = []
        for batch in batches:
            for row in range(len(batch)):
                real = batch.mask[row]
                values = [getattr(batch, field)[row] for field in fields]
                found.append((int(batch.user[row]), *(_plain(value, real) for value in values)))
        return sorted(found)

    return collect


def _plain(value: Tensor, real: Tensor) -> Any:
    return tuple(value[real].tolist()) if value.shape == real.shape else value.tolist()
