import gzip
from pathlib import Path

import polars as pl
import pytest

from bench.data.readers import blocks as raw_blocks
from bench.data.readers.behaviors import events
from bench.data.readers.log import LogFiles, among, id_field, log_file, number_field
from bench.errors import UserError

COLUMNS = ("user", "item", "behavior", "timestamp")
LINES = [f"{user},{user + 5},{'pv' if user % 3 else 'fav'},{1000 + user}" for user in range(100)]


def log(*files: Path, **changes: object) -> LogFiles:
    ids, time = (id_field("user"), id_field("item")), number_field("timestamp", "a time")
    fields = (*ids, among("behavior", ("pv", "fav")), time)
    names = {"pv": "click", "fav": "favor"}
    return LogFiles(files=files, columns=COLUMNS, fields=fields, select=events(names), **changes)  # type: ignore


def file_of(folder: Path, lines: list[str], name: str = "log.csv") -> Path:
    path, text = folder / name, ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = raw_blocks.blocks
    monkeypatch.setattr("bench.data.readers.log.blocks", lambda files, start: real(files, start, size=64))


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_blocks_join_to_the_whole_log_over_several_files(tmp_path, small_blocks, name):
    files = file_of(tmp_path, LINES[:60], name), file_of(tmp_path, LINES[60:], "b" + name)
    parts = list(log(*files).parts())
    assert len(parts) >= 20 and sum(part.rows for part in parts) == 100
    assert pl.concat([part.events for part in parts])["user"].to_list() == list(range(100))
    assert sum(part.size for part in parts) == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_reading_goes_on_behind_any_part(tmp_path, small_blocks, name):
    files = file_of(tmp_path, LINES[:60], name), file_of(tmp_path, LINES[60:], "b" + name)
    parts = list(log(*files).parts())
    for place in (0, 5, 12, len(parts) - 2):
        rest = list(log(*files).parts(parts[place].end))
        assert [part.end for part in rest] == [part.end for part in parts[place + 1 :]]
        assert rest[0].events.equals(parts[place + 1].events)


def test_a_fault_far_behind_is_named_by_its_row_in_its_file(tmp_path, small_blocks):
    lines = [*LINES[:77], "", "5,x,pv,1", *LINES[77:]]
    with pytest.raises(UserError, match=r"b.csv: row 79: item 'x', expected a whole number of 0 or more"):
        list(log(file_of(tmp_path, LINES), file_of(tmp_path, lines, "b.csv")).parts())


def test_the_first_five_places_are_told_and_skipped_rows_are_counted(tmp_path):
    bad = ["1,2,pv", "1,2,pv,x", "1.0,2,pv,5", "-1,2,pv,5", "1,2,buy,5", "1,2,pv,5,6", "8,9,pv,7"]
    path = file_of(tmp_path, LINES + bad)
    with pytest.raises(UserError) as error:
        list(log(path).parts())
    told = str(error.value)
    assert "row 101: 3 columns in '1,2,pv', expected 4" in told and "skip" in told and "\n" not in told
    assert "also bad here: row 102, row 103, row 104, row 105 and more" in told
    (part,) = log(path, on_bad_row="skip").parts()
    assert part.rows == 107 and part.dropped == {"malformed rows": 6}
    assert part.events["timestamp"].to_list()[-1] == 7 and len(part.events) == 101


def test_bytes_that_are_no_utf8_are_a_fault_unless_they_are_allowed(tmp_path, small_blocks):
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join(LINES).encode() + b"\n7,8,pv\xff,9\n")
    with pytest.raises(UserError, match="row 101: byte 0xff is not UTF-8"):
        list(log(path).parts())
    with pytest.raises(UserError, match="row 101: behavior 'pv\N{REPLACEMENT CHARACTER}'"):
        list(log(path, lossy=True).parts())
    parts = list(log(path, on_bad_row="skip").parts())
    assert pl.concat([part.events for part in parts])["user"].to_list() == list(range(100))
    assert sum(part.dropped.get("malformed rows", 0) for part in parts) == 1


def test_a_damaged_archive_is_named(tmp_path, small_blocks):
    path = file_of(tmp_path, LINES, "log.csv.gz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="damaged or cut off.*get the file again"):
        list(log(path).parts())


def test_the_item_table_holds_the_first_row_of_each_item_kept(tmp_path, small_blocks):
    lines = ["1,5,pv,10", "1,6,pv,11", "2,5,fav,12", "2,7,pv,13", "3,6,fav,14", *LINES[50:90], "1,5,pv,9"]
    table = log(file_of(tmp_path, lines)).table(pl.Series([5, 6, 99]), ["behavior", "timestamp"])
    assert table.sort("item").rows() == [(5, "pv", 10), (6, "pv", 11)]


def test_a_log_is_told_from_another_by_its_files_and_how_they_are_read(tmp_path):
    path = file_of(tmp_path, LINES)
    same = log(path).identity
    assert log(path).identity == same != log(path, on_bad_row="skip").identity
    file_of(tmp_path, LINES[:-1])
    assert log(path).identity != same


def test_a_compressed_log_is_found_where_the_plain_one_is_missing(tmp_path):
    path = file_of(tmp_path, LINES, "log.csv.gz")
    assert log_file(tmp_path, "x", ("log.csv",)) == path
