"""What lies in a folder of raw files, without the files that systems and archives leave beside them."""

from collections.abc import Iterable
from pathlib import Path

LEFT_BEHIND = ("__MACOSX", "Thumbs.db", "desktop.ini")


def left_behind(path: Path) -> bool:
    """Return whether a path is hidden or made by a system: `._x.json` and `__MACOSX` of macOS archives,
    `.DS_Store`, `Thumbs.db`.
    """
    return path.name.startswith(".") or any(part in LEFT_BEHIND for part in path.parts)


def files_of(folder: Path, patterns: Iterable[str] = ("*",)) -> list[Path]:
    """Return the files in a folder that fit any of the patterns, in the order of their names, each once."""
    paths = {path for pattern in patterns for path in folder.glob(pattern)}
    fitting = (path for path in paths if path.is_file() and not left_behind(path.relative_to(folder)))
    return sorted(fitting)
