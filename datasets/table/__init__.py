"""Any table of events (CSV, TSV, parquet; gzip too), with an optional item table and ready feature vectors.

A line is a record. Fields may be quoted (`"Lamp, large"`) unless tabs separate them; see the option quotes.

The event file is read by polars in streams: first to see what ids and times look like, then typed; a fault
is looked up by its row. Ids become int64 where all of them are whole numbers as a program writes them, text
otherwise (`007` stays `007`); an id such as `nan` or `NULL` is missing, which makes its row malformed. Times
become int64: whole numbers as they are, date-times as microseconds since 1970 (UTC where no zone is given).
Repeated events are kept.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.known import first_ids
from bench.data.readers.log import BAD, BAD_ROWS, LogOptions
from bench.data.schema import TOUCHED, RawData, RawFeatures
from bench.datasets.table.events import (
    EventColumns,
    IdKind,
    LeftOut,
    ReadEvents,
    Unit,
    expected_of,
    id_kind,
    id_of,
    left_out_of,
    read_events,
)
from bench.datasets.table.file import (
    ROW,
    Quotes,
    Table,
    event_file,
    named_file,
    open_table,
    text_of,
    written,
)
from bench.errors import UserError, hint

CARD = DatasetCard(
    name="table",
    title="your own events: a CSV, TSV or parquet file with user, item, behavior, timestamp",
    real=True,
    licence="the terms of your own files",
    published="nowhere: files brought by the user",
    files="an event file (events.*, interactions.*); optional: an item table, images, .npy vectors",
    behaviors="given by behaviors=cart=click,fav=click,buy=favor or cart,fav,buy (shallow -> deep)",
    modalities="text and images named in the item table, or vectors in .npy files; none without them",
    size="any",
    dirt=(
        "Missing or malformed values are refused with file, row, value and fix, or left out and counted; so "
        "are ids written as floats (161.0; those of a float column of a parquet file are taken where they "
        "are whole) and times in another unit than most. Blank lines are skipped. Times keep "
        "the unit of the file, seconds or milliseconds; date-times become microseconds."
    ),
)

FILLED, WRONG = "holds a value", "holds a value that is no number"


@dataclass(frozen=True)
class Options(LogOptions):
    """Names of files and columns, and the order of the behaviors."""

    events: str = ""
    """Event file inside the folder; empty takes events.*, interactions.* or the only table there."""
    user: str = "user"
    """Column of the user id."""
    item: str = "item"
    """Column of the item id."""
    behavior: str = "behavior"
    """Column of the behavior; empty: every row is the one behavior."""
    timestamp: str = "timestamp"
    """Column of the time."""
    behaviors: tuple[str, ...] = ()
    """Shallow -> deep, `cart=click,fav=click,buy=favor` or `cart,fav,buy`; the last one is the target."""
    unlisted: Literal["error", "drop"] = "error"
    """What to do with rows of a behavior that `behaviors` does not list."""
    items: str = ""
    """Item table inside the folder; empty is none."""
    item_id: str = "item"
    """Column of the item id in the item table."""
    text_columns: tuple[str, ...] = ("title",)
    """Columns of the item table joined as the item's text."""
    image_column: str = "image"
    """Column of the item table with image paths relative to the folder."""
    attributes: tuple[str, ...] = ()
    """Categorical columns of the item table."""
    numbers: tuple[str, ...] = ()
    """Numerical columns of the item table, such as price; empty fields are unknown."""
    features_image: str = ""
    """.npy file of image vectors, one row per item of the item table; a row of NaN is an absent image."""
    features_text: str = ""
    """.npy file of text vectors, likewise."""
    quotes: Quotes = "auto"
    """Whether fields of a CSV or TSV file may be quoted: `auto` says no where tabs separate them."""
    time_format: str = ""
    """strptime format of the times; empty takes whole numbers or ISO date-times, whose zone may be Z, UTC or
    an offset."""
    time_unit: Unit = ""
    """Unit since 1970 of whole numbers: times before 1990 or after 2100 are then malformed. Empty takes any
    whole numbers of one unit."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events and items of the user's own files.

    Args:
        raw: the event file, or a folder that holds it.
        options: names of files, columns and behaviors.

    Raises:
        UserError: a file or column is missing, or a value is not what its column needs.
    """
    path = event_file(raw, options.events, options.items)
    table = open_table(path, options.on_bad_row, options.quotes)
    item_file = named_file(path.parent, options.items, "items") if options.items else None
    items = open_table(item_file, options.on_bad_row, options.quotes, whole_lines=True) if item_file else None
    for option in ("user", "item", "timestamp", *(["behavior"] if options.behavior else [])):
        table.require(getattr(options, option), option)
    if items:
        items.require(options.item_id, "item_id")
    kind, items_kind = _item_kinds(table, items, options)
    names = (options.user, options.item, options.behavior, options.timestamp)
    columns = EventColumns(*names, options.time_format, options.time_unit)
    rows, left_out = read_events(table, columns, (id_kind(table, options.user), kind), options.on_bad_row)
    events, numbers, behaviors, mapping = _map_behaviors(table, rows, options)
    content, items_left_out = _items(items, items_kind, options) if items else (None, LeftOut())
    if items and content is not None and not events["item"].is_in(content["item"].implode()).any():
        known, wanted = content["item"].drop_nulls(), events["item"].unique(maintain_order=True)
        problem = (
            f"holds no item of the events ({first_ids(known)} there, {first_ids(wanted)} in {path.name})"
        )
        raise UserError(f"{items.path}: {problem}; set item_id=COLUMN")
    why = {BAD: left_out, f"{BAD} of {options.items}": items_left_out}
    left = {reason: rows for reason, rows in why.items() if rows.count}
    return RawData(
        events=ReadEvents(path, events, left) if left else events,
        behaviors=behaviors,
        mapping=mapping,
        items=content.filter(pl.col("item").is_not_null()) if content is not None else None,
        attributes=options.attributes if items else (),
        numbers=options.numbers if items else (),
        features=_features(path.parent, content, options),
        row_of=lambda number: f"{path}: row {table.lines([numbers[number]])[0]}",
    )


