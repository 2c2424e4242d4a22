import gzip
from pathlib import Path

import polars as pl
import pytest

from bench.data.library import prepare_named
from bench.data.schema import TOUCHED, EventStream, Part, RawData
from bench.data.storage import load
from bench.datasets.table import Options, read
from bench.errors import UserError
from tests.datasets.conftest import events_of

TAOBAO = Path(__file__).parents[3] / "shared" / "data" / "taobao-cart-fav-buy"
HEADER = "user,item,behavior,timestamp\n"
EVENTS = HEADER + "1,10,cart,5\n1,11,buy,6\n2,10,fav,7\n"
THREE = ("cart=click", "fav=click", "buy=favor")


def folder_with(folder: Path, text: str | bytes, name: str = "events.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def part_of(data: RawData) -> Part:
    """Return the one part of events of which something was left out."""
    assert isinstance(data.events, EventStream)
    (part,) = data.events.parts()
    assert list(data.events.parts(part.end)) == []
    return part


def complaint(raw: Path, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(raw, options or Options(behaviors=THREE))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_events_are_mapped_in_file_order(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, EVENTS), Options(behaviors=THREE))
    assert data.events.rows() == [(1, 10, "click", 5), (1, 11, "favor", 6), (2, 10, "click", 7)]
    assert dict(data.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert (data.behaviors, data.mapping) == (("click", "favor"), "cart -> click, fav -> click, buy -> favor")


def test_plain_names_keep_their_order_with_the_target_last(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, EVENTS), Options(behaviors=("cart", "buy", "fav")))
    assert data.behaviors == ("cart", "buy", "fav")
    assert data.events["behavior"].to_list() == ["cart", "buy", "fav"]


@pytest.mark.parametrize("name", ["events.tsv", "events.csv.gz", "events.parquet", "my [log].csv"])
def test_every_form_of_file_gives_the_same_events(tmp_path: Path, name: str) -> None:
    expected = read(folder_with(tmp_path, EVENTS), Options(behaviors=THREE)).events
    folder = tmp_path / "other"
    folder.mkdir()
    if name.endswith("tsv"):
        folder_with(folder, EVENTS.replace(",", "\t"), name)
    elif name.endswith("gz"):
        folder_with(folder, gzip.compress(EVENTS.encode()), name)
    elif name.endswith("parquet"):
        pl.read_csv(tmp_path / "events.csv").write_parquet(folder / name)
    else:
        folder_with(folder, b"\xef\xbb\xbf" + EVENTS.replace(",", ";").replace("\n", "\r\n").encode(), name)
    assert read(folder, Options(behaviors=THREE)).events.equals(expected)
    assert read(folder / name, Options(behaviors=THREE)).events.equals(expected)


def test_blank_lines_are_skipped_and_do_not_shift_the_row_of_a_fault(tmp_path: Path) -> None:
    text = HEADER + '1,"a, ""b""",cart,5\n\n2,c,buy,6\n'
    data = read(folder_with(tmp_path, text + "\n"), Options(behaviors=THREE))
    assert data.events.rows() == [(1, 'a, "b"', "click", 5), (2, "c", "favor", 6)]
    told = complaint(folder_with(tmp_path, text + "3,d,cart,soon\n"))
    assert "events.csv: row 5: timestamp 'soon'" in told and "time_format" in told


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (("7", "12"), [7, 12]),
        (("007", "12"), ["007", "12"]),
        (("A7", "12"), ["A7", "12"]),
        (("-x", "1.5b"), ["-x", "1.5b"]),
        (("9223372036854775807", "1"), ["9223372036854775807", "1"]),
        (("8999999999999999999", "1"), [8999999999999999999, 1]),
    ],
)
def test_ids_are_whole_numbers_or_text_and_lose_nothing(tmp_path: Path, ids, expected) -> None:
    text = HEADER + "".join(f"{one},1,buy,{place}\n" for place, one in enumerate(ids))
    assert read(folder_with(tmp_path, text), Options()).events["user"].to_list() == expected


def test_one_behavior_needs_no_column_and_float_times_are_whole_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "timestamp": [881250949.0, 5e8]})
    frame.write_parquet(tmp_path / "events.parquet")
    data = read(tmp_path, Options(behavior=""))
    assert data.events.rows() == [(1, "a", "interaction", 881250949), (2, "b", "interaction", 500_000_000)]
    assert data.behaviors == ("interaction",)


