"""Item content of a prepared data set: vectors, attributes and planted truth in the order of the items."""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.preparation.check import check_items
from bench.data.preparation.encoders import EncoderOptions, encode_images, encode_titles
from bench.data.preparation.features import Block, Source, hash_feature, rows_of, write_feature
from bench.data.preparation.images import SHOWN, survey
from bench.data.preparation.runs import Watch, silent
from bench.data.readers.known import first_ids, require_known
from bench.data.readers.missing import is_word, present
from bench.data.readers.pictures import SUFFIXES
from bench.data.schema import ItemContent, RawData, RawFeatures, StreamedFeatures
from bench.data.storage import write_items
from bench.errors import UserError

NOTHING = EncoderOptions(text="none", image="none")
COLUMN = {"image": "image", "text": "title"}
"""Modality -> the column of the items that it is encoded from."""


def describe_items(
    raw: RawData,
    ids: pl.Series,
    encoders: EncoderOptions,
    asked: Collection[str],
    folder: Path,
    cache: Path,
    watch: Watch,
) -> dict[str, Any]:
    """Write what is known of the items into a folder, and return what the metadata say of it.

    The arguments and errors are those of `item_table` and `write_content`.
    """
    items = item_table(raw, ids, encoders, asked)
    content, made, broken = write_content(raw, items, encoders, folder, cache, watch)
    items = without_pictures(items, broken)
    write_truth(raw, ids, folder)
    write_items(items, content, folder)
    return {
        "encoders": made,
        "not_encoded": not_encoded(items, content),
        "lacking": lacking(items, content),
        "broken_pictures": {"count": len(broken), "first": list(broken.values())[:SHOWN]},
        "attributes": {name: int(numbers.max()) for name, numbers in content.attributes.items()},
        "numbers": {name: int((~np.isnan(values)).sum()) for name, values in content.numbers.items()},
    }


def item_table(
    raw: RawData, ids: pl.Series, options: EncoderOptions = NOTHING, asked: Collection[str] = ()
) -> pl.DataFrame:
    """Return the N kept items, ids ascending, with title, image and attributes where they are known.

    Args:
        raw: what a reader returned.
        ids: (N,) raw ids of the items, ascending.
        options: what is to be encoded.
        asked: modalities whose encoder the user has named, also where it is the default one.

    Raises:
        UserError: the table that a reader's function gave is faulty; the table holds none of the items, or
            titles or pictures of other items only; a modality is asked for that no item has.
    """
    table = pl.DataFrame({"item": ids})
    if raw.items is None:
        _require_content(raw, table, table.clear(), options, asked)
        return table
    given = raw.items
    if not isinstance(given, pl.DataFrame):
        given = given(ids)
        check_items(given, raw.attributes, ids.dtype, raw.numbers)
    columns = [name for name in COLUMN.values() if name in given.columns]
    texts = [pl.when(~is_word(pl.col(name))).then(name) for name in columns]
    given = given.with_columns(pl.col(columns).cast(pl.String))
    known = given.select(pl.col("item").cast(ids.dtype), *texts, *raw.attributes, *raw.numbers)
    matched = table.join(known, on="item", how="semi")
    require_known("item table", len(matched), known["item"], ids)
    joined = table.join(known, on="item", how="left", maintain_order="left")
    _require_content(raw, joined, known, options, asked)
    return joined


def _require_content(
    raw: RawData, items: pl.DataFrame, known: pl.DataFrame, options: EncoderOptions, asked: Collection[str]
) -> None:
    """Raise a UserError for a modality that is to be encoded and that no item has.

    Titles are encoded unless the user says otherwise, so that a data set without any is no fault where he has
    said nothing; titles under ids that are those of no item are.
    """
    for modality, column in COLUMN.items():
        encoder = getattr(options, modality)
        if encoder == "none" or modality in raw.features or filled(items, column).any():
            continue
        known_ids = known.filter(filled(known, column))["item"]
        if encoder == getattr(EncoderOptions, modality) and modality not in asked and not len(known_ids):
            continue
        source, names = (
            _pictures_of(raw, known_ids) if modality == "image" else ("titles", first_ids(known_ids))
        )
        fix = f"give a column {column} in an item table with the ids of the events"
        if modality == "image" and raw.pictures is not None:
            fix = f"name picture files by item id, with a suffix such as {', '.join(SUFFIXES[:6])}"
        both = f"there: {names}; items in the events: {first_ids(items['item'])}"
        problem = f"none of the {len(items)} items has one of the {source} ({both})"
        raise UserError(f"{modality} = {encoder}: {problem}; {fix}, or set data.{modality}=none")


def _pictures_of(raw: RawData, known_ids: pl.Series) -> tuple[str, str]:
    """Return where pictures were looked for, and the first names in that folder or the ids of the table."""
    if raw.pictures is None:
        return "pictures of the item table", first_ids(known_ids)
    if not raw.pictures.is_dir():
        return f"pictures in {raw.pictures}", "no such folder"
    first = sorted(islice((path.name for path in raw.pictures.iterdir()), 1000))
    return f"pictures in {raw.pictures}", first_ids(first)


def filled(items: pl.DataFrame, column: str) -> pl.Series:
    """Return (N,) whether an item has something in a column, which may be missing."""
    if column not in items.columns:
        return pl.repeat(False, len(items), eager=True)
    return items[column].cast(pl.String).fill_null("") != ""


