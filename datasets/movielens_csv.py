"""MovieLens from files brought by the user: latest-small, 25M, 32M (CSV) and 1M (`::`), with any posters.

The form is found by the file names. CSV files are read in one typed stream; only when that meets a fault is
the file gone through line by line, to name the place. `.dat` files are UTF-8 where they decode so, else
Latin-1 (1M). The ratings keep their file order, which breaks ties of time.

F. M. Harper, J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import polars as pl
from polars.exceptions import PolarsError

from bench.cards import DatasetCard
from bench.data.schema import RawData
from bench.errors import UserError

CARD = DatasetCard(
    name="movielens",
    title="MovieLens latest-small, 25M, 32M or 1M: ratings as click and favor, with titles, genres, posters",
    real=True,
    licence=(
        "GroupLens terms, in the README of each download: research use, commercial use by permission only; "
        "posters belong to their studios and must not be passed on"
    ),
    published="https://grouplens.org/datasets/movielens/ (Harper and Konstan, ACM TiiS 5(4), 2015)",
    files=(
        "ratings.csv and movies.csv (or both .csv.gz), or ratings.dat and movies.dat of the 1M set; "
        "optional: a folder posters with MOVIEID.jpg"
    ),
    behaviors="click (every rating), favor as well (rating 4 or higher); rule=disjoint: favor or else click",
    modalities="text (title, genres, year); images where there are posters",
    size="100,004 ratings of 671 users (latest-small of 2016); 1,000,209 of 6,040 users (1M)",
    dirt=(
        "There is one raw behavior, so two are made of it. rule=nested is the default: who rates a movie has "
        "seen it, hence each rating is a click whatever its stars, and favors are a subset of the clicks as "
        "likes are in logs of two behaviors. The click of a favor has the favor's own timestamp and stands "
        "right before it: keep protocol drop_target_click at same_timestamp. '(no genres listed)' is left "
        "out of the text; years such as (2007-) and (1975-1979) count by their first. Movies with no poster "
        "have no image; with_poster_only=true drops them and their ratings."
    ),
)

WHOLE = "^[0-9]{1,18}$"
NUMBER = r"^[0-9]+(\.[0-9]+)?$"
ANY = ""
EXPECTED = {WHOLE: "a whole number", NUMBER: "a number of stars"}
RATINGS = {"userId": WHOLE, "movieId": WHOLE, "rating": NUMBER, "timestamp": WHOLE}
MOVIES = {"movieId": WHOLE, "title": ANY, "genres": ANY}
SUFFIXES = (".csv", ".csv.gz", ".dat")
YEAR = r"\s*\((\d{4})(?:[-–](?:\d{4})?)?\)\s*$"


@dataclass(frozen=True)
class Options:
    """How ratings become behaviors, and where the posters are."""

    favor_rating: float = 4.0
    """Ratings from here on are a `favor`, in stars 0.5..5."""
    rule: Literal["disjoint", "nested"] = "nested"
    """`nested`: a rating is a click, and a favor as well if high. `disjoint`: it is a favor or a click."""
    posters: str = "posters"
    """Folder inside the raw folder with `<movieId>.jpg`; the usual one may be missing."""
    with_poster_only: bool = False
    """Keep only the movies that have a poster, and their ratings."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the ratings as events and the movies with their text and poster.

    Args:
        raw: folder with the files.
        options: threshold, rule and posters.

    Raises:
        UserError: a file is missing or cannot be read, a line is malformed, no rating reaches `favor_rating`,
            or posters are asked for that are not there.
    """
    if raw is None:
        raise UserError(f"movielens: no files given; give by --raw a folder with {CARD.files}")
    ratings_file, movies_file = _file(raw, "ratings"), _file(raw, "movies")
    ratings = _checked(ratings_file, RATINGS)
    if ratings.is_empty():
        raise UserError(f"{ratings_file}: holds no rating, expected one a line; get the file again")
    posters = _posters(raw, options)
    items = _texts(_checked(movies_file, MOVIES))
    if posters is not None:
        items = items.join(posters, on="item", how="full", coalesce=True, maintain_order="left_right")
    if options.with_poster_only and posters is not None:
        items = items.filter(pl.col("image").is_not_null())
        ratings = ratings.filter(pl.col("movieId").is_in(posters["item"].implode()))
        if ratings.is_empty():
            problem = "no rated movie has a poster there, expected files such as 1.jpg named by movieId"
            raise UserError(f"{raw / options.posters}: {problem}; rename them or set with_poster_only=false")
    events, mapping = _events(ratings, ratings_file, options)
    return RawData(events=events, behaviors=("click", "favor"), mapping=mapping, items=items)


def _file(folder: Path, stem: str) -> Path:
    paths = [folder / (stem + suffix) for suffix in SUFFIXES]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        expected = ", ".join(path.name for path in paths)
        raise UserError(f"{folder}: expected one of {expected} there; give the unzipped folder by --raw")
    return found


def _posters(folder: Path, options: Options) -> pl.DataFrame | None:
    """Return item (int64) and image (path) of the posters, ids ascending; None without their folder."""
    place = folder / options.posters
    if not place.is_dir():
        if options.with_poster_only or options.posters != Options.posters:
            fix = "set posters=FOLDER, or leave posters and with_poster_only out"
            raise UserError(f"{place}: no such folder, expected posters there; {fix}")
        return None
    names = [path.stem for path in place.glob("*.jpg") if re.fullmatch(WHOLE, path.stem)]
    files = pl.DataFrame({"name": names}, schema={"name": pl.String})
    image = pl.format("{}/{}.jpg", pl.lit(str(place)), "name")
    ids = pl.col("name").cast(pl.Int64).alias("item")
    return files.select(ids, image.alias("image")).sort("item")


def _events(ratings: pl.DataFrame, path: Path, options: Options) -> tuple[pl.DataFrame, str]:
    """Return user, item, behavior, timestamp in file order, and the rule in words."""
    stars = f"{options.favor_rating:g}"
    favored = pl.col("rating") >= options.favor_rating
    if not ratings.select(favored.any()).item():
        highest = ratings.select(pl.col("rating").max()).item()
        raise UserError(f"{path}: favor_rating = {stars}: no rating is that high; take {highest:g} or less")
    if options.rule == "nested":
        behavior = pl.when(favored).then(pl.lit(["click", "favor"])).otherwise(pl.lit(["click"]))
        mapping = f"every rating -> click, rating >= {stars} -> favor as well, at the same time"
    else:
        behavior = pl.when(favored).then(pl.lit(["favor"])).otherwise(pl.lit(["click"]))
        mapping = f"rating >= {stars} -> favor, any other rating -> click"
    columns = (pl.col("userId").alias("user"), pl.col("movieId").alias("item"))
    return ratings.select(*columns, behavior.alias("behavior"), "timestamp").explode("behavior"), mapping


def _texts(movies: pl.DataFrame) -> pl.DataFrame:
    """Return item (int64) and title: name, genres and year as one text, null where there is no name."""
    name = pl.col("title").str.replace(YEAR, "").str.strip_chars()
    genres = pl.col("genres").str.replace("(no genres listed)", "", literal=True)
    genres = genres.str.replace_all("|", " ", literal=True)
    parts = [name, genres, pl.col("title").str.extract(YEAR)]
    words = pl.concat_str(parts, separator=" ", ignore_nulls=True).str.replace_all(r"\s+", " ")
    text = pl.when(name != "").then(words.str.strip_chars())
    return movies.select(pl.col("movieId").alias("item"), text.alias("title"))


def _checked(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Return the columns of a file: int64 where `WHOLE`, float64 where `NUMBER`, else text.

    Args:
        path: CSV with a header, or `.dat` without one.
        columns: name -> pattern that its values match.

    Raises:
        UserError: the first malformed line, or a file that cannot be read.
    """
    try:
        frame = _text(path, columns).select(_typed(*column) for column in columns.items())
        values = frame.collect(engine="streaming")
    except (PolarsError, OSError) as error:
        raise _fault(path, columns, str(error).partition("\n")[0]) from error
    holes = {name: values[name].null_count() for name in columns}
    if any(holes[name] for name in columns if columns[name] != ANY):
        raise _fault(path, columns, "a value is missing")
    if any(holes.values()) and (problem := _first_problem(path, columns)):
        raise UserError(f"{path}: {problem}")
    return values


