"""A prepared data set in other tools' files: RecBole's atomic form, which `datasets/atomic.py` reads back."""

from pathlib import Path

import numpy as np
import polars as pl

from bench.data.schema import Dataset
from bench.errors import UserError
from bench.files import replacing

TEXTS = ("title",)
"""Columns of the items that are words; they are separated by blanks in the files."""
BLOCK = 1_000_000
"""Events written at a time."""


def write_atomic(dataset: Dataset, folder: Path) -> list[Path]:
    """Write NAME.inter with all events and NAME.item with titles, attributes and numbers.

    Raw ids, the order of a user's events, behaviors and times are those of the data set. Vectors of images
    and texts have no place in atomic files.

    Returns:
        The files written.

    Raises:
        UserError: an id or an attribute holds a tab or a line break, which atomic files cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events, paths = dataset.interactions, []
    users, items = dataset.users, dataset.items["item"]
    names = np.array(["", *dataset.behaviors])
    for column, values in (("user_id", users), ("item_id", items)):
        _require_plain(column, values)
    with replacing(folder / f"{dataset.name}.inter") as partial, partial.open("wb") as file:
        owner = events.users()
        for start in range(0, max(len(events), 1), BLOCK):
            rows = slice(start, start + BLOCK)
            block = pl.DataFrame(
                {
                    "user_id:token": users.gather(owner[rows]),
                    "item_id:token": items.gather(events.item[rows].astype(np.int64) - 1),
                    "behavior:token": names[events.behavior[rows]],
                    "timestamp:float": events.timestamp[rows],
                }
            )
            block.write_csv(file, separator="\t", quote_style="never", include_header=start == 0)
    paths.append(folder / f"{dataset.name}.inter")
    with replacing(folder / f"{dataset.name}.item") as partial:
        _item_table(dataset).write_csv(partial, separator="\t", quote_style="never")
    paths.append(folder / f"{dataset.name}.item")
    return paths


def _item_table(dataset: Dataset) -> pl.DataFrame:
    items = dataset.items
    columns = [items["item"].alias("item_id:token")]
    for name in TEXTS:
        if name in items.columns:
            words = items[name].cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()
            columns.append(words.alias(f"{name}:token_seq"))
    for name in dataset.content.attributes:
        if name in items.columns:
            values = items[name].cast(pl.String)
            _require_plain(name, values)
            columns.append(values.alias(f"{name}:token"))
    for name, numbers in dataset.content.numbers.items():
        columns.append(pl.Series(f"{name}:float", numbers[1:]).fill_nan(None))
    return pl.DataFrame(columns)


def _require_plain(column: str, values: pl.Series) -> None:
    """Raise a UserError where a value holds what separates columns or lines."""
    if values.dtype != pl.String:
        return
    bad = values.filter(values.str.contains(r"[\t\r\n]"))
    if len(bad):
        problem = f"{column} {bad[0]!r} holds a tab or a line break, which atomic files cannot"
        raise UserError(f"{problem}; rename it in the raw files")
