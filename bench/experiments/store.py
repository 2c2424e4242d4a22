"""Finished cells on disk: one folder per cell, each file written under another name and then renamed.

The format is described in `results/README.md`. Ranks and scores stay on disk until they are asked for.
"""

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.evaluation.kinds import KINDS
from bench.experiments.record import Cell, Outcome, Record, to_json
from bench.files import replacing

FORMAT = 1
RECORD = "record.json"


class StoredArrays(Mapping[str, NDArray[Any]]):
    """The arrays of one `ranks.npz` or `pairs.npz`, read when asked for and not kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, name: str) -> NDArray[Any]:
        with self._open() as arrays:
            if name not in arrays:
                raise KeyError(name)
            try:
                return np.asarray(arrays[name])
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise _damaged(self.path, error) from error

    def __iter__(self) -> Iterator[str]:
        with self._open() as arrays:
            return iter(list(arrays.files))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _open(self) -> Any:
        try:
            return np.load(self.path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, error) from error


class Store:
    """The records under a results folder.

    Args:
        root: `results/`; made when the first record is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def find(self, key: str) -> Record | None:
        """Return the finished record of a key, or None; a failed one does not count.

        Raises:
            UserError: the record is damaged.
        """
        for path in self._paths(ending=f"-{key[:12]}"):
            record = _read(path)
            if record.key == key and record.status == "done":
                return record
        return None

    def write(self, record: Record) -> None:
        """Store a record in place of an earlier one of its key.

        Each file is written under another name and then renamed, arrays first and `record.json` last: an
        interrupted write never looks like a record, and two processes that finish one cell do not disturb
        each other.
        """
        record.finished_at = datetime.now(UTC).isoformat(timespec="microseconds")
        folder = self._folder(record.cell)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(record.result, Outcome):
            arrays = {name: _compact(array) for name, array in record.result.arrays.items()}
            with replacing(_arrays_path(folder, record.task)) as partial, partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        text = to_json({"format": FORMAT, **record.flat()}, indent=1)
        with replacing(folder / RECORD) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def records(self, task: Literal["rank", "ctr"] = "rank", **filters: Any) -> list[Record]:
        """Return the records of a task whose cell or own fields equal the filters: `records(dataset="x")`.

        Raises:
            UserError: a record is damaged.
        """
        dataset = _file_name(filters["dataset"]) if "dataset" in filters else None
        stored = (_read(path) for path in self._paths(dataset))
        wanted = {"task": task, **filters}
        return [record for record in stored if all(_value(record, name) == wanted[name] for name in wanted)]

    def checkpoint_path(self, key: str) -> Path:
        """Return where the state of an unfinished cell is kept."""
        return self.root / "checkpoints" / f"{key}.pt"

    def weights_path(self, cell: Cell) -> Path:
        """Return where the trained weights of a cell are kept, if they are."""
        return self._folder(cell) / "weights.safetensors"

    def stress_path(self, cell: Cell, code: str) -> Path:
        """Return where the ranks of a cell under exchanged content are kept, by the code that made them."""
        return self._folder(cell) / f"stress-{code[:12]}.npz"

    def size(self, cell: Cell) -> int:
        """Return what a cell takes on disk, bytes."""
        return sum(path.stat().st_size for path in self._folder(cell).iterdir() if path.is_file())

    def remove(self, cell: Cell) -> None:
        """Remove a cell with all that was kept of it; its record goes first, so that no half looks whole."""
        folder = self._folder(cell)
        for path in (folder / RECORD, self.checkpoint_path(cell.key)):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _paths(self, dataset: str | None = None, ending: str = "") -> list[Path]:
        """Return the record files of a data set (None: of all) in folders of some ending, sorted.

        Folders are listed, not matched by a pattern: the name of the results folder may hold `[`.
        """
        cells = self.root / "cells"
        sets = [cells / dataset] if dataset else list(cells.iterdir()) if cells.is_dir() else []
        folders = [one for folder in sets if folder.is_dir() for one in folder.iterdir()]
        files = [folder / RECORD for folder in folders if folder.name.endswith(ending)]
        return sorted(file for file in files if file.is_file())

    def _folder(self, cell: Cell) -> Path:
        model = _file_name(f"{cell.model}-seed{cell.seed}-{cell.key[:12]}")
        return self.root / "cells" / _file_name(cell.dataset) / model


def _value(record: Record, name: str) -> Any:
    return getattr(record.cell if hasattr(record.cell, name) else record, name)


def _read(path: Path) -> Record:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format")
        if version == FORMAT:
            arrays = _arrays_path(path.parent, values["cell"]["protocol"].get("task", "rank"))
            if values["status"] == "done" and not arrays.is_file():
                raise FileNotFoundError(f"no {arrays.name} beside it")
            return Record.from_flat(values, StoredArrays(arrays))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error
    raise UserError(f"{path}: format {version}, expected {FORMAT}; delete {path.parent} and run again")


def _arrays_path(folder: Path, task: str) -> Path:
    return folder / f"{KINDS[task].arrays}.npz"


def _compact(array: Any) -> NDArray[Any]:
    """Return scores as float32, everything else as int32."""
    given = np.asarray(array)
    return given.astype(np.float32 if given.dtype.kind == "f" else np.int32)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged record ({error}); delete {path.parent} and run again")


def _file_name(text: str) -> str:
    """Return the text with everything but letters, digits, `.`, `_`, `-` and `@` replaced."""
    return re.sub(r"[^\w.@-]", "_", text)
