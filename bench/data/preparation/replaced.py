"""A folder that is replaced as a whole or left as it was."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.data.storage import METADATA
from bench.errors import UserError
from bench.files import partial_path, remove_dead


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that replaces `folder` once all went well, and is removed otherwise.

    Raises:
        UserError: `folder` exists and is no prepared data set, or the disk is full.
    """
    if folder.exists() and not (folder / METADATA).is_file():
        raise UserError(f"{folder}: exists and is no prepared data set; remove it or choose another name")
    remove_dead(folder)
    partial, older = partial_path(folder), partial_path(folder)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(older)
        partial.rename(folder)
    except BaseException as error:
        if older.exists() and not folder.exists():
            older.rename(folder)
        if _disk_is_full(error):
            free = shutil.disk_usage(folder.parent).free // 2**20
            fix = "make room or set BENCH_DATA to a larger disk; finished parts of a long log are kept"
            raise UserError(f"{folder}: the disk is full ({free} MB left); {fix}") from error
        raise
    finally:
        for left in (partial, older):
            shutil.rmtree(left, ignore_errors=True)


def _disk_is_full(error: BaseException) -> bool:
    """Return whether an error of Python, polars or Arrow says so."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