def test_ids_that_pandas_made_floats_of_are_refused_with_the_cure(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1.0, 2.5], "item": ["a", "b"], "timestamp": [5, 6]})
    frame.write_parquet(tmp_path / "events.parquet")
    told = complaint(tmp_path, Options(behavior=""))
    assert "row 2: user '2.5'; expected a whole number or text" in told and "astype('Int64')" in told
    rows = "161.0,1,buy,5\n162,1,buy,6\n,1,buy,7\n"
    told = complaint(folder_with(tmp_path, HEADER + rows) / "events.csv")
    assert "row 2: user '161.0'" in told and "(also bad: row 4)" in told
    data = read(tmp_path / "events.csv", Options(on_bad_row="skip"))
    assert part_of(data).events.rows() == [(162, 1, "buy", 6)]


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
def test_malformed_rows_are_skipped_counted_and_named(tmp_path: Path, name: str) -> None:
    rows = [
        "1,10,cart,5", "1,,cart,5", "", "12.5,10,cart,5", "2,10,fav,6", "3,10,fav,soon", "4,10,buy,7,8",
        "5,1\xff,buy,9", "6,10,,9", "7,10,buy", "8,10,buy,10",
    ]  # fmt: skip
    text = (HEADER + "\n".join(rows) + "\n").encode("latin-1")
    folder_with(tmp_path, gzip.compress(text) if name.endswith("gz") else text, name)
    part = part_of(read(tmp_path, Options(behaviors=THREE, on_bad_row="skip")))
    assert part.events.rows() == [(1, 10, "click", 5), (2, 10, "click", 6), (8, 10, "favor", 10)]
    assert (part.rows, part.dropped) == (10, {"malformed rows": 7})
    begin = f"{tmp_path / name}: row "
    assert [place.removeprefix(begin).split("; expected")[0] for place in part.bad_rows] == [
        "3: item is empty", "5: user '12.5'", "7: timestamp 'soon'",
        "8: 5 columns, expected 4 as in the header", "9: byte 0xff is not UTF-8",
    ]  # fmt: skip


def test_without_malformed_rows_skipping_changes_nothing(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path, EVENTS), Options(behaviors=THREE)).events
    assert read(tmp_path, Options(behaviors=THREE, on_bad_row="skip")).events.equals(expected)


def test_the_first_five_malformed_rows_are_named(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, HEADER + "1,10,buy,5\n" * 7 + "1,10,buy,x\n" * 7))
    assert "row 9: timestamp 'x'" in told and "(also bad: row 10, row 11, row 12, row 13 and more)" in told


def test_a_table_of_malformed_rows_alone_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, HEADER + "1.5,10,buy,5\n2.5,10,buy,6\n")
    told = complaint(tmp_path, Options(on_bad_row="skip"))
    assert "row 2: user '1.5'" in told and "all 2 rows" in told


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("1,10,cart,5\n12.5,10,buy,6\n", ["row 3", "user '12.5'", "whole number or text"]),
        ("1,1.5e+10,cart,5\n1,10,buy,6\n", ["row 2", "item '1.5e+10'", "whole number or text"]),
        ("1,10,cart,5\n-1,10,buy,6\n", ["row 3", "user '-1'", "0 or more"]),
        ("1,10,cart,5\n,10,buy,6\n", ["row 3", "user is empty", "expected an id"]),
        ("1,10,cart,5\n1,,buy,6\n", ["row 3", "item is empty", "expected an id"]),
        (",,buy,\n1,10,cart,5\n", ["row 2", "user is empty"]),
        ("1,10,cart,5\n1,10,,6\n", ["row 3", "behavior is empty"]),
        ("1,10,cart,5\n1,10,buy\n", ["row 3", "timestamp is empty"]),
        ("1,10,cart,5\n1,10,buy,6.5\n", ["row 3", "timestamp '6.5'", "whole number"]),
        ("1,10,cart,5\n1,10,buy,6,7\n", ["row 3", "5 columns, expected 4", "--on-bad-row skip"]),
        ("1,10,cart,5\n-1,,,x\n", ["row 3", "user '-1'", "--on-bad-row skip"]),
        ("1,10,cart,5\n1,10,fave,6\n", ["row 3", "behavior 'fave'", "did you mean 'fav'", "unlisted=drop"]),
        ("1,10,cart,5\n1,10,fav,6\n", ["no event of the target behavior 'favor'", "cart (1)"]),
        ("", ["row 2", "is empty"]),
        ("1,10,cart,5\n1,10,\xff,6\n", ["row 3", "byte 0xff is not UTF-8"]),
    ],
)
def test_a_fault_is_one_line_with_file_row_value_and_fix(tmp_path: Path, rows: str, told: list[str]) -> None:
    message = complaint(folder_with(tmp_path, (HEADER + rows).encode("latin-1")))
    assert [part for part in ["events.csv", *told] if part not in message] == [], message


