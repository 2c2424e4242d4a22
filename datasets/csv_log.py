"""A published log of events, comma-separated without quotes: read lazily, a fault named by its row.

Every line is split as text, so that a line of the wrong width is seen wherever it is; polars' own reader
fills short lines with nulls. Blank lines are skipped but counted, so that rows are the lines an editor shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from bench.errors import UserError, hint

UNUSED = "\x01"  # occurs in no log: the whole line is one field
ROW, WIDTH = "row of the file", "columns of the line"


@dataclass(frozen=True)
class Rule:
    """What a value must not be, as an expression over the text columns (null counts as wrong)."""

    column: str
    wrong: pl.Expr
    expected: str


@dataclass(frozen=True)
class Log:
    """A comma-separated file whose columns are read as text."""

    path: Path
    columns: tuple[str, ...]
    header: bool

    def scan(self) -> pl.LazyFrame:
        """Return the lines lazily: `columns` as text, the 1-based row, and the number of fields."""
        frame = pl.scan_csv(
            self.path, has_header=False, schema={"line": pl.String}, separator=UNUSED, quote_char=None,
            glob=False, row_index_name=ROW, row_index_offset=1,
        )  # fmt: skip
        line = pl.col("line")
        fields = line.str.split_exact(",", len(self.columns) - 1).struct.rename_fields(list(self.columns))
        width = line.str.count_matches(",", literal=True).alias(WIDTH) + 1
        kept = frame.filter(line.is_not_null() & (pl.col(ROW) > int(self.header)))
        return kept.select(ROW, width, fields.struct.unnest())

    def check(self, rules: Sequence[Rule], counts: Mapping[str, pl.Expr] | None = None) -> dict[str, Any]:
        """Check all lines in one stream.

        Args:
            rules: tried in this order on the first faulty row.
            counts: name -> aggregate over the text columns, evaluated on the way.

        Returns:
            The values of `counts`.

        Raises:
            UserError: a line of another width, a value against a rule, bytes that are no UTF-8, no line.
        """
        width = pl.col(WIDTH) != len(self.columns)
        wrong = pl.any_horizontal(width, *(rule.wrong.fill_null(True) for rule in rules))
        first = pl.col(ROW).filter(wrong).min().alias("first fault")
        asked = [expression.alias(name) for name, expression in (counts or {}).items()]
        seen = self.collect(self.scan().select(first, pl.len().alias("all lines"), *asked)).row(0, named=True)
        row, lines = seen.pop("first fault"), seen.pop("all lines")
        if row is not None:
            raise self._fault(row, rules)
        if not lines:
            problem = f"row {1 + self.header}: nothing there, expected events"
            raise UserError(f"{self.path}: {problem}; get the file again")
        return seen

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Evaluate a frame that was made from `scan` in one stream.

        Raises:
            UserError: the file cannot be read, or is not UTF-8.
        """
        try:
            return frame.collect(engine="streaming")
        except (PolarsError, OSError) as error:
            raise UserError(f"{self.path}: {_reason(self.path, error)}") from error

    def _fault(self, row: int, rules: Sequence[Rule]) -> UserError:
        line = self.collect(self.scan().filter(pl.col(ROW) == row))
        if line[WIDTH][0] != len(self.columns):
            texts = [line[name][0] for name in self.columns]
            shown = ",".join(text for text in texts if text is not None)
            problem = f"{line[WIDTH][0]} columns in '{shown}', expected {len(self.columns)}"
        else:
            rule = next(r for r in rules if line.select(r.wrong.fill_null(True)).item())
            problem = f"{rule.column} '{line[rule.column][0]}', expected {rule.expected}"
        return UserError(f"{self.path}: row {row}: {problem}; repair or remove the line, or get it again")


def whole(column: str) -> pl.Expr:
    """Return the column as int64, null where the text is no whole number of 64 bits."""
    return pl.col(column).cast(pl.Int64, strict=False)


def id_rule(column: str) -> Rule:
    """Return the rule of an id column: a whole number of 0 or more."""
    return Rule(column, whole(column) < 0, "a whole number of 0 or more")


def among(column: str, values: Sequence[str]) -> Rule:
    """Return the rule of a column with a few known values."""
    return Rule(column, ~pl.col(column).is_in(list(values)), f"one of {', '.join(values)}")


def log_file(raw: Path | None, data_set: str, names: Sequence[str]) -> Path:
    """Return the log: `raw` itself, or the first of `names` that is inside it.

    Args:
        raw: file or folder given by the user.
        data_set: name of the data set, for the message.
        names: paths relative to the folder.

    Raises:
        UserError: nothing was given, or the file is not there.
    """
    if raw is None:
        raise UserError(f"{data_set}: no files given; put {names[0]} into a folder and give it by --raw")
    if raw.is_file():
        return raw
    found = next((raw / name for name in names if (raw / name).is_file()), None)
    if found is None:
        wanted = " or ".join(names)
        fix = "unpack the publisher's archive and give its folder by --raw"
        raise UserError(f"{raw}: expected {wanted} there; {fix}")
    return found


def headed(path: Path, needed: Sequence[str]) -> Log:
    """Open a log by its header, whose columns may stand in any order.

    Raises:
        UserError: the header is missing or lacks a column.
    """
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig", "replace").strip()
    columns = tuple(name.strip() for name in header.split(","))
    missing = [name for name in needed if name not in columns]
    if missing or len(set(columns)) < len(columns):
        problem = f"no column '{missing[0]}'" if missing else "a column twice"
        expected = f"expected a header with {', '.join(needed)}"
        raise UserError(f"{path}: row 1: {problem} in '{header}', {expected}; put the header back")
    return Log(path, columns, header=True)


def behavior_names(entries: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return raw value -> behavior, shallow -> deep, of entries such as `pv=click` or `pv`.

    Args:
        entries: the option `behaviors`.
        known: raw values of the log.

    Raises:
        UserError: an entry is malformed, given twice, or names a value that the log does not have.
    """
    names: dict[str, str] = {}
    for entry in entries:
        value, _, name = (part.strip() for part in entry.rpartition("="))
        value = value or name
        if not name or value in names:
            example = f"{known[0]}=click,{known[-1]}=favor"
            raise UserError(f"behaviors: '{entry}': expected each value once, as in {example}")
        if value not in known:
            raise UserError(f"behaviors: '{entry}': no raw behavior '{value}'; {hint(value, known)}")
        names[value] = name
    if not names:
        expected = f"expected raw=name, shallow to deep; known: {', '.join(known)}"
        raise UserError(f"behaviors: nothing given; {expected}")
    return names


def mapping_text(names: Mapping[str, str], known: Sequence[str]) -> str:
    """Return the mapping in words: what became what, and what was dropped."""
    words = [f"{value} -> {name}" for value, name in names.items()]
    return ", ".join(words + [f"{value} dropped" for value in known if value not in names])


def item_table(events: pl.DataFrame, attributes: Sequence[str]) -> pl.DataFrame:
    """Return one row an item with its attributes as they stand at its first event."""
    return events.select("item", *attributes).unique("item", keep="first", maintain_order=True)


def _reason(path: Path, error: Exception) -> str:
    """Find the row that polars stumbled over: bytes that are not UTF-8."""
    with path.open("rb") as file:
        for row, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                problem = f"byte {line[wrong.start]:#04x} is not UTF-8"
                return f"row {row}: {problem}; get the file again, or save it as UTF-8"
    return f"cannot be read ({str(error).splitlines()[0]}); get the file again"
