"""Files and folders that are replaced as a whole or left as they were.

What is written lies beside its target under a name that holds machine, process and a random part: two writers
of one target never share it. What a dead process of this machine has left behind is removed when the same
target is written again.
"""

import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError

MACHINE = re.sub(r"[^A-Za-z0-9]", "_", platform.node()) or "local"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, to be written as a file or a folder; it takes its place if all goes well.

    A folder takes the place of an empty folder alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(path)
    partial = partial_path(path)
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rmdir()
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return a new name beside `path`; its ending stays, since writers read the form from it."""
    return path.with_name(f".partial-{MACHINE}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def remove_dead(path: Path) -> None:
    """Remove what processes of this machine that no longer run have left of writing `path`."""
    left = re.compile(rf"\.partial-{MACHINE}-(\d+)-[0-9a-f]{{8}}-{re.escape(path.name)}")
    for other in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        match = left.fullmatch(other.name)
        if match and not _runs(int(match[1])):
            if other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)


def require_writable(folder: Path, what: str) -> None:
    """Check that files can be written below a folder, which need not exist; nothing is left behind.

    Args:
        folder: where files will go.
        what: how it was named, for the message: `--results`.

    Raises:
        UserError: it is a file or lies below one, or cannot be written.
    """
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{what} {folder}: {nearest} is a file, expected a folder; choose another one")
    probe = partial_path(nearest / "probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        fix = "choose a folder that you may write"
        raise UserError(f"{what} {folder}: cannot be written ({error.strerror}); {fix}") from error


def _runs(process: int) -> bool:
    """Return whether a process of this machine runs; True where that cannot be asked without harm."""
    if sys.platform == "win32":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs and belongs to somebody else
        return True
    return True
