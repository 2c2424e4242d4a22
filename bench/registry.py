"""Names to models: files of `models/` and `baselines/`, entry points `m3bench.models`, a path to a .py file.

Cards are read from the source, so listing and choosing import no model and no torch; `Entry.load` does.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, get_args

import bench
from bench.cards import Card, Family, read_cards
from bench.errors import UserError, hint

if TYPE_CHECKING:
    from bench.interface import Recommender

ROOMS = ("models", "baselines")
GROUP = "m3bench.models"
FAMILIES: tuple[str, ...] = get_args(Family)
BY_PATH = "bench_model_at_"
SHARED = (
    "interface.py", "nn/*.py", "training/*.py", "evaluation/ranks.py", "evaluation/metrics.py",
    "data/task.py", "data/split.py", "data/candidates.py", "data/untouched.py",
    "data/batches.py", "data/histories.py", "data/training_log.py", "data/*_views.py",
)  # fmt: skip
"""Sources under `bench/` that every model's ranks depend on."""


@dataclass(frozen=True)
class Entry:
    """A model that can be chosen. Plain data: it travels to another process, which imports the model anew."""

    card: Card
    module: str
    """`bench.baselines.sasrec`, or `bench_model_at_<digest>` for a file given by its path."""
    path: Path
    """The source file; of a package its `__init__.py`."""

    def load(self) -> "type[Recommender]":
        """Import the model and return its class.

        Raises:
            UserError: the file cannot be imported, or does not hold the `Recommender` that its card names.
        """
        from bench.interface import Recommender  # imports torch

        kind = getattr(_import(self), self.card.model, None)
        if kind is None:
            raise UserError(f"{self.path}: no class '{self.card.model}', named by card '{self.card.name}'")
        if not (isinstance(kind, type) and issubclass(kind, Recommender)):
            raise UserError(f"{self.path}: '{self.card.model}' is not a Recommender subclass")
        return kind

    def code_hash(self) -> str:
        """Return a SHA-256 over the source that can move this model's ranks.

        That is the model's own file, or every .py file of its package, and what all models share (`SHARED`):
        the interface, the blocks, training, ranking, and the way from events to batches and candidates. Read
        as bytes: any edit makes a new cell, so a stored result is never shown for code that did not make it.
        Reports, the store and the command line are left out, since they cannot change a rank.
        """
        package = self.path.name == "__init__.py"
        files = self.path.parent.rglob("*.py") if package else [self.path]
        return hashlib.sha256((_shared_digest() + _digest(files, self.path.parent)).encode()).hexdigest()


def entries() -> dict[str, Entry]:
    """Return the registered models by name, in the order of the tables: family, year, name.

    Raises:
        UserError: two models of one name, a card that cannot be read, or an entry point without its module.
    """
    found: dict[str, Entry] = {}
    for entry in (*_rooms(), *_entry_points()):
        other = found.setdefault(entry.card.name, entry)
        if other is not entry:
            raise UserError(f"{entry.path}: model '{entry.card.name}' is in {other.path} too; rename one")
    return {entry.card.name: entry for entry in sorted(found.values(), key=_place)}


def select(spec: str) -> list[Entry]:
    """Return the models that a comma list chooses, each once, in the order of the tables, given files last.

    Args:
        spec: parts `all`, a family (`sequential`, `multimodal`, `multibehavior`, `heuristic`, `proposed`), a
            name, or the path of a .py file that holds a `Card`.

    Raises:
        UserError: a part is none of these.
    """
    known = entries()
    chosen: dict[str, Entry] = {}
    given: dict[str, Entry] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        if part == "all" or part in FAMILIES:
            chosen |= {name: entry for name, entry in known.items() if part in ("all", entry.card.family)}
        elif part in known:
            chosen[part] = known[part]
        elif part.endswith(".py"):
            given |= {entry.card.name: entry for entry in _given(Path(part), known)}
        else:
            close = hint(part, [*known, *FAMILIES, "all"])
            raise UserError(f"--models {part}: no such model or family; {close}")
    if not chosen and not given:
        raise UserError(f"--models {spec!r}: no model chosen; {hint('', known)}")
    inside = {name: entry for name, entry in given.items() if name in known}
    outside = [entry for name, entry in given.items() if name not in known]
    return [*sorted({**chosen, **inside}.values(), key=_place), *outside]


def _place(entry: Entry) -> tuple[int, int, str]:
    return FAMILIES.index(entry.card.family), entry.card.year, entry.card.name


def _rooms() -> Iterator[Entry]:
    for room in ROOMS:
        for root in bench.__path__:
            folder = Path(root) / room
            files = {path.stem: path for path in folder.glob("*.py") if not path.name.startswith("_")}
            files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
            for name in sorted(files):
                yield from _entries(files[name], f"bench.{room}.{name}")


def _entry_points() -> Iterator[Entry]:
    for point in entry_points(group=GROUP):
        try:
            spec = importlib.util.find_spec(point.module)
        except ImportError:
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"entry point {point.name} = {point.value}: no such module; reinstall it")
        for entry in _entries(Path(spec.origin), point.module):
            if entry.card.model == point.attr:
                yield entry


def _given(path: Path, known: dict[str, Entry]) -> list[Entry]:
    """Return the models of a file; one that lies in a room keeps its registered module."""
    if not path.is_file():
        raise UserError(f"--models {path}: no such file; expected a .py file with a Card and a Recommender")
    path = path.resolve()
    registered = [entry for entry in known.values() if entry.path.resolve() == path]
    if registered:
        return registered
    found = list(_entries(path, BY_PATH + hashlib.sha256(str(path).encode()).hexdigest()[:16]))
    if not found:
        raise UserError(f"{path}: holds no Card; write `CARD = Card(name=..., ...)` at its top level")
    for entry in found:
        if entry.card.name in known:
            taken = known[entry.card.name].path
            raise UserError(f"{path}: model name '{entry.card.name}' is taken by {taken}; rename it")
    return found


def _entries(path: Path, module: str) -> Iterator[Entry]:
    try:
        cards = read_cards(path, Card)
    except (ValueError, TypeError, SyntaxError) as error:
        raise UserError(f"{path}: card not readable: {error}; write literals by keyword") from error
    for card in cards:
        if card.family not in FAMILIES:
            close = hint(card.family, FAMILIES)
            raise UserError(f"{path}: card '{card.name}' has family '{card.family}'; {close}")
        yield Entry(card, module, path)


def _import(entry: Entry) -> ModuleType:
    """Import a registered module by name, a given file by path under a name equal in all processes."""
    try:
        if not entry.module.startswith(BY_PATH):
            return importlib.import_module(entry.module)
        return sys.modules.get(entry.module) or _import_file(entry)
    except UserError:
        raise
    except Exception as error:  # whatever a user's file raises becomes one line that names the file
        raise UserError(f"{entry.path}: cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(entry: Entry) -> ModuleType:
    spec = importlib.util.spec_from_file_location(entry.module, entry.path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[entry.module] = module  # dataclasses and pickle look the module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[entry.module]
        raise
    return module


@cache
def _shared_digest() -> str:
    root = Path(bench.__file__).parent
    return _digest((path for pattern in SHARED for path in root.glob(pattern)), root)


def _digest(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
