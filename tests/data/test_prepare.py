import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import Dataset, RawData, RawFeatures
from bench.data.storage import load
from bench.errors import UserError

READER = {"name": "hand", "options": {"threshold": 4}}

# (user, item, behavior, timestamp). User 30 has 6 events, two at time 5; user 7 has 4; user 20 has 5.
EVENTS = [
    (30, 500, "click", 5), (30, 100, "favor", 9), (7, 900, "click", 1), (7, 500, "favor", 2),
    (30, 200, "click", 5), (20, 100, "click", 3), (20, 200, "click", 1), (20, 100, "favor", 4),
    (7, 900, "favor", 3), (30, 500, "click", 7), (20, 300, "click", 2), (30, 400, "click", 1),
    (20, 200, "favor", 5), (7, 100, "click", 9), (30, 200, "favor", 8),
]  # fmt: skip


def raw_data(events: list[tuple[Any, ...]] = EVENTS, **changes: Any) -> RawData:
    columns = ("user", "item", "behavior", "timestamp")
    frame = pl.DataFrame(dict(zip(columns, map(list, zip(*events, strict=True)), strict=True)))
    return replace(RawData(frame, ("click", "favor"), "as they are"), **changes)


def prepared(raw: RawData, folder: Path, encoders: EncoderOptions | None = None, **options: Any) -> Dataset:
    filters = PrepareOptions(**options)
    return load(prepare(raw, "hand", folder, filters, encoders or EncoderOptions(), READER))


def random_raw(seed: int, text_ids: bool = False) -> RawData:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 30, 400), rng.integers(0, 40, 400)
    frame = pl.DataFrame(
        {
            "user": users,
            "item": items,
            "behavior": rng.choice(["click", "favor"], 400),
            "timestamp": rng.permutation(400),
        }
    )
    if text_ids:
        frame = frame.with_columns(pl.col("user", "item").cast(pl.String))
    table = pl.DataFrame({"item": np.arange(40)}).with_columns(
        title="word" + (pl.col("item") % 7).cast(pl.String), brand="b" + (pl.col("item") % 5).cast(pl.String)
    )
    if text_ids:
        table = table.with_columns(pl.col("item").cast(pl.String))
    return RawData(frame, ("click", "favor"), "random", items=table, attributes=("brand",))


def test_events_are_ordered_by_user_then_time_then_file_and_ids_follow_the_raw_ids(tmp_path):
    dataset = prepared(raw_data(), tmp_path / "hand")
    assert dataset.users.to_list() == [20, 30]  # user 7 has four events
    assert dataset.items["item"].to_list() == [100, 200, 300, 400, 500]  # 900 was user 7's alone
    events = dataset.interactions
    assert events.offsets.tolist() == [0, 5, 11]
    assert events.timestamp.tolist() == [1, 2, 3, 4, 5, 1, 5, 5, 7, 8, 9]
    # of the two events at time 5, item 500 (id 5) stands first in the file
    assert events.item.tolist() == [2, 3, 1, 1, 2, 4, 5, 2, 5, 2, 1]
    assert events.behavior.tolist() == [1, 1, 1, 2, 2, 1, 1, 1, 1, 2, 2]


def test_keep_last_shortens_the_history_but_not_the_touched_items(tmp_path):
    dataset = prepared(raw_data(), tmp_path / "hand", keep_last=2)
    assert dataset.interactions.offsets.tolist() == [0, 2, 4]
    assert dataset.interactions.item.tolist() == [1, 2, 2, 1]
    assert dataset.interactions.timestamp.tolist() == [4, 5, 8, 9]
    assert dataset.touched.of(0).tolist() == [1, 2, 3]
    assert dataset.touched.of(1).tolist() == [1, 2, 4, 5]
    assert dataset.num_items == 5  # items 3, 4 and 5 occur in the events cut off


