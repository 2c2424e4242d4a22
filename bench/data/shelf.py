"""Vectors kept by the digest of what was encoded, so that no content is encoded twice.

A shelf is a folder of shards, one `.npz` each with `keys` (n, 32) uint8 and `vectors` (n, D) float16. Shards
are only added, under names made of their keys, so an interrupted run goes on after its last shard.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHARD = 512  # contents in one file: the most that an interruption can cost

Vectors = NDArray[np.float16]
Encode = Callable[[list[int]], Vectors]
"""Rows of one batch -> (batch, D)."""


def encode_missing(
    keys: list[bytes],
    rows: NDArray[np.int64],
    shelf: Path | None,
    open_encoder: Callable[[], Encode],
    batch_size: int,
) -> Vectors:
    """Return (keys, D) float16 vectors: those on the shelf, and the others, encoded and put there.

    Args:
        keys: digest of each distinct content.
        rows: (keys,) row of each content, as the encoder counts them.
        shelf: folder of shards; None keeps nothing.
        open_encoder: opens the model; called only where something is missing.
        batch_size: contents encoded at once.
    """
    table, found = _read_shelf(keys, shelf)
    missing = np.flatnonzero(~found)
    if not len(missing):
        return table
    encode = open_encoder()
    with _progress(len(missing)) as advance:
        for start in range(0, len(missing), SHARD):
            places = missing[start : start + SHARD]
            parts = []
            for first in range(0, len(places), batch_size):
                parts.append(encode(rows[places[first : first + batch_size]].tolist()))
                advance(len(parts[-1]))
            vectors = np.concatenate(parts)
            table = table if table.shape[1] else np.zeros((len(keys), vectors.shape[1]), np.float16)
            table[places] = vectors
            _write_shard([keys[place] for place in places], vectors, shelf)
    return table


def _read_shelf(keys: list[bytes], shelf: Path | None) -> tuple[Vectors, NDArray[np.bool_]]:
    """Return (keys, D) stored vectors, D = 0 where there is no shard, and which keys were found."""
    place = {key: row for row, key in enumerate(keys)}
    table, found = np.zeros((len(keys), 0), np.float16), np.zeros(len(keys), bool)
    for path in sorted(shelf.glob("*.npz")) if shelf and shelf.is_dir() else []:
        with np.load(path) as shard:
            stored = [place.get(key.tobytes(), -1) for key in shard["keys"]]
            vectors = shard["vectors"]
        table = table if table.shape[1] else np.zeros((len(keys), vectors.shape[1]), np.float16)
        chosen = np.flatnonzero(np.array(stored) >= 0)
        table[np.array(stored)[chosen]] = vectors[chosen]
        found[np.array(stored)[chosen]] = True
    return table, found


def _write_shard(keys: list[bytes], vectors: Vectors, shelf: Path | None) -> None:
    """Put vectors on the shelf under a name made of their keys; a partly written file is never read."""
    if shelf is None:
        return
    shelf.mkdir(parents=True, exist_ok=True)
    path = shelf / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.npz"
    partial_path = path.with_suffix(f".partial-{os.getpid()}")
    with partial_path.open("wb") as file:
        np.savez(file, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1), vectors=vectors)
    partial_path.replace(path)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr once the work has taken two seconds."""
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("encoding", total=total)

    def advance(count: int) -> None:
        bar.advance(task, count)
        if time.monotonic() - started > 2:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