def write_content(
    raw: RawData,
    items: pl.DataFrame,
    options: EncoderOptions,
    folder: Path,
    cache: Path,
    watch: Watch = silent,
) -> tuple[ItemContent, dict[str, dict[str, Any]], dict[str, str]]:
    """Write the vectors of each modality into a folder, block by block.

    Args:
        raw: ready-made vectors; a modality given there is not encoded.
        items: what `item_table` returned.
        options: encoders of the other modalities.
        folder: gets `feature_<modality>.npy`.
        cache: folder of encoded vectors found again.
        watch: progress callback (stage, done, total).

    Returns:
        The content, its vectors mapped from the folder; by modality: name, hash, dim, coverage (share) and
        lacking (number of items without); path -> fault of the broken pictures that were skipped.

    Raises:
        UserError: ready-made vectors belong to none of the items or are no numbers, titles or pictures cannot
            be encoded, or every picture is broken.
        OSError: the disk is too full for a modality.
    """
    ids = items["item"]
    features: dict[str, NDArray[Any]] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    made: dict[str, dict[str, Any]] = {}
    ready = {name: _ready(name, given, ids) for name, given in raw.features.items()}
    encoded, broken = _encoded(items, options, cache, set(ready), watch)
    for modality, source in sorted((ready | encoded).items()):
        path = folder / f"feature_{modality}.npy"
        mask = write_feature(path, modality, source, ids, watch)
        if mask is None:
            _require_vectors(modality, modality in ready, options, broken, ids)
            continue
        array = features[modality] = np.load(path, mmap_mode="r")
        present[modality] = mask
        made[modality] = {
            "name": source.name,
            "hash": source.hash or hash_feature(path, mask, watch, modality),
            "dim": array.shape[1],
            **_coverage(mask),
        }
    attributes = {name: _numbered(items[name]) for name in raw.attributes}
    numbers = {name: _valued(items[name]) for name in raw.numbers}
    return ItemContent(len(items), features, present, attributes, numbers), made, broken


def _coverage(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share of items with a vector and the number without; mask (N + 1,), row 0 unused."""
    return {"coverage": float(mask[1:].mean()), "lacking": int((~mask[1:]).sum())}


def _require_vectors(
    modality: str, given: bool, options: EncoderOptions, broken: Mapping[str, str], ids: pl.Series
) -> None:
    """Raise a UserError where vectors were given, or pictures are there, and no item has any."""
    if given:
        raise _none_known(modality, "none", ids)
    if modality == "image":
        first = next(iter(broken.values()))
        raise UserError(f"image = {options.image}: all {len(broken)} pictures are broken; {first}")


def _ready(modality: str, given: RawFeatures | StreamedFeatures, ids: pl.Series) -> Source:
    if isinstance(given, StreamedFeatures):
        return Source(partial(_streamed, modality, given, ids), "ready-made")
    known = pl.DataFrame(
        {"item": pl.Series(given.items, dtype=ids.dtype), "row": np.arange(len(given.items))}
    )
    joined = ids.to_frame("item").join(known, on="item", how="left", maintain_order="left")
    rows = joined["row"].fill_null(-1).to_numpy()
    if not (rows >= 0).any():
        raise _none_known(modality, first_ids(given.items), ids)
    dtype = np.float16 if given.vectors.dtype == np.float16 else np.float32
    return Source(partial(_held, given.vectors, rows), "ready-made", dtype=dtype)


def _none_known(modality: str, known_ids: str, ids: pl.Series) -> UserError:
    missing = (
        f"none of {len(ids)} items has a vector (ids there: {known_ids}; in the events: {first_ids(ids)})"
    )
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
) -> tuple[dict[str, Source], dict[str, str]]:
    """Return what is encoded, and the broken pictures, also where none is encoded."""
    sources: dict[str, Source] = {}
    broken: dict[str, str] = {}
    if "image" in items.columns and "image" not in ready:
        images = items["image"].to_list()
        if options.image == "none":
            broken = survey(images, options.on_bad_row, watch).broken
        else:
            sources["image"] = encode_images(images, options, cache, watch)
            broken = dict(sources["image"].broken)
    if "title" in items.columns and "text" not in ready and options.text != "none":
        sources["text"] = encode_titles(items["title"].to_list(), options, cache, watch)
    return sources, broken


def without_pictures(items: pl.DataFrame, broken: Mapping[str, str]) -> pl.DataFrame:
    """Return the items with no path where the picture is broken, so that it counts as absent everywhere."""
    if not broken:
        return items
    sound = ~pl.col("image").is_in(list(broken))
    return items.with_columns(image=pl.when(sound).then("image"))


def _numbered(column: pl.Series) -> NDArray[np.int32]:
    """Return (N + 1,) categories from 1, ascending by raw value; 0 where unknown and in row 0."""
    if column.dtype in (pl.String, pl.Null):
        text = pl.col(column.name).cast(pl.String)
        column = column.to_frame().select(present(text)).to_series()
    values = column.drop_nulls().unique().sort()
    numbers = pl.DataFrame({"value": values, "number": np.arange(1, len(values) + 1, dtype=np.int32)})
    joined = column.to_frame("value").join(numbers, on="value", how="left", maintain_order="left")
    return np.concatenate([np.zeros(1, np.int32), joined["number"].fill_null(0).to_numpy()])


def _valued(column: pl.Series) -> NDArray[np.float32]:
    """Return (N + 1,) values, NaN where unknown and in row 0."""
    values = column.cast(pl.Float32).fill_null(np.nan).to_numpy()
    return np.concatenate([np.full(1, np.nan, np.float32), values])


def not_encoded(items: pl.DataFrame, content: ItemContent) -> dict[str, float]:
    """Return modality -> fraction of items that have a title or picture of which no vectors were made."""
    counts = lacking(items, content)
    return {
        name: (len(items) - count) / len(items)
        for name, count in counts.items()
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
