"""Cards: what a model or a data set says of itself, readable without importing it.

A card is written as a call with literal arguments at the top level of the file that it describes, so that
listings can read it from the source (`read_cards`) and never import torch.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.errors import UserError

Family = Literal["heuristic", "general", "sequential", "multimodal", "multibehavior", "ctr", "proposed"]


@dataclass(frozen=True)
class Card:
    """A model in the registry: one row of the table."""

    name: str
    """Registry name, lower case: `sasrec-ce`."""
    label: str
    """What the tables print: `SASRec-CE`."""
    model: str
    """Name of the `Recommender` subclass in the same file (or package)."""
    family: Family
    """The group of the comparison table."""
    paper: str
    """Authors, title, venue, year, identifier."""
    year: int
    """Year of publication."""
    inputs: str
    """What the model reads: behaviors, modalities, view."""
    deviations: tuple[str, ...] = ()
    """Every known difference from the paper or the authors' code, with its reason."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this preset that differ from the defaults of the model's `Config` (dotted keys)."""
    reconstruction: bool = False
    """True where no official code was found and the paper alone does not fix the model; tables say so."""
    notes: str = ""
    """Anything else a user of the model should know; one line per paragraph."""
    tasks: tuple[str, ...] = ("rank", "ctr")
    """Tables that `all` puts it into; chosen by its name it can stand in any. Empty: by name alone."""
    variants: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Ablations: name -> (what the label adds, the options changed, dotted keys):
    `{"no_gate": ("w/o gate", {"gate.enabled": False})}`. Chosen as `NAME:no_gate`, run by `bench ablate`."""
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Search space: option (dotted key) -> the values worth trying, its default among them where it is usual:
    `{"learning_rate": (1e-4, 1e-3)}`."""

    panels: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    """Heat maps of the paper: name -> two options and their values, the first from left to right:
    `{"contrast": {"temperature": (0.1, 0.3), "loss_weight": (0.01, 0.1)}}`. Drawn by `bench heatmap`."""

    def __post_init__(self) -> None:
        for name, panel in self.panels.items():
            if len(panel) != 2 or not all(isinstance(v, tuple) and len(set(v)) > 1 for v in panel.values()):
                raise ValueError(f"panel '{name}' of '{self.name}': expected two options with their values")
        for name, variant in self.variants.items():
            shape = isinstance(variant, tuple) and [type(part) for part in variant]
            if not re.fullmatch(r"[a-z0-9_-]+", name) or shape != [str, dict]:
                form = "'lower_case': ('label', {'option': value})"
                raise ValueError(f"variant '{name}' of '{self.name}': expected {form}")
        for name, values in self.search.items():
            if not isinstance(values, tuple) or len(set(values)) < 2:
                raise ValueError(f"search space of '{name}' in '{self.name}': expected two values or more")


@dataclass(frozen=True)
class DatasetCard:
    """A data set in the registry."""

    name: str
    """Registry name: `ml-100k`."""
    title: str
    """One line: what it is."""
    real: bool
    """False for generated data."""
    licence: str
    """Terms of use, as its publisher states them."""
    published: str
    """Where it is published, and who to cite."""
    files: str
    """Which files go into the folder given by `--raw`; empty where nothing has to be brought."""
    behaviors: str
    """Default mapping of raw behaviors, shallow -> deep."""
    modalities: str
    """Content of the items: text, image, none."""
    size: str
    """Users, items, events as published."""
    dirt: str = ""
    """Known faults of the raw files and what is done with them."""
    needs_raw: bool = True
    """False where `prepare` needs no file brought by the user."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Preparation options of this data set that differ from the general defaults."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """What Table 1 of the M3BSR paper says of it, shown beside our numbers: users, items, interactions,
    clicks and favors per user."""


def source_of(point: EntryPoint) -> Path:
    """Return the source file of an entry point's module, without importing the module itself.

    Raises:
        UserError: there is no such module.
    """
    try:
        spec = find_spec(point.module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"entry point {point.name} = {point.value}: no such module; reinstall it")
    return Path(spec.origin)


AnyCard = TypeVar("AnyCard", Card, DatasetCard)


def read_cards(path: Path, kind: type[AnyCard]) -> list[AnyCard]:
    """Return the cards written at the top level of a source file, in their order.

    Args:
        path: a Python file.
        kind: `Card` or `DatasetCard`; calls of this name with literal keyword arguments are read.

    Raises:
        ValueError: a card has an argument that is not a literal.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    calls = [
        node
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind.__name__
    ]
    return [kind(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords}) for call in calls]
