"""Pictures from disk: broken ones are named before anything is encoded, the others decoded ahead of need."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.data.preparation.colors import upright_rgb
from bench.data.preparation.runs import Watch
from bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
SURVEYED = 1024  # pictures between two words on the progress
FORM = b"upright RGB on white"


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
        fix = "correct the path, or leave it empty so that the item counts as without image"
        raise UserError(f"{path}: no such image file; {fix}") from error
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more
        fix = "expected a JPEG, PNG or other picture; replace the file, or leave it out"
        raise UserError(f"{path}: the image cannot be decoded ({error}); {fix}") from error


def survey(paths: Sequence[str], watch: Watch) -> list[bytes]:
    """Return the SHA-256 of each picture file, all decoded once, so that a broken one is known before hours
    of encoding.

    Raises:
        UserError: the first picture that is missing or cannot be decoded.
    """
    digests: list[bytes] = []
    with ThreadPoolExecutor(_threads()) as pool:
        for start in range(0, len(paths), SURVEYED):
            digests += pool.map(_digest, paths[start : start + SURVEYED])
            watch("pictures checked", len(digests), len(paths))
    return digests


def _digest(path: str) -> bytes:
    """Return the SHA-256 of a file; of one that Pillow's own conversion would spoil, with `FORM` behind it,
    so that vectors made of the spoilt picture are not found again.
    """
    changed = _decoded(path, at_least=1)[1]
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
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
