"""Finished cells on disk: one folder a cell, each file written beside its place and renamed.

The format is described in `results/README.md`. Ranks and scores stay on disk until they are asked for.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.config import ProtocolOptions
from bench.errors import UserError
from bench.evaluation.kinds import KINDS
from bench.files import replacing

FORMAT = 1
RECORD = "record.json"
NOT_VALIDATED = "no validation: not stopped early"
"""Remark of a cell that was trained without a validation event."""
CTR_FIELDS = ("task", "ctr_negatives")
"""Fields of the protocol that a cell of the task `rank` leaves out: they cannot move its ranks."""


@dataclass(frozen=True)
class Cell:
    """One model on one data set under one protocol with one seed: everything that its result depends on."""

    dataset: str
    fingerprint: str
    """Fingerprint of the prepared data."""
    protocol: ProtocolOptions
    candidates_hash: str
    model: str
    """Registry name."""
    options: Mapping[str, Any]
    """Dotted options that differ from the defaults of the `Config`: those of the card and the user's."""
    code_hash: str
    """Hash of the model's source and of what all models share."""
    epochs: int | None
    """Most epochs of each stage; None is the model's own."""
    max_minutes: float | None
    """Limit of the training, minutes; None is no limit."""
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain JSON values."""
        minutes = None if self.max_minutes is None else float(self.max_minutes)
        protocol = asdict(self.protocol)
        if self.protocol.task == "rank":
            protocol = {name: protocol[name] for name in protocol if name not in CTR_FIELDS}
        values = {**asdict(self), "protocol": protocol, "options": dict(self.options), "max_minutes": minutes}
        return json.loads(_json(values))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """Return the cell of `as_dict`; a TypeError or ValueError where it has other fields."""
        return cls(**{**values, "protocol": ProtocolOptions(**values["protocol"])})

    @property
    def key(self) -> str:
        """SHA-256, hex, of the canonical JSON: sorted names, no spaces, tuples as lists."""
        canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass
class Record:
    """What a cell gave. Times in seconds, memory in MiB."""

    key: str
    cell: Cell
    """What was run; stored as `Cell.as_dict()`."""
    status: Literal["done", "failed"]
    reason: str
    """Why it failed, or a remark such as `stopped at 2 min`."""
    label: str
    family: str
    reconstruction: bool
    parameters: int = 0
    """Trainable and frozen numbers in the model."""
    train_seconds: float = 0.0
    """Training and validation."""
    epochs: int = 0
    best_epoch: int = 0
    """From 1; 0 where nothing was trained."""
    stopped: str = "none"
    """`patience`, `epochs`, `minutes` or `none`."""
    samples_per_second: float = 0.0
    targets_seen: int = 0
    """Training targets, repeated visits counted, all stages together."""
    targets_per_second: float = 0.0
    score_users_per_second: float = 0.0
    peak_memory_mb: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the model reports of itself; a failed cell's traceback."""
    environment: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    """What stands under a table: sizes, mapping, encoders, coverage."""
    ranks: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    """`{test,validation}_{user,rank,size}`: 0-based user, 1-based rank, candidates; task `rank`."""
    pairs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """`{test,validation}_{user,label,score}`: 0-based user, 1 for the held-out item, else 0; task `ctr`."""
    finished_at: str = ""
    """UTC, ISO 8601; set when it is written."""

    @property
    def task(self) -> str:
        """`rank` or `ctr`."""
        return self.cell.protocol.task

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What the cell measured: `ranks` or `pairs`."""
        found: Mapping[str, NDArray[Any]] = getattr(self, KINDS[self.task].arrays)
        return found


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

        Each file is written beside its place and renamed, arrays first and `record.json` last: an interrupted
        write never looks like a record, and two processes that finish one cell do not disturb each other.
        """
        record.finished_at = datetime.now(UTC).isoformat(timespec="microseconds")
        folder = self._folder(record)
        folder.mkdir(parents=True, exist_ok=True)
        held = [kind.arrays for kind in KINDS.values()]
        for name in held:
            if arrays := {key: _compact(array) for key, array in getattr(record, name).items()}:
                with replacing(folder / f"{name}.npz") as partial, partial.open("wb") as file:
                    np.savez_compressed(file, allow_pickle=False, **arrays)
        values = {part.name: getattr(record, part.name) for part in fields(record) if part.name not in held}
        values["cell"] = record.cell.as_dict()
        with replacing(folder / RECORD) as partial:
            partial.write_text(_json({"format": FORMAT, **values}, indent=1) + "\n", encoding="utf-8")

    def records(self, task: Literal["rank", "ctr"] = "rank", **filters: Any) -> list[Record]:
        """Return the records of a task whose cell or own fields equal the filters: `records(dataset="x")`.

        Raises:
            UserError: a record is damaged.
        """
        dataset = _file_name(filters["dataset"]) if "dataset" in filters else None
        found = (_read(path) for path in self._paths(dataset))
        wanted = {"task": task, **filters}
        return [record for record in found if all(_value(record, name) == wanted[name] for name in wanted)]

    def checkpoint_path(self, key: str) -> Path:
        """Return where the state of an unfinished cell is kept."""
        return self.root / "checkpoints" / f"{key}.pt"

    def _paths(self, dataset: str | None = None, ending: str = "") -> list[Path]:
        """Return the record files of a data set (None: of all) in folders of some ending, sorted.

        Folders are listed, not matched by a pattern: the name of the results folder may hold `[`.
        """
        cells = self.root / "cells"
        sets = [cells / dataset] if dataset else list(cells.iterdir()) if cells.is_dir() else []
        folders = [one for folder in sets if folder.is_dir() for one in folder.iterdir()]
        files = [folder / RECORD for folder in folders if folder.name.endswith(ending)]
        return sorted(file for file in files if file.is_file())

    def _folder(self, record: Record) -> Path:
        model = _file_name(f"{record.cell.model}-seed{record.cell.seed}-{record.key[:12]}")
        return self.root / "cells" / _file_name(record.cell.dataset) / model


def _value(record: Record, name: str) -> Any:
    return getattr(record.cell if hasattr(record.cell, name) else record, name)


def _read(path: Path) -> Record:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format")
        if version == FORMAT:
            record = Record(**{**values, "cell": Cell.from_dict(values["cell"])})
            name = KINDS[record.task].arrays
            arrays = path.with_name(f"{name}.npz")
            if arrays.is_file():
                setattr(record, name, StoredArrays(arrays))
            elif record.status == "done":
                raise FileNotFoundError(f"no {arrays.name} beside it")
            return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error
    raise UserError(f"{path}: format {version}, expected {FORMAT}; delete {path.parent} and run again")


def _compact(array: Any) -> NDArray[Any]:
    """Return scores as float32, everything else as int32."""
    given = np.asarray(array)
    return given.astype(np.float32 if given.dtype.kind == "f" else np.int32)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged record ({error}); delete {path.parent} and run again")


def _file_name(text: str) -> str:
    """Return the text with everything but letters, digits, `.`, `_`, `-` and `@` replaced."""
    return re.sub(r"[^\w.@-]", "_", text)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    """Turn NumPy scalars into numbers, paths and the like into text."""
    return value.item() if isinstance(value, np.generic) else str(value)