def _item_kinds(table: Table, items: Table | None, options: Options) -> tuple[IdKind, IdKind]:
    """Return the kinds of the item ids of both tables: both are text where one of them has text."""
    kind = id_kind(table, options.item)
    if items is None:
        return kind, kind
    other = id_kind(items, options.item_id)
    integer = kind.integer and other.integer
    return replace(kind, integer=integer), replace(other, integer=integer)


def _map_behaviors(
    table: Table, events: pl.DataFrame, options: Options
) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...], str]:
    """Return the events in the names of `behaviors`, their rows, these names, and the mapping in words."""
    counts = dict(events["behavior"].value_counts(sort=True).rows())
    counted = ", ".join(f"{value} ({count})" for value, count in counts.items())
    names = _names(options.behaviors) or ({value: value for value in counts} if len(counts) == 1 else {})
    if not names:
        example = f"for example behaviors={','.join(counts)}"
        raise UserError(f"{table.path}: several behaviors: {counted}; list them shallow -> deep, {example}")
    unlisted = [value for value in counts if value not in names]
    if unlisted and options.unlisted == "error":
        first = events.row(int((~events["behavior"].is_in(list(names))).arg_max() or 0), named=True)
        fix = f"{hint(first['behavior'], names)}; add it to behaviors or set unlisted=drop"
        expected = f"expected one of {', '.join(names)}; {fix}"
        raise table.fault(options.behavior or "behavior", first[ROW], expected)
    order = tuple(dict.fromkeys(names.values()))
    mapped = events.with_columns(pl.col("behavior").replace_strict(names, default=TOUCHED))
    if not (mapped["behavior"] == order[-1]).any():
        problem = f"no event of the target behavior '{order[-1]}'; found {counted}"
        raise UserError(f"{table.path}: {problem}; let behaviors end with one that occurs")
    mapping = ", ".join(f"{value} -> {name}" for value, name in names.items())
    return mapped.drop(ROW), mapped[ROW], order, mapping + "".join(f", {value} dropped" for value in unlisted)


def _names(behaviors: tuple[str, ...]) -> dict[str, str]:
    """Return raw value -> behavior in the given order."""
    names: dict[str, str] = {}
    for entry in behaviors:
        value, _, name = (part.strip() for part in entry.rpartition("="))
        value = value or name
        if not name or value in names:
            raise UserError(f"behaviors: '{entry}': expected each value once, as in cart=click,buy=favor")
        names[value] = name
    return names


def _optional(table: Table, options: Options, option: str) -> list[str]:
    """Return the columns that an option names; those it names by default only where they are there."""
    given = getattr(options, option)
    names = [given] if isinstance(given, str) else list(given)
    if given == getattr(Options(), option):
        return [name for name in names if name in table.columns]
    for name in names:
        table.require(name, option)
    return names


