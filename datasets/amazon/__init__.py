"""Amazon reviews of 2018 and 2023: each review is a click, a high rating a favor, with titles and categories.

Both editions are JSON lines, one file a category, `.gz` or not; the ratings of 2023 also come as CSV. The
files of a folder are read as one log, in the order of their names, in blocks: memory does not grow with them.
The item is the product (`asin` in 2018; in 2023 `parent_asin`, which joins the variants of a product and is
the key of the metadata). Times stay in the unit of the publisher: seconds in 2018, milliseconds in 2023.

J. Ni, J. Li, J. McAuley, Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects,
EMNLP-IJCNLP 2019 (2018); Y. Hou, J. Li, Z. He, A. Yan, X. Chen, J. McAuley, Bridging Language and Items for
Retrieval and Recommendation, arXiv:2403.03952, 2024 (2023).
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.blocks import blocks, header_of
from bench.data.readers.folder import files_of
from bench.data.readers.json_lines import JsonLines
from bench.data.readers.log import Field, LogFiles, LogOptions, number_field
from bench.data.readers.ratings import BEHAVIORS, Rule, by_rating, check_threshold, rule_text
from bench.data.schema import Position, RawData
from bench.datasets.amazon.products import category_of, id_field, is_meta, items_of, products
from bench.errors import UserError, hint

CARD = DatasetCard(
    name="amazon",
    title="Amazon reviews 2018 or 2023: ratings as click and favor, with titles, brands, categories",
    real=True,
    licence=(
        "none stated with the files as far as known: use for research, cite the papers; reviews and pictures "
        "belong to their authors and to Amazon, so pass nothing on"
    ),
    published=(
        "https://nijianmo.github.io/amazon (2018; cite Ni, Li, McAuley, EMNLP-IJCNLP 2019) and "
        "https://amazon-reviews-2023.github.io (2023; cite Hou, Li, He, Yan, Chen, McAuley, arXiv:2403.03952)"
    ),
    files=(
        "reviews of any categories, Books.json.gz (2018), Books.jsonl.gz or the ratings Books.csv.gz (2023), "
        "unpacked or not; optional: meta_Books.json.gz or meta_Books.jsonl.gz, a folder images with ASIN.jpg"
    ),
    behaviors="click (every review), favor as well (rating 4 or higher); rule=disjoint: favor or else click",
    modalities="text (title of the product), price; images where you have them: addresses are not fetched",
    size="2018: 233.1 million reviews; 2023: 571.54 million of 54.51 million users (as commonly quoted)",
    dirt=(
        "There is one raw behavior, so two are made of it; the click of a favor has the favor's own time and "
        "stands right before it: keep protocol drop_target_click at same_timestamp. Times of 2018 are whole "
        "days in seconds (as known), so file order breaks many ties; those of 2023 are milliseconds. "
        "Repeated reviews are kept. Books.json and its "
        "subset Books_5.json hold the same reviews: only one may be there. A product listed twice counts by "
        "its first row. A title of 2018 that is a piece of a web page's script counts as unknown. The "
        "category is the second level of the publisher's list (category_level); of a shorter list the last "
        "one, without a list the main category."
    ),
)

SUFFIXES = tuple(form + packed for form in (".jsonl", ".json", ".csv") for packed in ("", ".gz"))
FIRST, LAST = 788_918_400, 4_102_444_800  # 1995 and 2100, in seconds: milliseconds are beyond


@dataclass(frozen=True)
class Options(LogOptions):
    """Which files are read, and how ratings become behaviors."""

    favor_rating: float = 4.0
    """Ratings from here on are a `favor`, in stars 1..5."""
    rule: Rule = "nested"
    """`nested`: a rating is a click, and a favor as well if high. `disjoint`: it is a favor or a click."""
    edition: Literal["auto", "2018", "2023"] = "auto"
    """`auto` goes by the fields of the first line."""
    files: tuple[str, ...] = ()
    """Review files inside the folder; empty takes all that do not begin with meta_."""
    images: str = "images"
    """Folder inside the raw folder with `<asin>.jpg`, `.png`, ...; the usual one may be missing."""
    category_level: int = 2
    """Level of the product's list of categories that is its attribute, from 1."""


@dataclass(frozen=True)
class Edition:
    """The names of what is read of a review, in the order user, item, rating, time."""

    columns: tuple[str, str, str, str]
    unit: str
    scale: int
    """Units per second."""


EDITIONS = {
    "2018": Edition(("reviewerID", "asin", "overall", "unixReviewTime"), "seconds", 1),
    "2023": Edition(("user_id", "parent_asin", "rating", "timestamp"), "milliseconds", 1000),
}