def test_keep_last_none_keeps_all_events(tmp_path):
    events = [(1, item, "favor", item) for item in range(200)]
    assert len(prepared(raw_data(events), tmp_path / "all", keep_last=None).interactions) == 200
    assert prepared(raw_data(events), tmp_path / "few").interactions.timestamp.tolist() == list(
        range(150, 200)
    )


def test_min_events_counts_before_keep_last(tmp_path):
    dataset = prepared(raw_data(), tmp_path / "hand", min_events=6, keep_last=2)
    assert dataset.users.to_list() == [30]
    assert len(dataset.interactions) == 2


def test_min_item_events_drops_rare_items_before_users_are_counted(tmp_path):
    # events an item: 100 has 4, 200 has 4, 300 has 1, 400 has 1, 500 has 3, 900 has 2
    dataset = prepared(raw_data(), tmp_path / "hand", min_item_events=2, min_events=5)
    assert dataset.users.to_list() == [30]  # user 20 lost item 300 and is left with four events
    assert dataset.items["item"].to_list() == [100, 200, 500]


def test_numbers_are_ordered_by_value_and_text_by_character(tmp_path):
    numbers = raw_data([(user, 1, "favor", 1) for user in (9, 10, 100)])
    text = raw_data([(user, "x", "favor", 1) for user in ("9", "10", "100")])
    assert prepared(numbers, tmp_path / "n", min_events=1).users.to_list() == [9, 10, 100]
    assert prepared(text, tmp_path / "t", min_events=1).users.to_list() == ["10", "100", "9"]


def test_raw_behaviors_count_all_rows_and_metadata_record_the_options(tmp_path):
    dataset = prepared(raw_data(), tmp_path / "hand", keep_last=3)
    assert dataset.metadata["raw_behaviors"] == {"click": 9, "favor": 6}
    assert dataset.metadata["prepare_options"] == {
        "min_events": 5, "keep_last": 3, "min_item_events": 1, "drop_duplicates": False
    }  # fmt: skip
    assert dataset.metadata["reader"] == "hand"
    assert dataset.metadata["reader_options"] == {"threshold": 4}
    assert dataset.metadata["mapping"] == "as they are"
    assert dataset.metadata["simulated"] is False
    assert dataset.behaviors == ("click", "favor")


@pytest.mark.parametrize("text_ids", [False, True])
def test_two_preparations_have_one_fingerprint(tmp_path, text_ids):
    raw = random_raw(1, text_ids)
    first, second = (prepared(raw, tmp_path / name) for name in ("a", "b"))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != prepared(random_raw(2, text_ids), tmp_path / "c").fingerprint


@pytest.mark.parametrize("text_ids", [False, True])
def test_the_order_of_rows_does_not_matter_where_times_differ(tmp_path, text_ids):
    raw = random_raw(1, text_ids)
    shuffled = replace(
        raw, events=raw.events.sample(fraction=1, shuffle=True, seed=5), items=raw.items.reverse()
    )
    assert not shuffled.events.equals(raw.events)
    assert prepared(raw, tmp_path / "a").fingerprint == prepared(shuffled, tmp_path / "b").fingerprint


def test_ready_made_vectors_follow_the_item_ids_and_absent_rows_are_zero(tmp_path):
    vectors = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
    features = {"image": RawFeatures([900, 500, 100, 300], vectors)}
    dataset = prepared(raw_data(features=features), tmp_path / "hand")
    # items 100, 200, 300, 400, 500; 200 and 400 have no vector, 900 is not kept
    assert np.asarray(dataset.content.features["image"]).tolist() == [
        [0, 0], [5, 6], [0, 0], [7, 8], [0, 0], [3, 4],
    ]  # fmt: skip
    assert dataset.content.present["image"].tolist() == [False, True, False, True, False, True]
    made = dataset.metadata["encoders"]["image"]
    assert (made["name"], made["dim"], made["coverage"]) == ("ready-made", 2, 0.6)


