"""A CSV, TSV or parquet file read lazily as text, and the one line that names the row of a fault in it.

CSV and TSV may be gzipped. A line is a record, also in a quoted file: a quote that does not close in its line
is a fault of that line. A blank line is a row of nulls, so that rows can be counted back to lines. Where bad
rows are to be skipped, a line that is too long, cannot be decoded or leaves a quote open is blank, too, and
kept in mind.
"""

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from bench.data.readers.blocks import check_header, check_line_end
from bench.data.readers.folder import files_of
from bench.data.readers.log import OnBadRow
from bench.data.readers.missing import present
from bench.data.readers.packing import opened, whole_text
from bench.data.readers.quoted import fields_of, open_quote, open_quotes, refused, undecoded
from bench.errors import UserError, hint

ROW = "row of the table"
Quotes = Literal["auto", "always", "never"]
SKIP = "or leave such rows out by --on-bad-row skip"
EXACT: dict[pl.DataType, float] = {pl.Float64(): 2.0**53, pl.Float32(): 2.0**24}
"""Type of a column -> bound below which every whole number has a value of its own."""
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Table:
    """A file whose columns are read as text, and the words for its faults."""

    path: Path
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    separator: str | None
    """None for parquet."""
    quoted: bool = False
    """True: a field may stand in quotes, with separators inside."""
    header: int = 0
    """Row of the header, from 1."""
    broken: Mapping[int, str] = field(default_factory=dict)
    """Rows, from 0 after the header, that are too long, not UTF-8, leave a quote open or, where that counts,
    are too short -> what is wrong; blank in `frame`."""

    def scan(self, source: Path | bytes) -> pl.LazyFrame:
        """Return the columns of a text of this form, lazily."""
        return pl.scan_csv(
            source, separator=self.separator or ",", quote_char='"' if self.quoted else None,
            infer_schema=False, glob=False,
        )  # fmt: skip

    def fields(self, line: str) -> list[str] | None:
        """Return the fields of a line; None where a quote does not close in it."""
        separator = self.separator or ","
        return fields_of(line, separator) if self.quoted else line.split(separator)

    def require(self, column: str, option: str) -> None:
        """Raise a UserError unless the column is there; names the option that names the column."""
        if column not in self.columns:
            near = hint(column, self.columns)
            near = near + " " if near.startswith("did") else ""
            near = "set quotes=always or " if f'"{column}"' in self.columns else near
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
        return UserError(f"{self.path}: row {self.lines([row])[0]}: {self.in_words(column, row)}; {expected}")

    def in_words(self, column: str, row: int) -> str:
        """Return a column and its value in a row, counted from 0, as messages show them."""
        value = self.frame.select(written(column)).slice(row, 1).collect().item()
        return f"{column} is empty" if value is None else f"{column} '{value}'"

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Return the 1-based lines that an editor shows for rows in ascending order; for parquet the rows."""
        return [self.header + row + 1 for row in rows]


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
    tables = [file for file in files_of(raw) if file.name.endswith(SUFFIXES) and file.name != items]
    named = [file for file in tables if file.name.split(".")[0] in ("events", "interactions")] or tables
    if len(named) != 1:
        names = ", ".join(file.name for file in named) or "no table"
        raise UserError(f"{raw}: expected one event file, found {names}; set events=FILE")
    return named[0]


def named_file(folder: Path, name: str, option: str) -> Path:
    """Return a file of the folder that an option names, or raise a UserError."""
    if not (folder / name).is_file():
        near = hint(name, [file.name for file in files_of(folder)])
        raise UserError(f"{folder / name}: no such file; {near}; set {option}=FILE")
    return folder / name


def open_table(
    path: Path, on_bad_row: OnBadRow = "error", quotes: Quotes = "auto", whole_lines: bool = False
) -> Table:
    """Open a table lazily, all columns as text.

    Args:
        path: of a CSV, TSV or parquet file.
        on_bad_row: `skip` looks for lines that are too long, cannot be decoded or leave a quote open, and
            makes them blank; by default an open quote stops here, the others at the first use of the table.
        quotes: whether fields of text may be quoted.
        whole_lines: a line with fewer fields than the header is broken, too. Where fields may be empty it
            would be read as a row without these, and what was cut off would never be missed. All lines are
            read once for it.

    Raises:
        UserError: not a table file, an empty one, one that cannot be decoded, or a column name twice.
    """
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}; rename or convert it")
    if path.suffix == ".parquet":
        return _parquet(path)
    table = _text_table(path, quotes)
    unclosed = dict(open_quotes(path, table.separator or ",")) if table.quoted else {}
    if unclosed and on_bad_row == "error":
        raise refused(path, unclosed, "close it, set quotes=never where quotes are letters")
    try:
        if whole_lines and on_bad_row == "error" and (fault := next(_faults(table, True), None)):
            raise UserError(f"{path}: {_broken(table, *fault)}")
        return _without_broken(table, bool(unclosed), whole_lines) if on_bad_row == "skip" else table
    except (PolarsError, OSError, EOFError, zlib.error) as error:
        raise _explain(table, error) from error


def _parquet(path: Path) -> Table:
    """Return a parquet table whose whole floats are whole numbers, as long as none has lost a digit."""
    try:
        frame = pl.scan_parquet(path, glob=False)
        schema = frame.collect_schema()
    except (PolarsError, OSError) as error:
        raise _explain(Table(path, pl.LazyFrame(), (), None), error) from error
    floats = [_digits(name, EXACT[kind]) for name, kind in schema.items() if kind in EXACT]
    return Table(path, frame.with_columns(floats), tuple(schema.names()), None)


def _digits(column: str, bound: float) -> pl.Expr:
    """Return floats as text: below the bound 7.0 as `7`, all others as they are."""
    value = pl.col(column)
    whole = value.is_finite() & (value == value.floor()) & (value.abs() < bound)
    digits = value.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(whole).then(digits).otherwise(value.cast(pl.String)).alias(column)


def _text_table(path: Path, quotes: Quotes) -> Table:
    """Return a CSV or TSV table by its header.

    Raises:
        UserError: the file is empty or cannot be read, or its header leaves a quote open or names a column
            twice.
    """
    row, header = _header(path)
    check_line_end(path, header)
    separator = "\t" if ".tsv" in path.suffixes else max(",\t;|", key=header.count)
    quoted = quotes == "always" or (quotes == "auto" and separator != "\t")
    names = fields_of(header, separator) if quoted else header.split(separator)
    if names is None:
        raise UserError(f"{path}: row {row}: {open_quote(header)}; close it or set quotes=never")
    check_header(path, [name or f"column {number}" for number, name in enumerate(names, 1)], row)
    table = Table(path, pl.LazyFrame(), (), separator, quoted, row)
    try:
        frame = table.scan(path)
        return replace(table, frame=frame, columns=tuple(frame.collect_schema().names()))
    except (PolarsError, OSError) as error:
        raise _explain(table, error) from error


def _header(path: Path) -> tuple[int, str]:
    """Return row and text of the first line that is not blank."""
    try:
        with opened(path) as file:
            lines = ((row, _decoded(line)) for row, line in enumerate(file, 1))
            header = next(((row, line.removeprefix("\ufeff")) for row, line in lines if line.strip()), None)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from error
    if header is None:
        raise UserError(f"{path}: row 1: empty file, expected a header with column names; get it again")
    return header


def _without_broken(table: Table, broken: bool, whole_lines: bool) -> Table:
    """Return the table with broken lines blank, its text then held; one without such lines as it is."""
    try:
        if not broken and not whole_lines:
            table.frame.select(pl.all().null_count()).collect(engine="streaming")
            return table
    except PolarsError:  # a line that is too long or cannot be decoded
        pass
    faults = dict(_faults(table, whole_lines))
    if not faults:
        return table
    lines = whole_text(table.path).split(b"\n")
    for row in faults:
        lines[table.header + row] = b""
    return replace(table, frame=table.scan(b"\n".join(lines)), broken=faults)


def _faults(table: Table, whole_lines: bool = False) -> Iterator[tuple[int, str]]:
    """Yield row, from 0 after the header, and what is wrong with its line, of broken lines."""
    with opened(table.path) as file:
        for row, line in enumerate(itertools.islice(file, table.header, None)):
            if fault := _fault(_decoded(line), table, whole_lines):
                yield row, fault


def _fault(line: str, table: Table, whole_lines: bool) -> str:
    fields, width = table.fields(line), len(table.columns)
    if fields is None:
        return open_quote(line)
    if len(fields) > width or (whole_lines and len(fields) < width and line.strip()):
        return f"{len(fields)} columns, expected {width} as in the header"
    byte = undecoded(line)
    return f"byte {byte} is not UTF-8" if byte else ""


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _explain(table: Table, error: Exception) -> UserError:
    """Find the row that polars stumbled over: bytes that are not UTF-8, or too many columns."""
    reason = str(error).splitlines()[0]
    problem = f"cannot be read ({reason}); get or write the file again"
    with suppress(OSError, EOFError, zlib.error):  # what cannot be unpacked has no lines
        if table.columns and (fault := next(_faults(table), None)):
            problem = _broken(table, *fault)
    return UserError(f"{table.path}: {problem}")


def _broken(table: Table, row: int, problem: str) -> str:
    """Return the words for a broken line, with the cure."""
    fix = "complete the line, or quote or remove an extra separator"
    fix = "save the file as UTF-8" if problem.endswith("UTF-8") else fix
    return f"row {table.lines([row])[0]}: {problem}; {fix}, {SKIP}"


def written(column: str) -> pl.Expr:
    """Return the column as text without blanks around it, null where there is nothing at all."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def text_of(column: str) -> pl.Expr:
    """Return the column as text without blanks around it, null where it stands for a missing value."""
    return present(written(column))
