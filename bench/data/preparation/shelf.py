"""Vectors kept by the digest of what was encoded, so that no content is encoded twice.

A shelf is a folder of shards, one `.npz` each with `keys` (n, 32) uint8 and `vectors` (n, D) float16. Shards
are only added, under names made of their keys, so an interrupted run goes on after its last shard. Vectors
stay on disk: what is held are the digests and one shard.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.data.preparation.features import Block, Source, rows_of
from bench.data.preparation.runs import Watch
from bench.errors import UserError
from bench.files import replacing

SHARD = 512  # contents in one file: the most that an interruption can cost

Vectors = NDArray[np.float16]
NOTHING: Vectors = np.zeros((0, 0), np.float16)


@dataclass(frozen=True)
class Encoder:
    """An encoder of titles or pictures whose vectors are kept."""

    name: str
    """Model and weights, in words."""
    identity: str
    """Identity of model, weights and form of the input; vectors of another one are never mixed in."""
    open: Callable[[], Callable[[list[str]], Iterator[Vectors]]]
    """Opens the model; called only where something is to be encoded. Titles or files -> their vectors, in
    batches."""


def encode_by_content(
    keys: Sequence[bytes | None],
    contents: Sequence[str],
    encoder: Encoder,
    modality: str,
    cache: Path,
    watch: Watch,
) -> Source:
    """Encode each distinct content that is not on the shelf, and return all vectors, read from there.

    Args:
        keys: n digests of the contents, 32 bytes each; None where there is none.
        contents: n titles or files.
        encoder: its identity names the shelf.
        modality: part of the shelf's name.
        cache: folder of shelves.
        watch: progress callback (stage, done, total).
    """
    distinct_index: dict[bytes, int] = {}  # key -> index of its content in `distinct`
    distinct: list[str] = []
    index_of_row = np.full(len(keys), -1, np.int64)  # (n,) -1 where there is no content
    for row, key in enumerate(keys):
        if key is not None:
            if key not in distinct_index:
                distinct_index[key] = len(distinct)
                distinct.append(contents[row])
            index_of_row[row] = distinct_index[key]
    shelf = cache / f"{modality}-{hashlib.sha256(encoder.identity.encode()).hexdigest()[:24]}"
    _encode_missing(distinct_index, distinct, shelf, encoder, f"{modality} encoded", watch)
    whole = hashlib.sha256(json.dumps([encoder.name, encoder.identity]).encode())
    for key in keys:
        whole.update(key or bytes(32))
    return Source(partial(_stored, distinct_index, index_of_row, shelf), encoder.name, whole.hexdigest())


def _encode_missing(
    distinct_index: dict[bytes, int],
    distinct: list[str],
    shelf: Path,
    encoder: Encoder,
    stage: str,
    watch: Watch,
) -> None:
    is_stored = np.zeros(len(distinct_index), bool)  # (K,) K distinct contents
    for indices, _ in _shards(distinct_index, shelf, with_vectors=False):
        is_stored[indices] = True
    missing = np.flatnonzero(~is_stored)
    if not len(missing):
        return
    keys, done = list(distinct_index), int(is_stored.sum())
    waiting: list[Vectors] = []
    count = 0  # of contents put on the shelf
    for vectors in encoder.open()([distinct[row] for row in missing]):
        waiting.append(vectors)
        ready = sum(map(len, waiting))
        watch(stage, done + count + ready, len(keys))
        if ready >= SHARD or count + ready == len(missing):
            stored = [keys[row] for row in missing[count : count + ready]]
            _write_shard(stored, np.concatenate(waiting), shelf)
            count, waiting = count + ready, []


def _shards(
    distinct_index: dict[bytes, int], shelf: Path, with_vectors: bool = True
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Yield the indices of the keys wanted in each shard (k,), and their vectors (k, D)."""
    shards = (path for path in shelf.glob("*.npz") if not path.name.startswith("."))
    for path in sorted(shards):
        try:
            with np.load(path) as shard:
                indices = np.array([distinct_index.get(key.tobytes(), -1) for key in shard["keys"]], np.int64)
                wanted = np.flatnonzero(indices >= 0)
                vectors = shard["vectors"][wanted] if with_vectors and len(wanted) else NOTHING
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            fix = "delete the file, its contents are encoded again"
            raise UserError(f"{path}: not a readable shelf of vectors ({error}); {fix}") from error
        if len(wanted):
            yield indices[wanted], vectors


def _stored(
    distinct_index: dict[bytes, int], index_of_row: NDArray[np.int64], shelf: Path
) -> Iterator[Block]:
    """Yield every row that has a content, with the vector from the shelf."""
    order = np.argsort(index_of_row, kind="stable")  # (n,) rows by content, those without one in front
    # (K + 1,): the rows of content c are order[starts[c] : starts[c + 1]].
    starts = np.searchsorted(index_of_row[order], np.arange(len(distinct_index) + 1))
    given = np.zeros(len(distinct_index), bool)  # (K,) contents whose vectors have been yielded
    for indices, vectors in _shards(distinct_index, shelf):
        new = ~given[indices]  # two runs side by side may have stored one content twice
        given[indices] = True
        indices, vectors = indices[new], vectors[new]
        sizes = starts[indices + 1] - starts[indices]  # (k,) rows that share each content
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # (R,) 0, 1, ... in each
        rows = order[np.repeat(starts[indices], sizes) + inside]  # (R,)
        which = np.repeat(np.arange(len(indices)), sizes)  # (R,); one picture may stand for very many items
        step = rows_of(vectors.shape[1], vectors.dtype)
        for start in range(0, len(rows), step):
            yield rows[start : start + step], vectors[which[start : start + step]]


def _write_shard(keys: list[bytes], vectors: Vectors, shelf: Path) -> None:
    """Put vectors on the shelf under a name made of their keys; a partly written file is never read."""
    path = shelf / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.npz"
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        names = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
        np.savez(file, keys=names, vectors=vectors)
