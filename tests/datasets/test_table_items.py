from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.data.schema import RawFeatures
from bench.datasets.table import Options, read
from tests.datasets.test_table import EVENTS, THREE, complaint, folder_with, part_of


def item_folder(folder: Path, items: str) -> Path:
    folder_with(folder, items, "items.csv")
    return folder_with(folder, EVENTS)


def test_the_item_table_gives_text_paths_and_attributes(tmp_path: Path) -> None:
    rows = "10,Red shoe,warm,a/10.png,b1\n\n12,,,/pics/12.png,\n"
    item_folder(tmp_path, "item,title,notes,image,brand\n" + rows)
    columns = {"text_columns": ("title", "notes"), "attributes": ("brand",)}
    data = read(tmp_path, Options(behaviors=THREE, items="items.csv", **columns))
    assert data.items is not None and data.attributes == ("brand",)
    assert data.items.rows(named=True) == [
        {"item": 10, "title": "Red shoe warm", "image": f"{tmp_path}/a/10.png", "brand": "b1"},
        {"item": 12, "title": None, "image": "/pics/12.png", "brand": None},
    ]


def test_numbers_of_the_item_table_are_floats_and_empty_ones_unknown(tmp_path: Path) -> None:
    item_folder(tmp_path, "item,price\n10,2.5\n11,\n12,1e2\n")
    data = read(tmp_path, Options(behaviors=THREE, items="items.csv", numbers=("price",)))
    assert data.items is not None and data.numbers == ("price",)
    assert data.items["price"].to_list() == [2.5, None, 100.0]


def test_item_ids_of_both_tables_have_one_type(tmp_path: Path) -> None:
    item_folder(tmp_path, "item\n10\nA5\n")
    data = read(tmp_path, Options(behaviors=THREE, items="items.csv"))
    assert data.items is not None and data.items["item"].to_list() == ["10", "A5"]
    assert data.events["item"].to_list() == ["10", "11", "10"]


@pytest.mark.parametrize(
    ("items", "changes", "told"),
    [
        ("item\n10\n11\n10\n", {}, ["items.csv: row 4", "item '10'", "one row per item"]),
        ("item,title\n10,a\n,b\n", {}, ["items.csv: row 3", "item is empty"]),
        ("item\n-3\n", {}, ["items.csv: row 2", "item '-3'", "0 or more"]),
        (
            "item,title,brand\n10,a,b\n11\n",
            {},
            ["items.csv: row 3: 1 columns, expected 3", "complete the line"],
        ),
        ("item,title,brand\n10,a,b\n\n11,x\n12\n", {}, ["items.csv: row 4: 2 columns, expected 3"]),
        ('item,title\n10,"a, b"\n"11"\n', {}, ["items.csv: row 3: 1 columns, expected 2", "--on-bad-row"]),
        ("item\n99\n98\n", {}, ["items.csv", "no item of the events (99, 98 there, ", "item_id="]),
        ("id\n10\n", {}, ["items.csv: row 1: no column 'item'", "set item_id="]),
        ("item\n10\n", {"attributes": ("brand",)}, ["no column 'brand'", "set attributes="]),
        ("item\n10\n", {"text_columns": ("name",)}, ["no column 'name'", "set text_columns="]),
        (
            "item,price\n10,5 EUR\n",
            {"numbers": ("price",)},
            ["items.csv: row 2: price '5 EUR'; expected a number"],
        ),
        ("item,price\n10,1\n11,inf\n", {"numbers": ("price",)}, ["items.csv: row 3: price 'inf'"]),
        ("item\n10\n", {"numbers": ("price",)}, ["no column 'price'", "set numbers="]),
        ("item\n10\n", {"items": "item.csv"}, ["item.csv: no such file", "did you mean 'items.csv'"]),
    ],
)
def test_a_faulty_item_table_is_refused(tmp_path: Path, items: str, changes, told: list[str]) -> None:
    options = Options(**{"behaviors": THREE, "items": "items.csv", **changes})
    message = complaint(item_folder(tmp_path, items), options)
    assert [part for part in told if part not in message] == [], message


def test_cut_rows_of_an_item_table_are_skipped_counted_and_leave_the_vectors_in_place(tmp_path: Path) -> None:
    item_folder(tmp_path, "item,title\n10,a\n11\n12,c\n")
    np.save(tmp_path / "image.npy", np.array([[1, 0], [2, 0], [3, 0]], np.float32))
    options = Options(behaviors=THREE, items="items.csv", features_image="image.npy", on_bad_row="skip")
    data = read(tmp_path, options)
    assert data.items is not None and data.items["item"].to_list() == [10, 12]
    features = data.features["image"]
    assert isinstance(features, RawFeatures) and features.items == [10, 12]
    assert features.vectors.tolist() == [[1, 0], [3, 0]]
    part = part_of(data)
    assert part.dropped == {"malformed rows of items.csv": 1}
    assert part.bad_rows == (f"{tmp_path}/items.csv: row 3: 1 columns, expected 2 as in the header",)


def test_vectors_follow_the_rows_of_the_item_table_and_nan_rows_are_absent(tmp_path: Path) -> None:
    item_folder(tmp_path, "item\n11\n10\n12\n")
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    vectors[1] = np.nan
    np.save(tmp_path / "image.npy", vectors)
    options = Options(behaviors=THREE, items="items.csv", features_image="image.npy")
    features = read(tmp_path, options).features
    assert list(features) == ["image"] and features["image"].items == [11, 12]
    assert features["image"].vectors.tolist() == [[0, 1], [4, 5]]


def test_malformed_items_are_skipped_counted_and_leave_the_vectors_in_place(tmp_path: Path) -> None:
    item_folder(tmp_path, "item,title\n11,a\n,b\n\n10,c\n11,d\n-3,e\n12,f,g\n13,h\n")
    np.save(tmp_path / "image.npy", np.arange(14, dtype=np.float32).reshape(7, 2))
    options = Options(behaviors=THREE, items="items.csv", features_image="image.npy", on_bad_row="skip")
    data = read(tmp_path, options)
    assert isinstance(data.items, pl.DataFrame)
    assert data.items.rows() == [(11, "a"), (10, "c"), (13, "h")]
    features = data.features["image"]
    assert isinstance(features, RawFeatures) and features.items == [11, 10, 13]
    assert features.vectors.tolist() == [[0, 1], [4, 5], [12, 13]]
    part = part_of(data)
    assert (len(part.events), part.rows, part.dropped) == (3, 3, {"malformed rows of items.csv": 4})
    assert part.bad_rows[0].startswith(f"{tmp_path}/items.csv: row 3: item is empty; expected an id")
    assert [place.split(": ")[1] for place in part.bad_rows] == ["row 3", "row 6", "row 7", "row 8"]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 4), np.float32), "(2, 4) float32, expected (3, D)"),
        (np.zeros(3, np.float32), "expected (3, D)"),
        (np.zeros((3, 4), np.int64), "int64, expected (3, D) float16 or float32"),
        (np.array([[{}], [1], [2]], dtype=object), "not a plain .npy array"),
    ],
)
def test_vectors_of_another_shape_or_type_are_refused(tmp_path: Path, array, told: str) -> None:
    item_folder(tmp_path, "item\n11\n10\n12\n")
    np.save(tmp_path / "image.npy", array, allow_pickle=True)
    options = Options(behaviors=THREE, items="items.csv", features_image="image.npy")
    assert told in complaint(tmp_path, options)


def test_vectors_without_an_item_table_are_refused(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, EVENTS), Options(behaviors=THREE, features_text="t.npy"))
    assert "features_text=t.npy" in told and "items=FILE" in told