def test_an_empty_file_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    assert "events.csv: row 1: empty file" in complaint(folder_with(tmp_path, b""))
    packed = gzip.compress(HEADER.encode() + bytes(range(48, 58)) * 5000)
    assert "cannot be read" in complaint(folder_with(tmp_path, packed[:60], "cut.csv.gz") / "cut.csv.gz")
    assert "cannot be read" in complaint(folder_with(tmp_path, b"nothing", "x.parquet") / "x.parquet")
    assert "expected a file ending in .csv" in complaint(folder_with(tmp_path, b"x", "x.xlsx") / "x.xlsx")


def test_a_missing_column_lists_the_columns_and_the_close_one(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, EVENTS.replace("user,", "user_id,")))
    assert "no column 'user'; found user_id, item, behavior, timestamp; did you mean 'user_id'? set" in told


def test_several_behaviors_must_be_ordered_by_the_user(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, EVENTS + "3,1,cart,9\n"), Options())
    assert "cart (2)" in told and "buy (1)" in told and "behaviors=cart," in told
    one = read(folder_with(tmp_path, HEADER + "1,10,buy,5\n"), Options())
    assert one.behaviors == ("buy",)


def test_unlisted_behaviors_can_be_dropped(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, EVENTS), Options(behaviors=("cart", "buy"), unlisted="drop"))
    assert data.events["behavior"].to_list().count(TOUCHED) == 1 and "fav dropped" in data.mapping
    assert events_of(data).events["behavior"].to_list() == ["cart", "buy"]


@pytest.mark.parametrize("behaviors", [("cart", "cart"), ("cart=",), ("cart=a", "cart=b")])
def test_a_behavior_listed_twice_or_without_a_name_is_refused(tmp_path: Path, behaviors) -> None:
    assert "each value once" in complaint(folder_with(tmp_path, EVENTS), Options(behaviors=behaviors))


@pytest.mark.skipif(not TAOBAO.is_dir(), reason="../shared/data/taobao-cart-fav-buy is not there")
def test_a_real_log_has_the_counts_of_its_readme() -> None:
    data = read(TAOBAO, Options(user="user_id", item="item_id", behaviors=("cart", "fav", "buy")))
    counts = dict(data.events["behavior"].value_counts().rows())
    assert counts == {"buy": 167_862, "cart": 140_068, "fav": 49_482}
    assert (data.events["user"].n_unique(), data.events["item"].n_unique()) == (31_882, 30_985)
    # The file is sorted, so its order was kept.
    assert data.events.equals(data.events.sort("user", "timestamp", maintain_order=True))


def test_what_was_left_out_stands_in_the_metadata_once_prepared(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [f"{number % 3},{number % 7},{('cart', 'buy')[number % 2]},{number}\n" for number in range(60)]
    folder_with(raw, HEADER + "".join(rows) + "1,,buy,5\n")
    overrides = {"behaviors": "cart,buy", "on_bad_row": "skip"}
    data = load(prepare_named("table", raw=raw, name="mine", overrides=overrides))
    assert data.metadata["dropped"] == {"malformed rows": 1}
    assert (data.metadata["raw_rows"], data.metadata["raw_behaviors"]) == (61, {"cart": 30, "buy": 30})
    folder_with(raw, HEADER + "".join(rows))
    sound = prepare_named("table", raw=raw, name="sound", overrides={"behaviors": "cart,buy"})
    assert load(sound).fingerprint == data.fingerprint


def test_the_event_file_is_found_or_asked_for(tmp_path: Path) -> None:
    assert "no table" in complaint(tmp_path)
    folder_with(tmp_path, EVENTS, "a.csv")
    folder_with(tmp_path, EVENTS, "b.csv")
    assert "found a.csv, b.csv; set events=FILE" in complaint(tmp_path)
    assert len(read(tmp_path, Options(behaviors=THREE, events="b.csv")).events) == 3
    assert len(read(folder_with(tmp_path, EVENTS, "interactions.csv"), Options(behaviors=THREE)).events) == 3
    assert "--raw" in complaint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--raw"):
        read(None, Options())