def _typed(name: str, pattern: str) -> pl.Expr:
    if pattern == ANY:
        return pl.col(name)
    fits = pl.when(pl.col(name).str.contains(pattern)).then(pl.col(name))
    return fits.cast(pl.Int64 if pattern == WHOLE else pl.Float64).alias(name)


def _text(path: Path, columns: Mapping[str, str]) -> pl.LazyFrame:
    """Return the fields of each line as text; all are null where a `.dat` line has another width."""
    if path.suffix != ".dat":
        frame = pl.scan_csv(path, infer_schema=False, glob=False)
        _require(path, frame.collect_schema().names(), columns)
        return frame
    source = io.BytesIO(_decoded(path).encode())
    lines = pl.read_csv(source, separator="\x1f", has_header=False, quote_char=None, infer_schema=False)
    fields = pl.col(lines.columns[0]).str.split("::")
    fields = pl.when(fields.list.len() == len(columns)).then(fields)
    return lines.lazy().select(fields.list.get(n, null_on_oob=True).alias(c) for n, c in enumerate(columns))


def _require(path: Path, found: list[str], columns: Mapping[str, str]) -> None:
    if missing := [name for name in columns if name not in found]:
        problem = f"no column '{missing[0]}' in '{','.join(found)}', expected {','.join(columns)}"
        raise UserError(f"{path}: row 1: {problem}; repair the header")


