"""RecBole's atomic files: NAME.inter with the events and, where there is one, NAME.item with the items.

Both are tab-separated UTF-8 without quoting; the header gives `name:type` with type token, token_seq, float
or float_seq. A sequence is separated by blanks, so a token_seq reads as text. Ids become int64 where all of
them are whole numbers as a program writes them, text otherwise (`007` stays `007`). Files are read in typed
streams; only when that meets a fault is the file gone through line by line, to name the place.

W. X. Zhao et al., RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
Algorithms, CIKM 2021; https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from bench.cards import DatasetCard
from bench.data.schema import RawData
from bench.errors import UserError, hint

CARD = DatasetCard(
    name="atomic",
    title="any data set in RecBole's atomic form: NAME.inter and NAME.item",
    real=True,
    licence="the terms of the files brought",
    published="https://recbole.io/dataset_list.html and elsewhere (Zhao et al., RecBole, CIKM 2021)",
    files="NAME.inter; optional: NAME.item; unpacked, header lines such as user_id:token",
    behaviors="click (every rating), favor as well (rating 4 or higher); or behavior=COLUMN behaviors=...",
    modalities="text of the token_seq columns of NAME.item, or of text_columns; no images",
    size="any",
    dirt="malformed lines and blank ones are refused with file, row, value and fix; repeated events are kept",
)

ANY = ""
SOME = "."
INTEGER = "^(0|[1-9][0-9]{0,17})$"  # as a program writes it, and inside int64
TIME = r"^-?[0-9]{1,18}(\.0+)?$|^[0-9](\.[0-9]+)?[eE]\+?[0-9]{1,2}$"  # RecBole calls times floats
NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
EXPECTED = {SOME: "a value", TIME: "a whole number", NUMBER: "a number"}


@dataclass(frozen=True)
class Options:
    """Names of files and columns (without their type), and how rows become behaviors."""

    name: str = ""
    """NAME of NAME.inter and NAME.item; empty takes the only NAME.inter of the folder."""
    user: str = "user_id"
    """Column of the user id."""
    item: str = "item_id"
    """Column of the item id in both files."""
    timestamp: str = "timestamp"
    """Column of the time."""
    behavior: str = ""
    """Column of the behavior; empty makes behaviors of the ratings."""
    behaviors: tuple[str, ...] = ()
    """Shallow -> deep with `behavior`: `cart=click,buy=favor` or `cart,buy`; the last one is the target."""
    rating: str = "rating"
    """Column of the rating, where `behavior` is empty."""
    favor_rating: float = 4.0
    """Ratings from here on are a `favor`."""
    rule: Literal["disjoint", "nested"] = "nested"
    """`nested`: a rating is a click, and a favor as well if high. `disjoint`: it is a favor or a click."""
    text_columns: tuple[str, ...] = ()
    """Columns of NAME.item joined as the item's text; empty takes those of type token_seq."""
    attributes: tuple[str, ...] = ()
    """Categorical columns of NAME.item."""


