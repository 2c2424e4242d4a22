"""What the tests of readers share."""

from dataclasses import replace

import polars as pl
import pytest

from bench.data.schema import TOUCHED, RawData


def events_of(data: RawData) -> RawData:
    """Return the data without rows outside the mapping, which are no events."""
    assert isinstance(data.events, pl.DataFrame)
    return replace(data, events=data.events.filter(pl.col("behavior").cast(pl.String) != TOUCHED))


@pytest.fixture
def touched_pairs():
    """Return a function: data -> (user, item) of the rows outside the mapping, in their order."""

    def pairs(data: RawData) -> list[tuple]:
        rows = data.collected().events.filter(pl.col("behavior").cast(pl.String) == TOUCHED)
        return rows.select("user", "item").rows()

    return pairs
