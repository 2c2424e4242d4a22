"""RecBole's own models, `recbole:NAME`: which there are, read from its installed files.

Neither RecBole nor torch is imported until a class is asked for, by its RecBole name, of this module.

A model is a class `NAME` in `recbole/model/KIND/name.py`, with its options in `properties/model/NAME.yaml`.
"""

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from bench.cards import Card
from bench.errors import UserError, hint

PREFIX = "recbole:"
KINDS: dict[str, Literal["general", "sequential"]] = {
    "general_recommender": "general",
    "sequential_recommender": "sequential",
}
QUADRATIC = ("ADMMSLIM", "EASE", "SLIMElastic")
"""Models that hold an array of items by items."""
NOT_SUPPORTED = {
    "NCL": "clusters with faiss, which is not installed with m3bench",
    "GRU4RecCPR": "asks for the item to be predicted when it scores",
    "SASRecCPR": "asks for the item to be predicted when it scores",
    "RaCT": "has a training of its own in three stages",
    "RecVAE": "has a training of its own that takes turns between encoder and decoder",
    "Random": "draws its scores anew at every call; `random` is the chance level",
    "S3Rec": "has a pre-training of its own over item attributes",
    "LDiffRec": "reads item vectors from a file that another training writes",
    "DIN": "reads user attributes, which the data layer does not have",
    "DIEN": "reads user attributes, which the data layer does not have",
    "GRU4RecKG": "reads vectors of a knowledge graph",
    "KSR": "reads vectors of a knowledge graph",
    "FEARec": "reads augmented sequences that RecBole's own data set prepares",
}
"""Name -> why it cannot be chosen."""
ATTRIBUTES = ("FDSA", "GRU4RecF", "SASRecF")
"""Models that read categorical attributes of items: they work on sets that have some."""
NEEDS = {
    **dict.fromkeys(ATTRIBUTES, "items have attributes"),
    "DGCF": "the items per step of an epoch are no more than the users",
    "NAIS": "every test user has an event in training",
}
"""Model -> what it takes to work."""


def __getattr__(name: str) -> Any:
    """Return the class of a RecBole model under its RecBole name."""
    if name.startswith("_") or name not in found():
        raise AttributeError(name)
    from bench.baselines.recbole_models.adapter import class_of  # imports torch

    return class_of(name)


@dataclass(frozen=True)
class Found:
    """A model of the installed RecBole."""

    name: str
    kind: Literal["general", "sequential"]
    module: str
    reference: str
    """What its file says of the paper; empty where it says nothing."""
    options: Mapping[str, Any]
    """Its own options with their defaults."""


def root() -> Path:
    """Return the folder of the installed RecBole, without importing it.

    Raises:
        UserError: it is not installed, with the way to install it, or why that cannot be.
    """
    spec = find_spec("recbole")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    if sys.version_info >= (3, 12):
        version = ".".join(map(str, sys.version_info[:2]))
        raise UserError(
            f"recbole: not installed, and it cannot be on Python {version}: RecBole 1.2.1 needs ray 2.6, "
            "which has no package for Python 3.12 or newer; use Python 3.11"
        )
    raise UserError('recbole: not installed; run: pip install -c constraints.txt -e ".[recbole]"')


@cache
def found() -> dict[str, Found]:
    """Return the general and sequential models by name: general ones first, then by name."""
    models = {}
    for folder, kind in KINDS.items():
        for path in sorted((root() / "model" / folder).glob("*.py")):
            module = f"recbole.model.{folder}.{path.stem}"
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem:
                    text = _reference(ast.get_docstring(tree) or ast.get_docstring(node) or "")
                    models[node.name] = Found(node.name, kind, module, text, _options(node.name))
    return models


def card_of(name: str) -> Card:
    """Return the card of a RecBole model, `recbole:NAME`.

    Raises:
        UserError: RecBole has no such model, or it is one of those that do not work, with the reason.
    """
    model = found().get(name)
    if model is None:
        raise UserError(f"--models {PREFIX}{name}: RecBole has no such model; {hint(name, found())}")
    if name in NOT_SUPPORTED:
        raise UserError(
            f"--models {PREFIX}{name}: {name} {NOT_SUPPORTED[name]}; bench models recbole: lists the rest"
        )
    year = re.findall(r"(?:19|20)\d\d", model.reference)
    inputs = (
        "items of all behaviors in time order" if model.kind == "sequential" else "distinct user-item pairs"
    )
    square = " It holds an array of items by items." if name in QUADRATIC else ""
    return Card(
        name=f"{PREFIX}{name}",
        label=f"{name} (RecBole)",
        model=name,
        family=model.kind,
        paper=model.reference or "see RecBole's documentation",
        year=int(year[-1]) if year else 2020,
        inputs=f"{inputs}, all behaviors together, behavior type dropped; no image, no text",
        deviations=(
            "RecBole's own class with its own defaults; split, histories, negatives, training loop, early "
            "stopping and ranking are those of m3bench",
        ),
        notes="A sequential model has one target per history, as in RecBole. Scores of all items are held "
        f"for the users of one batch.{square}",
        tasks=(),
    )


def listing() -> list[tuple[str, str, str]]:
    """Return name, kind and outcome of every general and sequential model: `works`, or why not."""
    rows: list[tuple[str, str, str]] = []
    for model in found().values():
        needs = f"works where {NEEDS[model.name]}" if model.name in NEEDS else "works"
        rows.append((f"{PREFIX}{model.name}", model.kind, NOT_SUPPORTED.get(model.name, needs)))
    return rows


def _reference(text: str) -> str:
    """Return the reference in a docstring: the indented lines below `Reference:`, as one."""
    match = re.search(r"Reference:\s*\n((?:[ \t]+\S.*\n?)+)", text)
    lines = match.group(1).split("\n") if match else []
    return " ".join(line.strip() for line in lines if "http" not in line).strip()


def _options(name: str) -> dict[str, Any]:
    """Return the options in a model's YAML file that are plain values or lists of them."""
    import yaml  # comes with RecBole

    path = root() / "properties" / "model" / f"{name}.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return {
        key: number(value)
        for key, value in (given or {}).items()
        if isinstance(value, int | float | str | list)
    }


def number(value: Any) -> Any:
    """Return a text such as 1e-12, which YAML takes for a text, as the number; also inside a list."""
    if isinstance(value, list):
        return [number(part) for part in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value