def _decoded(path: Path) -> str:
    """Return the text of a `.dat` file: UTF-8 (10M), else Latin-1 (1M)."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _fault(path: Path, columns: Mapping[str, str], reason: str) -> UserError:
    problem = _first_problem(path, columns)
    return UserError(f"{path}: {problem or f'cannot be read ({reason}); get the file again'}")


def _first_problem(path: Path, columns: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first malformed line; None where none is, or it cannot be unpacked."""
    records = _records(path)
    try:
        header = list(columns) if path.suffix == ".dat" else next(records, (1, list(columns)))[1]
        for row, fields in records:
            if len(fields) != len(header):
                problem = f"{len(fields)} columns in {fields}, expected {len(header)}"
                return f"row {row}: {problem}; repair or remove the line"
            for name, pattern in columns.items():
                value = fields[header.index(name)]
                if not re.search(pattern, value):
                    problem = f"{name} '{value}', expected {EXPECTED[pattern]}"
                    return f"row {row}: {problem}; repair or remove the line"
    except UnicodeDecodeError as error:
        return f"{error.reason}; save the file as UTF-8"
    except (OSError, EOFError, zlib.error, csv.Error):
        return None
    return None


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return the fields of every record with its 1-based line, the CSV header included."""
    if path.suffix == ".dat":
        lines = io.StringIO(_decoded(path))
        yield from enumerate((line.rstrip("\r\n").split("::") for line in lines), 1)
    else:
        reader = csv.reader(_utf8_lines(path))
        yield from ((reader.line_num, record) for record in reader)


def _utf8_lines(path: Path) -> Iterator[str]:
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    with cast(BinaryIO, opened) as file:
        for row, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if row == 1 else "utf-8")
            except UnicodeDecodeError as error:
                error.reason = f"row {row}: byte {line[error.start]:#04x} is not UTF-8"
                raise
