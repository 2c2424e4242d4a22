"""Pictures from disk: broken ones are named before anything is encoded, the others decoded ahead of need."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.data.preparation.colors import upright_rgb
from bench.data.preparation.runs import Watch
from bench.data.readers.log import OnBadRow
from bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
SURVEYED = 1024  # pictures between two words on the progress
SHOWN = 5  # broken pictures named
FORM = b"upright RGB on white"


@dataclass(frozen=True)
class Survey:
    """What is known of picture files before any is encoded."""

    digests: list[bytes | None]
    """Digest of each picture; None where there is none, or it is broken and bad ones are skipped."""
    broken: dict[str, str]
    """Path -> what is wrong with it, in the order of the items."""


def read_image(path: str, at_least: int | None = None) -> "Image":
    """Return a decoded picture: RGB, upright, on white (see `colors`).

    Args:
        path: file.
        at_least: pixels that each side keeps at the least: a JPEG may then be decoded at a half, a quarter or
            an eighth of its size, which is quicker. None decodes it whole.

    Raises:
        UserError: there is no such file, or it cannot be decoded.
    """
    return _decoded(path, at_least)[0]


def _decoded(path: str, at_least: int | None) -> tuple["Image", bool]:
    """Return the picture, and whether Pillow's own conversion would have given another one."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            return upright_rgb(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file") from error
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more
        reason = " ".join(str(error).split()).replace(f" {path!r}", "")
        problem = f"the image cannot be decoded ({reason or type(error).__name__})"
        raise UserError(f"{path}: {problem}, expected a JPEG, PNG or other picture") from error


def survey(paths: Sequence[str | None], on_bad_row: OnBadRow, watch: Watch) -> Survey:
    """Return the digest of each picture file, all decoded once, so that broken ones are known before hours
    of encoding.

    Args:
        paths: n files, None or empty where there is none.
        on_bad_row: what to do with files that are missing or cannot be decoded: `error`, or `skip` them.
        watch: progress callback (stage, done, total).

    Raises:
        UserError: pictures are broken under `error`; the first five are named.
    """
    given = list(dict.fromkeys(path for path in paths if path))
    seen: dict[str, bytes | UserError] = {}
    with ThreadPoolExecutor(_threads()) as pool:
        for start in range(0, len(given), SURVEYED):
            part = given[start : start + SURVEYED]
            seen.update(zip(part, pool.map(_digest, part), strict=True))
            watch("pictures checked", len(seen), len(given))
    broken = {path: str(fault) for path, fault in seen.items() if isinstance(fault, UserError)}
    if broken and on_bad_row == "error":
        raise _broken(list(broken.values()))
    digests = {path: digest for path, digest in seen.items() if isinstance(digest, bytes)}
    return Survey([digests.get(path or "") for path in paths], broken)


def _broken(faults: list[str]) -> UserError:
    """Return the error that names the first broken pictures."""
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    also = f" (also broken: {'; '.join(faults[1:SHOWN])}{more})" if len(faults) > 1 else ""
    fix = "replace the files, leave their paths empty, or count them as absent by --on-bad-row skip"
    return UserError(f"{faults[0]}{also}; {fix}")


def _digest(path: str) -> bytes | UserError:
    """Return the SHA-256 of a file; of one that Pillow's own conversion would spoil, with `FORM` behind it,
    so that vectors made of the spoilt picture are not found again.
    """
    try:
        changed = _decoded(path, at_least=1)[1]
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except UserError as error:
        return error
    if changed:
        digest.update(FORM)
    return digest.digest()


def decoded_ahead(paths: Sequence[str], batch_size: int, decode: Callable[[str], T]) -> Iterator[list[T]]:
    """Yield decoded pictures batch by batch; threads decode the next batch while one is in use."""
    pool = ThreadPoolExecutor(_threads())
    try:
        ready: list[Future[T]] = []
        for start in range(0, len(paths), batch_size):
            following = [pool.submit(decode, path) for path in paths[start : start + batch_size]]
            if ready:
                yield [picture.result() for picture in ready]
            ready = following
        if ready:
            yield [picture.result() for picture in ready]
    finally:
        pool.shutdown(cancel_futures=True)


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