@dataclass(frozen=True)
class AtomicFile:
    """A file and its header."""

    path: Path
    types: Mapping[str, str]
    """Column -> type, in the order of the file."""

    def require(self, column: str, option: str) -> None:
        """Raise a UserError unless the column is there; names the option that names the column."""
        if column not in self.types:
            found = f"no column '{column}' in the header; {hint(column, self.types)}"
            raise UserError(f"{self.path}: row 1: {found}; set {option}=COLUMN")


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events of NAME.inter and the items of NAME.item.

    Args:
        raw: folder with the files, or NAME.inter itself.
        options: names of columns, behaviors.

    Raises:
        UserError: a file or column is missing, or a line is malformed.
    """
    inter = _open(_inter(raw, options))
    item_path = inter.path.with_suffix(".item")
    items = _open(item_path) if item_path.is_file() else None
    if items is None and (options.text_columns or options.attributes):
        fix = "add it, or leave text_columns and attributes out"
        raise UserError(f"{item_path}: no such file, expected the items' columns there; {fix}")
    source, pattern = (options.behavior, SOME) if options.behavior else (options.rating, NUMBER)
    for option, column in (("user", options.user), ("item", options.item), ("timestamp", options.timestamp)):
        inter.require(column, option)
    inter.require(source, "behavior" if options.behavior else "rating=COLUMN or behavior")
    wanted = {options.user: SOME, options.item: SOME, options.timestamp: TIME, source: pattern}
    rows = _checked(inter, wanted)
    if rows.is_empty():
        raise UserError(f"{inter.path}: row 2: nothing there, expected events; get the file again")
    content = _items(items, options) if items else None
    events = rows.select(
        _ids(rows[options.user]).alias("user"),
        _ids(rows[options.item]).alias("item"),
        pl.col(source).alias("behavior"),
        pl.col(options.timestamp).alias("timestamp"),
    )
    if content is not None and content["item"].dtype != events["item"].dtype:  # text in one of the files
        events = events.with_columns(rows[options.item].alias("item"))
        content = content.with_columns(pl.col("item").cast(pl.String))
    mapped = _by_column if options.behavior else _by_rating
    events, behaviors, mapping = mapped(events, inter.path, options)
    attributes = options.attributes if content is not None else ()
    return RawData(events, behaviors, mapping, content, attributes)


def _inter(raw: Path | None, options: Options) -> Path:
    if raw is None:
        raise UserError("atomic: no files given; give the folder with NAME.inter by --raw")
    if raw.is_file() and raw.suffix == ".inter":
        return raw
    found = sorted(raw.glob("*.inter"))
    named = [path for path in found if path.stem == options.name] if options.name else found
    if len(named) != 1:
        names = ", ".join(path.name for path in found) or "none"
        expected = f"{options.name or 'one NAME'}.inter"
        raise UserError(f"{raw}: expected {expected} there, found {names}; unpack the files or set name=NAME")
    return named[0]


def _open(path: Path) -> AtomicFile:
    """Read the header.

    Raises:
        UserError: a column without a type, or twice.
    """
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    fields = [field.rpartition(":") for field in header.split("\t")]
    for field in fields:
        if not field[0] or field[2] not in ("token", "token_seq", "float", "float_seq"):
            problem = f"column '{''.join(field)}', expected name:type such as user_id:token, tab-separated"
            raise UserError(f"{path}: row 1: {problem}; repair the header")
    types = {name: kind for name, _, kind in fields}
    if len(types) < len(fields):
        raise UserError(f"{path}: row 1: {header!r} names a column twice; rename one")
    return AtomicFile(path, types)


def _checked(file: AtomicFile, columns: Mapping[str, str]) -> pl.DataFrame:
    """Return columns of a file: int64 where `TIME`, float64 where `NUMBER`, else text.

    Args:
        file: with these columns.
        columns: name -> pattern that its values match; of `ANY` a value may be missing (null).

    Raises:
        UserError: the first malformed line, or a file that cannot be read.
    """
    try:
        frame = pl.scan_csv(
            file.path, separator="\t", quote_char=None, infer_schema=False, glob=False,
            new_columns=list(file.types),
        )  # fmt: skip
        last = pl.col(list(file.types)[-1]).alias("")  # null where a line is short
        typed = [_typed(*column) for column in columns.items()]
        values = frame.select(*typed, last).collect(engine="streaming")
    except (PolarsError, OSError) as error:
        reason = f"cannot be read ({str(error).partition(chr(10))[0]}); get the file again"
        raise UserError(f"{file.path}: {_first_problem(file, columns) or reason}") from error
    if sum(values.null_count().row(0)) and (problem := _first_problem(file, columns)):
        raise UserError(f"{file.path}: {problem}")
    texts = [name for name, pattern in columns.items() if pattern == ANY]
    return values.drop("").with_columns(pl.col(texts).fill_null(""))


def _typed(name: str, pattern: str) -> pl.Expr:
    text = pl.col(name)
    if pattern == ANY:
        return text
    fits = pl.when(text.str.contains(pattern)).then(text)
    if pattern == TIME:
        whole = fits.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        return whole.fill_null(fits.cast(pl.Float64).cast(pl.Int64)).alias(name)
    return (fits.cast(pl.Float64) if pattern == NUMBER else fits).alias(name)


def _first_problem(file: AtomicFile, columns: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first malformed line, rows counted as an editor does; None without."""
    names = list(file.types)
    with file.path.open("rb") as lines:
        for row, line in enumerate(lines, 1):
            try:
                fields = line.decode().rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                return f"row {row}: byte {line[error.start]:#04x} is not UTF-8; save the file as UTF-8"
            if len(fields) != len(names):
                problem = f"{len(fields)} columns in {fields}, expected {len(names)}"
                return f"row {row}: {problem}; repair or remove the line"
            for name, pattern in columns.items() if row > 1 else ():
                if not re.search(pattern, value := fields[names.index(name)]):
                    problem = f"{name} '{value}', expected {EXPECTED[pattern]}"
                    return f"row {row}: {problem}; repair or remove the line"
    return None


