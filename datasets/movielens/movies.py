"""The movies of a MovieLens download: movies.csv, quoted like any CSV, or movies.dat, split by `::`.

There are at most some 90,000 of them, so that they are read line by line. `.dat` files are UTF-8 where they
decode so (10M), else Latin-1 (1M).
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from bench.data.readers.log import PLACES, OnBadRow
from bench.errors import UserError

COLUMNS = ("movieId", "title", "genres")
WHOLE = "[0-9]{1,18}"
YEAR = r"\s*\((\d{4})(?:[-–](?:\d{4})?)?\)\s*$"


def movies_of(path: Path, on_bad_row: OnBadRow) -> tuple[pl.DataFrame, int]:
    """Return the movies and the number of rows left out.

    Args:
        path: movies.csv with a header or movies.dat without one, each also with .gz behind.
        on_bad_row: what to do with a malformed row.

    Returns:
        item (int64) and title: name, genres and year as one text, null where there is no name; and the
        number of malformed rows, which `skip` leaves out.

    Raises:
        UserError: a malformed row under `error`, a header without one of the columns, an unreadable file.
    """
    names, records = _records(path)
    if missing := [name for name in COLUMNS if name not in names]:
        found = f"no column '{missing[0]}' in '{','.join(names)}', expected {','.join(COLUMNS)}"
        raise UserError(f"{path}: row 1: {found}; put the header back")
    faults = [(row, problem) for row, fields in records if (problem := _problem(fields, names))]
    if faults and on_bad_row == "error":
        first, cause = faults[0]
        rest = ", ".join(f"row {row}" for row, _ in faults[1:PLACES])
        more = f" (also bad: {rest}{' and more' if len(faults) > PLACES else ''})" if rest else ""
        fix = "repair or remove the line, or leave such rows out by --on-bad-row skip"
        raise UserError(f"{path}: row {first}: {cause}{more}; {fix}")
    bad = {row for row, _ in faults}
    places = [names.index(name) for name in COLUMNS]
    kept = [[fields[place] for place in places] for row, fields in records if row not in bad]
    return _texts(pl.DataFrame(kept, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")), len(bad)


def _records(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the fields of every record that is not blank with its last row."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from error
    if ".dat" in path.suffixes:
        lines = _decoded(data).splitlines()
        return list(COLUMNS), [(row, line.split("::")) for row, line in enumerate(lines, 1) if line]
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=""))
    try:
        records: Iterator[tuple[int, list[str]]] = ((reader.line_num, fields) for fields in reader if fields)
        _, names = next(records, (1, []))
        return names, list(records)
    except csv.Error as error:
        problem = f"row {reader.line_num}: {error}, expected comma-separated fields"
        raise UserError(f"{path}: {problem}; get the file again") from error


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _problem(fields: list[str], names: list[str]) -> str | None:
    """Return what is wrong with a record."""
    if len(fields) != len(names):
        return f"{len(fields)} columns in {','.join(fields)!r}, expected {len(names)}"
    try:
        "".join(fields).encode()
    except UnicodeEncodeError as error:  # a byte that could not be decoded
        return f"byte {ord(error.object[error.start]) - 0xDC00:#04x} is not UTF-8, expected text in UTF-8"
    movie = fields[names.index("movieId")]
    return None if re.fullmatch(WHOLE, movie) else f"movieId '{movie}', expected a whole number"


def _texts(movies: pl.DataFrame) -> pl.DataFrame:
    name = pl.col("title").str.replace(YEAR, "").str.strip_chars()
    genres = pl.col("genres").str.replace("(no genres listed)", "", literal=True)
    genres = genres.str.replace_all("|", " ", literal=True)
    parts = [name, genres, pl.col("title").str.extract(YEAR)]
    words = pl.concat_str(parts, separator=" ", ignore_nulls=True).str.replace_all(r"\s+", " ")
    text = pl.when(name != "").then(words.str.strip_chars())
    return movies.select(pl.col("movieId").cast(pl.Int64).alias("item"), text.alias("title"))
