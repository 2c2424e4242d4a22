from pathlib import Path

import polars as pl
import pytest

from bench.data.schema import RawData
from bench.datasets import retailrocket
from bench.datasets.retailrocket import Options
from bench.errors import UserError
from tests.datasets.conftest import events_of

HEADER = "timestamp,visitorid,event,itemid,transactionid\n"
LINES = (
    "1433221332117,257597,view,355908,\n"
    "1433221332000,992329,addtocart,248676,\n"
    "1433221332500,257597,transaction,355908,4000\n"
    "1433221332117,257597,view,9,\n"
)


def read(raw: Path | None, options: Options) -> RawData:
    return events_of(retailrocket.read(raw, options).collected())


def folder_with(folder: Path, text: str | bytes) -> Path:
    (folder / "events.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def complaint(raw: Path | None, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(raw, options or Options())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_views_and_carts_are_kept_in_file_order_and_transactions_dropped(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, HEADER + LINES), Options())
    assert data.events.rows() == [
        (257597, 355908, "click", 1433221332117),
        (992329, 248676, "favor", 1433221332000),
        (257597, 9, "click", 1433221332117),
    ]
    assert dict(data.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert data.behaviors == ("click", "favor") and data.items is None
    assert data.mapping == "view -> click, addtocart -> favor, transaction dropped"


def test_transactions_come_by_option(tmp_path: Path) -> None:
    options = Options(behaviors=("view=click", "addtocart=favor", "transaction=favor"))
    data = read(folder_with(tmp_path, HEADER + LINES), options)
    assert data.events["behavior"].to_list() == ["click", "favor", "favor", "click"]
    assert data.behaviors == ("click", "favor")


def test_line_ends_a_byte_order_mark_and_another_column_order_change_nothing(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path, HEADER + LINES), Options()).events
    folder_with(tmp_path, b"\xef\xbb\xbf" + (HEADER + LINES).replace("\n", "\r\n").rstrip().encode())
    assert read(tmp_path / "events.csv", Options()).events.equals(expected)
    swapped = [line.split(",") for line in (HEADER + LINES).splitlines()]
    folder_with(tmp_path, "\n".join(",".join(reversed(fields)) for fields in swapped))
    assert read(tmp_path, Options()).events.equals(expected)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,2,view,3\n", ["row 6", "4 columns in '1,2,view,3'", "expected 5"]),
        ("1,2,view,3,,\n", ["row 6", "6 columns", "expected 5"]),
        ("1,2,view,35590", ["row 6", "4 columns", "expected 5"]),
        ("1,2,vi", ["row 6", "3 columns in '1,2,vi'", "expected 5"]),
        ("1433221332117,v2,view,3,\n", ["row 6", "visitorid 'v2'", "whole number"]),
        ("1433221332117,2,view,3.0,\n", ["row 6", "itemid '3.0'", "whole number"]),
        ("1e12,2,view,3,\n", ["row 6", "timestamp '1e12'", "milliseconds"]),
        ("1433221332117,2,like,3,\n", ["row 6", "event 'like'", "one of view, addtocart, transaction"]),
    ],
)
def test_a_malformed_or_cut_line_is_named_with_its_row_and_value(
    tmp_path: Path, line: str, told: list[str]
) -> None:
    text = complaint(folder_with(tmp_path, HEADER + LINES + line))
    assert all(part in text for part in ["events.csv", *told, "repair or remove"])


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    text = complaint(folder_with(tmp_path, (HEADER + LINES).encode() + b"1,2,vi\xe9w,3,\n"))
    assert "row 6: byte 0xe9 is not UTF-8" in text


def test_a_file_without_its_header_and_one_without_events_are_refused(tmp_path: Path) -> None:
    assert "row 1: no column 'timestamp' in '1433221332117," in complaint(folder_with(tmp_path, LINES))
    assert "row 2: nothing there" in complaint(folder_with(tmp_path, HEADER))


def test_nothing_given_a_folder_without_the_file_and_an_unknown_behavior_are_refused(tmp_path: Path) -> None:
    assert "--raw" in complaint(None)
    assert "expected events.csv" in complaint(tmp_path)
    folder_with(tmp_path, HEADER + LINES)
    assert "did you mean 'addtocart'" in complaint(tmp_path, Options(behaviors=("add_to_cart=favor",)))
