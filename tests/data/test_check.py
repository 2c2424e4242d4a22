import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.check import check_raw
from bench.data.preparation.check_prepared import check_prepared
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import RawData, RawFeatures
from bench.errors import UserError

GOOD = pl.DataFrame(
    {
        "user": [1, 1, 1, 2, 2],
        "item": [10, 20, 30, 10, 30],
        "behavior": ["click", "click", "favor", "click", "favor"],
        "timestamp": [1, 2, 3, 4, 5],
    }
)
RAW = RawData(GOOD, ("click", "favor"), "as they are", items=pl.DataFrame({"item": [10, 20, 30]}))


def with_events(**columns: Any) -> RawData:
    return replace(RAW, events=GOOD.with_columns(**{name: pl.Series(v) for name, v in columns.items()}))


def with_items(**columns: Any) -> RawData:
    return replace(RAW, items=pl.DataFrame(columns))


def with_vectors(items: list[Any], vectors: Any) -> RawData:
    return replace(RAW, features={"image": RawFeatures(items, np.array(vectors, np.float32))})


def test_good_data_pass():
    check_raw(RAW)
    check_raw(with_vectors([30, 10], [[1, 2], [3, 4]]))


CASES = {
    "unknown behavior": (
        with_events(behavior=["click", "clik", "favor", "click", "favor"]),
        "events, row 2: behavior is 'clik', expected click, favor; did you mean 'click'?",
    ),
    "null behavior": (
        with_events(behavior=["click", "click", "favor", None, "favor"]),
        "events, row 4: behavior is None, expected one of click, favor",
    ),
    "negative user": (with_events(user=[1, 1, 1, 2, -2]), "events, row 5: user is -2, expected 0 or more"),
    "negative item": (
        with_events(item=[10, 20, -1, 10, 30]),
        "events, row 3: item is -1, expected 0 or more",
    ),
    "null user": (with_events(user=[1, None, 1, 2, 2]), "events, row 2: user is None, expected an id"),
    "empty user": (with_events(user=["a", "a", "a", "", "b"]), "events, row 4: user is '', expected an id"),
    "ids with a point": (
        with_events(item=[1.0, 2.0, None, 1.0, 2.0]),
        "events: column 'item' has type Float64; read ids as text or whole numbers",
    ),
    "null timestamp": (
        with_events(timestamp=[1, 2, None, 4, 5]),
        "events, row 3: timestamp is None, expected a whole number",
    ),
    "negative timestamp": (
        with_events(timestamp=[1, 2, 3, 4, -9]),
        "events, row 5: timestamp is -9, expected 0 to",
    ),
    "marker as timestamp": (
        with_events(timestamp=[1, 2**63 - 1, 3, 4, 5]),
        "events, row 2: timestamp is 9223372036854775807, expected 0 to",
    ),
    "timestamp as text": (
        with_events(timestamp=["1", "2", "3", "4", "5"]),
        "events: column 'timestamp' has type String",
    ),
    "no target event": (
        with_events(behavior=["click"] * 5),
        "events: none of 5 rows has the target behavior 'favor' (found: click)",
    ),
    "missing column": (
        replace(RAW, events=GOOD.rename({"item": "item_id"})),
        "events: no column 'item'; did you mean 'item_id'?",
    ),
    "no row": (replace(RAW, events=GOOD.clear()), "events: no row at all"),
    "behavior twice": (replace(RAW, behaviors=("favor", "favor")), "behaviors ('favor', 'favor'): expected"),
    "item twice": (with_items(item=[10, 20, 10]), "items, row 3: item is 10, expected each item once"),
    "item null": (with_items(item=[10, None]), "items, row 2: item is None, expected an id"),
    "item of another type": (
        with_items(item=["10", "20"]),
        "items: column 'item' has type String, in events Int64",
    ),
    "title as number": (
        with_items(item=[10], title=[5]),
        "items: column 'title' has type Int64, expected text",
    ),
    "attribute without column": (
        replace(RAW, attributes=("brand",)),
        "items: no column 'brand'",
    ),
    "attribute without table": (
        replace(RAW, items=None, attributes=("brand",)),
        "attributes brand: there is no item table",
    ),
    "attribute of reserved name": (
        replace(with_items(item=[10], has_image=["x"]), attributes=("has_image",)),
        "items: 'has_image' cannot be the name of an attribute",
    ),
    "more vectors than items": (
        with_vectors([10, 20], [[1, 2], [3, 4], [5, 6]]),
        "image features: 3 vectors for 2 items",
    ),
    "vector not finite": (
        with_vectors([10, 20], [[1, 2], [np.nan, 4]]),
        "image features, row 2 (item 20): NaN or infinite values",
    ),
    "vector of an item twice": (
        with_vectors([10, 10], [[1, 2], [3, 4]]),
        "image features, row 2: item is 10, expected each item once",
    ),
    "vector ids of another type": (
        with_vectors(["10"], [[1, 2]]),
        "image features: item ids have type String, in events Int64",
    ),
    "vectors without width": (with_vectors([10], [1.0]), "image features: shape (1,), float32; expected"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_of_raw_data_is_said_in_one_line(case):
    raw, message = CASES[case]
    with pytest.raises(UserError, match="^" + re.escape(message)) as caught:
        check_raw(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_written_where_raw_data_are_faulty(case, tmp_path):
    with pytest.raises(UserError):
        prepare(CASES[case][0], "x", tmp_path / "x", PrepareOptions(1), EncoderOptions(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a sound folder: 2 users, items 1..3, events of users 0, 0, 0, 1, 1; item 2 has no vector."""
    raw = with_vectors([10, 30], [[1, 2], [3, 4]])
    return prepare(raw, "x", tmp_path / "x", PrepareOptions(1), EncoderOptions(), {})


def change(path: Path, **columns: Any) -> None:
    frame = pl.read_parquet(path)
    frame.with_columns(pl.Series(name, v, frame[name].dtype) for name, v in columns.items()).write_parquet(
        path
    )


def test_a_sound_folder_has_no_finding(folder):
    assert check_prepared(folder) == []


@pytest.mark.parametrize(
    ("columns", "row", "rule", "value"),
    [
        ({"timestamp": [1, 3, 2, 4, 5]}, 3, "order by user, then timestamp", "user 0 at 2 after user 0 at 3"),
        ({"user": [0, 0, 1, 0, 1]}, 4, "order by user, then timestamp", "user 0 at 4 after user 1 at 3"),
        ({"user": [0, 0, 0, 1, 2]}, 5, "user from 0 to 1", "2"),
        ({"item": [1, 2, 3, 4, 3]}, 4, "item from 1 to 3", "4"),
        ({"item": [1, 2, 0, 1, 3]}, 3, "item from 1 to 3", "0"),
        ({"behavior": [1, 3, 2, 1, 2]}, 2, "behavior from 1 to 2", "3"),
        ({"behavior": [1, 1, 1, 1, 1]}, None, "at least one target event (behavior 2)", "none"),
        (
            {"item": [1, 2, 3, 2, 3]},
            4,
            "every item of a user's events among the items touched",
            "user 1, item 2",
        ),
    ],
)
def test_faulty_events_are_found(folder, columns, row, rule, value):
    change(folder / "events.parquet", **columns)
    first = check_prepared(folder)[0]
    assert (first.file, first.row, first.rule, first.value) == ("events.parquet", row, rule, value)


def test_touched_items_out_of_order_are_found(folder):
    change(folder / "touched.parquet", item=[1, 3, 2, 1, 3])
    found = check_prepared(folder)
    assert [(f.file, f.row, f.value) for f in found] == [("touched.parquet", 3, "user 0, item 2")]


@pytest.mark.parametrize(
    ("vectors", "row", "rule"),
    [
        ([[0, 0], [1, 2], [0, 0]], None, "4 rows, one per item after the padding row"),
        ([[7, 0], [1, 2], [0, 0], [3, 4]], 1, "zeros in the padding row"),
        ([[0, 0], [1, 2], [0, 7], [3, 4]], 3, "zeros where the item is absent"),
        ([[0, 0], [1, 2], [0, 0], [np.inf, 4]], 4, "finite values"),
    ],
)
def test_faulty_vectors_are_found(folder, vectors, row, rule):
    np.save(folder / "feature_image.npy", np.array(vectors, np.float32))
    found = [(f.file, f.row, f.rule) for f in check_prepared(folder)]
    assert found == [("feature_image.npy", row, rule)]


def test_changed_contents_no_longer_fit_the_fingerprint(folder):
    change(folder / "events.parquet", timestamp=[1, 2, 3, 4, 6])
    (finding,) = check_prepared(folder)
    assert finding.file == "dataset.json"
    assert finding.rule.startswith("fingerprint ")
    assert finding.value == json.loads((folder / "dataset.json").read_text())["fingerprint"]


@pytest.mark.parametrize("name", ["dataset.json", "events.parquet", "items.parquet", "feature_image.npy"])
def test_a_missing_or_garbled_file_is_found(folder, name):
    (folder / name).write_bytes(b"garbled")
    (garbled,) = check_prepared(folder)
    (folder / name).unlink()
    (missing,) = check_prepared(folder)
    assert name in missing.value + missing.file
    assert "\n" not in garbled.value + missing.value
