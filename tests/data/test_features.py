"""Vectors of any origin in the memory map of a prepared folder."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.data.preparation import features
from bench.data.preparation.content import item_table, lacking, not_encoded, write_content
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import ItemContent, RawData, RawFeatures, StreamedFeatures
from bench.data.storage import load
from bench.errors import UserError

IDS = [30, 10, 40, 20, 50]


def raw_data(**changes: Any) -> RawData:
    events = pl.DataFrame({"user": [1] * 5, "item": IDS, "behavior": ["favor"] * 5, "timestamp": range(5)})
    return RawData(events, ("favor",), "", **changes)


def streamed(vectors: dict[int, list[float]], width: int = 2, size: int = 2) -> StreamedFeatures:
    """Return features given in blocks of `size`, in the order of the dictionary."""

    def blocks(ids: pl.Series) -> Any:
        place = {item: row for row, item in enumerate(ids.to_list())}
        known = [(place[item], vector) for item, vector in vectors.items() if item in place]
        for start in range(0, len(known), size):
            rows, values = zip(*known[start : start + size], strict=True)
            yield np.array(rows, np.int64), np.array(values, np.float32)

    return StreamedFeatures(width, blocks)


def prepared(raw: RawData, folder: Path, **told: Any) -> Any:
    return load(prepare(raw, "hand", folder / "hand", PrepareOptions(), EncoderOptions(), {}, **told))


def test_blocks_in_any_order_go_to_the_rows_of_their_items(tmp_path):
    given = streamed({50: [5, 5.5], 10: [1, 1.5], 99: [9, 9], 30: [3, 3.5]})
    made = prepared(raw_data(features={"image": given}), tmp_path)
    assert made.items["item"].to_list() == [10, 20, 30, 40, 50]
    stored = np.load(made.folder / "feature_image.npy")
    assert stored.dtype == np.float16
    assert stored.tolist() == [[0, 0], [1, 1.5], [0, 0], [3, 3.5], [0, 0], [5, 5.5]]
    assert made.content.present["image"].tolist() == [False, True, False, True, False, True]
    told = made.metadata["encoders"]["image"]
    assert (told["name"], told["dim"], told["coverage"], told["lacking"]) == ("ready-made", 2, 0.6, 2)
    assert made.metadata["lacking"] == {"image": 2}


def test_streamed_and_held_vectors_of_one_precision_give_one_data_set(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    ids = [20, 50, 10, 40]
    held = RawFeatures(ids, vectors)
    given = streamed(dict(zip(ids, vectors.tolist(), strict=True)), width=3, size=3)
    one, two = (
        prepared(raw_data(features={"image": which}), tmp_path / name)
        for name, which in (("held", held), ("streamed", given))
    )
    assert one.fingerprint == two.fingerprint
    assert one.metadata["encoders"]["image"]["hash"] == two.metadata["encoders"]["image"]["hash"]


def test_the_hash_is_that_of_form_mask_and_values(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 8)  # two rows at once
    made = prepared(raw_data(features={"image": streamed({10: [1, 2], 20: [3, 4], 30: [5, 6]})}), tmp_path)
    stored, mask = np.load(made.folder / "feature_image.npy"), made.content.present["image"]
    expected = hashlib.sha256(b"<f2(6, 2)" + mask.tobytes() + stored.tobytes()).hexdigest()
    assert made.metadata["encoders"]["image"]["hash"] == expected


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({10: [1, 2], 40: [70000, 1]}, "item 40, column 0: 70000 is too large, the largest float16 is 65504"),
        ({10: [1, 2], 40: [1, float("nan")]}, "image features, item 40, column 1: nan; repair the vector"),
        ({10: [float("-inf"), 2]}, "image features, item 10, column 0: -inf; repair the vector"),
        ({10: [1, 2, 3]}, "image features: a block of shape (1, 3); expected width 2"),
        ({98: [1, 2], 99: [1, 2]}, "image features: none of 5 items has a vector"),
    ],
)
def test_a_faulty_vector_is_named_and_nothing_is_prepared(tmp_path, vectors, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        prepared(raw_data(features={"image": streamed(vectors)}), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1], [1]], "image features: item 20 has two vectors"),
        ([[3, 3]], "image features: item 40 has two vectors"),
        ([[4, 5]], "image features: rows 4 to 5, expected 0 to 4"),
        ([[-1]], "image features: rows -1 to -1, expected 0 to 4"),
    ],
)
def test_a_reader_that_gives_wrong_rows_is_told(tmp_path, rows, message):
    def blocks(ids: pl.Series) -> Any:
        yield from ((np.array(part), np.ones((len(part), 2), np.float32)) for part in rows)

    with pytest.raises(UserError, match=re.escape(message)):
        prepared(raw_data(features={"image": StreamedFeatures(2, blocks)}), tmp_path)


def test_held_float32_vectors_keep_values_beyond_float16(tmp_path):
    held = RawFeatures([10], np.array([[70000, 1e-6]], np.float32))
    made = prepared(raw_data(features={"image": held}), tmp_path)
    assert made.content.features["image"][1].tolist() == [70000, np.float32(1e-6)]


def test_a_full_disk_is_said_before_anything_is_mapped(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="the disk is full"):
        prepared(raw_data(features={"image": streamed({10: [1, 2]})}), tmp_path)
    assert not (tmp_path / "hand").exists()


def test_the_room_of_the_file_is_taken_before_it_is_written(tmp_path):
    path = tmp_path / "feature.npy"
    features._reserve(path, (5000, 64), np.float16)
    assert path.stat().st_blocks * 512 >= 5000 * 64 * 2  # a sparse file would have none
    assert not np.load(path).any()


def test_memory_does_not_grow_with_what_is_written(tmp_path):
    """64 MB of vectors in blocks of 1 MB, in a process of its own; the map would count as its memory."""
    code = """
