"""Rows that stand twice: counted, named by their row, dropped where that is asked for."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data.preparation import repeats, runs
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.preparation.raw_check import check_raw_files
from bench.data.preparation.repeats import Repeats
from bench.data.readers import blocks as raw_blocks
from bench.data.schema import EventStream, Part, Position, RawData
from bench.data.stats import statistics, text_report
from bench.data.storage import load, read_metadata
from bench.datasets import amazon, kuairand, table, taobao

TABLE = "user,item,behavior,timestamp\n"
AGAIN = "1,10,click,5"
ROWS = [AGAIN, "1,11,buy,6", AGAIN, "1,10,buy,5", "1,10,click,6", "1,11,buy,6", AGAIN]


class Stream(EventStream):
    """Events in parts of three rows."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = events

    @property
    def identity(self) -> str:
        return "stream"

    @property
    def size(self) -> int:
        return len(self.events)

    def parts(self, start: Position = Position()) -> Iterator[Part]:  # noqa: B008
        for at in range(start.offset, len(self.events), 3):
            rows = self.events.slice(at, 3)
            yield Part(rows, len(rows), {}, Position(0, at + 3), len(rows))


def log(copies: int = 3) -> pl.DataFrame:
    """Return 40 distinct rows of 4 users, the first ten of which follow `copies` more times at the end."""
    rows = [(n % 4, n % 7, ("click", "buy")[n % 3 == 0], n) for n in range(40)]
    return pl.DataFrame(rows + rows[:10] * copies, ["user", "item", "behavior", "timestamp"], orient="row")


def warnings_of(raw: RawData) -> list[str]:
    _, lines = check_raw_files(raw, runs.silent)
    return [line for line in lines if line.startswith("warning") and "repeat an earlier one" in line]


def made(events, folder: Path, **options):
    raw = RawData(events, ("click", "buy"), "")
    return prepare(raw, "x", folder, PrepareOptions(**options), EncoderOptions(), {}, runs.silent)


@pytest.mark.parametrize("held", [1, 20, 10**6])
@pytest.mark.parametrize("text", [False, True])
def test_repeated_events_are_counted_with_any_bound_of_memory(monkeypatch, held: int, text: bool) -> None:
    monkeypatch.setattr(repeats, "HELD", held)
    events = log().with_columns(pl.col("user", "item").cast(pl.String)) if text else log()
    with Repeats() as found:
        for at in range(0, len(events), 7):
            found.add(events.slice(at, 7), Position(0, at))
        assert found.count() == (30, 40)
        assert found.part_of(40) == (Position(0, 35), 5)
        folder = Path(found.folder.name)
        assert bool(list(folder.iterdir())) == (held < 10**6)
    assert not folder.exists()


def test_rows_that_differ_in_one_column_are_no_repetition() -> None:
    rows = [(1, 1, "click", 1), (2, 1, "click", 1), (1, 2, "click", 1), (1, 1, "buy", 1), (1, 1, "click", 2)]
    events = pl.DataFrame(rows, ["user", "item", "behavior", "timestamp"], orient="row")
    with Repeats() as found:
        found.add(events)
        assert found.count() == (0, -1)
        found.add(events[:1])
        assert found.count() == (1, 5)


def test_the_check_names_the_count_and_the_first_row_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(TABLE + "\n" + "\n".join(ROWS) + "\n")
    (line,) = warnings_of(table.read(tmp_path, table.Options(behaviors=("click", "buy"))))
    assert line.startswith("warning: 3 of 7 events repeat an earlier one, the first at ")
    assert "events.csv: row 5: user 1, item 10, click at 5; they are kept unless --set drop_dup" in line