def read(raw: Path | None, options: Options) -> RawData:
    """Return the reviews as a stream of events, and a function that reads the products of the items kept.

    Args:
        raw: folder with the files, or one review file in it.
        options: files, edition, threshold and rule.

    Raises:
        UserError: files are missing, are of two editions or hold the same reviews, or a first line is of
            neither edition.
    """
    check_threshold(options.favor_rating, 1, 5)
    if options.category_level < 1:
        raise UserError(f"category_level = {options.category_level}: expected a level of 1 or more")
    if raw is None:
        raise UserError(f"amazon: no files given; give by --raw a folder with {CARD.files}")
    files = _review_files(raw, options)
    editions = {path: _edition(path) if options.edition == "auto" else options.edition for path in files}
    edition = editions[files[0]]
    if other := [path for path in files if editions[path] != edition]:
        problem = f"is of edition {editions[other[0]]}, {files[0].name} of {edition}"
        raise UserError(f"{other[0]}: {problem}; read one edition at a time, set files=NAME,NAME")
    folder = files[0].parent
    meta = products(folder, files, edition, options.category_level, options.on_bad_row)
    images = _images(folder, options.images)
    return RawData(
        events=_events(files, EDITIONS[edition], options),
        behaviors=BEHAVIORS,
        mapping=rule_text(options.favor_rating, options.rule),
        items=partial(items_of, meta, images) if meta or images else None,
        attributes=("brand", "category") if meta else (),
        numbers=("price",) if meta else (),
        pictures=folder / options.images,
    )


def _review_files(raw: Path, options: Options) -> tuple[Path, ...]:
    """Return the review files in the order of their names.

    Raises:
        UserError: none is there, one that is named is not, two hold the same reviews, or JSON is mixed with
            CSV.
    """
    if raw.is_file():
        return (raw,)
    named = {path.name: path for path in files_of(raw) if path.name.endswith(SUFFIXES)}
    reviews = {name: path for name, path in named.items() if not is_meta(name)}
    for name in options.files:
        if name not in named:
            raise UserError(f"{raw / name}: no such file; {hint(name, reviews)}; set files=NAME,NAME")
    files = tuple(named[name] for name in options.files) or tuple(reviews.values())
    if not files:
        expected = "expected reviews such as Books.jsonl.gz there, found none"
        raise UserError(f"{raw}: {expected}; give their folder by --raw")
    _check_once(files)
    return files


def _check_once(files: tuple[Path, ...]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        if other := seen.get(category_of(path)):
            problem = f"expected a category once, {other.name} and {path.name} hold the same reviews"
            raise UserError(f"{path.parent}: {problem}; set files=NAME,NAME or move one away")
        seen[category_of(path)] = path
    if len({".csv" in path.suffixes for path in files}) > 1:
        problem = f"expected JSON lines or CSV, found both: {', '.join(path.name for path in files[:9])}"
        raise UserError(f"{files[0].parent}: {problem}; set files=NAME,NAME")


def _edition(path: Path) -> str:
    """Return the edition, recognized by the first line.

    Raises:
        UserError: the fields are those of neither edition.
    """
    if ".csv" in path.suffixes:
        return "2023"
    line = next(blocks((path,), Position(), size=1)).text.strip()
    try:
        keys = set(json.loads(line.decode("utf-8-sig")))
    except (ValueError, TypeError):
        keys = set()
    editions = [name for name, edition in EDITIONS.items() if keys.issuperset(edition.columns[:1])]
    if not editions:
        start = f"{line[:60].decode(errors='replace')}..."
        expected = "expected JSON with reviewerID (2018) or user_id (2023)"
        raise UserError(f"{path}: row 1: '{start}', {expected}; get the file again or set edition=2018")
    return editions[0]


def _events(files: tuple[Path, ...], edition: Edition, options: Options) -> LogFiles:
    """Return the reviews as a stream."""
    user, item, rating, time = edition.columns
    stars = pl.col(rating).cast(pl.Float64, strict=False)
    expected = f"{edition.unit} since 1970, from 1995 on (2018 has seconds, 2023 milliseconds)"
    fields = (
        id_field("user", user),
        id_field("item", item),
        Field("rating", pl.when(stars.is_between(1, 5)).then(stars), "a number of stars from 1 to 5", rating),
        number_field("timestamp", expected, time, FIRST * edition.scale, LAST * edition.scale),
    )
    select = partial(_select, favor_rating=options.favor_rating, rule=options.rule)
    if ".csv" not in files[0].suffixes:
        return JsonLines(files, edition.columns, fields, select, on_bad_row=options.on_bad_row)
    columns = header_of(files[0], edition.columns)
    for path in files[1:]:
        if header_of(path, edition.columns) != columns:
            raise UserError(f"{path}: row 1: expected the header of {files[0].name}; set files=NAME,NAME")
    return LogFiles(files, columns, fields, select, header=True, on_bad_row=options.on_bad_row)


def _select(ratings: pl.LazyFrame, favor_rating: float, rule: Rule) -> pl.LazyFrame:
    events = by_rating(ratings, "rating", favor_rating, rule)
    return events.select("user", "item", "behavior", "timestamp")


def _images(folder: Path, name: str) -> Path | None:
    """Return the folder of the pictures; None where the usual one is missing."""
    path = folder / name
    if path.is_dir():
        return path
    if name != Options.images:
        raise UserError(f"{path}: no such folder, expected pictures there; set images=FOLDER")
    return None