import resource, sys
import numpy as np, polars as pl
from pathlib import Path
from bench.data.preparation.features import Source, hash_feature, write_feature
from bench.data.preparation.runs import silent

def blocks():
    for start in range(0, 32768, 512):
        yield np.arange(start, start + 512), np.ones((512, 1024), np.float16)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

ids, path = pl.Series(range(32768)), Path(sys.argv[1])
next(iter(blocks()))
before = peak()
mask = write_feature(path, "image", Source(blocks, "x"), ids, silent)
assert mask.sum() == 32768
print(peak() - before)
hash_feature(path, mask, silent, "image")
print(peak() - before)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "x.npy")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    writing, hashing = map(float, done.stdout.split())
    assert writing < 16
    assert hashing < 48  # two blocks of 16 MB


def test_the_item_table_may_be_a_function_of_the_ids_kept(tmp_path):
    asked = []

    def known(ids: pl.Series) -> pl.DataFrame:
        asked.append(ids.to_list())
        return pl.DataFrame({"item": [40, 20], "title": ["hat", "shoe"], "brand": ["x", None]})

    raw = raw_data(items=known, attributes=("brand",))
    made = prepared(raw, tmp_path)
    assert asked == [[10, 20, 30, 40, 50]]
    assert made.items["title"].to_list() == [None, "shoe", None, "hat", None]
    assert made.content.present["text"].tolist() == [False, False, True, False, True, False]
    assert made.content.attributes["brand"].tolist() == [0, 0, 0, 0, 1, 0]


def test_a_function_that_gives_an_item_twice_or_the_wrong_columns_is_refused():
    ids = pl.Series("item", [10, 20])
    for table, message in (
        (pl.DataFrame({"item": [10, 10], "title": ["a", "b"]}), "item is 10, expected each item once"),
        (pl.DataFrame({"id": [10]}), "items: no column 'item'"),
    ):
        with pytest.raises(UserError, match=message):
            item_table(raw_data(items=lambda ids, table=table: table), ids)


def test_items_without_title_or_picture_are_counted_encoded_or_not(tmp_path):
    items = pl.DataFrame(
        {"item": [1, 2, 3, 4], "title": ["a", "", None, "b"], "image": [None, "x.jpg", "", None]}
    )
    mask = np.array([False, True, False, False, False])
    content = ItemContent(4, {"text": np.zeros((5, 2), np.float16)}, {"text": mask})
    assert lacking(items, content) == {"image": 3, "text": 3}  # of text, what could be encoded counts
    assert lacking(items, ItemContent(4)) == {"image": 3, "text": 2}
    assert not_encoded(items, content) == {"image": 0.25}
    assert lacking(items.with_columns(image=pl.lit(None, pl.String)), ItemContent(4)) == {"text": 2}


def test_every_long_step_is_told(tmp_path):
    told: list[tuple[str, int, int]] = []
    items = pl.DataFrame({"item": [10, 20], "title": ["red", "blue"]})
    raw = raw_data(items=items, features={"image": streamed({10: [1, 2], 20: [3, 4], 30: [5, 6]})})
    table = item_table(raw, pl.Series("item", sorted(IDS)))
    write_content(raw, table, EncoderOptions(), tmp_path, tmp_path, lambda *word: told.append(word))
    assert told == [
        ("image features written", 2, 5), ("image features written", 3, 5), ("image features hashed", 6, 6),
        ("text encoded", 2, 2), ("text features written", 2, 5),
    ]  # fmt: skip
