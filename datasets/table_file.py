"""A CSV, TSV or parquet file read lazily as text, and the one line that names the place of a fault in it.

CSV and TSV may be gzipped. A blank line is a row of nulls, so that rows can be counted back to lines.
"""

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
from polars.exceptions import PolarsError

from bench.errors import UserError, hint

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Table:
    """A file whose columns are read as text, and the words for its faults."""

    path: Path
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    separator: str | None
    """None for parquet."""

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
        value = self.frame.select(text_of(column)).slice(row, 1).collect().item()
        shown = "is empty" if value in (None, "") else f"'{value}'"
        return UserError(f"{self.path}: row {self._line(row)}: {column} {shown}; {expected}")

    def first_fault(self, column: str, wrong: pl.Expr, expected: str) -> UserError:
        """Return the error for the first row where an expression over the text columns is true."""
        row = self.collect([wrong.fill_null(False).arg_max()]).item()
        return self.fault(column, int(row), expected)

    def _line(self, row: int) -> int:
        """Return the 1-based line that an editor shows; for parquet the 1-based row."""
        if self.separator is None:
            return row + 1
        return next(line for number, (line, _) in enumerate(_records(self)) if number == row + 1)


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


def open_table(path: Path) -> Table:
    """Open a table lazily, all columns as text.

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
        return Table(path, frame, tuple(frame.collect_schema().names()), separator)
    except (PolarsError, OSError) as error:
        raise _explain(Table(path, pl.LazyFrame(), (), separator), error) from error


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
        lines = (line.decode("utf-8", "replace") for line in file)
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
    with _bytes(table.path) as file:
        for row, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                value = f"byte {line[wrong.start]:#04x} is not UTF-8"
                return f"row {row}: {value}; save the file as UTF-8"
    records = _records(table)
    width = len(next(records)[1])
    for row, fields in records:
        if len(fields) > width:
            value = f"{len(fields)} columns, expected {width} as in the header"
            return f"row {row}: {value}; quote or remove the extra separator"
    return None


def text_of(column: str) -> pl.Expr:
    """Return the column as text without blanks around it, null where there is nothing."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)
