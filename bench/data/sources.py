"""The readers at hand: files of the room `datasets/`, of entry points `m3bench.datasets`, or given by path.

Cards are read from the source: listing and finding import no reader.
"""

import importlib
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import bench
from bench.cards import DatasetCard, read_cards, source_of
from bench.code_hash import reader_hash
from bench.data.schema import RawData
from bench.errors import UserError, hint
from bench.import_file import import_file, module_name

GROUP = "m3bench.datasets"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ROOM = "bench.datasets."
BY_PATH = "bench_reader_at_"


class ReaderError(UserError):
    """A mistake in the code of a reader outside the project, with its file and line."""


@dataclass(frozen=True)
class Reader:
    """A data set's reader that can be chosen."""

    card: DatasetCard
    module: str
    """`bench.datasets.taobao`, or `bench_reader_at_<digest>` for a file given by its path."""
    path: Path
    """The source file; of a package its `__init__.py`."""

    @property
    def by_path(self) -> bool:
        """Whether it was given by its path."""
        return self.module.startswith(BY_PATH)

    @property
    def spec(self) -> str:
        """What the command line takes for it: its name, or the path of a file given by path."""
        return str(self.path) if self.by_path else self.card.name

    def load(self) -> ModuleType:
        """Import the reader's module.

        Raises:
            UserError: it cannot be imported, or lacks `read` or a dataclass `Options` whose fields all have
                defaults.
        """
        module = import_module(self.module, self.path if self.by_path else None)
        if not callable(getattr(module, "read", None)):
            form = "def read(raw: Path | None, options: Options) -> RawData"
            raise UserError(f"{self.path}: holds no function `read`; write `{form}`")
        kind = getattr(module, "Options", None)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            form = "@dataclass(frozen=True) class Options"
            raise UserError(f"{self.path}: holds no dataclass `Options`; write `{form}`, which may be empty")
        try:
            kind()
        except Exception as error:  # a field without a default, or a check of the file's own
            fix = "give every option a default that is allowed"
            raise UserError(f"{self.path}: Options() fails: {_words(error)}; {fix}") from error
        return module

    def read(self, raw: Path | None, options: Any) -> RawData:
        """Call the reader.

        Args:
            raw: folder or file with what its publisher gives; None without.
            options: an instance of its `Options`.

        Raises:
            UserError: what the reader raises, or it returns something else than RawData.
        """
        module = self.load()
        with self.blamed():
            given = module.read(raw, options)
        if not isinstance(given, RawData):
            raise ReaderError(f"{self.path}: read returned {type(given).__name__}, expected RawData")
        return given

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Turn what the code of a reader outside the project raises into one line with its file and row."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if self.module.startswith(ROOM) or (where := self._where(error)) is None:
                raise
            raise ReaderError(f"{self.path}: {where}{_words(error)}; --debug shows the traceback") from error

    def _where(self, error: Exception) -> str | None:
        """Return the reader's line that led to an error; None where it is none of the reader's.

        What polars raises comes from the reader's expressions, which may be evaluated elsewhere.
        """
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == self.path.resolve()]
        if lines:
            return f"line {lines[-1]}: "
        return "" if type(error).__module__.startswith("polars") else None

    def code_hash(self) -> str:
        """Return a SHA-256 over the statements that can move this reader's events; see `bench.code_hash`."""
        return reader_hash(self.path)


def registered() -> dict[str, Reader]:
    """Return the readers of the room and of the entry points by data set name, in the order of the names.

    Raises:
        UserError: a card cannot be read, or two have one name.
    """
    by_name: dict[str, Reader] = {}
    for module, path in _files():
        for reader in _readers_of(path, module):
            if taken := by_name.get(reader.card.name):
                name = f"data set name '{reader.card.name}'"
                raise UserError(f"{path}: {name} is taken by {taken.module}; rename one")
            by_name[reader.card.name] = reader
    return dict(sorted(by_name.items()))


def find(spec: str) -> Reader:
    """Return the reader of a name, or of a file.

    Args:
        spec: a name of `registered()`, or the path of a Python file with a card and a `read`.

    Raises:
        UserError: there is none, or the file's card is faulty or has a registered name.
    """
    known = registered()
    if spec in known:
        return known[spec]
    path = Path(spec).expanduser()
    if spec.endswith(".py"):
        return _given(path, known)
    if path.is_file():
        raise UserError(f"{spec}: not a .py file, expected the name of a data set or a file of Python")
    raise UserError(f"{spec}: no data set of this name can be prepared; {hint(spec, known)}")


def import_module(name: str, path: Path | None = None) -> ModuleType:
    """Import a module of readers by its name, or by path.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return importlib.import_module(name) if path is None else import_file(path, name)
    except UserError:
        raise
    except Exception as error:  # whatever a reader's file raises becomes one line that names it
        raise UserError(f"{path or name}: cannot be imported: {_words(error)}") from error


def _given(path: Path, known: dict[str, Reader]) -> Reader:
    """Return the reader of a file; one that is registered keeps its module."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a .py file with a DatasetCard and a read")
    path = path.resolve()
    readers = [reader for reader in known.values() if reader.path.resolve() == path]
    readers = readers or list(_readers_of(path, module_name(BY_PATH, path)))
    if len(readers) != 1:
        names = ", ".join(reader.card.name for reader in readers) or "no DatasetCard"
        fix = "write one `CARD = DatasetCard(name=..., ...)` at its top level"
        raise UserError(f"{path}: holds {names}, expected one DatasetCard; {fix}")
    (reader,) = readers
    name = reader.card.name
    if not NAME.fullmatch(name):
        raise UserError(f"{path}: data set name '{name}': expected letters, digits, '.', '_' and '-'")
    if reader.by_path and name in known:
        raise UserError(f"{path}: data set name '{name}' is taken by {known[name].path}; rename it")
    return reader


def _readers_of(path: Path, module: str) -> Iterator[Reader]:
    """Yield the readers of a file, one for each of its cards."""
    try:
        cards = read_cards(path, DatasetCard)
    except (ValueError, TypeError, SyntaxError) as error:
        fix = "arguments must be literals by keyword"
        raise UserError(f"{path}: its card cannot be read: {error}; {fix}") from error
    for card in cards:
        yield Reader(card, module, path)


def _files() -> Iterator[tuple[str, Path]]:
    """Yield module and source file of the room `datasets/`, then of the entry points, each module once."""
    rooms = [Path(root) / "datasets" for root in bench.__path__]
    files = {}
    for room in rooms:
        for path in sorted([*room.glob("*.py"), *room.glob("*/*.py")]):
            parts = path.relative_to(room).with_suffix("").parts
            files[".".join(("bench.datasets", *(part for part in parts if part != "__init__")))] = path
    for point in entry_points(group=GROUP):
        files[point.module] = source_of(point)
    yield from sorted(files.items())


def _words(error: Exception) -> str:
    """Return kind and first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