def _ids(column: pl.Series) -> pl.Series:
    return column.cast(pl.Int64) if column.str.contains(INTEGER).all() else column


def _by_rating(
    events: pl.DataFrame, path: Path, options: Options
) -> tuple[pl.DataFrame, tuple[str, ...], str]:
    """Make click and favor of the ratings in column `behavior`; return events, behaviors and the rule."""
    stars = f"{options.favor_rating:g}"
    favored = pl.col("behavior") >= options.favor_rating
    if not events.select(favored.any()).item():
        highest = events.select(pl.col("behavior").max()).item()
        raise UserError(f"{path}: favor_rating = {stars}: no rating is that high; take {highest:g} or less")
    if options.rule == "nested":
        behavior = pl.when(favored).then(pl.lit(["click", "favor"])).otherwise(pl.lit(["click"]))
        mapping = f"every rating -> click, rating >= {stars} -> favor as well, at the same time"
    else:
        behavior = pl.when(favored).then(pl.lit(["favor"])).otherwise(pl.lit(["click"]))
        mapping = f"rating >= {stars} -> favor, any other rating -> click"
    return events.with_columns(behavior.alias("behavior")).explode("behavior"), ("click", "favor"), mapping


def _by_column(
    events: pl.DataFrame, path: Path, options: Options
) -> tuple[pl.DataFrame, tuple[str, ...], str]:
    """Return the events in the names of `behaviors`, these names, and the mapping in words."""
    pairs = [entry.rpartition("=") for entry in options.behaviors]
    names = {value.strip() or name.strip(): name.strip() for value, _, name in pairs}
    found = events["behavior"].unique(maintain_order=True).to_list()
    if not names or len(names) < len(pairs):
        example = f"behaviors={','.join(found[:20])} in the order shallow -> deep"
        raise UserError(f"{path}: behaviors {options.behaviors}: expected each value once; set {example}")
    unlisted = ~events["behavior"].is_in(list(names))
    if unlisted.any():
        row = int(unlisted.arg_max() or 0)
        value = events["behavior"][row]
        problem = f"{options.behavior} '{value}', expected one of {', '.join(names)}"
        raise UserError(f"{path}: row {row + 2}: {problem}; {hint(value, names)}; add it to behaviors")
    order = tuple(dict.fromkeys(names.values()))
    mapping = ", ".join(f"{value} -> {name}" for value, name in names.items())
    return events.with_columns(pl.col("behavior").replace_strict(names)), order, mapping


def _items(file: AtomicFile, options: Options) -> pl.DataFrame:
    """Return item, title (null where there is no text) and the attributes."""
    file.require(options.item, "item")
    for option in ("text_columns", "attributes"):
        for name in getattr(options, option):
            file.require(name, option)
    text = options.text_columns or tuple(name for name, kind in file.types.items() if kind == "token_seq")
    columns = dict.fromkeys([*text, *options.attributes], ANY) | {options.item: SOME}
    rows = _checked(file, columns)
    if (again := ~rows[options.item].is_first_distinct()).any():
        row = int(again.arg_max() or 0)
        problem = f"{options.item} '{rows[options.item][row]}' again, expected one row an item"
        raise UserError(f"{file.path}: row {row + 2}: {problem}; remove this one")
    words = pl.concat_str(text, separator=" ").str.replace_all(r"\s+", " ").str.strip_chars()
    title = pl.when(words != "").then(words).alias("title")
    attributes = (pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in options.attributes)
    return rows.select(_ids(rows[options.item]).alias("item"), *([title] if text else []), *attributes)