def _items(table: Table, kind: IdKind, options: Options) -> tuple[pl.DataFrame, LeftOut]:
    """Return item, title, image and attributes of the rows that are not blank; and what was left out.

    The item is null in rows that were left out, so that ready vectors, one row each, still fit.
    """
    text, image = (_optional(table, options, option) for option in ("text_columns", "image_column"))
    columns = [id_of(options.item_id, kind).alias("item")]
    if text:
        title = pl.concat_str([text_of(name) for name in text], separator=" ", ignore_nulls=True)
        columns.append(pl.when(title != "").then(title).alias("title"))
    if image:
        columns.append(_image_path(text_of(image[0]), table.path.parent).alias("image"))
    columns += [text_of(name).alias(name) for name in _optional(table, options, "attributes")]
    numbers = _optional(table, options, "numbers")
    values = [text_of(name).cast(pl.Float64, strict=False) for name in numbers]
    finite = [pl.when(value.is_finite()).then(value) for value in values]
    columns += [value.alias(name) for name, value in zip(numbers, finite, strict=True)]
    wrong = [
        text_of(name).is_not_null() & value.is_null() for name, value in zip(numbers, finite, strict=True)
    ]
    columns.append(pl.any_horizontal(False, *wrong).alias(WRONG))
    filled = pl.any_horizontal(
        written(options.item_id).is_not_null(), *(c.is_not_null() for c in columns[:-1])
    )
    rows = table.collect([*columns, filled.alias(FILLED)]).with_row_index(ROW)
    rows = rows.filter(pl.col(FILLED) | pl.col(ROW).is_in(list(table.broken)))
    again = pl.col("item").is_not_null() & ~pl.col("item").is_first_distinct()
    faulty = again | pl.col(WRONG)
    bad = rows.filter((pl.col("item").is_null() | faulty) & pl.col(FILLED))
    first_bad = bad.select(ROW, "item").head(BAD_ROWS).rows()
    problems = {row: _item_problem(table, item, row, options) for row, item in first_bad}
    left_out = left_out_of(table, problems, len(bad), options.on_bad_row)
    sound = rows.with_columns(pl.when(~faulty).then("item").alias("item"))
    return sound.drop(ROW, FILLED, WRONG), left_out


def _item_problem(table: Table, item: Any, row: int, options: Options) -> str:
    value = table.in_words(options.item_id, row)
    for name in options.numbers:
        given = table.frame.select(text_of(name)).slice(row, 1).collect().item()
        if given is not None and not _is_number(given):
            return f"{table.in_words(name, row)}; expected a number, or nothing where it is unknown"
    if item is not None:
        return f"{value}; expected one row per item; remove this one"
    return f"{value}; expected {expected_of('item', value)}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _image_path(name: pl.Expr, folder: Path) -> pl.Expr:
    """Return the path of a picture; one that begins with a slash or a drive is complete already."""
    complete = name.str.contains(r"^(/|[A-Za-z]:)")
    return pl.when(complete).then(name).otherwise(pl.lit(f"{folder}/") + name)


def _features(folder: Path, items: pl.DataFrame | None, options: Options) -> dict[str, RawFeatures]:
    named = {"image": options.features_image, "text": options.features_text}
    features = {}
    for modality, name in named.items():
        if name and items is None:
            fix = "set items=FILE, the item table in the order of its rows"
            raise UserError(f"features_{modality}={name}: expected an item table beside it; {fix}")
        if name and items is not None:
            features[modality] = _vectors(named_file(folder, name, f"features_{modality}"), items["item"])
    return features


def _vectors(path: Path, items: pl.Series) -> RawFeatures:
    """Open vectors as a memory map, never unpickled.

    Args:
        path: of the .npy file.
        items: id of each row, null where the row of the item table was left out.

    Returns:
        The vectors of the rows that have an id and are not NaN throughout.
    """
    try:
        vectors: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a plain .npy array ({error}); write it by numpy.save") from error
    shape: tuple[int, ...] = getattr(vectors, "shape", ())
    dtype = getattr(vectors, "dtype", None)
    if len(shape) != 2 or shape[0] != len(items) or not shape[1] or dtype not in (np.float16, np.float32):
        expected = f"({len(items)}, D) float16 or float32, one row per item of the item table"
        raise UserError(f"{path}: shape {shape} {dtype}, expected {expected}; write it anew")
    blocks = (vectors[start : start + 4096] for start in range(0, len(items), 4096))
    absent = np.concatenate([np.isnan(block).all(axis=1) for block in blocks]) | items.is_null().to_numpy()
    return RawFeatures(items.filter(~absent).to_list(), vectors[~absent] if absent.any() else vectors)
