"""A CSV, TSV or parquet file read lazily as text, and the one line that names the place of a fault in it.

CSV and TSV may be gzipped. A blank line is a row of nulls, so that rows can be counted back to lines. Where
bad rows are to be skipped, a line that is too long or cannot be decoded is blank, too, and kept in mind.
"""

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
from polars.exceptions import PolarsError

from bench.data.readers.log import OnBadRow
from bench.errors import UserError, hint

ROW = "row of the table"
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Table:
    """A file whose columns are read as text, and the words for its faults."""

    path: Path
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    separator: str | None
    """None for parquet."""
    broken: Mapping[int, str] = field(default_factory=dict)
    """Rows, from 0 after the header, that are too long or not UTF-8 -> what is wrong; blank in `frame`."""

    def require(self, column: str, option: str) -> None:
        """Raise a UserError unless the column is there; names the option that names the column."""
        if column not in self.columns:
            near = hint(column, self.columns)
            near = near + " " if near.startswith("did") else ""
            problem = f"no column '{column}'; found {', '.join(self.columns)}; {near}set {option}=COLUMN"
            raise UserError(f"{self.path}: row 1: {problem}")

    def collect(self, expressions: Sequence[pl.Expr]) -> pl.DataFrame:
        """Evaluate expressions in one stream over the file."""
        try:
            return self.frame.select(*expressions).collect(engine="streaming")
        except (PolarsError, OSError) as error:
            raise _explain(self, error) from error

    def fault(self, column: str, row: int, expected: str) -> UserError:
        """Return the error for one value; `row` counts data rows from 0."""
        return UserError(f"{self.path}: row {self.lines([row])[0]}: {self.shown(column, row)}; {expected}")

    def shown(self, column: str, row: int) -> str:
        """Return a column and its value in a row, counted from 0, as messages show them."""
        value = self.frame.select(text_of(column)).slice(row, 1).collect().item()
        return f"{column} is empty" if value in (None, "") else f"{column} '{value}'"

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Return the 1-based lines that an editor shows for rows in ascending order; for parquet the rows."""
        if self.separator is None:
            return [row + 1 for row in rows]
        wanted = {row + 1 for row in rows}
        found = (line for number, (line, _) in enumerate(_records(self)) if number in wanted)
        return list(itertools.islice(found, len(wanted)))


def event_file(raw: Path | None, events: str, items: str) -> Path:
    """Return the event file: `raw` itself, or in the folder the one named, else the only one it can be.

    Args:
        raw: file or folder.
        events: its name inside the folder, "" where it is to be found.
        items: name of the item table, which it is not.

    Raises:
        UserError: there is none, or more than one.
    """
    if raw is None:
        raise UserError("table: no files given; give your event file, or the folder that holds it, by --raw")
    if raw.is_file():
        return raw
    if not raw.is_dir():
        raise UserError(f"{raw}: no such file or folder; give your event file, or its folder, by --raw")
    if events:
        return named_file(raw, events, "events")
    tables = sorted(file for file in raw.iterdir() if file.name.endswith(SUFFIXES) and file.name != items)
    named = [file for file in tables if file.name.split(".")[0] in ("events", "interactions")] or tables
    if len(named) != 1:
        found = ", ".join(file.name for file in named) or "no table"
        raise UserError(f"{raw}: expected one event file, found {found}; set events=FILE")
    return named[0]


def named_file(folder: Path, name: str, option: str) -> Path:
    """Return a file of the folder that an option names, or raise a UserError."""
    if not (folder / name).is_file():
        near = hint(name, [file.name for file in folder.iterdir()])
        raise UserError(f"{folder / name}: no such file; {near}; set {option}=FILE")
    return folder / name


def open_table(path: Path, on_bad_row: OnBadRow = "error") -> Table:
    """Open a table lazily, all columns as text.

    Args:
        path: of a CSV, TSV or parquet file.
        on_bad_row: `skip` looks for lines that are too long or cannot be decoded and makes them blank; the
            default leaves it to the first use of the table to stop there.

    Raises:
        UserError: not a table file, an empty one, or one that cannot be decoded.
    """
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}; rename or convert it")
    separator = None if path.suffix == ".parquet" else _separator(path)
    try:
        if separator is None:
            frame = pl.scan_parquet(path, glob=False)
        else:
            frame = pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
        table = Table(path, frame, tuple(frame.collect_schema().names()), separator)
        return _without_broken(table) if on_bad_row == "skip" and separator else table
    except (PolarsError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise _explain(Table(path, pl.LazyFrame(), (), separator), error) from error


def _without_broken(table: Table) -> Table:
    """Return the table with broken lines blank; one without such lines is returned as it is."""
    try:
        table.frame.select(pl.all().null_count()).collect(engine="streaming")
    except PolarsError:
        broken = _broken(table)
        frame = pl.scan_csv(
            table.path, separator=table.separator or ",", infer_schema=False, glob=False,
            truncate_ragged_lines=True, encoding="utf8-lossy", row_index_name=ROW,
        )  # fmt: skip
        sound = ~pl.col(ROW).is_in(list(broken))
        return replace(table, frame=frame.select(pl.when(sound).then(pl.all().exclude(ROW))), broken=broken)
    return table


def _broken(table: Table) -> dict[int, str]:
    records = _records(table)
    width = len(next(records)[1])
    problems = ((row, _problem(fields, width)) for row, (_, fields) in enumerate(records))
    return {row: problem for row, problem in problems if problem}


def _problem(fields: Sequence[str], width: int) -> str | None:
    if len(fields) > width:
        return f"{len(fields)} columns, expected {width} as in the header"
    try:
        "".join(fields).encode()
    except UnicodeEncodeError as error:  # a byte that could not be decoded
        return f"byte {ord(error.object[error.start]) - 0xDC00:#04x} is not UTF-8"
    return None


def _bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _separator(path: Path) -> str:
    try:
        with _bytes(path) as file:
            header = next((line for line in file if line.strip()), b"")
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from error
    if not header:
        raise UserError(f"{path}: row 1: empty file, expected a header with column names; get it again")
    if ".tsv" in path.suffixes:
        return "\t"
    return max(",\t;|", key=header.decode(errors="replace").count)


def _records(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Return the header and every record after it with its last line number, as an editor shows it."""
    with _bytes(table.path) as file:
        lines = (line.decode("utf-8", "surrogateescape") for line in file)
        reader = csv.reader(lines, delimiter=table.separator or ",")
        records = ((reader.line_num, record) for record in reader)
        yield from itertools.dropwhile(lambda numbered: not numbered[1], records)


def _explain(table: Table, error: Exception) -> UserError:
    """Find the row that polars stumbled over: bytes that are not UTF-8, or too many columns."""
    try:
        problem = _first_problem(table) if table.separator else None
    except (OSError, EOFError, zlib.error, csv.Error):  # what cannot be unpacked, or not be told apart
        problem = None
    reason = str(error).splitlines()[0]
    return UserError(f"{table.path}: {problem or f'cannot be read ({reason}); get or write the file again'}")


def _first_problem(table: Table) -> str | None:
    records = _records(table)
    header = next(records)
    for row, fields in itertools.chain([header], records):
        if problem := _problem(fields, len(header[1])):
            utf8 = problem.endswith("UTF-8")
            fix = "save the file as UTF-8" if utf8 else "quote or remove the extra separator"
            return f"row {row}: {problem}; {fix}, or leave such rows out by --on-bad-row skip"
    return None


def text_of(column: str) -> pl.Expr:
    """Return the column as text without blanks around it, null where there is nothing."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)
