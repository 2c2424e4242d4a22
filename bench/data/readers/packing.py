"""Files of text, plain or gzip-compressed: their first bytes say which, not their name."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from bench.errors import UserError

GZIP = b"\x1f\x8b"
OTHERS = {
    b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a rar archive",
    b"\x28\xb5\x2f\xfd": "zstd-compressed", b"\x04\x22\x4d\x18": "lz4-compressed",
    b"\xfd7zXZ\x00": "xz-compressed", b"BZh": "bzip2-compressed", b"PAR1": "a parquet file",
    b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text",
}  # fmt: skip
"""First bytes of what is often taken for plain text or gzip -> what it is."""


def is_gzip(path: Path) -> bool:
    """Return whether a file is gzip-compressed, whatever its name; plain text is not.

    Raises:
        UserError: it cannot be read, is compressed in another way, or is named .gz and is not compressed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); see that the file is there") from error
    if head.startswith(GZIP):
        return True
    if kind := next((kind for magic, kind in OTHERS.items() if head.startswith(magic)), None):
        fix = "save it as UTF-8" if kind.endswith("text") else "unpack or convert it first"
        raise UserError(f"{path}: cannot be read: it is {kind}, expected UTF-8 text, plain or gzip; {fix}")
    if path.suffix == ".gz" and head:
        problem = f"named .gz, it is no gzip file (begins with {head!r}): not compressed, damaged or cut off"
        raise UserError(f"{path}: cannot be read: {problem}; name it without .gz, or get the file again")
    return False


def opened(path: Path) -> BinaryIO:
    """Open a file for reading its text, after decompression; errors like `is_gzip`, also while reading."""
    return cast(BinaryIO, gzip.open(path)) if is_gzip(path) else path.open("rb")


def whole_text(path: Path) -> bytes:
    """Return all of a short file after decompression.

    Raises:
        UserError: like `is_gzip`, or it is damaged or cut off.
    """
    try:
        with opened(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from error