def test_a_table_with_malformed_rows_names_the_row_as_well(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(TABLE + "x,,click,5\n" + "\n".join(ROWS) + "\n")
    options = table.Options(behaviors=("click", "buy"), on_bad_row="skip")
    (line,) = warnings_of(table.read(tmp_path, options))
    assert "3 of 7 events" in line and "events.csv: row 5: user 1" in line


@pytest.mark.parametrize("size", [40, 10**6])
def test_the_first_repeated_row_of_a_log_is_named_by_its_row(tmp_path: Path, monkeypatch, size: int) -> None:
    real = raw_blocks.blocks
    for module in ("log", "event_rows"):
        name = f"bench.data.readers.{module}.blocks"
        monkeypatch.setattr(name, lambda files, start, _=size: real(files, start, size=size))
    lines = [f"{user},5,9,{('fav', 'pv', 'cart')[user % 3]},{1511600000 + user}" for user in range(30)]
    lines[20:20] = ["", "7,x,9,pv,1511600000", lines[18]]  # row 21 is blank, 22 malformed, 23 repeats row 19
    (tmp_path / "UserBehavior.csv").write_text("\n".join([*lines, lines[4]]) + "\n")
    (line,) = warnings_of(taobao.read(tmp_path, taobao.Options(on_bad_row="skip")))
    assert "warning: 2 of 22 events repeat an earlier one" in line  # a third of the 30 are carts, dropped
    assert "UserBehavior.csv: row 23: user 18, item 5, favor at 1511600018" in line


def test_a_row_that_gives_several_events_is_named_once(tmp_path: Path) -> None:
    review = {"reviewerID": "A1", "asin": "B1", "overall": 5, "unixReviewTime": 1_400_000_000}
    other = {**review, "reviewerID": "A2"}
    (tmp_path / "Books.json").write_text("\n".join(map(json.dumps, [review, other, other])))
    (line,) = warnings_of(amazon.read(tmp_path, amazon.Options()))
    assert "2 of 6 events" in line and "Books.json: row 3: user A2, item B1, click" in line
    head = "user_id,video_id,time_ms,is_click,is_like,tab\n"
    shown = "1,2,1650000000000,0,0,0\n"  # no event
    folder = tmp_path / "videos"
    folder.mkdir()
    for period in kuairand.PERIODS:
        (folder / f"log_standard_{period}_pure.csv").write_text(head + shown + "1,2,1650000000000,1,1,0\n")
    (line,) = warnings_of(kuairand.read(folder, kuairand.Options()))
    assert "2 of 4 events" in line and "log_standard_4_22_to_5_08_pure.csv: row 3: user 1" in line


def test_other_streams_and_tables_are_named_by_the_number_of_the_event() -> None:
    (line,) = warnings_of(RawData(log(), ("click", "buy"), ""))
    assert "30 of 70 events" in line and "at events, row 41: user 0, item 0, buy at 0" in line
    (line,) = warnings_of(RawData(Stream(log(1)), ("click", "buy"), ""))
    assert "10 of 50 events" in line and "user 0, item 0, buy at 0" in line
    assert warnings_of(RawData(log(0), ("click", "buy"), "")) == []


@pytest.mark.parametrize("kind", [lambda events: events, Stream])
def test_repeated_rows_are_dropped_where_asked_for_and_told(tmp_path: Path, monkeypatch, kind) -> None:
    monkeypatch.setattr(runs, "BUCKET_ROWS", 20)
    monkeypatch.setattr(runs, "STEP", 4)
    options = {"min_events": 1, "keep_last": None}
    kept = load(made(kind(log()), tmp_path / "kept", **options))
    once = load(made(kind(log()), tmp_path / "once", **options, drop_duplicates=True))
    clean = load(made(log(0), tmp_path / "clean", **options))
    assert (len(kept.interactions), len(once.interactions)) == (70, 40)
    assert once.fingerprint == clean.fingerprint != kept.fingerprint
    told = {"equal to an earlier one in user, item, behavior and time": 30}
    assert once.metadata["dropped"] == told and kept.metadata["dropped"] == {}
    assert once.metadata["prepare_options"]["drop_duplicates"] is True
    lines = text_report(statistics(tmp_path / "once"))
    assert ("left out", f"30 rows: {next(iter(told))}") in lines


@pytest.mark.parametrize("kind", [lambda events: events, Stream])
def test_items_and_users_are_counted_without_the_repeated_rows(tmp_path: Path, kind) -> None:
    rows = [(1, item, "buy", time) for item, time in ((1, 1), (1, 1), (1, 1), (2, 2), (2, 3), (2, 4))]
    rows += [(2, 2, "buy", 5)] * 4
    events = pl.DataFrame(rows, ["user", "item", "behavior", "timestamp"], orient="row")
    options = {"min_events": 3, "min_item_events": 3, "drop_duplicates": True}
    dataset = load(made(kind(events), tmp_path / "x", **options))
    assert dataset.users.to_list() == [1] and dataset.items["item"].to_list() == [2]


def test_the_command_line_warns_and_drops(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "events.csv").write_text(TABLE + "\n".join(ROWS) + "\n")
    chosen = ["--set", "behaviors=click,buy", "--set", "min_events=1"]
    done = CliRunner().invoke(app, ["data", "check", str(raw), "--reader", "table", *chosen])
    assert done.exit_code == 0, done.output
    assert "warning: 3 of 7 events repeat an earlier one" in done.output and "no fault found" in done.output
    chosen += ["--set", "drop_duplicates=true", "--name", "mine", "--json"]
    done = CliRunner().invoke(app, ["data", "prepare", "table", "--raw", str(raw), *chosen])
    assert done.exit_code == 0, done.output
    assert sum(read_metadata(tmp_path / "home" / "mine")["dropped"].values()) == 3
