"""A published log of events, one line each, fields split by a separator: read in blocks, faults named by row.

Every line is split as text, so that a line of the wrong width is seen wherever it is; polars' own reader
fills short lines with nulls. Blank lines are skipped but counted, so that rows are the lines an editor shows.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from bench.data.readers.blocks import Block, bad_byte, blocks
from bench.data.readers.known import require_known
from bench.data.schema import EventStream, Part, Position
from bench.errors import UserError

WHOLE_LINE = "\x02"  # a separator that occurs in no log: the whole line is one field
ROW, WIDTH, GOOD = "row of the file", "fields of the line", "all fields are right"
BAD_ROWS = 5  # malformed rows that an error names
BAD = "malformed rows"

OnBadRow = Literal["error", "skip"]


@dataclass(frozen=True)
class LogOptions:
    """What the options of all readers of logs have in common."""

    on_bad_row: OnBadRow = "error"
    """A malformed row: `error` names the first ones and stops, `skip` leaves them out and counts them."""


@dataclass(frozen=True)
class Field:
    """A typed column, made from the text columns."""

    name: str
    value: pl.Expr
    """Over the text columns; null where the text is wrong."""
    expected: str
    """What the text should have been, for the message."""
    column: str = ""
    """The text column that the message names; empty: the one called like the field."""
    optional: bool = False
    """True: null stands for an unknown value and is no fault."""


@dataclass(frozen=True)
class Faults:
    """The malformed rows of a block."""

    count: int
    rows: list[str]
    """Row, value and expectation of the first ones."""

    def error(self, block: Block) -> UserError:
        """Return the error that names them, the very first with its cure."""
        rest = [row.split(": ", 1)[0] for row in self.rows[1:]]
        more = ", ".join(rest) + " and more" * (self.count > len(self.rows))
        also = f" (also bad here: {more})" if rest else ""
        fix = "repair or remove the line, get it again, or leave such rows out by --on-bad-row skip"
        return UserError(f"{block.path}: {self.rows[0]}{also}; {fix}")


@dataclass(frozen=True)
class LogFiles(EventStream):
    """Log files of one form, read one after another; plain or gzip-compressed."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    """Names of the text columns, one per field of the line."""
    fields: tuple[Field, ...]
    """What is made of them."""
    select: Callable[[pl.LazyFrame], pl.LazyFrame]
    """Typed rows -> user, item, behavior, timestamp; may filter and explode."""
    separator: str = ","
    header: bool = False
    """True: the first line of each file is one, and is skipped."""
    dropped: Mapping[str, pl.Expr] = field(default_factory=dict)
    """Why -> condition over the typed columns: rows that `select` leaves out and that are to be counted."""
    on_bad_row: OnBadRow = "error"
    lossy: bool = False
    """True: bytes that are no UTF-8 become U+FFFD instead of a fault."""

    @property
    def identity(self) -> str:
        """Names, sizes and times of the files, and how they are read."""
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        # What `select` closes over is not visible here: whoever prepares adds the reader's options.
        form = [self.columns, [(f.name, str(f.value)) for f in self.fields], self.separator, self.header]
        return hashlib.sha256(json.dumps([stats, form, self.on_bad_row, self.lossy]).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    def parts(self, start: Position = Position()) -> Iterator[Part]:  # noqa: B008 (frozen)
        """See `EventStream`.

        Raises:
            UserError: a line of another width, a wrong field or bytes that are no UTF-8 (unless bad rows are
                skipped), a damaged or unreadable file, no line in a file.
        """
        for block, typed, faults in self.frames(start):
            counts = [condition.sum().alias(name) for name, condition in self.dropped.items()]
            seen = typed.select(pl.len().alias(""), *counts).row(0, named=True)
            rows = seen.pop("") + faults.count
            dropped = {name: count for name, count in (*seen.items(), (BAD, faults.count)) if count}
            events = self.select(typed.lazy()).collect()
            bad_rows = tuple(f"{block.path}: {row}" for row in faults.rows)
            yield Part(events, rows, dropped, block.end, block.size, bad_rows)

    def frames(
        self,
        start: Position = Position(),  # noqa: B008 (frozen)
    ) -> Iterator[tuple[Block, pl.DataFrame, Faults]]:
        """Yield blocks of lines with their typed rows, malformed ones left out, and what was left out.

        Raises:
            UserError: like `parts`.
        """
        for block in blocks(self.files, start):
            sound = self._sound(block)
            if sound is not None:
                yield block, sound, Faults(0, [])
                continue
            lines, checked = self.checked(block)
            typed = checked.select(GOOD, *(f.name for f in self.fields))
            bad = lines.filter(~typed[GOOD])
            faults = Faults(
                len(bad), [self._fault(line, block) for line in bad.head(BAD_ROWS).iter_slices(1)]
            )
            if faults.count and self.on_bad_row == "error":
                raise faults.error(block)
            if not len(typed) and block.start.row == 0 and block.last:
                problem = f"row {1 + self.header}: nothing there, expected events"
                raise UserError(f"{block.path}: {problem}; get the file again")
            yield block, (typed.filter(GOOD) if faults.count else typed).drop(GOOD), faults

    def checked(self, block: Block) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the lines of a block as text, and typed with their row and whether all fields are right."""
        lines = self._lines(block)
        fields = [f.value.alias(f.name) for f in self.fields if f.name != ROW]
        made = lines.lazy().select(ROW, WIDTH, *fields)
        return lines, made.with_columns(self._good().alias(GOOD)).drop(WIDTH).collect()

    def table(self, ids: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Read the files again for the items kept: column item and `columns` as they stand at its first row.

        Memory grows with the number of ids and the size of a block, not with the files.

        Raises:
            UserError: like `parts`; or none of the items stands in the files.
        """
        wanted = ids.alias("item").to_frame()
        parts: list[pl.DataFrame] = []
        first = ids.clear()
        for _, typed, _ in self.frames():
            first = first if len(first) else typed["item"].head(3)
            rows = typed.lazy().select("item", *columns).unique("item", keep="first", maintain_order=True)
            parts.append(rows.join(wanted.lazy(), on="item", how="semi", maintain_order="left").collect())
            wanted = wanted.join(parts[-1], on="item", how="anti")
            if wanted.is_empty():
                break
        table = pl.concat(parts)
        require_known(self.files[0], len(table), first, ids)
        return table

    def _sound(self, block: Block) -> pl.DataFrame | None:
        """Return the typed rows of a block, or None where a line may be wrong; much faster than `_lines`.

        Polars' reader fills short lines with nulls, cuts long ones off, and makes null of an empty field. So
        all is well where the last field is never null and there are as many separators as fields ask for.
        """
        if len(self.separator) > 1:
            return None
        header = int(self.header and block.start.row == 0)
        last = pl.col(self.columns[-1]).is_not_null().alias(GOOD)
        try:
            text = pl.scan_csv(
                block.text, has_header=False, schema=dict.fromkeys(self.columns, pl.String), quote_char=None,
                separator=self.separator, skip_rows=header, truncate_ragged_lines=True,
            )  # fmt: skip
            fields = [field.value.alias(field.name) for field in self.fields]
            typed = text.select(last, pl.col(self.columns).fill_null("")).select(GOOD, *fields).collect()
        except PolarsError:
            return None
        separators = block.text.count(self.separator.encode())
        if separators != (len(typed) + header) * (len(self.columns) - 1) or not typed[GOOD].all():
            return None
        if not len(typed) or any(typed[f.name].null_count() for f in self.fields if not f.optional):
            return None
        return typed.drop(GOOD)

    def _lines(self, block: Block) -> pl.DataFrame:
        """Return row of the file, number of fields (0: bytes that are no text), and the fields as text; blank
        lines left out.
        """
        undecodable: list[int] = []
        try:
            lines = _whole_lines(block, self.lossy)
        except PolarsError as error:
            rows = block.text.split(b"\n")
            undecodable = [row for row, text in enumerate(rows, block.start.row + 1) if bad_byte(text)]
            if not undecodable:
                problem = f"cannot be read ({str(error).splitlines()[0]}); get the file again"
                raise UserError(f"{block.path}: {problem}") from error
            lines = _whole_lines(block, lossy=True)
        line = pl.col("line")
        first_field = block.start.row == 0 and self.header
        fields = line.str.split_exact(self.separator, len(self.columns) - 1)
        width = line.str.count_matches(self.separator, literal=True) + 1
        known = pl.when(~pl.col(ROW).is_in(undecodable)).then(width).otherwise(0).alias(WIDTH)
        given = lines.lazy().filter(line.is_not_null() & (pl.col(ROW) > int(first_field)))
        return given.select(
            ROW, known, fields.struct.rename_fields(list(self.columns)).struct.unnest()
        ).collect()

    def _good(self) -> pl.Expr:
        """Return the condition, over the typed columns, that a row has no fault."""
        required = [pl.col(f.name).is_not_null() for f in self.fields if not f.optional]
        return pl.all_horizontal(pl.col(WIDTH) == len(self.columns), *required)

    def _fault(self, line: pl.DataFrame, block: Block) -> str:
        row = line[ROW][0]
        if not line[WIDTH][0]:
            return f"row {row}: byte {bad_byte(block.line(row))} is not UTF-8, expected text in UTF-8"
        if line[WIDTH][0] != len(self.columns):
            texts = [line[name][0] for name in self.columns]
            line_text = ",".join(text for text in texts if text is not None)
            problem = f"{line[WIDTH][0]} columns in '{line_text}', expected {len(self.columns)}"
        else:
            wrong = next(f for f in self.fields if not f.optional and line.select(f.value).item() is None)
            column = wrong.column or wrong.name
            problem = f"{column} '{line[column][0]}', expected {wrong.expected}"
        header = row == 1 and not self.header and not any(map(str.isdigit, "".join(self._texts(line))))
        return f"row {row}: {problem}" + " (a header, where none belongs?)" * header

    def _texts(self, line: pl.DataFrame) -> list[str]:
        return [text for name in self.columns if (text := line[name][0]) is not None]


def whole(column: str) -> pl.Expr:
    """Return the column as int64, null where the text is no whole number of 64 bits."""
    return pl.col(column).cast(pl.Int64, strict=False)


def number_field(name: str, expected: str, column: str = "", low: int = 0, high: int = 2**63 - 1) -> Field:
    """Return a field of whole numbers from `low` to `high`."""
    value = whole(column or name)
    return Field(name, pl.when(value.is_between(low, high)).then(value), expected, column)


def id_field(name: str, column: str = "") -> Field:
    """Return the field of an id: a whole number of 0 or more."""
    return number_field(name, "a whole number of 0 or more", column)


def among(name: str, values: Sequence[str], column: str = "") -> Field:
    """Return a field of text with a few known values."""
    text = pl.col(column or name)
    return Field(name, pl.when(text.is_in(list(values))).then(text), f"one of {', '.join(values)}", column)


def log_file(raw: Path | None, data_set: str, names: Sequence[str]) -> Path:
    """Return the log: `raw` itself, or the first of `names` that is inside it, each also with .gz behind.

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
    paths = [raw / (name + ending) for name in names for ending in ("", ".gz")]
    first = next((path for path in paths if path.is_file()), None)
    if first is None:
        wanted = " or ".join(names)
        fix = "unpack the publisher's archive and give its folder by --raw"
        raise UserError(f"{raw}: expected {wanted} there; {fix}")
    return first


def _whole_lines(block: Block, lossy: bool) -> pl.DataFrame:
    """Return row of the file and line, null where it is blank."""
    return pl.read_csv(
        block.text, has_header=False, schema={"line": pl.String}, separator=WHOLE_LINE, quote_char=None,
        row_index_name=ROW, row_index_offset=block.start.row + 1, encoding="utf8-lossy" if lossy else "utf8",
    )  # fmt: skip
