"""Two options of a model against each other: which cells a heat map is made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.config import build_options, flatten
from bench.errors import UserError, hint
from bench.experiments.grid import run_plans
from bench.experiments.plan import Plan
from bench.experiments.record import Record
from bench.experiments.store import Store
from bench.registry import Entry


@dataclass(frozen=True)
class Axes:
    """The two options and their values."""

    x: str
    """Option from left to right."""
    x_values: tuple[Any, ...]
    y: str
    """Option from top to bottom."""
    y_values: tuple[Any, ...]
    default: tuple[Any, Any]
    """The usual values of both, which need not be among them."""


def axes_of(entry: Entry, plan: Plan, panel: str | None, pairs: Sequence[str]) -> Axes:
    """Return the axes of a heat map.

    Args:
        entry: the model.
        plan: options that the user has set hold in all cells.
        panel: one of the card's; None takes the pairs.
        pairs: `option=value,value,...` twice.

    Raises:
        UserError: no such panel or option, not two of them, or fewer than two values.
    """
    card = entry.card
    if panel is not None and pairs:
        raise UserError("give --panel or two options with their values, not both")
    if panel is not None:
        if panel not in card.panels:
            fix = hint(panel, card.panels) if card.panels else "give two options with their values"
            raise UserError(f"--panel {panel}: no such panel of {card.name}; {fix}")
        given = {name: [str(value) for value in values] for name, values in card.panels[panel].items()}
    else:
        given = dict(_pair(one) for one in pairs)
    if len(given) != 2:
        example = f"bench heatmap {card.name} --dataset ml-100k hidden_size=32,64 learning_rate=0.001,0.003"
        raise UserError(f"expected two options with their values, got {len(given)}; such as: {example}")
    kind = entry.load().Config
    base = {**card.options, **plan.overrides.get(card.name, {})}
    usual = flatten(build_options(kind, base, f"model {card.name}"))
    typed: dict[str, tuple[Any, ...]] = {}
    for name, texts in given.items():
        if name not in usual:
            raise UserError(f"{card.name}: no option '{name}'; {hint(name, usual)}")
        if name in plan.fixed.get(card.name, ()):
            raise UserError(f"{name}: stands on an axis and in --set; leave one out")
        # alone, a value may contradict others; both are set together when a cell is built
        typed[name] = tuple(_typed(usual[name], text, name) for text in texts)
        if len(set(typed[name])) < 2:
            raise UserError(f"{name}: expected two values or more, got {len(set(typed[name]))}")
    (x, xs), (y, ys) = typed.items()
    return Axes(x, xs, y, ys, (usual[x], usual[y]))


def _pair(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not equals:
        raise UserError(f"{text!r}: expected option=value,value,..., such as hidden_size=32,64,128")
    return name.strip(), [value.strip() for value in values.split(",") if value.strip()]


def _typed(usual: Any, text: str, name: str) -> Any:
    """Return a value of the type that the option usually has."""
    if text.lower() in ("none", "null"):
        return None
    kind = type(usual) if usual is not None else None
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is int or (kind is None and text.lstrip("-").isdigit()):
            return int(text)
        if kind is float or kind is None:
            value = float(text)
            if not math.isfinite(value):
                raise ValueError
            return value
    except (ValueError, KeyError) as error:
        expected = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
        raise UserError(f"{name}={text}: expected {expected}") from error
    return text


def plans_of(plan: Plan, axes: Axes) -> list[Plan]:
    """Return a plan for each cell of the map, row by row.

    Raises:
        UserError: a value that the model does not take.
    """
    (entry,) = plan.models
    name, own = entry.card.name, plan.overrides.get(entry.card.name, {})
    kind = entry.load().Config
    usual = flatten(build_options(kind, entry.card.options, f"model {name}"))
    plans = []
    for row, column in places_of(axes):
        chosen: Mapping[str, Any] = {axes.x: axes.x_values[column], axes.y: axes.y_values[row]}
        build_options(kind, {**entry.card.options, **own, **chosen}, f"model {name}")
        changed = {key: value for key, value in chosen.items() if value != usual[key]}
        plans.append(replace(plan, overrides={name: {**own, **changed}}))
    return plans


def places_of(axes: Axes) -> list[tuple[int, int]]:
    """Return the (row, column) of the cells, row by row."""
    return [(row, column) for row in range(len(axes.y_values)) for column in range(len(axes.x_values))]


def run_map(
    plan: Plan, axes: Axes, store: Store, *, jobs: int = 1, fresh: bool = False
) -> dict[tuple[int, int], list[Record]]:
    """Return (row, column) -> the records of its seeds, running what the store lacks.

    Raises:
        UserError: a value that the model does not take, named before anything runs.
    """
    records = run_plans(plans_of(plan, axes), store, jobs=jobs, fresh=fresh)
    count = len(plan.seeds)
    return {place: records[count * n : count * (n + 1)] for n, place in enumerate(places_of(axes))}
