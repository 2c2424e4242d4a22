import numpy as np
import polars as pl
import pytest

from bench.config import ProtocolOptions
from bench.data.protocol.task import Task, open_task
from bench.data.schema import Dataset, ItemContent, Touched

ITEMS = 150


@pytest.fixture
def make_task(random_log):
    """Return a function (protocol options) -> a task over a random log of 40 users and 150 items."""

    def make(**protocol) -> Task:
        events = random_log(0, num_users=40, num_items=ITEMS, behaviors=2, longest=20)
        pairs = np.unique(np.stack([events.users(), events.item]), axis=1)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs[0], minlength=40))]).astype(np.int64)
        dataset = Dataset(
            name="random",
            behaviors=("click", "favor"),
            interactions=events,
            touched=Touched(offsets, pairs[1].astype(np.int32)),
            content=ItemContent(ITEMS),
            users=pl.Series(range(40)),
            items=pl.DataFrame({"item": list(range(1, ITEMS + 1))}),
            metadata={"fingerprint": "none"},
        )
        return open_task(dataset, ProtocolOptions(**protocol))

    return make
