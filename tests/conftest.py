"""Logs that several test files use: one to read by eye, and random ones."""

# ruff: noqa: E402
import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: tests run side by side, one core each

import os

import numpy as np
import polars as pl
import pytest

from bench import api
from bench.data import library
from bench.data.schema import Dataset, Interactions, ItemContent, Touched
from bench.data.storage import save
from bench.experiments import grid, processes
from tests.processes import CONTEXT

CLICK, FAVOR = 1, 2


@pytest.fixture(autouse=True)
def one_cell_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run in the test's own process unless it asks for several: tests go side by side already, and a
    process that imports torch costs seconds.
    """
    for module in (grid, api):
        monkeypatch.setattr(module, "default_jobs", lambda device: 1)


@pytest.fixture(autouse=True)
def processes_from_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a pool are forked from a server that has imported torch once."""
    monkeypatch.setattr(processes, "context", lambda: CONTEXT)


def interactions(users: list[list[tuple[int, int, int]]]) -> Interactions:
    """Return a log from each user's list of (item, behavior, timestamp)."""
    events = [event for user in users for event in user]
    item, behavior, timestamp = (list(column) for column in zip(*events, strict=True))
    return Interactions(
        offsets=np.cumsum([0] + [len(user) for user in users], dtype=np.int64),
        item=np.array(item, np.int32),
        behavior=np.array(behavior, np.int8),
        timestamp=np.array(timestamp, np.int64),
    )


@pytest.fixture
def tiny() -> Interactions:
    """Five users, items 1..9, click = 1, favor = 2 (the target)."""
    return interactions(
        [
            # 0: events 0..8, favors 2, 4, 6, 8; items 2 and 6 are clicked and favored at one time, 3 is not
            [
                (1, 1, 10),
                (2, 1, 20),
                (2, 2, 20),
                (3, 1, 30),
                (3, 2, 35),
                (4, 1, 40),
                (5, 2, 50),
                (6, 1, 60),
                (6, 2, 60),
            ],
            # 1: events 9..11; one favor, a click after it
            [(7, 1, 11), (8, 2, 21), (1, 1, 31)],
            # 2: events 12..13; no favor
            [(1, 1, 12), (9, 1, 22)],
            # 3: event 14; a favor and nothing before it
            [(3, 2, 13)],
            # 4: events 15..18; two favors
            [(2, 1, 14), (4, 2, 24), (4, 1, 34), (1, 2, 44)],
        ]
    )


@pytest.fixture
def random_log() -> Callable[..., Interactions]:
    """Return a function that draws a log with many equal timestamps.

    Some users have no event; a third of the events of the deepest behavior follow a click on the same item
    at the same time.
    """

    def draw(
        seed: int = 0, num_users: int = 40, num_items: int = 60, behaviors: int = 2, longest: int = 30
    ) -> Interactions:
        rng = np.random.default_rng(seed)
        users: list[list[tuple[int, int, int]]] = []
        for length in rng.integers(0, longest + 1, num_users):
            time = np.sort(rng.integers(0, 2 * longest, length))
            item = rng.integers(1, num_items + 1, length)
            behavior = rng.integers(1, behaviors + 1, length)
            for place in range(1, length):
                if behavior[place] == behaviors and rng.random() < 1 / 3:
                    behavior[place - 1] = 1
                    item[place], time[place] = item[place - 1], time[place - 1]
            time = np.maximum.accumulate(time)
            users.append(list(zip(item.tolist(), behavior.tolist(), time.tolist(), strict=True)))
        return interactions(users)

    return draw


@pytest.fixture
def touched_of() -> Callable[[Interactions], Touched]:
    """Return a function that gives the distinct items of each user of a log."""

    def collect(log: Interactions) -> Touched:
        items = [np.unique(log.item[a:b]) for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
        offsets = np.cumsum([0] + [len(part) for part in items], dtype=np.int64)
        return Touched(offsets, np.concatenate(items).astype(np.int32))

    return collect


def small_dataset(users: int = 30, events: int = 12, items: int = 150) -> Dataset:
    """Each user goes around the catalog by steps of one: the item after the newest one comes next."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, items, users)
    item = ((start[:, None] + np.arange(events)) % items + 1).astype(np.int32)
    behavior = np.tile(np.array([1, 1, 2], np.int8), users * events // 3)
    offsets = np.arange(0, users * events + 1, events)
    return Dataset(
        name="small",
        behaviors=("click", "favor"),
        interactions=Interactions(offsets, item.ravel(), behavior, np.tile(np.arange(events), users)),
        touched=Touched(offsets, np.sort(item, 1).ravel()),
        content=ItemContent(items),
        users=pl.Series("user", [f"u{number}" for number in range(users)]),
        items=pl.DataFrame({"item": [f"i{number}" for number in range(items)]}),
        metadata={"mapping": "every third event is a favor", "simulated": True},
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A prepared data set called `small` and an empty results folder."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("COLUMNS", raising=False)
    save(small_dataset(), library.home() / "small")
    return tmp_path
