"""The events of a user's table: what kind its ids and times are, and which of its rows are malformed.

An id is a whole number or text. A column of numbers that are written as floats (`161.0`), some missing, is
what pandas makes of ids with holes, and large ids lose digits that way, so such rows are malformed; in a
parquet file, where it shows that no digit is lost, whole floats are whole numbers. A missing id, also one
that a program wrote as a word (`nan`, `NULL`), is malformed: it would be one very busy user. So are
times in another unit than most: seconds among milliseconds would put an event to the beginning of the log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from bench.data.readers.log import BAD, BAD_ROWS, OnBadRow
from bench.data.readers.missing import stands_for_nothing
from bench.data.schema import EventStream, Part, Position
from bench.datasets.table.file import ROW, Table, text_of, written
from bench.errors import UserError

INTEGER = r"^(0|[1-9]\d{0,17}|[1-8]\d{18})$"  # as a program writes it, and inside int64
NUMBER = r"^-?(\d+(\.\d+)?([eE][+-]?\d+)?|inf)$"
ODD = r"^-|[.eE]|inf"  # of numbers: negative, or written as a float
TIME = r"^-?\d{1,19}(\.0+)?$"
DATE_TIMES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
ZONES = {
    r"^(\d{4}-\d{2}-\d{2})(?:\s+|t)": "${1}T",
    r"(T.*\d),(\d)": "${1}.${2}",
    r"(?i)(T.*\d)\s*(?:Z|UTC|GMT)$": "${1}+00:00",
    r"(T.*\d)\s*([+-]\d{2})$": "${1}${2}:00",
    r"(T.*\d)\s*([+-]\d{2}):?(\d{2})$": "${1}${2}:${3}",
}
"""What programs write around a date-time -> its ISO form: `2017-11-25 00:00:00,5 UTC`, `+00`, `+0800`."""
ZONED = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%dT%H:%M%:z")
Unit = Literal["", "day", "s", "ms", "us", "ns"]
FIRST, LAST = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds since 1970
UNITS = {"day": 1 / 86_400, "s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class EventColumns:
    """Names of the columns, and how times are written."""

    user: str
    item: str
    behavior: str
    """Empty: every row is the one behavior `interaction`."""
    timestamp: str
    time_format: str
    time_unit: Unit

    def names(self) -> dict[str, str]:
        """Return what is needed of an event -> its column."""
        columns = {
            "user": self.user,
            "item": self.item,
            "behavior": self.behavior,
            "timestamp": self.timestamp,
        }
        return {what: column for what, column in columns.items() if column}


@dataclass(frozen=True)
class IdKind:
    """What the ids of a column are."""

    integer: bool
    """They become int64; text otherwise."""
    numeric: bool
    """All are numbers: negative ones and floats are malformed."""


@dataclass(frozen=True)
class LeftOut:
    """Malformed rows of a table."""

    count: int = 0
    bad_rows: tuple[str, ...] = ()
    """The first ones."""


@dataclass(frozen=True)
class ReadEvents(EventStream):
    """Events that have been read, with what was left out on the way."""

    path: Path
    events: pl.DataFrame
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    """Why -> rows."""

    @property
    def identity(self) -> str:
        """Name, size and time of the file."""
        stat = self.path.stat()
        return f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def parts(self, start: Position = Position()) -> Iterator[Part]:  # noqa: B008 (frozen)
        """Yield the one part."""
        if start == Position():
            dropped = {why: rows.count for why, rows in self.left_out.items()}
            bad_rows = tuple(row for rows in self.left_out.values() for row in rows.bad_rows)[:BAD_ROWS]
            rows = len(self.events) + dropped.get(BAD, 0)
            yield Part(self.events, rows, dropped, Position(file=1), self.size, bad_rows)


def id_kind(table: Table, column: str) -> IdKind:
    """Say whether the ids of a column are whole numbers.

    Raises:
        UserError: there is no id at all.
    """
    text = text_of(column)
    patterns = {"number": NUMBER, "odd": ODD, "integer": INTEGER}
    counts = [text.count().alias("rows")]
    counts += [text.str.contains(pattern).sum().alias(name) for name, pattern in patterns.items()]
    seen = table.collect(counts).row(0, named=True)
    if not seen["rows"]:
        raise UserError(f"{table.path}: row 2: column '{column}' is empty, expected ids; get the file again")
    numeric = seen["number"] == seen["rows"]
    return IdKind(numeric and seen["integer"] + seen["odd"] == seen["rows"], numeric)


def id_of(column: str, kind: IdKind) -> pl.Expr:
    """Return the ids, null where they are missing or malformed."""
    text = text_of(column)
    text = pl.when(~text.str.contains(ODD)).then(text) if kind.numeric else text
    return text.str.to_integer(strict=False) if kind.integer else text


def read_events(
    table: Table, columns: EventColumns, kinds: tuple[IdKind, IdKind], on_bad_row: OnBadRow
) -> tuple[pl.DataFrame, LeftOut]:
    """Return the events in the order of the table.

    Args:
        table: of the events.
        columns: all of them are there.
        kinds: of the user ids and of the item ids.
        on_bad_row: what to do with malformed rows.

    Returns:
        user, item, behavior (as in the file), timestamp, and the row of the table, from 0; and what was left
        out.

    Raises:
        UserError: a row is malformed under `error`.
    """
    the_one = pl.when(written(columns.user).is_not_null()).then(pl.lit("interaction"))
    time, expected = _time(table, columns)
    values = {
        "user": id_of(columns.user, kinds[0]),
        "item": id_of(columns.item, kinds[1]),
        "behavior": text_of(columns.behavior) if columns.behavior else the_one,
        "timestamp": time,
    }
    filled = pl.any_horizontal(written(column).is_not_null() for column in columns.names().values())
    rows = table.collect([*(value.alias(name) for name, value in values.items()), filled.alias("filled")])
    rows = rows.with_row_index(ROW).filter("filled")
    wrong = pl.any_horizontal(pl.col(name).is_null() for name in columns.names())
    bad = rows.filter(wrong)
    problems = {}
    for row in bad.head(BAD_ROWS).iter_rows(named=True):
        what = next(what for what in columns.names() if row[what] is None)
        value = table.in_words(columns.names()[what], row[ROW])
        problems[row[ROW]] = f"{value}; expected {expected_of(what, value, expected)}"
    left_out = left_out_of(table, problems, len(bad), on_bad_row)
    events = rows.filter(~wrong).select(*values, ROW)
    if events.is_empty() and left_out.count:
        raise UserError(f"{left_out.bad_rows[0]}; and so for all {left_out.count} rows: none is left")
    return events, left_out


def left_out_of(table: Table, problems: Mapping[int, str], count: int, on_bad_row: OnBadRow) -> LeftOut:
    """Return what is left out of a table: malformed rows and broken lines.

    Args:
        table: whose broken lines are left out.
        problems: row, from 0 -> problem, of the first `BAD_ROWS` malformed rows.
        count: of all malformed rows.
        on_bad_row: what to do with them.

    Raises:
        UserError: there are some under `error`.
    """
    problem_of = {**{row: table.broken[row] for row in sorted(table.broken)[:BAD_ROWS]}, **problems}
    first = sorted(problem_of)[:BAD_ROWS]
    lines = table.lines(first) if first else []
    named = [f"row {line}: {problem_of[row]}" for line, row in zip(lines, first, strict=True)]
    if count and on_bad_row == "error":
        rest = ", ".join(f"row {line}" for line in lines[1:])
        also = f" (also bad: {rest}{' and more' if count > len(lines) else ''})" if rest else ""
        raise UserError(f"{table.path}: {named[0]}{also}, or leave such rows out by --on-bad-row skip")
    return LeftOut(count + len(table.broken), tuple(f"{table.path}: {row}" for row in named))


def expected_of(what: str, value: str, time: str = "") -> str:
    """Return what was expected of a value, and the cure.

    Args:
        what: user, item, behavior or timestamp.
        value: the value, as `Table.in_words` returns it.
        time: what is expected of times.
    """
    if what == "timestamp":
        return f"{time}; repair it, set time_format or time_unit, remove the row"
    if value.endswith("is empty") or stands_for_nothing(value.partition("'")[2].removesuffix("'")):
        return f"{'a behavior' if what == 'behavior' else 'an id'}; fill it in, remove the row"
    if " '-" in value:
        return "an id of 0 or more; number the ids anew, remove the row"
    return "a whole number or text; write ids never as floats (in pandas: astype('Int64') or dtype=str)"


def _time(table: Table, columns: EventColumns) -> tuple[pl.Expr, str]:
    """Return the times as int64, null where they are malformed, and what they are expected to be."""
    text = text_of(columns.timestamp)
    if columns.time_format:
        return _microseconds(text, columns.time_format), f"a time as in {columns.time_format}"
    fits = text.str.contains(TIME)
    whole = pl.when(fits).then(text.str.replace(r"\.0+$", "")).str.to_integer(strict=False)
    of_unit = {unit: _between(whole, unit) for unit in UNITS if unit != "day"}
    counts = [fits.mean().alias(""), *(inside.sum().alias(unit) for unit, inside in of_unit.items())]
    seen = table.collect(counts).row(0, named=True)
    if (seen.pop("") or 0) < 0.5 and not columns.time_unit:  # the numbers are the faults
        for form, iso in ZONES.items():
            text = text.str.replace(form, iso)
        times = pl.coalesce(_microseconds(text, form) for form in (*DATE_TIMES, *ZONED))
        return times, "an ISO date-time or a whole number"
    if columns.time_unit:
        inside = _between(whole, columns.time_unit)
        return pl.when(inside).then(whole), f"a whole number of unit {columns.time_unit}, 1990 to 2100"
    usual = max(seen, key=lambda unit: seen[unit])
    others = pl.any_horizontal(inside for unit, inside in of_unit.items() if unit != usual)
    like = f", in {usual} since 1970 like the most" if seen[usual] else " or an ISO date-time"
    return pl.when(~others).then(whole), f"a whole number{like}"


def _between(time: pl.Expr, unit: str) -> pl.Expr:
    """Return whether times are of 1990 to 2100 in a unit; no two units share such a time."""
    return time.is_between(int(FIRST * UNITS[unit]), int(LAST * UNITS[unit]))


def _microseconds(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.strptime(pl.Datetime("us"), form, strict=False).dt.epoch("us")
