"""Text files in blocks of whole lines, plain or gzip-compressed, from any earlier position on.

Only a line feed ends a line (a carriage return before it belongs to the end), no other separator of Unicode.
"""

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench.data.readers.packing import is_gzip
from bench.data.schema import Position
from bench.errors import UserError

SIZE = 32 * 2**20  # bytes of text read at once, after decompression


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file."""

    path: Path
    text: bytes
    start: Position
    """Position of the first line."""
    end: Position
    """Position of the first line that follows; the next file where there is none."""
    size: int
    """Bytes on disk that were read for it."""
    last: bool
    """True for the last block of its file."""

    def line(self, row: int) -> bytes:
        """Return the line of a row of the file."""
        return self.text.split(b"\n")[row - self.start.row - 1]


def blocks(files: Sequence[Path], start: Position, size: int = SIZE) -> Iterator[Block]:
    """Yield the lines of files in order, in blocks of about `size` bytes.

    Args:
        files: read one after another; what is gzip-compressed is decompressed, whatever its name.
        start: `Position()`, or the end of a block.
        size: bytes of text.

    Raises:
        UserError: a file cannot be read or is compressed in another way, or is damaged or cut off.
    """
    for number in range(start.file, len(files)):
        begin = start if number == start.file else Position(file=number)
        yield from _of_file(files[number], begin, size)


def header_of(path: Path, needed: Sequence[str], separator: str = ",") -> tuple[str, ...]:
    """Return the columns named by the first line, which may stand in any order.

    Raises:
        UserError: the header is missing, lacks a column or names one twice.
    """
    first = next(blocks((path,), Position(), size=1)).text
    header = first.partition(b"\n")[0].decode("utf-8-sig", "replace").strip()
    check_line_end(path, header)
    columns = tuple(name.strip() for name in header.split(separator))
    if missing := [name for name in needed if name not in columns]:
        problem = f"no column '{missing[0]}' in '{header}', expected a header with {', '.join(needed)}"
        raise UserError(f"{path}: row 1: {problem}; put the header back")
    check_header(path, columns)
    return columns


def check_line_end(path: Path, header: str) -> None:
    """Raise a UserError where a header holds the next lines, too: only line feeds end a line."""
    if "\r" in header.rstrip("\r"):
        problem = "carriage returns alone end its lines, expected line feeds, with or without them"
        raise UserError(f"{path}: row 1: {problem}; save the file with the line ends of Unix or Windows")


def check_header(path: Path, columns: Sequence[str], row: int = 1) -> None:
    """Raise a UserError where two columns have one name: which of them is meant is not known.

    Args:
        path: of the file, for the message.
        columns: names in the order of the file.
        row: of the header.
    """
    for position, name in enumerate(columns):
        if (first := columns.index(name)) < position:
            where = f"'{name}' is column {first + 1} and column {position + 1}"
            fix = "rename or remove one of them"
            raise UserError(f"{path}: row {row}: the header names a column twice: {where}; {fix}")


def bad_byte(line: bytes) -> str:
    """Return the first byte that is not UTF-8, like 0xff, or nothing."""
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f"{line[wrong.start]:#04x}"
    return ""


def _of_file(path: Path, at: Position, size: int) -> Iterator[Block]:
    packed = is_gzip(path)
    try:
        with path.open("rb") as disk:
            texts = _unpacked if packed else _plain
            for lines, read, last in texts(disk, at.offset, size):
                if not lines:
                    raise UserError(f"{path}: row 1: nothing there, expected lines; get the file again")
                row = at.row + lines.count(b"\n")
                end = Position(at.file + 1) if last else Position(at.file, at.offset + len(lines), row)
                yield Block(path, lines, at, end, read, last)
                at = end
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"after row {at.row}: cannot be read, the compressed file is damaged or cut off ({error})"
        raise UserError(f"{path}: {problem}; get the file again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); see that the file is there") from error


def _plain(disk: BinaryIO, offset: int, size: int) -> Iterator[tuple[bytes, int, bool]]:
    """Yield whole lines, the bytes read for them, and whether they are the last; nothing is copied."""
    end, total = offset, os.fstat(disk.fileno()).st_size
    while True:
        begin = disk.seek(end)
        disk.seek(begin + size)
        disk.readline()
        end = min(disk.tell(), total)
        disk.seek(begin)
        yield disk.read(end - begin), end - begin, end == total
        if end == total:
            return


def _unpacked(disk: BinaryIO, offset: int, size: int) -> Iterator[tuple[bytes, int, bool]]:
    """Yield the same of a compressed file, whose end shows only when a byte is asked for behind it."""
    with gzip.open(disk) as text:
        text.seek(offset)
        begin, ahead, last = disk.tell() if offset else 0, b"", False
        while not last:
            lines = b"".join((ahead, text.read(size), text.readline()))
            ahead = text.read(1)
            last = not ahead
            yield lines, disk.tell() - begin, last
            begin = disk.tell()
