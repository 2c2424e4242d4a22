"""Pictures in a folder, found by the item ids in their names: `5.jpg`, `5.JPEG`, `B00004.webp`.

All readers look for pictures by this module, so that all know the same suffixes, in any case.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl

from bench.errors import UserError

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2",
)  # fmt: skip
WHOLE = r"^[0-9]{1,18}$"
ROWS = 100_000  # names at once


def pictures(
    folder: Path, ids: pl.Series | None = None, dtype: pl.DataType | None = None, prefix: str = ""
) -> pl.DataFrame:
    """Return item and image (path) of the pictures named by an item id, ids ascending.

    Args:
        folder: is read itself, its folders are not.
        ids: pictures of other items are passed over; None takes all.
        dtype: of the items, where no ids are given: text, or int64 (the default), whose names are digits.
        prefix: letters that may stand before an id.

    Raises:
        UserError: an item has two pictures.
    """
    kind = ids.dtype if ids is not None else dtype or pl.Int64()
    tables = [pl.DataFrame(schema={"item": kind, "image": pl.String})]
    names = _names(folder)
    while part := list(islice(names, ROWS)):
        table = _by_item(part, kind, prefix)
        tables.append(table if ids is None else table.join(ids.to_frame("item"), on="item", how="semi"))
    table = pl.concat(tables).sort("item", "image")
    again = table.filter(pl.col("item").is_duplicated()).head(2)
    if len(again):
        item, (one, other) = again["item"][0], again["image"]
        raise UserError(f"{folder}: item {item} has two pictures, {one} and {other}; remove one of them")
    return table.with_columns(pl.format("{}/{}", pl.lit(str(folder)), "image").alias("image"))


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = os.path.splitext(entry.name)[1]  # noqa: PTH122 (a Path for each of millions is slow)
            if ending.lower() in SUFFIXES and not entry.name.startswith("."):
                yield entry.name


def _by_item(names: list[str], kind: pl.DataType, prefix: str) -> pl.DataFrame:
    name = pl.Series("image", names, dtype=pl.String)
    item = name.str.strip_prefix(prefix).str.replace(r"\.[^.]+$", "").alias("item")
    table = pl.DataFrame([item, name])
    if kind != pl.String:
        table = table.filter(pl.col("item").str.contains(WHOLE)).with_columns(pl.col("item").cast(kind))
    return table