def test_ready_made_float16_stays_and_float64_becomes_float32(tmp_path):
    for given, stored in ((np.float16, np.float16), (np.float64, np.float32)):
        features = {"audio": RawFeatures([100], np.ones((1, 3), given))}
        dataset = prepared(raw_data(features=features), tmp_path / np.dtype(given).name)
        assert dataset.content.features["audio"].dtype == stored


def test_another_vector_gives_another_fingerprint_and_another_feature_hash(tmp_path):
    made = []
    for value in (1, 2):
        features = {"text": RawFeatures([100], np.full((1, 2), value, np.float32))}
        made.append(prepared(raw_data(features=features), tmp_path / str(value)))
    assert made[0].fingerprint != made[1].fingerprint
    assert made[0].metadata["encoders"]["text"]["hash"] != made[1].metadata["encoders"]["text"]["hash"]


def test_vectors_of_other_items_alone_are_refused(tmp_path):
    features = {"image": RawFeatures([1, 2], np.ones((2, 2), np.float32))}
    with pytest.raises(UserError, match=r"image features: none of 5 items has a vector"):
        prepared(raw_data(features=features), tmp_path / "hand")


def test_categories_are_numbered_by_raw_value_and_unknown_ones_are_zero(tmp_path):
    items = pl.DataFrame(
        {
            "item": [100, 200, 300, 400, 500, 900],
            "brand": ["zeta", "", "alpha", None, "zeta", "gone"],
            "seller": ["null", "s10", "s9", "s10", None, "s1"],
            "category": [7, 3, None, 3, 12, 1],
        }
    )
    attributes = ("brand", "seller", "category")
    dataset = prepared(raw_data(items=items, attributes=attributes), tmp_path / "hand")
    found = dataset.content.attributes
    assert found["brand"].tolist() == [0, 2, 0, 1, 0, 2]
    assert found["seller"].tolist() == [0, 0, 1, 2, 1, 0]
    assert found["category"].tolist() == [0, 2, 1, 0, 1, 3]
    assert dataset.metadata["attributes"] == {"brand": 2, "seller": 2, "category": 3}
    assert dataset.items["brand"].to_list() == ["zeta", "", "alpha", None, "zeta"]


def test_numbers_are_kept_as_they_are_and_change_the_fingerprint(tmp_path):
    made = []
    for price in (2.5, 3.5):
        items = pl.DataFrame({"item": [100, 200, 400], "price": [price, None, 8.0]})
        made.append(prepared(raw_data(items=items, numbers=("price",)), tmp_path / str(price)))
    found = made[0].content.numbers["price"]
    assert found[[1, 4]].tolist() == [2.5, 8.0] and np.isnan(found[[0, 2, 3, 5]]).all()
    assert made[0].metadata["numbers"] == {"price": 2}
    assert made[0].fingerprint != made[1].fingerprint


def test_titles_are_encoded_and_items_without_one_are_absent(tmp_path):
    items = pl.DataFrame({"item": [100, 200, 400], "title": ["red shoe", "  ", "blue shoe"]})
    dataset = prepared(raw_data(items=items), tmp_path / "hand", EncoderOptions(text_size=8))
    assert dataset.content.present["text"].tolist() == [False, True, False, False, True, False]
    assert dataset.content.features["text"].shape == (6, 8)
    made = dataset.metadata["encoders"]["text"]
    assert (made["name"], made["dim"], made["coverage"]) == ("tfidf-svd 8", 8, 0.4)
    assert dataset.items["title"].to_list() == ["red shoe", "  ", None, "blue shoe", None]


def test_what_is_not_encoded_is_recorded(tmp_path):
    items = pl.DataFrame({"item": [100, 200, 400], "title": ["red shoe", "", "blue shoe"]})
    dataset = prepared(raw_data(items=items), tmp_path / "hand", EncoderOptions(text="none"))
    assert dataset.content.features == {}
    assert dataset.metadata["not_encoded"] == {"text": 0.4}


