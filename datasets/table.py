"""Any table of events (CSV, TSV, parquet; gzip too), with an optional item table and ready feature vectors.

The event file is read by polars in streams: first to see what ids and times look like, then typed; a fault
is looked up by its row. Ids become int64 where all of them are whole numbers as a program writes them (also
`12.0`, which pandas makes of ids in a column with holes), text otherwise (`007` stays `007`). Times become
int64: whole numbers as they are, date-times as microseconds since 1970 (UTC where no zone is given). Repeated
events are kept.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import RawData, RawFeatures
from bench.datasets.table_file import Table, event_file, named_file, open_table, text_of
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
    dirt="missing or malformed values are refused with file, row, value and fix; blank lines are skipped",
)

INTEGER = r"^(0|[1-9]\d{0,17}|[1-8]\d{18})$"  # as a program writes it, and inside int64
WHOLE = r"^(0|[1-9]\d{0,17}|[1-8]\d{18})(\.0+)?$"
NUMBER = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
TIME = r"^-?\d{1,18}(\.0+)?$"
DATE_TIMES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
ZONED = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%dT%H:%M%:z")
Kind = Literal["integer", "text"]


@dataclass(frozen=True)
class Options:
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
    features_image: str = ""
    """.npy file of image vectors, a row an item of the item table; a row of NaN is an absent image."""
    features_text: str = ""
    """.npy file of text vectors, likewise."""
    time_format: str = ""
    """strptime format of the times; empty takes whole numbers or ISO date-times."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events and items of the user's own files.

    Args:
        raw: the event file, or a folder that holds it.
        options: names of files, columns and behaviors.

    Raises:
        UserError: a file or column is missing, or a value is not what its column needs.
    """
    path = event_file(raw, options.events, options.items)
    table = open_table(path)
    items = open_table(named_file(path.parent, options.items, "items")) if options.items else None
    for option in ("user", "item", "timestamp", *(["behavior"] if options.behavior else [])):
        table.require(getattr(options, option), option)
    if items:
        items.require(options.item_id, "item_id")
    kind = _id_kind(table, options.item)
    if items and _id_kind(items, options.item_id) == "text":
        kind = "text"
    events, behaviors, mapping = _map_behaviors(table, _typed_events(table, kind, options), options)
    content = _items(items, kind, options) if items else None
    if items and content is not None and not events["item"].is_in(content["item"].implode()).any():
        example = f"'{content['item'][0]}' there, '{events['item'][0]}' in {path.name}"
        raise UserError(f"{items.path}: holds no item of the events ({example}); set item_id=COLUMN")
    return RawData(
        events=events,
        behaviors=behaviors,
        mapping=mapping,
        items=content,
        attributes=options.attributes if items else (),
        features=_features(path.parent, content, options),
    )


def _id_kind(table: Table, column: str) -> Kind:
    """Say whether all ids are whole numbers.

    Raises:
        UserError: there is no id at all, or ids are negative or fractional numbers.
    """
    text = text_of(column)
    patterns = {"whole": WHOLE, "number": NUMBER, "point": r"[.eE]", "minus": "^-"}
    counts = [text.count().alias("rows")]
    counts += [text.str.contains(pattern).sum().alias(name) for name, pattern in patterns.items()]
    seen = table.collect(counts).row(0, named=True)
    if not seen["rows"]:
        raise UserError(f"{table.path}: row 2: column '{column}' is empty, expected ids; get the file again")
    if seen["whole"] == seen["rows"]:
        return "integer"
    if seen["number"] == seen["rows"] and seen["minus"]:
        expected = "expected an id of 0 or more; remove such rows, or number the ids anew"
        raise table.first_fault(column, text.str.contains("^-"), expected)
    if seen["number"] == seen["rows"] and seen["point"]:
        wrong = ~text.str.contains(WHOLE) & text.str.contains("[.eE]")
        raise table.first_fault(column, wrong, "expected a whole number or text; write ids never as floats")
    return "text"


def _id(column: str, kind: Kind) -> pl.Expr:
    text = text_of(column)
    return text.str.replace(r"\.0+$", "").str.to_integer(strict=False) if kind == "integer" else text


def _time(table: Table, options: Options) -> pl.Expr:
    """Return the expression of the times as int64; null where a value cannot be read."""
    text = text_of(options.timestamp)
    if options.time_format:
        return _microseconds(text, options.time_format)
    whole = text.str.contains(TIME)
    if table.collect([whole.mean()]).item() >= 0.5:  # else the numbers are the faults
        return pl.when(whole).then(text.str.replace(r"\.0+$", "")).str.to_integer(strict=False)
    text = text.str.replace(" ", "T").str.replace("[zZ]$", "+00:00")
    return pl.coalesce(_microseconds(text, form) for form in (*DATE_TIMES, *ZONED))


def _microseconds(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.strptime(pl.Datetime("us"), form, strict=False).dt.epoch("us")


def _typed_events(table: Table, kind: Kind, options: Options) -> pl.DataFrame:
    """Return user, item, behavior, timestamp of every row; those of a blank line are null."""
    the_one = pl.when(text_of(options.user).is_not_null()).then(pl.lit("interaction"))
    expressions = {
        "user": _id(options.user, _id_kind(table, options.user)),
        "item": _id(options.item, kind),
        "timestamp": _time(table, options),
        "behavior": text_of(options.behavior) if options.behavior else the_one,
    }
    events = table.collect([expression.alias(name) for name, expression in expressions.items()])
    time = f"a time as in {options.time_format}" if options.time_format else "a whole number or ISO date-time"
    expected = {"user": "an id", "item": "an id", "behavior": "a behavior", "timestamp": time}
    blank = pl.all_horizontal(pl.all().is_null())
    for name, what in expected.items():
        wrong = events.select(pl.col(name).is_null() & ~blank).to_series()
        if wrong.any():
            fix = "repair it, set time_format" if name == "timestamp" else "repair it"
            problem = f"expected {what}; {fix} or remove the row"
            raise table.fault(getattr(options, name), int(wrong.arg_max() or 0), problem)
    return events.select("user", "item", "behavior", "timestamp")


def _map_behaviors(
    table: Table, events: pl.DataFrame, options: Options
) -> tuple[pl.DataFrame, tuple[str, ...], str]:
    """Return the events in the names of `behaviors`, these names, and the mapping in words."""
    real = pl.col("user").is_not_null()
    counts = dict(events.filter(real)["behavior"].value_counts(sort=True).rows())
    found = ", ".join(f"{value} ({count})" for value, count in counts.items())
    names = _names(options.behaviors) or ({value: value for value in counts} if len(counts) == 1 else {})
    if not names:
        example = f"for example behaviors={','.join(counts)}"
        raise UserError(f"{table.path}: several behaviors: {found}; list them shallow -> deep, {example}")
    unlisted = [value for value in counts if value not in names]
    if unlisted and options.unlisted == "error":
        row = events.select((real & ~pl.col("behavior").is_in(list(names))).arg_max()).item()
        fix = f"{hint(events['behavior'][row], names)}; add it to behaviors or set unlisted=drop"
        raise table.fault(options.behavior or "behavior", row, f"expected one of {', '.join(names)}; {fix}")
    order = tuple(dict.fromkeys(names.values()))
    mapped = events.filter(real).with_columns(pl.col("behavior").replace_strict(names, default=None))
    mapped = mapped.drop_nulls("behavior")
    if not (mapped["behavior"] == order[-1]).any():
        problem = f"no event of the target behavior '{order[-1]}'; found {found}"
        raise UserError(f"{table.path}: {problem}; let behaviors end with one that occurs")
    mapping = ", ".join(f"{value} -> {name}" for value, name in names.items())
    return mapped, order, mapping + "".join(f", {value} dropped" for value in unlisted)


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


def _items(table: Table, kind: Kind, options: Options) -> pl.DataFrame:
    """Return item, title, image and attributes of the item table, without blank lines."""
    text, image = (_optional(table, options, option) for option in ("text_columns", "image_column"))
    columns = [_id(options.item_id, kind).alias("item")]
    if text:
        title = pl.concat_str([text_of(name) for name in text], separator=" ", ignore_nulls=True)
        columns.append(pl.when(title != "").then(title).alias("title"))
    if image:
        columns.append(_image_path(text_of(image[0]), table.path.parent).alias("image"))
    columns += [text_of(name).alias(name) for name in _optional(table, options, "attributes")]
    items = table.collect(columns)
    _check_item_ids(table, items, options)
    return items.filter(pl.col("item").is_not_null())


def _check_item_ids(table: Table, items: pl.DataFrame, options: Options) -> None:
    missing = pl.col("item").is_null()
    rules = {
        "expected an id; fill it in or remove the row": missing & ~pl.all_horizontal(pl.all().is_null()),
        "expected one row an item; remove this one": ~pl.col("item").is_first_distinct() & ~missing,
    }
    for expected, rule in rules.items():
        wrong = items.select(rule).to_series()
        if wrong.any():
            raise table.fault(options.item_id, int(wrong.arg_max() or 0), expected)


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
    """Open vectors as a memory map, never unpickled; rows that are NaN throughout are absent."""
    try:
        vectors: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a plain .npy array ({error}); write it by numpy.save") from error
    shape: tuple[int, ...] = getattr(vectors, "shape", ())
    dtype = getattr(vectors, "dtype", None)
    if len(shape) != 2 or shape[0] != len(items) or not shape[1] or dtype not in (np.float16, np.float32):
        expected = f"({len(items)}, D) float16 or float32, a row an item of the item table"
        raise UserError(f"{path}: shape {shape} {dtype}, expected {expected}; write it anew")
    blocks = (vectors[start : start + 4096] for start in range(0, len(items), 4096))
    absent = np.concatenate([np.isnan(block).all(axis=1) for block in blocks])
    return RawFeatures(items.filter(~absent).to_list(), vectors[~absent] if absent.any() else vectors)
