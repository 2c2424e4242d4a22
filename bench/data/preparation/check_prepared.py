"""Faults of a prepared folder: what was damaged, or changed by hand, after it was written."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bench.data.preparation.check import CHUNK, first_wrong_row
from bench.data.storage import METADATA, fingerprint, read_metadata
from bench.errors import UserError

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
    """What the file holds instead."""
    fix: str
    """What to do."""


def check_prepared(folder: Path) -> list[Finding]:
    """Return the faults of a prepared folder; an empty list where it is sound.

    Rules: all files are there; users, items and behaviors in range; events in the order of user and time;
    touched items hold all items of the events; feature arrays have N + 1 rows, zero in row 0 and for absent
    items, finite everywhere; at least one target event; the stored fingerprint is that of the contents.
    """
    try:
        metadata = read_metadata(folder)
        tables = {name: pl.read_parquet(folder / name, glob=False) for name in TABLES}
    except (UserError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        return [Finding(METADATA, None, "readable files", " ".join(str(error).split()), AGAIN)]
    for name, columns in TABLES.items():
        if missing := [column for column in columns if column not in tables[name].columns]:
            return [Finding(name, None, "columns " + ", ".join(columns), f"no '{missing[0]}'", AGAIN)]
    findings = [*_event_findings(tables, len(metadata["behaviors"])), *_touched_findings(tables)]
    findings += _feature_findings(folder, tables["items.parquet"])
    if findings:
        return findings
    stored, actual = metadata.get("fingerprint"), fingerprint(folder, metadata["behaviors"])
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
            rule = f"{len(items) + 1} rows, one per item after the padding row"
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
