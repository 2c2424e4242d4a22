"""The movies of a MovieLens download: movies.csv, quoted like any CSV, or movies.dat, split by `::`.

There are at most some 90,000 of them, so that they are read line by line. `.dat` files are UTF-8 where they
decode so (10M), else Latin-1 (1M).
"""

from pathlib import Path

import polars as pl

from bench.data.readers.log import ROW, OnBadRow
from bench.data.readers.missing import present
from bench.data.readers.packing import whole_text
from bench.data.readers.quoted import lines_of, refused, sound_rows, table_of

COLUMNS = ("movieId", "title", "genres")
WHOLE = "^[0-9]{1,18}$"
YEAR = r"\s*\((\d{4})(?:[-–](?:\d{4})?)?\)\s*$"


def movies_of(path: Path, on_bad_row: OnBadRow) -> tuple[pl.DataFrame, int]:
    """Return the movies and the number of rows left out.

    Args:
        path: movies.csv with a header or movies.dat without one, plain or gzip-compressed.
        on_bad_row: what to do with a malformed row.

    Returns:
        item (int64) and title: name, genres and year as one text, null where there is no name; and the
        number of malformed rows, which `skip` leaves out.

    Raises:
        UserError: a malformed row under `error`, a header without one of the columns, an unreadable file.
    """
    data = whole_text(path)
    if ".dat" in path.suffixes:
        records = ((row, line, list[str](line.split("::"))) for row, line in lines_of(_decoded(data)))
        movies, faults = sound_rows(records, COLUMNS, COLUMNS)
    else:
        movies, faults = table_of(path, data.decode("utf-8-sig", "surrogateescape"), COLUMNS)
    whole = pl.col("movieId").str.contains(WHOLE)
    for row, movie in movies.filter(~whole).select(ROW, "movieId").iter_rows():
        faults[row] = f"movieId '{movie}', expected a whole number"
    if faults and on_bad_row == "error":
        raise refused(path, faults)
    return _texts(movies.filter(whole)), len(faults)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _texts(movies: pl.DataFrame) -> pl.DataFrame:
    name = present(pl.col("title").str.replace(YEAR, "").str.strip_chars())
    genres = present(pl.col("genres")).str.replace("(no genres listed)", "", literal=True)
    genres = genres.str.replace_all("|", " ", literal=True)
    parts = [name, genres, pl.col("title").str.extract(YEAR)]
    words = pl.concat_str(parts, separator=" ", ignore_nulls=True).str.replace_all(r"\s+", " ")
    text = pl.when(name.is_not_null()).then(words.str.strip_chars())
    return movies.select(pl.col("movieId").cast(pl.Int64).alias("item"), text.alias("title"))
