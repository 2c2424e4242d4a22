import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from bench.data.readers import blocks as raw_blocks
from bench.data.readers.json_lines import JsonLines
from bench.data.readers.log import Field, number_field
from bench.data.schema import Position
from bench.errors import UserError

FIELDS = (
    Field("user", pl.col("who"), "a name", "who"),
    number_field("item", "a whole number of 0 or more", "what"),
    Field("tag", pl.col("tags").list.first(), "", optional=True),
)


def log_of(path: Path, *lines: str | bytes, **changes) -> JsonLines:
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return JsonLines((path,), ("who", "what", "tags"), FIELDS, lambda rows: rows, lists=("tags",), **changes)


def line_of(who: str = "a", what: object = 1, **more: object) -> str:
    return json.dumps({"who": who, "what": what, **more})


def rows_of(log: JsonLines) -> list[tuple]:
    return [row for part in log.parts() for row in part.events.rows()]


def complaint(log: JsonLines) -> str:
    with pytest.raises(UserError) as error:
        rows_of(log)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["log.json", "log.json.gz"])
def test_objects_become_rows_whatever_else_they_hold_and_in_whatever_order(tmp_path: Path, name: str) -> None:
    lines = [
        line_of('é \\ "q"\n', 7, text="x" * 99),
        '{"tags": ["p", "q"], "what": "8", "who": "b", "z": {}}',
    ]
    assert rows_of(log_of(tmp_path / name, *lines)) == [('é \\ "q"\n', 7, None), ("b", 8, "p")]


def test_numbers_lose_no_digit(tmp_path: Path) -> None:
    assert rows_of(log_of(tmp_path / "log.json", line_of("a", 2**62 + 1))) == [("a", 2**62 + 1, None)]


def test_anything_but_a_list_where_one_belongs_is_unknown(tmp_path: Path) -> None:
    lines = (line_of(tags=tags) for tags in ("p", 5, None, [], {"p": 1}, ["p"]))
    assert [tag for _, _, tag in rows_of(log_of(tmp_path / "log.json", *lines))] == [None] * 5 + ["p"]


def test_a_mark_windows_line_ends_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    log = log_of(
        tmp_path / "log.json", b"\xef\xbb\xbf" + line_of("a").encode() + b"\r", " ", line_of("b") + "\r"
    )
    assert rows_of(log) == [("a", 1, None), ("b", 1, None)]


BROKEN = [
    (line_of()[:-4], ["cannot be parsed", "one complete JSON object"]),
    ("hello", ["'hello' cannot be parsed"]),
    (line_of() + line_of(), ["cannot be parsed"]),
    (b'{"who": "Mis\xe9", "what": 1}', ["byte 0xe9 is not UTF-8"]),
    ("[1, 2]", ["no who in '[1, 2]'", "expected a name"]),
    ('{"who": "a"}', ['no what in \'{"who": "a"}\'', "a whole number of 0 or more"]),
    (line_of("a", None), ["no what in"]),
    (line_of("a", "soon"), ["what 'soon'", "a whole number of 0 or more"]),
    (line_of("a", 1.5), ["what '1.5'"]),
    (line_of("a", -1), ["what '-1'"]),
    (line_of("a", [1]), ["what '[1]'"]),
]


@pytest.mark.parametrize(("line", "told"), BROKEN)
def test_a_broken_line_is_named_by_its_row_or_skipped_and_counted(
    tmp_path: Path, line, told: list[str]
) -> None:
    lines = (line_of("a"), "", line_of("b"), line, line_of("c"))
    message = complaint(log_of(tmp_path / "log.json", *lines))
    assert [part for part in ["log.json: row 4: ", *told, "skip"] if part not in message] == [], message
    (part,) = log_of(tmp_path / "log.json", *lines, on_bad_row="skip").parts()
    assert part.events["user"].to_list() == ["a", "b", "c"]
    assert (part.rows, sum(part.dropped.values())) == (4, 1)


def test_many_broken_lines_are_all_counted_and_the_first_five_named(tmp_path: Path) -> None:
    lines = [line_of(str(row)) if row % 3 else "{" for row in range(1, 100)]  # 33 are broken: 3, 6, ... 99
    message = complaint(log_of(tmp_path / "log.json", *lines))
    assert "row 3: '{' cannot" in message and "row 6, row 9, row 12, row 15 and more" in message
    (part,) = log_of(tmp_path / "log.json", *lines, on_bad_row="skip").parts()
    assert (len(part.events), part.rows, sum(part.dropped.values())) == (66, 99, 33)


def test_a_cut_off_archive_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log.json.gz", *(line_of(str(row)) for row in range(5000)))
    log.files[0].write_bytes(log.files[0].read_bytes()[:-100])
    assert "log.json.gz: after row" in complaint(log) and "damaged or cut off" in complaint(log)
    log.files[0].write_bytes(b"no archive")
    assert "damaged or cut off" in complaint(log)
    log = log_of(tmp_path / "log.json")
    assert "nothing there" in complaint(log)


@pytest.mark.parametrize("name", ["log.json", "log.json.gz"])
def test_reading_goes_on_from_the_end_of_any_part(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.setattr(raw_blocks.blocks, "__defaults__", (200,))
    first = log_of(tmp_path / name, *(line_of(str(row)) for row in range(100)), "")
    second = log_of(tmp_path / f"2{name}", line_of("last"), "broken")
    log = JsonLines(
        first.files + second.files, first.columns, FIELDS, first.select, lists=("tags",), on_bad_row="skip"
    )
    parts = list(log.parts(Position()))
    assert len(parts) > 5
    whole = pl.concat([part.events for part in parts])
    assert whole["user"].to_list() == [*map(str, range(100)), "last"]
    for number, part in enumerate(parts[:-1], 1):
        rest = pl.concat([later.events for later in log.parts(part.end)])
        assert rest.equals(whole[sum(len(earlier.events) for earlier in parts[:number]) :])
    assert list(log.parts(parts[-1].end)) == []
    late = JsonLines(log.files, log.columns, FIELDS, log.select, lists=("tags",))
    assert f"2{name}: row 2: 'broken'" in complaint(late)