def test_truth_over_items_follows_the_item_ids_and_other_truth_stays(tmp_path):
    items = pl.DataFrame({"item": [900, 500, 400, 200, 100]})
    truth = {"factor": np.array([9.0, 5, 4, 2, 1]), "accidental": np.arange(15) % 2 == 0}
    dataset = prepared(raw_data(items=items, truth=truth), tmp_path / "hand")
    saved = np.load(dataset.folder / "truth.npz")
    assert saved["factor"].tolist() == [0, 1, 2, 0, 4, 5]  # 300 is not in the table
    assert saved["accidental"].tolist() == truth["accidental"].tolist()


def test_nobody_left_names_the_counts_and_the_option(tmp_path):
    message = "no user is left: of 3 users with 15 events none has 7 (min_events)"
    with pytest.raises(UserError, match=re.escape(message) + ".*most active has 6;.*--set data.min_events"):
        prepared(raw_data(), tmp_path / "hand", min_events=7)


def test_no_target_event_left_is_an_error(tmp_path):
    events = [(1, 1, "favor", 1), *[(1, item, "click", item) for item in range(2, 9)]]
    with pytest.raises(UserError, match=r"no 'favor' event \(the target behavior\) is left among 5 events"):
        prepared(raw_data(events), tmp_path / "hand", keep_last=5)


@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_broken_or_missing_picture_is_named(tmp_path, content):
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    bad = tmp_path / "bad.jpg"
    if content:
        bad.write_bytes(content)
    items = pl.DataFrame({"item": [100, 200], "image": [str(tmp_path / "good.png"), str(bad)]})
    problem = "the image cannot be decoded" if content else "no such image file"
    with pytest.raises(UserError, match=re.escape(f"{bad}: {problem}")) as caught:
        prepared(raw_data(items=items), tmp_path / "out" / "hand")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "hand").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_picture_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    items = pl.DataFrame({"item": [100], "image": [str(path)]})
    with pytest.raises(UserError, match=r"cut.jpg: the image cannot be decoded"):
        prepared(raw_data(items=items), tmp_path / "hand")


def test_after_an_error_nothing_is_written_and_the_older_data_set_stays(tmp_path):
    older = prepared(raw_data(), tmp_path / "hand")
    broken = raw_data(items=pl.DataFrame({"item": [100], "image": [str(tmp_path / "none.jpg")]}))
    for raw, options in ((broken, {}), (raw_data(), {"min_events": 99})):
        with pytest.raises(UserError):
            prepared(raw, tmp_path / "hand", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["hand"]
    assert load(tmp_path / "hand").fingerprint == older.fingerprint


def test_a_new_preparation_replaces_the_older_one_whole(tmp_path):
    features = {"image": RawFeatures([100], np.ones((1, 2), np.float32))}
    older = prepared(raw_data(features=features), tmp_path / "hand").fingerprint
    newer = prepared(raw_data(), tmp_path / "hand")
    assert newer.fingerprint != older
    assert [path.name for path in tmp_path.iterdir()] == ["hand"]
    assert not (tmp_path / "hand" / "feature_image.npy").exists()


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis: exists and is no prepared data set"):
        prepared(raw_data(), tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_relative_folder_gives_the_same_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = {"image": RawFeatures([100, 500], np.ones((2, 2), np.float32))}
    first = prepared(raw_data(features=features), Path("a"))
    second = prepared(raw_data(features=features), tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert first.content.features["image"][5].tolist() == [1, 1]


@pytest.mark.parametrize(
    "options", [{"min_events": 0}, {"keep_last": 0}, {"keep_last": -1}, {"min_item_events": 0}]
)
def test_limits_below_one_are_refused(options):
    with pytest.raises(ValueError, match="must be 1 or more"):
        PrepareOptions(**options)
