"""A click that a rating makes beside its favor is no label of training, whoever trains on what."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from bench.config import ProtocolOptions
from bench.data.batches.loader import TrainingBatches, training_events
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.protocol.split import DropTargetClick
from bench.data.protocol.task import Task, open_task
from bench.data.readers.ratings import BEHAVIORS, by_rating
from bench.data.schema import RawData
from bench.data.storage import load
from bench.interface import Causal, Cloze, Next, Pairs


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "user": np.repeat(np.arange(30), 12),
            "item": np.concatenate([rng.permutation(60)[:12] for _ in range(30)]),
            "timestamp": np.arange(360),
            "stars": rng.integers(1, 6, 360),
        }
    )
    return by_rating(rows, "stars", 4, "nested")


def task_of(stars: pl.DataFrame, folder, rule: DropTargetClick) -> Task:
    raw = RawData(stars.drop("stars"), BEHAVIORS, "")
    dataset = load(prepare(raw, "films", folder / "films", PrepareOptions(), EncoderOptions(), {}))
    return open_task(dataset, ProtocolOptions(drop_target_click=rule))


def labels(task: Task) -> Iterator[tuple[int, int]]:
    """Yield every user and item that training sees."""
    events = training_events(task.interactions, task.split, task.dataset.num_items)
    yield from zip(events.user.tolist(), events.item.tolist(), strict=True)
    for view in (Causal(8), Cloze(8, 0.5), Next(8, "all", None), Pairs(max_history=8)):
        batches = TrainingBatches(
            task.interactions, task.split, view, task.dataset.num_items, 2, task.protocol.drop_target_click, 0
        )
        for batch in batches.epoch(0, 16):
            given = batch.labels if batch.labels is not None else batch.target[:, None]
            for user, items in zip(batch.user.tolist(), given.tolist(), strict=True):
                yield from ((user, item) for item in items if item)


def answers(task: Task) -> set[tuple[int, int]]:
    held = np.concatenate([task.split.validation, task.split.test])
    items = task.interactions.item[held]
    return set(zip(task.held_users(held).tolist(), items.tolist(), strict=True))


@pytest.mark.parametrize("rule", ["same_timestamp", "all"])
def test_no_view_trains_on_the_click_of_a_held_out_favor(stars, tmp_path, rule: DropTargetClick) -> None:
    task = task_of(stars, tmp_path, rule)
    assert task.hidden_events == len(task.split.validation) > 20
    assert not answers(task) & set(labels(task))


def test_without_the_rule_the_clicks_are_trained_on(stars, tmp_path) -> None:
    task = task_of(stars, tmp_path, "none")
    assert task.hidden_events == 0
    assert len(answers(task) & set(labels(task))) == len(task.split.validation)
