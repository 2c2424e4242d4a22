import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import RawData, RawFeatures
from bench.data.stats import statistics, text_report
from bench.data.storage import load, read_metadata

# (user, item, behavior, timestamp)
EVENTS = [
    (1, 5, "click", 1), (1, 6, "favor", 2), (1, 5, "favor", 3),  # the last favor was clicked before
    (2, 5, "favor", 4), (2, 6, "click", 5), (2, 6, "favor", 6), (2, 5, "click", 7),  # so was this one, item 6
    (3, 7, "favor", 8), (3, 7, "click", 9),  # clicked after the favor alone
    (4, 5, "click", 10),  # nothing to test on
]  # fmt: skip


def dataset(folder: Path, **changes: Any) -> Path:
    columns = ("user", "item", "behavior", "timestamp")
    frame = pl.DataFrame(dict(zip(columns, map(list, zip(*EVENTS, strict=True)), strict=True)))
    raw = RawData(frame, ("click", "favor"), "by hand", **changes)
    options, encoders = PrepareOptions(min_events=1, keep_last=None), EncoderOptions(text="none")
    return prepare(raw, "hand", folder / "hand", options, encoders, {})


def test_numbers_worked_out_by_hand(tmp_path):
    items = pl.DataFrame({"item": [5, 6, 7], "title": ["a", None, None]})
    features = {"image": RawFeatures([5, 7, 9], np.ones((3, 2), np.float32))}
    made = dataset(tmp_path, items=items, features=features, simulated=True)
    found = statistics(made)
    encoders = found.pop("encoders")
    assert found == {
        "name": "hand",
        "fingerprint": read_metadata(made)["fingerprint"],
        "users": 4,
        "items": 3,
        "interactions": 10,
        "behaviors": {"click": 5, "favor": 5},
        "raw_behaviors": {"click": 5, "favor": 5},
        "dropped": {},
        "first_malformed_rows": [],
        "modalities": {"image": pytest.approx(2 / 3)},
        "lacking": {"image": 1, "text": 2},
        "broken_pictures": {"count": 0, "first": []},
        "not_encoded": {"text": pytest.approx(1 / 3)},
        "target_in_history": pytest.approx(2 / 3),
        "events_per_user": {
            "click": {"mean": 1.25, "median": 1.0, "max": 2},
            "favor": {"mean": 1.25, "median": 1.5, "max": 2},
        },
        "first_timestamp": 1,
        "last_timestamp": 10,
        "simulated": True,
        "mapping": "by hand",
    }
    assert encoders["image"]["name"] == "ready-made"
    json.dumps({**found, "encoders": encoders})


def test_a_target_is_looked_for_among_the_users_own_events_alone(tmp_path):
    columns = {
        "user": [1, 1, 2],
        "item": [5, 6, 6],
        "behavior": ["click", "favor", "click"],
        "timestamp": [1, 2, 0],
    }
    raw = RawData(pl.DataFrame(columns), ("click", "favor"), "")
    made = prepare(raw, "x", tmp_path / "x", PrepareOptions(1), EncoderOptions(), {})
    assert statistics(made)["target_in_history"] == 0


def test_target_in_history_agrees_with_a_loop_over_users(tmp_path):
    rng = np.random.default_rng(3)
    columns = {
        "user": rng.integers(0, 50, 600),
        "item": rng.integers(0, 12, 600),
        "behavior": rng.choice(["view", "cart", "buy"], 600),
        "timestamp": rng.integers(0, 40, 600),
    }
    raw = RawData(pl.DataFrame(columns), ("view", "cart", "buy"), "")
    made = prepare(raw, "x", tmp_path / "x", PrepareOptions(), EncoderOptions(), {})
    events, met = load(made).interactions, []
    for user in range(events.num_users):
        mine = slice(events.offsets[user], events.offsets[user + 1])
        items, behaviors = events.item[mine].tolist(), events.behavior[mine].tolist()
        if 3 in behaviors:
            last = len(behaviors) - 1 - behaviors[::-1].index(3)
            met.append(items[last] in items[:last])
    assert 0.2 < np.mean(met) < 0.95
    assert statistics(made)["target_in_history"] == pytest.approx(np.mean(met))


def test_behaviors_count_what_is_kept_and_raw_behaviors_everything(tmp_path):
    raw = RawData(
        pl.DataFrame(EVENTS, schema=["user", "item", "behavior", "timestamp"], orient="row"),
        ("click", "favor"),
        "",
    )
    found = statistics(prepare(raw, "x", tmp_path / "x", PrepareOptions(3, 2), EncoderOptions(), {}))
    assert found["raw_behaviors"] == {"click": 5, "favor": 5}
    assert found["behaviors"] == {"click": 1, "favor": 3}  # the last two events of users 1 and 2
    assert (found["users"], found["interactions"]) == (2, 4)


def test_the_report_names_sizes_coverage_and_what_was_not_encoded(tmp_path):
    items = pl.DataFrame({"item": [5, 6, 7], "title": ["a", None, None]})
    features = {"image": RawFeatures([5, 7], np.ones((2, 2), np.float32))}
    rows = dict(text_report(statistics(dataset(tmp_path, items=items, features=features))))
    assert (rows["users"], rows["items"], rows["interactions"]) == ("4", "3", "10")
    assert rows["click"] == "5 of 5 raw; per user: mean 1.25, median 1, most 2"
    assert rows["image"].startswith("66.7% of the items (1 of 3 lack one); ready-made, width 2, hash ")
    assert rows["text"] == "33.3% of the items (2 of 3 lack one); not encoded (--set data.text=tfidf-svd)"
    assert rows["target in history"] == "66.7% of the test targets"
    assert (rows["timestamps"], rows["mapping"], rows["simulated"]) == ("1 to 10", "by hand", "no")
