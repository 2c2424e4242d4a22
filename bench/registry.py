"""Names to models: files of `models/` and `baselines/`, entry points `m3bench.models`, a path to a .py file,
and `LIBRARY:NAME`, a model of another library.

Cards are read from the source, so listing and choosing import no model and no torch; `Entry.load` does.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import bench
from bench.cards import Card, Family, read_cards, source_of
from bench.code_hash import code_hash
from bench.errors import UserError, hint
from bench.import_file import import_file, module_name

if TYPE_CHECKING:
    from bench.interface import Recommender

ROOMS = ("models", "baselines")
GROUP = "m3bench.models"
FAMILIES: tuple[str, ...] = get_args(Family)
BY_PATH = "bench_model_at_"
LIBRARIES = {"recbole": "bench.baselines.recbole_models"}
"""Libraries whose models can be chosen by `LIBRARY:NAME`, each with the module that holds their classes, and
`card_of` and `listing`. It imports neither the library nor torch until a class is asked for."""


@dataclass(frozen=True)
class Entry:
    """A model that can be chosen. Plain data: it travels to another process, which imports the model anew."""

    card: Card
    module: str
    """`bench.baselines.sasrec`, or `bench_model_at_<digest>` for a file given by its path."""
    path: Path
    """The source file; of a package its `__init__.py`."""
    base: str = ""
    """The model that this is a variant of; empty for a model itself."""
    variant_number: int = 0
    """Number among the variants of its model, from 1; 0 for the model itself."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Options that make the variant; options given for the model or for all models leave them alone."""

    @property
    def spec(self) -> str:
        """What the command line takes for the model itself: its name, or the path of a file given by path."""
        return str(self.path) if self.module.startswith(BY_PATH) else self.base or self.card.name

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
        """Return a SHA-256 over the statements that can move this model's numbers; see `bench.code_hash`."""
        return code_hash(self.path, self.card.model)


def entries() -> dict[str, Entry]:
    """Return the registered models by name, in the order of the tables: family, year, name.

    Raises:
        UserError: two models of one name, a card that cannot be read, or an entry point without its module.
    """
    by_name: dict[str, Entry] = {}
    for entry in (*_rooms(), *_entry_points()):
        other = by_name.setdefault(entry.card.name, entry)
        if other is not entry:
            raise UserError(f"{entry.path}: model '{entry.card.name}' is in {other.path} too; rename one")
    return {entry.card.name: entry for entry in sorted(by_name.values(), key=_sort_key)}


def variants(entry: Entry) -> list[Entry]:
    """Return the variants that a model's card declares, `NAME:VARIANT`, in the card's order.

    A variant is the model with some options changed: same class, same code, a name and a label of its own.
    It is no part of `all` or of a family.
    """
    card = entry.card
    made = []
    for number, (name, (label, changed)) in enumerate(card.variants.items(), start=1):
        own_card = replace(
            card,
            name=f"{card.name}:{name}",
            label=f"{card.label} {label}",
            options={**card.options, **changed},
            variants={},
        )
        made.append(replace(entry, card=own_card, base=card.name, variant_number=number, changed=changed))
    return made


def select(spec: str, task: str = "rank") -> list[Entry]:
    """Return the models that a comma list chooses, each once, in the order of the tables, given files last.

    A variant stands right after its model, or where its model would stand.

    Args:
        spec: parts `all`, a family (`sequential`, `multimodal`, `multibehavior`, `ctr`, ...), a
            name, the path of a .py file that holds a `Card`, `NAME:VARIANT`, `path.py:VARIANT`, or
            `recbole:NAME`.
        task: `all` chooses the models whose card names it, a family those whose card names any.

    Raises:
        UserError: a part is none of these.
    """
    known = entries()
    chosen: dict[str, Entry] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        if part == "all":
            matching = [entry for entry in known.values() if task in entry.card.tasks]
        elif part in FAMILIES:
            matching = [entry for entry in known.values() if entry.card.family == part and entry.card.tasks]
        else:
            matching = _named(part, known)
        chosen |= {entry.card.name: entry for entry in matching}
    if not chosen:
        raise UserError(f"--models {spec!r}: no model chosen; {hint('', known)}")
    inside = [entry for entry in chosen.values() if _model(entry) in known]
    outside = [entry for entry in chosen.values() if _model(entry) not in known]
    order = list(dict.fromkeys(map(_model, outside)))
    outside.sort(key=lambda entry: (order.index(_model(entry)), entry.variant_number))
    return [*sorted(inside, key=_sort_key), *outside]


def table_order() -> dict[str, int]:
    """Return the rank of every registered model and variant in the order of the tables, by name."""
    everything = (one for entry in entries().values() for one in (entry, *variants(entry)))
    return {entry.card.name: rank for rank, entry in enumerate(everything)}


def _named(part: str, known: dict[str, Entry]) -> list[Entry]:
    """Return the model of a name, the models of a file, or a variant of either."""
    if part in known:
        return [known[part]]
    if part.endswith(".py"):
        return _given(Path(part).expanduser(), known)
    library, colon, name = part.partition(":")
    if colon and library in LIBRARIES:
        models = catalog(library)
        return [Entry(models.card_of(name), LIBRARIES[library], Path(models.__file__ or ""))]
    name, colon, variant = part.rpartition(":")
    if colon and (name in known or name.endswith(".py")):
        return _variant(_named(name, known), variant)
    close = hint(name or part, [*known, *FAMILIES, "all"])
    raise UserError(f"--models {part}: no such model or family; {close}")


def catalog(library: str) -> ModuleType:
    """Return the module that knows the models of a library: `card_of(name)`, `listing()`."""
    return importlib.import_module(LIBRARIES[library])


def _variant(models: list[Entry], name: str) -> list[Entry]:
    """Return the variant of that name of each model that declares it."""
    declared = [one for entry in models for one in variants(entry)]
    wanted = [one for one in declared if one.card.name == f"{one.base}:{name}"]
    if not wanted:
        model = ", ".join(entry.card.name for entry in models)
        known = [one.card.name.removeprefix(f"{one.base}:") for one in declared]
        close = hint(name, known) if known else "it declares none"
        raise UserError(f"--models {model}:{name}: no such variant of {model}; {close}")
    return wanted


def _model(entry: Entry) -> str:
    """Return the name of the model itself, also for a variant."""
    return entry.base or entry.card.name


def _sort_key(entry: Entry) -> tuple[int, int, str, int]:
    return FAMILIES.index(entry.card.family), entry.card.year, _model(entry), entry.variant_number


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
        for entry in _entries(source_of(point), point.module):
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
    models = list(_entries(path, module_name(BY_PATH, path)))
    if not models:
        raise UserError(f"{path}: holds no Card; write `CARD = Card(name=..., ...)` at its top level")
    for entry in models:
        if entry.card.name in known:
            taken = known[entry.card.name].path
            raise UserError(f"{path}: model name '{entry.card.name}' is taken by {taken}; rename it")
    return models


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
        return import_file(entry.path, entry.module)
    except UserError:
        raise
    except Exception as error:  # whatever a user's file raises becomes one line that names the file
        raise UserError(f"{entry.path}: cannot be imported: {type(error).__name__}: {error}") from error
