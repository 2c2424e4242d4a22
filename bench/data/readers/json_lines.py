"""A published log with one JSON object per line: read in blocks like the other raw logs, faults named by row.

A block is parsed at once. Only where that fails is it halved until the broken lines stand alone, so that a
sound file costs nothing and a broken line nothing but itself.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars.exceptions import PolarsError

from bench.data.readers.blocks import Block, bad_byte
from bench.data.readers.log import ROW, WIDTH, LogFiles

SHOWN = 60  # characters of a broken line in the message


@dataclass(frozen=True)
class JsonLines(LogFiles):
    """Files of JSON objects. `columns` are keys, whose numbers come as text; other keys are not read.

    A missing key is null, and so is anything but a list where one is expected.
    """

    lists: tuple[str, ...] = ()
    """Those of `columns` that hold a list of texts."""

    def _sound(self, block: Block) -> None:
        """Leave it to `_lines`, which is as fast where no line is wrong."""

    def _lines(self, block: Block) -> pl.DataFrame:
        """Return row of the file, number of fields (0 where the line is no object), and the fields."""
        text = block.text.removeprefix(codecs.BOM_UTF8)
        count = text.count(b"\n") + (not text.endswith(b"\n"))
        first = block.start.row + 1
        if (parsed := self._parsed(text)) is not None and len(parsed) == count:
            return parsed.with_row_index(ROW, first)
        filled = [(row, line) for row, line in enumerate(text.split(b"\n"), first) if line.strip()]
        rows = pl.Series(ROW, [row for row, _ in filled], pl.UInt32)
        return self._one_by_one([line for _, line in filled]).insert_column(0, rows)

    def _one_by_one(self, lines: Sequence[bytes]) -> pl.DataFrame:
        """Return a row for each line that is not blank; its fields are null where it cannot be parsed."""
        parsed = self._parsed(b"\n".join(lines)) if lines else self._unread(0)
        if parsed is not None and len(parsed) == len(lines):
            return parsed
        if len(lines) == 1:
            return self._unread(1)
        half = len(lines) // 2
        return pl.concat([self._one_by_one(lines[:half]), self._one_by_one(lines[half:])])

    def _parsed(self, text: bytes) -> pl.DataFrame | None:
        try:
            rows = pl.read_ndjson(text, schema=self._schema(), ignore_errors=True)
        except PolarsError:  # a line that is no JSON; a value of another type is null instead
            return None
        return rows.with_columns(pl.lit(len(self.columns), pl.UInt32).alias(WIDTH))

    def _unread(self, count: int) -> pl.DataFrame:
        fields = pl.DataFrame(schema=self._schema()).clear(count)
        return fields.with_columns(pl.lit(0, pl.UInt32).alias(WIDTH))

    def _schema(self) -> dict[str, pl.DataType]:
        return {name: pl.List(pl.String) if name in self.lists else pl.String() for name in self.columns}

    def _fault(self, line: pl.DataFrame, block: Block) -> str:
        row = line[ROW][0]
        raw = block.line(row).removeprefix(codecs.BOM_UTF8).strip()
        if byte := bad_byte(raw):
            return f"row {row}: byte {byte} is not UTF-8, expected a JSON object in UTF-8"
        text = raw.decode()
        start = f"{text[:SHOWN]}..." if len(text) > SHOWN else text
        if not line[WIDTH][0]:
            return f"row {row}: '{start}' cannot be parsed, expected one complete JSON object"
        wrong = next(f for f in self.fields if not f.optional and line.select(f.value).item() is None)
        column = wrong.column or wrong.name
        value = line[column][0]
        problem = f"no {column} in '{start}'" if value is None else f"{column} '{value}'"
        return f"row {row}: {problem}, expected {wrong.expected}"
