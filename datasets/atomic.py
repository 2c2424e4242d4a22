"""RecBole's atomic files: NAME.inter with the events and, where there is one, NAME.item with the items.

Both are tab-separated UTF-8 without quoting; the header gives `name:type` with type token, token_seq, float
or float_seq. A sequence is separated by blanks, so a token_seq reads as text. Ids become int64 where all of
them are whole numbers as a program writes them, text otherwise (`007` stays `007`). That is seen in a first
pass over the events; the second one hands them on, both in blocks.

W. X. Zhao et al., RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
Algorithms, CIKM 2021; https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.blocks import blocks, check_header, check_line_end
from bench.data.readers.folder import files_of
from bench.data.readers.log import BAD, ROW, Field, LogFiles, LogOptions
from bench.data.readers.missing import present
from bench.data.readers.ratings import BEHAVIORS, Rule, by_rating, require_favor, rule_text
from bench.data.schema import Position, RawData
from bench.errors import UserError, hint

CARD = DatasetCard(
    name="atomic",
    title="any data set in RecBole's atomic form: NAME.inter and NAME.item",
    real=True,
    licence="the terms of the files brought",
    published="https://recbole.io/dataset_list.html and elsewhere (Zhao et al., RecBole, CIKM 2021)",
    files="NAME.inter; optional: NAME.item; both plain or .gz, header lines such as user_id:token",
    behaviors="click (every rating), favor as well (rating 4 or higher); or behavior=COLUMN behaviors=...",
    modalities="text of the token_seq columns of NAME.item, or of text_columns; no images",
    size="any",
    dirt=(
        "Malformed lines are refused with file, row, value and fix, or left out and counted; blank ones are "
        "skipped. Repeated events are kept; of an item listed twice the first row counts where bad rows are "
        "skipped. Times keep the unit of the file, seconds or milliseconds."
    ),
)

INTEGER = "^(0|[1-9][0-9]{0,17})$"  # as a program writes it, and inside int64
TIME = r"^-?[0-9]{1,18}(\.0+)?$|^[0-9](\.[0-9]+)?[eE]\+?[0-9]{1,2}$"  # RecBole calls times floats
NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
EVENT_FILES = (".inter", ".inter.gz")
RATING_OPTIONS = "rating=COLUMN or behavior"


@dataclass(frozen=True)
class Options(LogOptions):
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
    rule: Rule = "nested"
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
            problem = f"no column '{column}' in the header; {hint(column, self.types)}"
            raise UserError(f"{self.path}: row 1: {problem}; set {option}=COLUMN")

    def rows(self, fields: tuple[Field, ...], options: Options) -> LogFiles:
        """Return the lines as a stream of the given fields."""
        return LogFiles(
            files=(self.path,), columns=tuple(self.types), fields=fields, select=lambda typed: typed,
            separator="\t", header=True, on_bad_row=options.on_bad_row,
        )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the first pass over the events finds."""

    whole: dict[str, bool]
    """user, item -> whether all ids are whole numbers."""
    values: list[str]
    """Distinct behaviors in the order of the file; none of ratings."""
    highest: float | None
    """The highest rating; None of behaviors."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events of NAME.inter as a stream, and the items of NAME.item.

    Args:
        raw: folder with the files, or NAME.inter itself.
        options: names of columns, behaviors.

    Raises:
        UserError: a file or column is missing, a line is malformed, or no rating reaches `favor_rating`.
    """
    inter = _open(_inter(raw, options))
    name = inter.path.name.rpartition(".inter")[0]
    item_paths = [inter.path.with_name(f"{name}.item{packed}") for packed in ("", ".gz")]
    items = next((_open(path) for path in item_paths if path.is_file()), None)
    if items is None and (options.text_columns or options.attributes):
        fix = "add it, or leave text_columns and attributes out"
        raise UserError(f"{item_paths[0]}: no such file, expected the items' columns there; {fix}")
    for option in ("user", "item", "timestamp"):
        inter.require(getattr(options, option), option)
    inter.require(options.behavior or options.rating, "behavior" if options.behavior else RATING_OPTIONS)
    names = _names(inter, options) if options.behavior else None
    log = inter.rows((*_event_fields(inter, options), _kind(options, names)), options)
    seen = _survey(log)
    content, left_out = _items(items, options) if items else (None, 0)
    whole = seen.whole
    if content is not None:
        whole["item"] = whole["item"] and _whole(content["item"])
        content = content.with_columns(_id("item", whole["item"]))
    left_out_note = f"; {left_out} malformed rows of {items.path.name} left out" if items and left_out else ""
    if seen.highest is not None:
        require_favor(seen.highest, options.favor_rating, inter.path)
    return RawData(
        events=replace(log, select=lambda typed: _events(typed, whole, names, options)),
        behaviors=tuple(dict.fromkeys(names.values())) if names else BEHAVIORS,
        mapping=_mapping(names, options) + left_out_note,
        items=content,
        attributes=options.attributes if content is not None else (),
    )


