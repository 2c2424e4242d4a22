"""Faults of raw data, found before anything is written, and of prepared folders.

Rows are counted from 1. A reader checks the form of its files; what stands here holds for every data set.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.schema import METADATA, RawData, RawFeatures, fingerprint, load, read_metadata
from bench.errors import UserError, hint

LAST_TIME = 4 * 10**18  # the year 2096 in nanoseconds; beyond it stand markers such as the largest int64
MOST_BEHAVIORS = 127  # behavior ids are int8
CHUNK = 65536
RESERVED = ("has_", "attribute_")
TABLES = {
    "events.parquet": ("user", "item", "behavior", "timestamp"),
    "touched.parquet": ("user", "item"),
    "users.parquet": ("user",),
    "items.parquet": ("item",),
}
AGAIN = "prepare the data set again"


@dataclass(frozen=True)
class Finding:
    """One fault of a prepared folder."""

    file: str
    """Name inside the folder."""
    row: int | None
    """Row of the first such fault, from 1; None where the whole file is meant."""
    rule: str
    """What was expected."""
    value: str
    """What stands there."""
    fix: str
    """What to do."""


def check_raw(raw: RawData) -> None:
    """Look for what would make a data set wrong, before it is prepared.

    Raises:
        UserError: the first fault found: a behavior that is not declared, an id that is null, empty or
            negative, a timestamp that is null or no time, no target event, an item listed twice, feature
            vectors that do not fit their items.
    """
    _check_behaviors(raw.behaviors)
    _check_columns(raw.events, "events", ("user", "item", "behavior", "timestamp"))
    if raw.events.is_empty():
        raise UserError("events: no row at all; expected one an event; see that the raw files are not empty")
    for column in ("user", "item"):
        _check_ids(raw.events[column], "events", column)
    _check_mapped(raw.events["behavior"], raw.behaviors)
    _check_timestamps(raw.events["timestamp"])
    if raw.items is not None:
        _check_items(raw.items, raw)
    elif raw.attributes:
        raise UserError(
            f"attributes {', '.join(raw.attributes)}: there is no item table to hold them; add one"
        )
    for modality, features in raw.features.items():
        _check_features(features, modality, raw.events["item"].dtype)


def _check_behaviors(behaviors: tuple[str, ...]) -> None:
    if not 0 < len(behaviors) <= MOST_BEHAVIORS or len(set(behaviors)) < len(behaviors) or "" in behaviors:
        raise UserError(
            f"behaviors {behaviors}: expected 1 to {MOST_BEHAVIORS} different names, shallow to deep"
        )


def _check_columns(frame: pl.DataFrame, table: str, wanted: Iterable[str]) -> None:
    for column in wanted:
        if column not in frame.columns:
            raise UserError(f"{table}: no column '{column}'; {hint(column, frame.columns)}; rename or add it")


def _check_ids(column: pl.Series, table: str, name: str) -> None:
    if not (column.dtype == pl.String or column.dtype.is_integer()):
        fix = "read ids as text or whole numbers, never as numbers with a point"
        raise UserError(f"{table}: column '{name}' has type {column.dtype}; {fix}")
    _refuse(column.is_null(), column, f"{table}: {name}", "an id", "remove the row or fill the id in")
    if column.dtype == pl.String:
        _refuse(column == "", column, f"{table}: {name}", "an id", "remove the row or fill the id in")
    else:
        fix = "such ids mark missing values; remove the row or give ids from 0 on"
        _refuse(column < 0, column, f"{table}: {name}", "0 or more", fix)


def _refuse(wrong: pl.Series, column: pl.Series, where: str, expected: str, fix: str) -> None:
    """Raise for the first row marked wrong; a null mark is not one."""
    row = wrong.fill_null(False).arg_max() if wrong.any() else None
    if row is not None:
        table, _, name = where.partition(": ")
        raise UserError(f"{table}, row {row + 1}: {name} is {column[row]!r}, expected {expected}; {fix}")


def _check_mapped(column: pl.Series, behaviors: tuple[str, ...]) -> None:
    _refuse(
        column.is_null(), column, "events: behavior", "one of " + ", ".join(behaviors), "drop or map the row"
    )
    found = set(column.unique().to_list())
    unknown = sorted(map(str, found - set(behaviors)))
    if unknown:
        fix = f"{hint(unknown[0], behaviors)}; map it to one of these or drop its rows"
        _refuse(column.cast(pl.String) == unknown[0], column, "events: behavior", ", ".join(behaviors), fix)
    target = behaviors[-1]
    if target not in found:
        fix = "map a raw behavior to the target, the last one"
        counts = ", ".join(sorted(map(str, found)))
        raise UserError(
            f"events: none of {len(column)} rows has the target behavior '{target}' (found: {counts}); {fix}"
        )


def _check_timestamps(column: pl.Series) -> None:
    if not column.dtype.is_integer():
        fix = "turn times into whole numbers (seconds or milliseconds) in the reader"
        raise UserError(f"events: column 'timestamp' has type {column.dtype}; {fix}")
    fix = "repair the time or remove the row"
    _refuse(column.is_null(), column, "events: timestamp", "a whole number", fix)
    expected = f"0 to {LAST_TIME} (any unit from nanoseconds to days)"
    _refuse((column < 0) | (column > LAST_TIME), column, "events: timestamp", expected, fix)


def _check_items(items: pl.DataFrame, raw: RawData) -> None:
    _check_columns(items, "items", ("item", *raw.attributes))
    wanted = raw.events["item"].dtype
    _check_ids(items["item"], "items", "item")
    if (items["item"].dtype == pl.String) != (wanted == pl.String):
        raise UserError(
            f"items: column 'item' has type {items['item'].dtype}, in events {wanted}; make them the same"
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
    for name in raw.attributes:
        if name.startswith(RESERVED) or name in ("item", "title", "image"):
            raise UserError(f"items: '{name}' cannot be the name of an attribute; rename the column")
        if not (items[name].dtype in (pl.String, pl.Null) or items[name].dtype.is_integer()):
            fix = "read it as text or whole numbers"
            raise UserError(f"items: attribute '{name}' has type {items[name].dtype}; {fix}")


def _check_features(features: RawFeatures, modality: str, ids: pl.DataType) -> None:
    vectors, where = features.vectors, f"{modality} features"
    if vectors.ndim != 2 or not vectors.shape[1] or not np.issubdtype(vectors.dtype, np.floating):
        given = f"shape {vectors.shape}, {vectors.dtype}"
        raise UserError(f"{where}: {given}; expected (items, width) float16 or float32; save them so")
    if len(features.items) != len(vectors):
        fix = "give one row for each item of the list, in its order"
        raise UserError(f"{where}: {len(vectors)} vectors for {len(features.items)} items; {fix}")
    items = pl.Series("item", features.items, dtype=None if features.items else ids)
    _check_ids(items, where, "item")
    if (items.dtype == pl.String) != (ids == pl.String):
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


def check_prepared(folder: Path) -> list[Finding]:
    """Return the faults of a prepared folder; an empty list where it is sound.

    Rules: all files are there; users, items and behaviors in range; events in the order of user and time;
    touched items hold all items of the events; feature arrays have N + 1 rows, zero in row 0 and for absent
    items, finite everywhere; at least one target event; the stored fingerprint is that of the contents.
    """
    try:
        metadata = read_metadata(folder)
        tables = {name: pl.read_parquet(folder / name) for name in TABLES}
    except (UserError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        return [Finding(METADATA, None, "readable files", " ".join(str(error).split()), AGAIN)]
    for name, columns in TABLES.items():
        if missing := [column for column in columns if column not in tables[name].columns]:
            return [Finding(name, None, "columns " + ", ".join(columns), f"no '{missing[0]}'", AGAIN)]
    findings = [*_event_findings(tables, len(metadata["behaviors"])), *_touched_findings(tables)]
    findings += _feature_findings(folder, tables["items.parquet"])
    if findings:
        return findings
    stored, actual = metadata.get("fingerprint"), fingerprint(load(folder))
    if stored != actual:
        return [Finding(METADATA, None, f"fingerprint {actual}, that of the contents", str(stored), AGAIN)]
    return []


def _event_findings(tables: dict[str, pl.DataFrame], behaviors: int) -> Iterator[Finding]:
    file, events = "events.parquet", tables["events.parquet"]
    yield from _range_finding(file, events["user"], 0, len(tables["users.parquet"]) - 1)
    yield from _range_finding(file, events["item"], 1, len(tables["items.parquet"]))
    yield from _range_finding(file, events["behavior"], 1, behaviors)
    user, time = events["user"].to_numpy(), events["timestamp"].to_numpy()
    same = user[1:] == user[:-1]
    disorder = (user[1:] < user[:-1]) | (same & (time[1:] < time[:-1]))
    if disorder.any():
        row = int(disorder.argmax()) + 1
        value = f"user {user[row]} at {time[row]} after user {user[row - 1]} at {time[row - 1]}"
        yield Finding(file, row + 1, "order by user, then timestamp", value, AGAIN)
    if not (events["behavior"] == behaviors).any():
        fix = "map a raw behavior to the target and prepare again"
        yield Finding(file, None, f"at least one target event (behavior {behaviors})", "none", fix)


def _range_finding(file: str, column: pl.Series, low: int, high: int) -> Iterator[Finding]:
    wrong = (column.is_null() | (column < low) | (column > high)).fill_null(True)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        yield Finding(file, row + 1, f"{column.name} from {low} to {high}", str(column[row]), AGAIN)


def _touched_findings(tables: dict[str, pl.DataFrame]) -> Iterator[Finding]:
    file, touched = "touched.parquet", tables["touched.parquet"]
    yield from _range_finding(file, touched["user"], 0, len(tables["users.parquet"]) - 1)
    yield from _range_finding(file, touched["item"], 1, len(tables["items.parquet"]))
    pairs = touched.select("user", "item").cast(pl.Int64)
    key = pairs["user"].to_numpy() * (len(tables["items.parquet"]) + 1) + pairs["item"].to_numpy()
    disorder = key[1:] <= key[:-1]
    if disorder.any():
        row = int(disorder.argmax()) + 1
        value = f"user {pairs['user'][row]}, item {pairs['item'][row]}"
        yield Finding(file, row + 1, "order by user, then item, each pair once", value, AGAIN)
    events = tables["events.parquet"].select("user", "item").cast(pl.Int64).with_row_index("row")
    missing = events.join(pairs, on=["user", "item"], how="anti").sort("row")
    if len(missing):
        row, user, item = missing.row(0)
        rule = "every item of a user's events among the items touched"
        yield Finding("events.parquet", row + 1, rule, f"user {user}, item {item}", AGAIN)


def _feature_findings(folder: Path, items: pl.DataFrame) -> Iterator[Finding]:
    for column in [name for name in items.columns if name.startswith("has_")]:
        file = f"feature_{column.removeprefix('has_')}.npy"
        try:
            vectors = np.load(folder / file, mmap_mode="r")
        except (OSError, ValueError) as error:
            yield Finding(file, None, "a readable array", " ".join(str(error).split()), AGAIN)
            continue
        if vectors.ndim != 2 or len(vectors) != len(items) + 1:
            rule = f"{len(items) + 1} rows, one an item after the padding row"
            yield Finding(file, None, rule, f"shape {vectors.shape}", AGAIN)
            continue
        if (row := first_wrong_row(vectors)) is not None:
            yield Finding(file, row + 1, "finite values", "NaN or infinite", AGAIN)
        absent = np.concatenate([[0], 1 + np.flatnonzero(~items[column].to_numpy())])
        parts = np.array_split(absent, len(absent) // CHUNK + 1)
        filled = [part[vectors[part].any(axis=1)] for part in parts]
        if len(rows := np.concatenate(filled)):
            rule = "zeros where the item is absent" if rows[0] else "zeros in the padding row"
            yield Finding(file, int(rows[0]) + 1, rule, "other values", AGAIN)
