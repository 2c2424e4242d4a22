"""Faults of raw data, found before anything is written.

Rows are counted from 1. A reader checks the form of its files; what stands here holds for every data set.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.readers.missing import is_missing
from bench.data.schema import TOUCHED, RawData, RawFeatures
from bench.errors import UserError, hint

LAST_TIME = 4 * 10**18  # the year 2096 in nanoseconds; beyond it stand markers such as the largest int64
MOST_BEHAVIORS = 127  # behavior ids are int8
CHUNK = 65536
RESERVED = ("has_", "attribute_", "number_")


def check_raw(raw: RawData) -> None:
    """Look for what would make a data set wrong, before it is prepared.

    Raises:
        UserError: the first fault found: a behavior that is not declared, an id that is missing (null,
            empty, or a word such as `nan`) or negative, a timestamp that is null or no time, no target event,
            an item listed twice, feature vectors that do not fit their items.
    """
    _check_behaviors(raw.behaviors)
    ids = None  # of a stream it is not known yet
    if isinstance(raw.events, pl.DataFrame):
        ids = raw.events.schema.get("item")
        check_columns(raw.events, "events", ("user", "item", "behavior", "timestamp"))
        if raw.events.is_empty():
            fix = "see that the raw files are not empty"
            raise UserError(f"events: no row at all; expected one row per event; {fix}")
        check_events(raw.events, raw.behaviors)
        _check_target(raw.events["behavior"], raw.behaviors)
    if isinstance(raw.items, pl.DataFrame):
        check_items(raw.items, raw.attributes, ids, raw.numbers)
    elif (named := raw.attributes + raw.numbers) and raw.items is None:
        raise UserError(f"attributes {', '.join(named)}: there is no item table to hold them; add one")
    for modality, features in raw.features.items():
        if isinstance(features, RawFeatures):
            check_features(features, modality, ids)


def check_events(events: pl.DataFrame, behaviors: tuple[str, ...]) -> None:
    """Look for faults in events, or a part of them.

    Raises:
        UserError: an id that is missing or negative, an unknown behavior, a timestamp that is none.
    """
    for column in ("user", "item"):
        check_ids(events[column], "events", column)
    check_mapped(events["behavior"], behaviors)
    check_timestamps(events["timestamp"])


def _check_behaviors(behaviors: tuple[str, ...]) -> None:
    if not 0 < len(behaviors) <= MOST_BEHAVIORS or len(set(behaviors)) < len(behaviors) or "" in behaviors:
        raise UserError(
            f"behaviors {behaviors}: expected 1 to {MOST_BEHAVIORS} different names, shallow to deep"
        )


def check_columns(frame: pl.DataFrame, table: str, wanted: Iterable[str]) -> None:
    """Raise a UserError for the first of some columns that a table lacks."""
    for column in wanted:
        if column not in frame.columns:
            raise UserError(f"{table}: no column '{column}'; {hint(column, frame.columns)}; rename or add it")


def check_ids(column: pl.Series, table: str, name: str) -> None:
    """Raise a UserError for ids of another type, or for the first that is missing or negative."""
    if not (column.dtype == pl.String or column.dtype.is_integer()):
        fix = "read ids as text or whole numbers, never as numbers with a point"
        raise UserError(f"{table}: column '{name}' has type {column.dtype}; {fix}")
    _refuse(column.is_null(), column, f"{table}: {name}", "an id", "remove the row or fill the id in")
    if column.dtype == pl.String:
        missing = column.to_frame(name).select(is_missing(pl.col(name))).to_series()
        _refuse(missing, column, f"{table}: {name}", "an id", "remove the row or fill the id in")
    else:
        fix = "such ids mark missing values; remove the row or give ids from 0 on"
        _refuse(column < 0, column, f"{table}: {name}", "0 or more", fix)


def _refuse(wrong: pl.Series, column: pl.Series, where: str, expected: str, fix: str) -> None:
    """Raise for the first row marked wrong; a null mark is not one."""
    row = wrong.fill_null(False).arg_max() if wrong.any() else None
    if row is not None:
        table, _, name = where.partition(": ")
        raise UserError(f"{table}, row {row + 1}: {name} is {column[row]!r}, expected {expected}; {fix}")


def check_mapped(column: pl.Series, behaviors: tuple[str, ...]) -> None:
    """Raise a UserError for the first row whose behavior is none of those declared, nor `TOUCHED`."""
    _refuse(
        column.is_null(), column, "events: behavior", "one of " + ", ".join(behaviors), "drop or map the row"
    )
    named = set(column.unique().to_list()) - {TOUCHED}
    unknown = sorted(map(str, named - set(behaviors)))
    if unknown:
        fix = f"{hint(unknown[0], behaviors)}; map it to one of these or drop its rows"
        _refuse(column.cast(pl.String) == unknown[0], column, "events: behavior", ", ".join(behaviors), fix)


def _check_target(column: pl.Series, behaviors: tuple[str, ...]) -> None:
    target, named = behaviors[-1], column.unique().to_list()
    if target not in named:
        fix = "map a raw behavior to the target, the last one"
        counts = ", ".join(sorted(map(str, named)))
        raise UserError(
            f"events: none of {len(column)} rows has the target behavior '{target}' (found: {counts}); {fix}"
        )


def check_timestamps(column: pl.Series) -> None:
    """Raise a UserError for times that are no whole numbers, or for the first that is no time."""
    if not column.dtype.is_integer():
        fix = "turn times into whole numbers (seconds or milliseconds) in the reader"
        raise UserError(f"events: column 'timestamp' has type {column.dtype}; {fix}")
    fix = "repair the time or remove the row"
    _refuse(column.is_null(), column, "events: timestamp", "a whole number", fix)
    column = column.cast(pl.Int128)  # a narrow column cannot be compared with a wide number
    expected = f"0 to {LAST_TIME} (any unit from nanoseconds to days)"
    _refuse((column < 0) | (column > LAST_TIME), column, "events: timestamp", expected, fix)


def check_items(
    items: pl.DataFrame, attributes: tuple[str, ...], ids: pl.DataType | None, numbers: tuple[str, ...] = ()
) -> None:
    """Look for faults in an item table.

    Args:
        items: what a reader gives.
        attributes: names of its categorical columns.
        ids: type of the items in the events; None where it is not known yet.
        numbers: names of its numerical columns.

    Raises:
        UserError: a column is missing or of the wrong type, an id is none or stands there twice.
    """
    check_columns(items, "items", ("item", *attributes, *numbers))
    check_ids(items["item"], "items", "item")
    if ids is not None and (items["item"].dtype == pl.String) != (ids == pl.String):
        raise UserError(
            f"items: column 'item' has type {items['item'].dtype}, in events {ids}; make them the same"
        )
    _refuse(
        ~items["item"].is_first_distinct(),
        items["item"],
        "items: item",
        "each item once",
        "remove the second row",
    )
    for name in ("title", "image"):
        if name in items.columns and items[name].dtype not in (pl.String, pl.Null):
            raise UserError(
                f"items: column '{name}' has type {items[name].dtype}, expected text; read it as text"
            )
    for name in attributes:
        if name.startswith(RESERVED) or name in ("item", "title", "image"):
            raise UserError(f"items: '{name}' cannot be the name of an attribute; rename the column")
        if not (items[name].dtype in (pl.String, pl.Null) or items[name].dtype.is_integer()):
            fix = "read it as text or whole numbers"
            raise UserError(f"items: attribute '{name}' has type {items[name].dtype}; {fix}")
    for name in numbers:
        if name.startswith(RESERVED) or name in ("item", "title", "image"):
            raise UserError(f"items: '{name}' cannot be the name of a number; rename the column")
        column = items[name]
        if not (column.dtype.is_numeric() or column.dtype == pl.Null):
            fix = "turn it into numbers in the reader"
            raise UserError(f"items: number '{name}' has type {column.dtype}; {fix}")
        finite = column.cast(pl.Float64).is_finite().fill_null(True)
        _refuse(~finite, column, f"items: {name}", "a finite number or nothing", "leave it empty")


def check_features(features: RawFeatures, modality: str, ids: pl.DataType | None) -> None:
    """Raise a UserError for vectors of another form, that do not fit their items, or that are not finite."""
    vectors, where = features.vectors, f"{modality} features"
    if vectors.ndim != 2 or not vectors.shape[1] or not np.issubdtype(vectors.dtype, np.floating):
        given = f"shape {vectors.shape}, {vectors.dtype}"
        raise UserError(f"{where}: {given}; expected (items, width) float16 or float32; save them so")
    if len(features.items) != len(vectors):
        fix = "give one row for each item of the list, in its order"
        raise UserError(f"{where}: {len(vectors)} vectors for {len(features.items)} items; {fix}")
    items = pl.Series("item", features.items, dtype=None if features.items else ids)
    check_ids(items, where, "item")
    if ids is not None and (items.dtype == pl.String) != (ids == pl.String):
        raise UserError(f"{where}: item ids have type {items.dtype}, in events {ids}; make them the same")
    _refuse(~items.is_first_distinct(), items, f"{where}: item", "each item once", "remove the second row")
    row = first_wrong_row(vectors)
    if row is not None:
        fix = "repair the vector, or leave the item out so that it counts as absent"
        raise UserError(f"{where}, row {row + 1} (item {features.items[row]}): NaN or infinite values; {fix}")


def first_wrong_row(vectors: NDArray[Any]) -> int | None:
    """Return the first row of (rows, D) with a NaN or infinite value, None where all are finite."""
    for start in range(0, len(vectors), CHUNK):
        wrong = ~np.isfinite(vectors[start : start + CHUNK]).all(axis=1)
        if wrong.any():
            return start + int(wrong.argmax())
    return None
