"""Item content of a prepared data set: vectors, attributes and planted truth in the order of the items."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.preparation.check import check_items
from bench.data.preparation.encoders import EncoderOptions, encode_images, encode_titles
from bench.data.preparation.features import Block, Source, hash_feature, rows_of, write_feature
from bench.data.preparation.images import survey
from bench.data.preparation.runs import Watch, silent
from bench.data.schema import ItemContent, RawData, RawFeatures, StreamedFeatures
from bench.errors import UserError

UNKNOWN = ("", "null")  # how publishers write that a category is not known
COLUMN = {"image": "image", "text": "title"}
"""Modality -> the column of the items that it is encoded from."""


def item_table(raw: RawData, ids: pl.Series) -> pl.DataFrame:
    """Return the N kept items, ids ascending, with title, image and attributes where they are known.

    Raises:
        UserError: the table that a reader's function gave is faulty.
    """
    table = pl.DataFrame({"item": ids})
    if raw.items is None:
        return table
    given = raw.items
    if not isinstance(given, pl.DataFrame):
        given = given(ids)
        check_items(given, raw.attributes, ids.dtype)
    texts = [pl.col(name).cast(pl.String) for name in COLUMN.values() if name in given.columns]
    known = given.select(pl.col("item").cast(ids.dtype), *texts, *raw.attributes)
    return table.join(known, on="item", how="left", maintain_order="left")


def write_content(
    raw: RawData,
    items: pl.DataFrame,
    options: EncoderOptions,
    folder: Path,
    cache: Path,
    watch: Watch = silent,
) -> tuple[ItemContent, dict[str, dict[str, Any]]]:
    """Write the vectors of each modality into a folder, block by block.

    Args:
        raw: ready-made vectors; a modality given there is not encoded.
        items: what `item_table` returned.
        options: encoders of the other modalities.
        folder: gets `feature_<modality>.npy`.
        cache: folder of encoded vectors found again.
        watch: is told the stage of long steps, what is done of it and how much it is.

    Returns:
        The content, its vectors mapped from the folder, and by modality: name, hash, dim, coverage (share)
        and lacking (number of items without).

    Raises:
        UserError: ready-made vectors belong to none of the items or are no numbers, titles or pictures cannot
            be encoded.
        OSError: the disk is too full for a modality.
    """
    ids = items["item"]
    features: dict[str, NDArray[Any]] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    made: dict[str, dict[str, Any]] = {}
    ready = {name: _ready(name, given, ids) for name, given in raw.features.items()}
    encoded = _encoded(items, options, cache, set(ready), watch)
    for modality, source in sorted((ready | encoded).items()):
        path = folder / f"feature_{modality}.npy"
        mask = write_feature(path, modality, source, ids, watch)
        if mask is None and modality in ready:
            raise _none_known(modality, "none", ids)
        if mask is None:
            continue
        array = features[modality] = np.load(path, mmap_mode="r")
        present[modality] = mask
        made[modality] = {
            "name": source.name,
            "hash": source.hash or hash_feature(path, mask, watch, modality),
            "dim": array.shape[1],
            "coverage": float(mask[1:].mean()),
            "lacking": int((~mask[1:]).sum()),
        }
    attributes = {name: _numbered(items[name]) for name in raw.attributes}
    return ItemContent(len(items), features, present, attributes), made


def _ready(modality: str, given: RawFeatures | StreamedFeatures, ids: pl.Series) -> Source:
    if isinstance(given, StreamedFeatures):
        return Source(partial(_streamed, modality, given, ids), "ready-made")
    known = pl.DataFrame(
        {"item": pl.Series(given.items, dtype=ids.dtype), "row": np.arange(len(given.items))}
    )
    joined = ids.to_frame("item").join(known, on="item", how="left", maintain_order="left")
    rows = joined["row"].fill_null(-1).to_numpy()
    if not (rows >= 0).any():
        there = f"'{given.items[0]}', items such as '{ids[0]}'" if given.items else "none"
        raise _none_known(modality, there, ids)
    dtype = np.float16 if given.vectors.dtype == np.float16 else np.float32
    return Source(partial(_held, given.vectors, rows), "ready-made", dtype=dtype)


def _none_known(modality: str, there: str, ids: pl.Series) -> UserError:
    missing = f"none of {len(ids)} items has a vector (ids there: {there})"
    return UserError(f"{modality} features: {missing}; give the vectors the ids of the events")


def _streamed(modality: str, given: StreamedFeatures, ids: pl.Series) -> Iterator[Block]:
    for rows, vectors in given.blocks(ids):
        if vectors.shape[-1] != given.width:
            fix = f"expected width {given.width}, which the reader declares; correct one of them"
            raise UserError(f"{modality} features: a block of shape {vectors.shape}; {fix}")
        yield rows, vectors


def _held(vectors: NDArray[np.floating], rows: NDArray[np.int64]) -> Iterator[Block]:
    """Yield the vectors of the items that have one; `rows` (N,) is -1 for the others."""
    items = np.flatnonzero(rows >= 0)
    step = rows_of(vectors.shape[1], vectors.dtype)
    for start in range(0, len(items), step):
        part = items[start : start + step]
        yield part, vectors[rows[part]]


def _encoded(
    items: pl.DataFrame, options: EncoderOptions, cache: Path, ready: set[str], watch: Watch
) -> dict[str, Source]:
    sources = {}
    if "image" in items.columns and "image" not in ready:
        images = items["image"].to_list()
        if options.image == "none":
            survey([path for path in images if path], watch)
        else:
            sources["image"] = encode_images(images, options, cache, watch)
    if "title" in items.columns and "text" not in ready and options.text != "none":
        sources["text"] = encode_titles(items["title"].to_list(), options, cache, watch)
    return sources


def _numbered(column: pl.Series) -> NDArray[np.int32]:
    """Return (N + 1,) categories from 1, ascending by raw value; 0 where unknown and in row 0."""
    if column.dtype in (pl.String, pl.Null):
        column = column.cast(pl.String)
        column = column.set(column.is_in(UNKNOWN).fill_null(False), None)
    values = column.drop_nulls().unique().sort()
    numbers = pl.DataFrame({"value": values, "number": np.arange(1, len(values) + 1, dtype=np.int32)})
    joined = column.to_frame("value").join(numbers, on="value", how="left", maintain_order="left")
    return np.concatenate([np.zeros(1, np.int32), joined["number"].fill_null(0).to_numpy()])


def not_encoded(items: pl.DataFrame, content: ItemContent) -> dict[str, float]:
    """Return modality -> fraction of items that have a title or picture of which no vectors were made."""
    told = lacking(items, content)
    return {
        name: (len(items) - count) / len(items)
        for name, count in told.items()
        if name not in content.features
    }


def lacking(items: pl.DataFrame, content: ItemContent) -> dict[str, int]:
    """Return modality -> number of items without it, encoded or not; modalities of no item are left out."""
    counts = {name: int((~mask[1:]).sum()) for name, mask in content.present.items()}
    for modality, column in COLUMN.items():
        if modality not in counts and column in items.columns:
            counts[modality] = int((items[column].fill_null("") == "").sum())
    return {name: count for name, count in sorted(counts.items()) if count < len(items)}


def write_truth(raw: RawData, ids: pl.Series, folder: Path) -> None:
    """Write planted quantities as `truth.npz`; arrays over the raw items become (N + 1, ...)."""
    if not raw.truth:
        return
    arrays: dict[str, Any] = dict(raw.truth)
    if isinstance(raw.items, pl.DataFrame):
        known = raw.items.select(pl.col("item").cast(ids.dtype)).with_row_index("row")
        rows = ids.to_frame("item").join(known, on="item", how="left", maintain_order="left")["row"]
        row, held = rows.fill_null(0).to_numpy(), rows.is_not_null().to_numpy()
        for name, array in raw.truth.items():
            if len(array) == len(raw.items):
                arrays[name] = np.zeros((len(ids) + 1, *array.shape[1:]), array.dtype)
                arrays[name][1:][held] = array[row[held]]
    np.savez(folder / "truth.npz", **arrays)
