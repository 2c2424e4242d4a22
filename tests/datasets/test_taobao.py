import csv
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from bench.data.schema import Position, RawData
from bench.datasets import taobao
from bench.datasets.taobao import Options
from bench.errors import UserError
from tests.datasets.conftest import events_of

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "taobao-userbehavior-sample" / "UserBehavior.csv"
LINES = (
    "100,7,3,pv,1511539200\n"  # the first second of the nine days
    "100,8,4,cart,1511539201\n"
    "100,7,3,fav,1512316799\n"  # the last
    "100,9,4,pv,1511539199\n"
    "99,8,5,pv,1512316800\n"
    "99,8,4,pv,1511600000\n"
    "99,8,6,buy,1511600001\n"
)


def read(raw: Path | None, options: Options) -> RawData:
    return events_of(taobao.read(raw, options).collected())


def folder_with(folder: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    (folder / "UserBehavior.csv").write_bytes(data)
    return folder


def complaint(raw: Path | None, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(raw, options or Options())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_views_and_favorites_inside_the_nine_days_are_kept_in_file_order(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, LINES), Options())
    assert data.events.rows() == [
        (100, 7, "click", 1511539200), (100, 7, "favor", 1512316799), (99, 8, "click", 1511600000),
    ]  # fmt: skip
    assert dict(data.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert data.behaviors == ("click", "favor")


def test_the_mapping_says_what_was_dropped_and_how_many_times_lay_outside(tmp_path: Path) -> None:
    mapping = read(folder_with(tmp_path, LINES), Options()).mapping
    assert mapping.startswith("pv -> click, fav -> favor, cart dropped, buy dropped; rows outside")


def test_an_item_has_the_category_of_its_first_kept_event(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, LINES), Options(behaviors=("pv", "cart", "buy=favor")))
    assert data.items is not None and data.items.rows() == [(7, 3), (8, 4)]
    assert data.attributes == ("category",) and data.behaviors == ("pv", "cart", "favor")


def test_line_ends_blank_lines_and_the_file_itself_as_raw_change_nothing(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path, LINES), Options()).events
    folder_with(tmp_path, "\n" + LINES.replace("\n", "\r\n").replace("99,8,5", "\r\n99,8,5").rstrip())
    assert read(tmp_path / "UserBehavior.csv", Options()).events.equals(expected)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,2,3,pv\n", ["row 9", "4 columns in '1,2,3,pv'", "expected 5"]),
        ("1,2,3,pv,1511600000,0\n", ["row 9", "6 columns", "expected 5"]),
        ("u1,2,3,pv,1511600000\n", ["row 9", "user 'u1'", "whole number"]),
        ("1,2.0,3,pv,1511600000\n", ["row 9", "item '2.0'", "whole number"]),
        ("1,-2,3,pv,1511600000\n", ["row 9", "item '-2'", "0 or more"]),
        ("1,2,,pv,1511600000\n", ["row 9", "category ''", "whole number"]),
        ("1,2,3,view,1511600000\n", ["row 9", "behavior 'view'", "one of pv, cart, fav, buy"]),
        ("1,2,3,pv,soon\n", ["row 9", "timestamp 'soon'", "whole seconds"]),
        ("99999999999999999999,2,3,pv,1511600000\n", ["row 9", "user '99999999999999999999'"]),
    ],
)
def test_a_malformed_line_is_named_with_its_row_and_value(tmp_path: Path, line: str, told: list[str]) -> None:
    text = complaint(folder_with(tmp_path, LINES + "\n" + line + "x,y\n"))
    assert all(part in text for part in ["UserBehavior.csv", *told, "repair or remove"])


def test_a_header_where_none_belongs_is_refused(tmp_path: Path) -> None:
    header = "user_id,item_id,category_id,behavior,timestamp\n"
    text = complaint(folder_with(tmp_path, header + LINES))
    assert "row 1: user 'user_id'" in text and "a header, where none belongs?" in text and "remove" in text


@pytest.mark.parametrize(
    ("end", "told"), [("1,2,3,pv,15115", "timestamp '15115'"), ("1,2,3,p", "4 columns in '1,2,3,p'")]
)
def test_a_last_line_that_was_cut_off_is_refused(tmp_path: Path, end: str, told: str) -> None:
    assert told in complaint(folder_with(tmp_path, LINES + end))


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    text = complaint(folder_with(tmp_path, LINES.encode() + b"1,2,3,p\xff,1511600000\n"))
    assert "row 8: byte 0xff is not UTF-8" in text


def test_nothing_given_a_folder_without_the_file_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    assert "--raw" in complaint(None)
    assert "expected UserBehavior.csv" in complaint(tmp_path)
    assert "row 1: nothing there" in complaint(folder_with(tmp_path, ""))


@pytest.mark.parametrize(
    ("behaviors", "told"),
    [
        (("car=click",), "did you mean 'cart'"),
        (("pv=a", "pv=b"), "'pv=b'"),
        ((), "nothing given"),
        (("pv=",), "'pv='"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, behaviors: tuple[str, ...], told: str) -> None:
    assert told in complaint(folder_with(tmp_path, LINES), Options(behaviors=behaviors))


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample of Taobao's log is not beside the repository")
def test_the_published_sample_is_read_whole() -> None:
    with SAMPLE.open(newline="") as file:
        rows = list(csv.reader(file))
    raw_counts = {"pv": 3926, "cart": 190, "fav": 128, "buy": 77}  # as the sample's README counts them
    assert len(rows) == 4321 and Counter(row[3] for row in rows) == raw_counts
    inside = [row for row in rows if 1511539200 <= int(row[4]) <= 1512316799]
    data = read(SAMPLE, Options(behaviors=("pv", "cart", "fav", "buy")))
    assert data.events.rows() == [(int(r[0]), int(r[1]), r[3], int(r[4])) for r in inside]
    (part,) = taobao.read(SAMPLE, Options()).events.parts(Position())
    assert part.rows == 4321 and list(part.dropped.values()) == [4321 - len(inside)] and len(inside) < 4321
    assert data.items is not None
    assert data.items["item"].n_unique() == len(data.items) == len({row[1] for row in inside})
    assert set(data.items["category"].to_list()) == {int(row[2]) for row in inside}