def _inter(raw: Path | None, options: Options) -> Path:
    if raw is None:
        raise UserError("atomic: no files given; give the folder with NAME.inter by --raw")
    if raw.is_file() and raw.name.endswith(EVENT_FILES):
        return raw
    files = files_of(raw, [f"*{ending}" for ending in EVENT_FILES])
    named = [path for path in files if path.name.rpartition(".inter")[0] == options.name]
    named = named if options.name else files
    if len(named) != 1:
        names = ", ".join(path.name for path in files) or "none"
        expected = f"{options.name or 'one NAME'}.inter"
        raise UserError(f"{raw}: expected {expected} there, found {names}; unpack the files or set name=NAME")
    return named[0]


def _open(path: Path) -> AtomicFile:
    """Read the header.

    Raises:
        UserError: a column without a type, or twice.
    """
    line = next(blocks((path,), Position(), size=1)).text
    header = line.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    check_line_end(path, header)
    fields = [field.rpartition(":") for field in header.split("\t")]
    for field in fields:
        if not field[0] or field[2] not in ("token", "token_seq", "float", "float_seq"):
            problem = f"column '{''.join(field)}', expected name:type such as user_id:token, tab-separated"
            raise UserError(f"{path}: row 1: {problem}; repair the header")
    check_header(path, [name for name, _, _ in fields])
    return AtomicFile(path, {name: kind for name, _, kind in fields})


def _some(name: str, column: str) -> Field:
    return Field(name, present(pl.col(column)), "a value", column)


def _id_field(name: str, column: str, types: Mapping[str, str]) -> Field:
    """Return the field of an id; those of a column of type float are whole numbers, also written as 7.0."""
    if types[column] != "float":
        return _some(name, column)
    number = pl.col(column).cast(pl.Float64, strict=False)
    whole = number.is_finite() & (number == number.floor()) & (number.abs() < 2.0**53)
    digits = pl.when(whole).then(number.cast(pl.Int64, strict=False).cast(pl.String))
    return Field(name, digits, "a whole number", column)


def _event_fields(inter: AtomicFile, options: Options) -> tuple[Field, ...]:
    text = pl.col(options.timestamp)
    fits = pl.when(text.str.contains(TIME)).then(text)
    whole = fits.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
    number = fits.cast(pl.Float64)  # 8.8E8
    time = whole.fill_null(pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False))
    return (
        _id_field("user", options.user, inter.types),
        _id_field("item", options.item, inter.types),
        Field("timestamp", time, "a whole number", options.timestamp),
    )


def _kind(options: Options, names: Mapping[str, str] | None) -> Field:
    """Return the field of the rating, or of the behavior."""
    if names is None:
        text = pl.col(options.rating)
        fits = pl.when(text.str.contains(NUMBER)).then(text)
        return Field("rating", fits.cast(pl.Float64), "a number", options.rating)
    text = pl.col(options.behavior)
    listed = pl.when(text.is_in(list(names))).then(text)
    expected = f"one of {', '.join(names)} (all that occur have to be listed in behaviors)"
    return Field("behavior", listed, expected, options.behavior)


