"""Item content of a prepared data set: vectors, attributes and planted truth in the order of the items."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.encoders import Encoded, EncoderOptions, encode_images, encode_titles
from bench.data.images import check_images
from bench.data.schema import ItemContent, RawData, RawFeatures
from bench.errors import UserError

CHUNK = 65536
UNKNOWN = ("", "null")  # how publishers write that a category is not known


def item_table(raw: RawData, ids: pl.Series) -> pl.DataFrame:
    """Return the N kept items, ids ascending, with title, image and attributes where they are known."""
    table = pl.DataFrame({"item": ids})
    if raw.items is None:
        return table
    texts = [pl.col(name).cast(pl.String) for name in ("title", "image") if name in raw.items.columns]
    known = raw.items.select(pl.col("item").cast(ids.dtype), *texts, *raw.attributes)
    return table.join(known, on="item", how="left", maintain_order="left")


def write_content(
    raw: RawData, items: pl.DataFrame, options: EncoderOptions, folder: Path, cache: Path
) -> tuple[ItemContent, dict[str, dict[str, Any]]]:
    """Write the vectors of each modality into a folder.

    Args:
        raw: ready-made vectors; a modality given there is not encoded.
        items: what `item_table` returned.
        options: encoders of the other modalities.
        folder: gets `feature_<modality>.npy`.
        cache: folder of CLIP vectors found again.

    Returns:
        The content, its vectors mapped from the folder, and by modality: name, hash, dim, coverage (share).

    Raises:
        UserError: ready-made vectors belong to none of the items, or titles or pictures cannot be encoded.
    """
    features: dict[str, NDArray[Any]] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    made: dict[str, dict[str, Any]] = {}
    sources = {name: _ready(name, given, items["item"]) for name, given in raw.features.items()}
    for modality, encoded in _encoded(items, options, cache, set(sources)).items():
        if encoded.present.any():
            rows = np.where(encoded.present, np.arange(len(items)), -1)
            sources[modality] = (encoded.vectors, rows, encoded.name, encoded.hash)
    for modality, (vectors, rows, name, digest) in sorted(sources.items()):
        array = features[modality] = _write_feature(folder / f"feature_{modality}.npy", vectors, rows)
        mask = present[modality] = np.concatenate([[False], rows >= 0])
        digest = digest or _digest(array, mask)
        coverage = float(mask[1:].mean())
        made[modality] = {"name": name, "hash": digest, "dim": array.shape[1], "coverage": coverage}
    attributes = {name: _numbered(items[name]) for name in raw.attributes}
    return ItemContent(len(items), features, present, attributes), made


Source = tuple[NDArray[Any], NDArray[np.int64], str, str]
"""Vectors, the row of each item among them (-1 where it has none), name, hash ("" where not known yet)."""


def _ready(modality: str, given: RawFeatures, ids: pl.Series) -> Source:
    known = pl.DataFrame(
        {"item": pl.Series(given.items, dtype=ids.dtype), "row": np.arange(len(given.items))}
    )
    joined = ids.to_frame("item").join(known, on="item", how="left", maintain_order="left")
    rows = joined["row"].fill_null(-1).to_numpy()
    if not (rows >= 0).any():
        example = f"'{given.items[0]}', items such as '{ids[0]}'" if given.items else "none"
        fix = "give the vectors the ids of the events"
        raise UserError(
            f"{modality} features: none of {len(ids)} items has a vector (ids there: {example}); {fix}"
        )
    return given.vectors, rows, "ready-made", ""


def _encoded(
    items: pl.DataFrame, options: EncoderOptions, cache: Path, ready: set[str]
) -> dict[str, Encoded]:
    encoded = {}
    if "image" in items.columns and "image" not in ready:
        images = items["image"].to_list()
        check_images(path for path in images if path)
        if options.image != "none":
            encoded["image"] = encode_images(images, options, cache)
    if "title" in items.columns and "text" not in ready and options.text != "none":
        encoded["text"] = encode_titles(items["title"].to_list(), options, cache)
    return encoded


def _write_feature(path: Path, vectors: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Write (N + 1, D) vectors, zero where `rows` is -1 and in row 0, and return them mapped from it."""
    dtype = np.float16 if vectors.dtype == np.float16 else np.float32
    array = np.lib.format.open_memmap(path, "w+", dtype, (len(rows) + 1, vectors.shape[1]))  # zeros
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        held = np.flatnonzero(part >= 0)
        array[1 + start + held] = vectors[part[held]]
    array.flush()
    return array


def _digest(array: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + mask.tobytes())
    for start in range(0, len(array), CHUNK):
        digest.update(np.ascontiguousarray(array[start : start + CHUNK]).tobytes())
    return digest.hexdigest()


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
    shares = {}
    for modality, column in (("image", "image"), ("text", "title")):
        if column in items.columns and modality not in content.features:
            count = (items[column].fill_null("") != "").sum()
            if count:
                shares[modality] = float(count / len(items))
    return shares


def write_truth(raw: RawData, ids: pl.Series, folder: Path) -> None:
    """Write planted quantities as `truth.npz`; arrays over the raw items become (N + 1, ...)."""
    if not raw.truth:
        return
    arrays: dict[str, Any] = dict(raw.truth)
    if raw.items is not None:
        known = raw.items.select(pl.col("item").cast(ids.dtype)).with_row_index("row")
        rows = ids.to_frame("item").join(known, on="item", how="left", maintain_order="left")["row"]
        row, held = rows.fill_null(0).to_numpy(), rows.is_not_null().to_numpy()
        for name, array in raw.truth.items():
            if len(array) == len(raw.items):
                arrays[name] = np.zeros((len(ids) + 1, *array.shape[1:]), array.dtype)
                arrays[name][1:][held] = array[row[held]]
    np.savez(folder / "truth.npz", **arrays)
