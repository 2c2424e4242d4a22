"""MovieLens from files brought by the user: latest-small, 25M, 32M (CSV) and 1M (`::`), with any posters.

The form is found by the file names; each file may be gzip-compressed. The ratings are read in blocks, so that
32 million of them need no more memory than a thousand; they keep their file order, which breaks ties of time.

F. M. Harper, J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.blocks import header_of
from bench.data.readers.log import Field, LogFiles, LogOptions, id_field, number_field
from bench.data.readers.pictures import pictures
from bench.data.readers.ratings import BEHAVIORS, Rule, by_rating, check_threshold, rule_text
from bench.data.schema import RawData
from bench.datasets.movielens.movies import movies_of
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
        "ratings.csv and movies.csv, or ratings.dat and movies.dat of the 1M set, each also as .gz; "
        "optional: a folder posters with MOVIEID.jpg, .png, .webp, ..."
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
        "have no image; with_poster_only=true drops them and their ratings. Blank lines are skipped."
    ),
)

RATINGS = ("userId", "movieId", "rating", "timestamp")
SUFFIXES = (".csv", ".csv.gz", ".dat", ".dat.gz")
FIRST, LAST = 788_918_400, 4_102_444_800  # 1995 and 2100, in seconds: milliseconds are beyond


@dataclass(frozen=True)
class Options(LogOptions):
    """How ratings become behaviors, and where the posters are."""

    favor_rating: float = 4.0
    """Ratings from here on are a `favor`, in stars 0.5..5."""
    rule: Rule = "nested"
    """`nested`: a rating is a click, and a favor as well if high. `disjoint`: it is a favor or a click."""
    posters: str = "posters"
    """Folder inside the raw folder with `<movieId>.jpg`, `.png`, ...; the usual one may be missing."""
    with_poster_only: bool = False
    """Keep only the movies that have a poster, and their ratings."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the ratings as a stream of events, and the movies with their text and poster.

    Args:
        raw: folder with the files.
        options: threshold, rule and posters.

    Raises:
        UserError: a file is missing or cannot be read, a movie's line is malformed, or posters are asked for
            that are not there; on reading the ratings: a line is malformed.
    """
    check_threshold(options.favor_rating, 0.5, 5)
    if raw is None:
        raise UserError(f"movielens: no files given; give by --raw a folder with {CARD.files}")
    ratings_file, movies_file = _file(raw, "ratings"), _file(raw, "movies")
    posters = _posters(raw, options)
    movies, left_out = movies_of(movies_file, options.on_bad_row)
    if options.with_poster_only and posters is not None:
        movies = movies.join(posters, on="item", how="inner", maintain_order="left")
        if movies.is_empty():
            problem = f"no movie of {movies_file.name} has a poster there, expected files such as 1.jpg"
            raise UserError(f"{raw / options.posters}: {problem}; rename them or set with_poster_only=false")
    elif posters is not None:
        movies = movies.join(posters, on="item", how="full", coalesce=True, maintain_order="left_right")
    mapping = rule_text(options.favor_rating, options.rule)
    if left_out:
        mapping += f"; {left_out} malformed rows of {movies_file.name} left out"
    wanted = movies["item"] if options.with_poster_only else None
    events = _ratings(ratings_file, options, wanted)
    return RawData(events, BEHAVIORS, mapping, movies, pictures=raw / options.posters)


def _file(folder: Path, stem: str) -> Path:
    paths = [folder / (stem + suffix) for suffix in SUFFIXES]
    file = next((path for path in paths if path.is_file()), None)
    if file is None:
        expected = ", ".join(path.name for path in paths)
        raise UserError(f"{folder}: expected one of {expected} there; give the unzipped folder by --raw")
    return file


def _posters(folder: Path, options: Options) -> pl.DataFrame | None:
    """Return item (int64) and image (path) of the posters, ids ascending; None without their folder."""
    posters = folder / options.posters
    if not posters.is_dir():
        if options.with_poster_only or options.posters != Options.posters:
            fix = "set posters=FOLDER, or leave posters and with_poster_only out"
            raise UserError(f"{posters}: no such folder, expected posters there; {fix}")
        return None
    return pictures(posters)


def _ratings(path: Path, options: Options, wanted: pl.Series | None) -> LogFiles:
    """Return the ratings as a stream; of the wanted movies only, where they are given."""
    stars = pl.col("rating").cast(pl.Float64, strict=False)
    dat = ".dat" in path.suffixes
    ignored = None if wanted is None else ~pl.col("item").is_in(wanted.implode())
    return LogFiles(
        files=(path,),
        columns=RATINGS if dat else header_of(path, RATINGS),
        fields=(
            id_field("user", "userId"),
            id_field("item", "movieId"),
            Field("rating", pl.when(stars.is_between(0.5, 5)).then(stars), "a number of stars from 0.5 to 5"),
            number_field("timestamp", "whole seconds since 1970, from 1995 on", low=FIRST, high=LAST),
        ),
        select=_select(options, ignored),
        separator="::" if dat else ",",
        header=not dat,
        dropped={} if ignored is None else {"movies without a poster": ignored},
        on_bad_row=options.on_bad_row,
    )


def _select(options: Options, ignored: pl.Expr | None) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    def select(ratings: pl.LazyFrame) -> pl.LazyFrame:
        rows = ratings if ignored is None else ratings.filter(~ignored)
        events = by_rating(rows, "rating", options.favor_rating, options.rule)
        return events.select("user", "item", "behavior", "timestamp")

    return select
