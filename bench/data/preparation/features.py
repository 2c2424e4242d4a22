"""Vectors of one modality, block by block, into a memory map of the catalog's size that is never held whole.

Blocks may come in any order of items. The file is mapped anew for every block, so that the memory of a
preparation does not grow with what has been written.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.preparation.runs import Watch
from bench.errors import UserError

BLOCK = 2**24  # bytes read, written or hashed at once

Block = tuple[NDArray[np.int64], NDArray[np.floating]]
"""Rows (0-based, among the N items) and their (rows, D) vectors."""


@dataclass(frozen=True)
class Source:
    """Vectors of one modality, made when they are asked for."""

    blocks: Callable[[], Iterator[Block]]
    """Each item at most once; items in no block are absent."""
    name: str
    """Encoder and weights, in words; `ready-made` where the publisher brings the vectors."""
    hash: str = ""
    """SHA-256 over the encoder, its options and the contents; empty: that of the vectors is taken."""
    dtype: type[np.floating] = np.float16
    """Precision on disk."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Path -> fault of the pictures that were skipped."""


def rows_of(width: int, dtype: Any) -> int:
    """Return how many rows of a width make a block."""
    return max(1, BLOCK // (width * np.dtype(dtype).itemsize))


def write_feature(
    path: Path, modality: str, source: Source, ids: pl.Series, watch: Watch
) -> NDArray[np.bool_] | None:
    """Write (N + 1, D) vectors, zero in row 0 and where an item has none.

    Args:
        path: the `.npy` file.
        modality: named in errors and in the progress.
        source: of the vectors.
        ids: (N,) raw ids of the items, named in errors.
        watch: progress callback (stage, done, total).

    Returns:
        (N + 1,) which items have one; None, and no file, where there is no vector at all.

    Raises:
        UserError: a value that is not finite or too large for the precision, a block of another width, an
            item given twice.
        OSError: the disk is too full for the file, of which nothing is written then.
    """
    mask, width, done = np.zeros(len(ids) + 1, bool), 0, 0
    for rows, vectors in source.blocks():
        if not len(rows):
            continue
        if not width:
            width = vectors.shape[-1]
            _reserve(path, (len(ids) + 1, width), source.dtype)
        _check_block(rows, vectors, width, mask, modality, ids)
        stored = _narrowed(rows, vectors, source.dtype, modality, ids)
        np.lib.format.open_memmap(path, "r+")[1 + rows] = stored
        mask[1 + rows] = True
        done += len(rows)
        watch(f"{modality} features written", done, len(ids))
    return mask if width else None


def _reserve(path: Path, shape: tuple[int, int], dtype: type[np.floating]) -> None:
    """Make a file of zeros and take its room on the disk.

    Writing to a map whose room is missing would end the process by a signal, without a word.

    Raises:
        OSError: the disk is too full.
    """
    np.lib.format.open_memmap(path, "w+", dtype, shape)
    size = path.stat().st_size
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _check_block(
    rows: NDArray[np.int64],
    vectors: NDArray[np.floating],
    width: int,
    mask: NDArray[np.bool_],
    modality: str,
    ids: pl.Series,
) -> None:
    if vectors.shape != (len(rows), width):
        given = f"a block of shape {vectors.shape} for {len(rows)} items"
        raise UserError(f"{modality} features: {given}, expected width {width}; give all vectors one width")
    if rows.min() < 0 or rows.max() >= len(ids):
        given = f"rows {rows.min()} to {rows.max()}, expected 0 to {len(ids) - 1}"
        raise UserError(f"{modality} features: {given}; count them among the ids kept")
    again = mask[1 + rows]
    again[np.setdiff1d(np.arange(len(rows)), np.unique(rows, return_index=True)[1])] = True
    if again.any():
        item = ids[int(rows[again.argmax()])]
        raise UserError(f"{modality} features: item {item} has two vectors; remove the second one")


def _narrowed(
    rows: NDArray[np.int64],
    vectors: NDArray[np.floating],
    dtype: type[np.floating],
    modality: str,
    ids: pl.Series,
) -> NDArray[np.floating]:
    """Return the vectors in the precision of the file."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(dtype, copy=False)
    finite = np.isfinite(stored)
    if finite.all():
        return stored
    row = int((~finite.all(axis=1)).argmax())
    column = int((~finite[row]).argmax())
    value, where = vectors[row, column], f"{modality} features, item {ids[int(rows[row])]}, column {column}"
    if np.isfinite(value):
        limit = f"the largest {np.dtype(dtype).name} is {np.finfo(dtype).max:g}"
        raise UserError(f"{where}: {value:g} is too large, {limit}; divide all vectors by one number")
    raise UserError(f"{where}: {value}; repair the vector, or leave it out so that the item counts as absent")


def hash_feature(path: Path, mask: NDArray[np.bool_], watch: Watch, modality: str) -> str:
    """Return a SHA-256 over a file of `write_feature` and the mask of the items that have a vector."""
    whole = np.load(path, mmap_mode="r")
    digest = hashlib.sha256(f"{whole.dtype.str}{whole.shape}".encode() + mask.tobytes())
    step = rows_of(whole.shape[1], whole.dtype)
    for start in range(0, len(mask), step):
        part = np.load(path, mmap_mode="r")[start : start + step]
        digest.update(np.ascontiguousarray(part).tobytes())
        watch(f"{modality} features hashed", min(start + step, len(mask)), len(mask))
    return digest.hexdigest()