def _names(inter: AtomicFile, options: Options) -> dict[str, str]:
    """Return raw value -> behavior, shallow -> deep."""
    pairs = [entry.rpartition("=") for entry in options.behaviors]
    names = {value.strip() or name.strip(): name.strip() for value, _, name in pairs}
    if not names or len(names) < len(pairs):
        behavior = _some("behavior", options.behavior)
        seen = _survey(inter.rows((*_event_fields(inter, options), behavior), options))
        example = f"behaviors={','.join(seen.values[:20])} in the order shallow -> deep"
        problem = f"behaviors {options.behaviors}: expected each value once"
        raise UserError(f"{inter.path}: {problem}; set {example}")
    return names


def _survey(log: LogFiles) -> Seen:
    """Go through all events once; a malformed line is found here.

    Raises:
        UserError: like `LogFiles.parts`.
    """
    whole, values, highest = {"user": True, "item": True}, dict[str, None](), None
    for _, typed, _ in log.frames():
        whole = {name: so_far and _whole(typed[name]) for name, so_far in whole.items()}
        if "behavior" in typed.columns:
            values |= dict.fromkeys(typed["behavior"].unique(maintain_order=True))
        elif len(typed):
            rating = float(typed.select(pl.col("rating").max()).item())
            highest = rating if highest is None else max(highest, rating)
    return Seen(whole, list(values), highest)


def _whole(ids: pl.Series) -> bool:
    return bool(ids.str.contains(INTEGER).all())


def _id(name: str, whole: bool) -> pl.Expr:
    return pl.col(name).cast(pl.Int64) if whole else pl.col(name)


def _events(
    typed: pl.LazyFrame, whole: Mapping[str, bool], names: Mapping[str, str] | None, options: Options
) -> pl.LazyFrame:
    if names is None:
        events = by_rating(typed, "rating", options.favor_rating, options.rule)
    else:
        events = typed.with_columns(pl.col("behavior").replace_strict(names, return_dtype=pl.String))
    return events.select(_id("user", whole["user"]), _id("item", whole["item"]), "behavior", "timestamp")


def _mapping(names: Mapping[str, str] | None, options: Options) -> str:
    if names is None:
        return rule_text(options.favor_rating, options.rule)
    return ", ".join(f"{value} -> {name}" for value, name in names.items())


def _items(file: AtomicFile, options: Options) -> tuple[pl.DataFrame, int]:
    """Return item (text), title (null where there is no text) and the attributes; and the rows left out."""
    file.require(options.item, "item")
    for option in ("text_columns", "attributes"):
        for name in getattr(options, option):
            file.require(name, option)
    text = options.text_columns or tuple(name for name, kind in file.types.items() if kind == "token_seq")
    texts = [present(pl.col(name)) for name in text]
    words = pl.concat_str(texts, separator=" ", ignore_nulls=True)
    words = words.str.replace_all(r"\s+", " ").str.strip_chars()
    fields = [_id_field("item", options.item, file.types), Field(ROW, pl.col(ROW), "")]
    fields += [Field("title", pl.when(words != "").then(words), "", optional=True)] if text else []
    for name in options.attributes:
        fields.append(Field(name, present(pl.col(name)), "", optional=True))
    parts = list(file.rows(tuple(fields), options).parts())
    rows, left_out = pl.concat(part.events for part in parts), sum(part.dropped.get(BAD, 0) for part in parts)
    again = rows.filter(~pl.col("item").is_first_distinct())
    if len(again) and options.on_bad_row == "error":
        problem = f"{options.item} '{again['item'][0]}' again, expected one row per item"
        raise UserError(f"{file.path}: row {again[ROW][0]}: {problem}; remove this one")
    return rows.unique("item", keep="first", maintain_order=True).drop(ROW), left_out + len(again)
