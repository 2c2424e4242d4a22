from pathlib import Path

import polars as pl
import pytest

from bench.data.schema import RawData
from bench.datasets import tmall
from bench.datasets.tmall import Options
from bench.errors import UserError
from tests.datasets.conftest import events_of

HEADER = "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
LINES = (
    "328862,323294,833,2882,2661,0829,0\n"
    "328862,844400,1271,2882,,829,3\n"
    "328862,323294,833,2882,2661,1111,2\n"
    "11,844400,1271,2882,7,511,0\n"
    "11,5,1,2,3,1112,1\n"
)


def read(raw: Path | None, options: Options) -> RawData:
    return events_of(tmall.read(raw, options).collected())


def folder_with(folder: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    (folder / "user_log_format1.csv").write_bytes(data)
    return folder


def complaint(raw: Path | None, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(raw, options or Options())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_clicks_and_favorites_are_kept_in_file_order_with_the_day_as_time(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, HEADER + LINES), Options())
    assert data.events.rows() == [
        (328862, 323294, "click", 829), (328862, 844400, "favor", 829), (11, 844400, "click", 511)
    ]  # fmt: skip
    assert dict(data.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert data.behaviors == ("click", "favor")
    assert data.mapping.startswith("0 -> click, 3 -> favor, 1 dropped, 2 dropped (action_type: 0 click")


def test_attributes_are_whole_numbers_of_the_first_kept_event_and_an_empty_brand_is_unknown(
    tmp_path: Path,
) -> None:
    data = read(folder_with(tmp_path, HEADER + LINES), Options())
    assert data.items is not None
    assert data.items.rows(named=True) == [
        {"item": 323294, "category": 833, "seller": 2882, "brand": 2661},
        {"item": 844400, "category": 1271, "seller": 2882, "brand": None},
    ]
    assert data.attributes == ("category", "seller", "brand")
    assert set(data.items.dtypes) == {pl.Int64}


def test_purchases_and_carts_come_by_option(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, HEADER + LINES), Options(behaviors=("0=click", "1=buy", "2=buy")))
    assert data.events["behavior"].to_list() == ["click", "buy", "click", "buy"]
    assert data.behaviors == ("click", "buy")


def test_the_unpacked_archive_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path, HEADER + LINES), Options()).events
    (tmp_path / "around" / "data_format1").mkdir(parents=True)
    folder_with(tmp_path / "around" / "data_format1", (HEADER + LINES).replace("\n", "\r\n").rstrip())
    assert read(tmp_path / "around", Options()).events.equals(expected)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,2,3,4,5,829\n", ["row 7", "6 columns in '1,2,3,4,5,829'", "expected 7"]),
        ("1,2,3,4,5,829,0,9\n", ["row 7", "8 columns", "expected 7"]),
        ("1,2,3,4,5,11", ["row 7", "6 columns in '1,2,3,4,5,11'", "expected 7"]),
        ("1,2,3,4,5,1111,", ["row 7", "action_type ''", "one of 0, 1, 2, 3"]),
        ("a,2,3,4,5,829,0\n", ["row 7", "user_id 'a'", "whole number"]),
        ("1,2,3,,5,829,0\n", ["row 7", "seller_id ''", "whole number"]),
        ("1,2,3,4,5.0,829,0\n", ["row 7", "brand_id '5.0'", "nothing or a whole number"]),
        ("1,2,3,4,5,1332,0\n", ["row 7", "time_stamp '1332'", "a day as mmdd"]),
        ("1,2,3,4,5,0800,0\n", ["row 7", "time_stamp '0800'", "a day as mmdd"]),
        ("1,2,3,4,5,829,4\n", ["row 7", "action_type '4'", "one of 0, 1, 2, 3"]),
    ],
)
def test_a_malformed_or_cut_line_is_named_with_its_row_and_value(
    tmp_path: Path, line: str, told: list[str]
) -> None:
    text = complaint(folder_with(tmp_path, HEADER + LINES + line))
    assert all(part in text for part in ["user_log_format1.csv", *told, "repair or remove"])


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    text = complaint(folder_with(tmp_path, (HEADER + LINES).encode() + b"1,2,3,4,\xb0,829,0\n"))
    assert "row 7: byte 0xb0 is not UTF-8" in text


def test_a_missing_file_header_or_event_and_an_unknown_action_are_refused(tmp_path: Path) -> None:
    assert "--raw" in complaint(None)
    assert "expected user_log_format1.csv or data_format1/user_log_format1.csv" in complaint(tmp_path)
    assert "row 1: no column 'user_id'" in complaint(folder_with(tmp_path, LINES))
    assert "row 2: nothing there" in complaint(folder_with(tmp_path, HEADER))
    folder_with(tmp_path, HEADER + LINES)
    assert "no raw behavior '4'; known: 0, 1, 2, 3" in complaint(tmp_path, Options(behaviors=("4=favor",)))
