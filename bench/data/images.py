"""Pictures from disk, decoded; broken ones are named before anything is encoded."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: str, quick: bool = False) -> "Image":
    """Return a decoded RGB picture.

    Args:
        path: file.
        quick: decodes a JPEG at an eighth of its size, enough to see that it can be decoded.

    Raises:
        UserError: there is no such file, or it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if quick:
                image.draft("RGB", (image.width // 8, image.height // 8))
            return image.convert("RGB")
    except FileNotFoundError as error:
        fix = "correct the path, or leave it empty so that the item counts as without image"
        raise UserError(f"{path}: no such image file; {fix}") from error
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more
        fix = "expected a JPEG, PNG or other picture; replace the file, or leave it out"
        raise UserError(f"{path}: the image cannot be decoded ({error}); {fix}") from error


def check_images(paths: Iterable[str]) -> None:
    """Decode every picture once, in parallel, so that a broken one is known before hours of encoding.

    Raises:
        UserError: the first picture that cannot be decoded.
    """
    rest = iter(paths)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while part := list(islice(rest, 1024)):
            for _ in pool.map(_decodes, part):
                pass


def _decodes(path: str) -> None:
    read_image(path, quick=True)
