"""Delimited text whose fields may be quoted, one record per line.

A field may stand in double quotes, with the separator and doubled quotes (`""`) inside. Quotes inside a field
that does not begin with one are letters, where they come in pairs. A quote that does not close in its line is
a fault of that line: a reader that let it run on would take the following lines for one long field.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from bench.data.readers.blocks import blocks, check_header, check_line_end
from bench.data.readers.log import BAD_ROWS, ROW
from bench.data.schema import Position
from bench.errors import UserError

SHOWN = 60  # characters of a faulty line in the message


def fields_of(line: str, separator: str) -> list[str] | None:
    """Return the fields of a line, without their quotes; None where a quote does not close in it."""
    if '"' not in line:
        return line.split(separator)
    whole, single = _patterns(separator)
    if not whole.fullmatch(line):
        return None
    fields = single.findall(separator + line)
    return [f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields]


@lru_cache
def _patterns(separator: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of a line, and of a field with the separator before it."""
    mark = re.escape(separator)
    quoted = r'"[^"]*(?:""[^"]*)*"'
    bare = rf'(?!")[^"{mark}]*(?:"[^"{mark}]*"[^"{mark}]*)*'
    field = f"(?:{quoted}|{bare})"
    return re.compile(f"{field}(?:{mark}{field})*"), re.compile(f"{mark}({field})")


def open_quote(line: str) -> str:
    """Return the fault of a line whose fields are None."""
    start = f"{line[:SHOWN]}..." if len(line) > SHOWN else line
    return f"a quote does not close in its line, {start!r}"


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield row (from 1) and text of each line that is not blank; only line feeds end a line."""
    for row, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield row, line


def table_of(path: Path, text: str, needed: Sequence[str]) -> tuple[pl.DataFrame, dict[int, str]]:
    """Return `sound_rows` of a short CSV file with a header.

    Args:
        path: for messages.
        text: of the file; a byte that could not be decoded is a surrogate.
        needed: columns.

    Raises:
        UserError: the header lacks a column or names one twice.
    """
    lines = lines_of(text)
    row, line = next(lines, (1, ""))
    check_line_end(path, line)
    names = fields_of(line, ",") or [line]
    if missing := [name for name in needed if name not in names]:
        problem = f"no column '{missing[0]}' in '{','.join(names)}', expected {','.join(needed)}"
        raise UserError(f"{path}: row {row}: {problem}; put the header back")
    check_header(path, names, row)
    records = ((number, record, fields_of(record, ",")) for number, record in lines)
    return sound_rows(records, names, needed)


def sound_rows(
    records: Iterable[tuple[int, str, list[str] | None]], names: Sequence[str], needed: Sequence[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Return the row of the file and the needed columns, as text, of sound records; row -> fault of others.

    Args:
        records: row, line and fields.
        names: of all columns.
        needed: some of them.
    """
    faults: dict[int, str] = {}
    sound: list[list[object]] = []
    positions = [names.index(name) for name in needed]
    for row, line, fields in records:
        if fields is None:
            faults[row] = open_quote(line)
        elif len(fields) != len(names):
            faults[row] = f"{len(fields)} columns in {line!r}, expected {len(names)}"
        elif byte := undecoded(line):
            faults[row] = f"byte {byte} is not UTF-8, expected text in UTF-8"
        else:
            sound.append([row, *(fields[position] for position in positions)])
    schema = {ROW: pl.UInt32(), **dict.fromkeys(needed, pl.String())}
    return pl.DataFrame(sound, schema=schema, orient="row"), faults


def undecoded(text: str) -> str:
    """Return the first byte that stands as a surrogate for one that is not UTF-8, like 0xff, or nothing."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{ord(error.object[error.start]) - 0xDC00:#04x}"
    return ""


def refused(path: Path, faults: Mapping[int, str], fix: str = "repair or remove the line") -> UserError:
    """Return the error that names the first of some faulty rows."""
    first, *others = sorted(faults)
    rest = ", ".join(f"row {row}" for row in others[: BAD_ROWS - 1])
    more = f" (also bad: {rest}{' and more' if len(faults) > BAD_ROWS else ''})" if rest else ""
    skip = "or leave such rows out by --on-bad-row skip"
    return UserError(f"{path}: row {first}: {faults[first]}{more}; {fix}, {skip}")


def open_quotes(path: Path, separator: str) -> Iterator[tuple[int, str]]:
    """Yield row (from 1) and fault of the lines of a file in which a quote does not close.

    Raises:
        UserError: like `blocks`.
    """
    for block in blocks((path,), Position()):
        if b'"' not in block.text:
            continue
        for row, line in enumerate(block.text.split(b"\n"), block.start.row + 1):
            if b'"' in line:
                text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
                if fields_of(text.removeprefix("\ufeff"), separator) is None:
                    yield row, open_quote(text)
