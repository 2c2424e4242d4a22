"""Visual features of Kuaishou's photos: a NumPy file each, named by the photo's id, in a folder or a zip.

Files are read for the photos kept only, in blocks, by some threads; nothing is ever unpickled or unpacked to
the disk. The list of a zip is held while it is read, about 0.7 KB a member.
"""

import io
import os
import re
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.errors import UserError

WIDTH = 2048
EXPECTED = f"a .npy array of {WIDTH} floats, shape (1, {WIDTH}) or ({WIDTH},)"
BLOCK = 512  # photos read at once by a thread
THREADS = min(8, os.cpu_count() or 1)
LARGEST = 2**20  # bytes of a file; no sound one has more than 17,000
MEMBER = re.compile(r"(?:.*/)?(\d+)(?:\.npy)?")
CLIMBS = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:")

Read = Callable[[int], bytes | None]
"""Photo id -> the bytes of its file, None where there is none."""
Vectors = NDArray[np.floating]


def blocks(
    path: Path, on_bad_row: Literal["error", "skip"], ids: pl.Series
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Yield the vectors of photos, those without a file left out.

    Args:
        path: folder of files, or zip.
        on_bad_row: what to do with a file that is no such array: `error`, or `skip` it, with a warning at the
            end that says how many there were.
        ids: (N,) photo ids.

    Yields:
        Rows among the ids, ascending, and (rows, 2048) float16 vectors.

    Raises:
        UserError: the zip is damaged or has a member whose name leads out of it; a file is damaged.
    """
    bad: list[str] = []
    photos = ids.to_numpy()
    with _opened(path) as read, ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Any]] = deque()
        for start in range(0, len(photos), BLOCK):
            waiting.append(pool.submit(_block, read, photos, start))
            while len(waiting) > THREADS or (waiting and start + BLOCK >= len(photos)):
                rows, vectors, faults = waiting.popleft().result()
                if faults and on_bad_row == "error":
                    fix = "get the file again, or leave such photos out by --on-bad-row skip"
                    raise UserError(f"{path}: {faults[0]}; {fix}")
                bad += faults
                if len(rows):
                    yield rows, vectors
    if bad:
        warnings.warn(f"{path}: {len(bad)} photos count as absent, the first: {bad[0]}", stacklevel=2)


def _block(read: Read, photos: NDArray[np.int64], start: int) -> tuple[NDArray[np.int64], Vectors, list[str]]:
    """Read some photos: rows, vectors, and what is wrong with others."""
    rows: list[int] = []
    vectors: list[Vectors] = []
    faults: list[str] = []
    for row, photo in enumerate(photos[start : start + BLOCK].tolist(), start):
        try:
            data = read(photo)
            if data is not None:
                vectors.append(vector(data))
                rows.append(row)
        except ValueError as error:
            faults.append(f"photo {photo}: {error}, expected {EXPECTED}")
    return np.array(rows, np.int64), np.array(vectors, np.float16).reshape(-1, WIDTH), faults


def vector(data: bytes) -> Vectors:
    """Return (2048,) float16 of a file's bytes.

    Raises:
        ValueError: they are no such array; says what they are.
    """
    head = data[: 10 + int.from_bytes(data[8:10], "little")]
    shape, dtype = _form(head)
    if dtype.hasobject:
        raise ValueError("Python objects, which are never unpickled")
    if dtype.kind != "f" or shape not in ((1, WIDTH), (WIDTH,)):
        raise ValueError(f"shape {shape} of {dtype}")
    if len(data) != len(head) + WIDTH * dtype.itemsize:
        given = f"{len(data) - len(head)} bytes of values instead of {WIDTH * dtype.itemsize}"
        raise ValueError(f"{given}, cut off or damaged")
    with np.errstate(over="ignore"):
        values = np.frombuffer(data, dtype, offset=len(head)).astype(np.float16)
    if not np.isfinite(values).all():
        raise ValueError(f"values that are NaN, infinite or beyond {np.finfo(np.float16).max:.0f}")
    return values


@lru_cache(maxsize=64)
def _form(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type from the head of a .npy file; those of sound files are all equal."""
    stream = io.BytesIO(head)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise ValueError("no .npy file, or its head is damaged") from error
    return shape, dtype


@contextmanager
def _opened(path: Path) -> Iterator[Read]:
    if path.is_dir():
        yield lambda photo: _file(path, photo)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no readable zip ({error}); get it again, or unpack it") from error
    with archive:
        members, lock = _members(archive, path), Lock()
        yield lambda photo: _unpacked(archive, members.get(photo), lock)


def _file(folder: Path, photo: int) -> bytes | None:
    for name in (f"{photo}", f"{photo}.npy"):
        try:
            with (folder / name).open("rb") as file:
                return file.read(LARGEST)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ValueError(f"unreadable file ({error.strerror})") from error
    return None


def _members(archive: zipfile.ZipFile, path: Path) -> dict[int, zipfile.ZipInfo]:
    """Return the members by photo id; others, such as the folder itself, are left out."""
    members = {}
    for info in archive.infolist():
        if CLIMBS.search(info.filename):
            fix = "such a zip is not the publisher's; get it again"
            raise UserError(f"{path}: member '{info.filename}' leads out of the folder; {fix}")
        if "__MACOSX/" not in info.filename and (match := MEMBER.fullmatch(info.filename)):
            members[int(match[1])] = info
    return members


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, lock: Lock) -> bytes | None:
    """Return the bytes of a member; unpacking, the long part, happens outside the lock."""
    if info is None:
        return None
    if info.file_size > LARGEST:
        raise ValueError(f"{info.file_size} bytes")
    try:
        with lock:
            member = archive.open(info)
        data = member.read()
        with lock:
            member.close()
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"a member that cannot be unpacked ({error})") from error
    return data
