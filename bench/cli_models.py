"""`bench models`: the list of models, or one model's card."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import UserError, hint
from bench.terminal import Json, print_json, print_rows

if TYPE_CHECKING:
    from bench.cards import Card
    from bench.registry import Entry


def models(
    name: Annotated[str | None, typer.Argument(help="A model, or path/to/model.py: show its card.")] = None,
    notes: Annotated[
        bool, typer.Option("--notes", help="Print what was measured of the model, where it has notes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models, or show one model's card.

    Example: bench models sasrec

    Example: bench models m3bsr --notes

    Example: bench models recbole:
    """
    from bench.registry import LIBRARIES, catalog, entries, select

    known = entries()
    if name is not None and name.removesuffix(":") in LIBRARIES:
        _print_library(catalog(name.removesuffix(":")).listing(), as_json)
        return
    if name is None:
        _print_list([entry.card for entry in known.values()], as_json)
        return
    if name not in known and not name.endswith(".py") and ":" not in name:
        raise UserError(f"no model '{name}'; {hint(name, known)}")
    for entry in select(name):
        _print_notes(entry) if notes else _print_card(entry, as_json)


def test(
    name: Annotated[str, typer.Argument(help="A model, or path/to/model.py.")],
) -> None:
    """Run the contract tests on a model: shapes, gradients, padding, batch mates, repeatability.

    Exit code 1 if one fails. Example: bench test path/to/model.py
    """
    from bench.config import build_options
    from bench.contract import Subject, run_checks
    from bench.registry import select

    failed = False
    for entry in select(name):
        kind = entry.load()
        config: Any = build_options(kind.Config, entry.card.options, f"model {entry.card.name}")
        results = list(run_checks(Subject(kind, config)))
        failed |= any(wrong for _, wrong in results)
        rows = [(entry.card.name, check, wrong or "holds") for check, wrong in results]
        print_rows(("model", "check", "outcome"), rows)
    if failed:
        raise typer.Exit(1)


def _print_list(cards: "list[Card]", as_json: bool) -> None:
    if as_json:
        keys = ("name", "label", "family", "paper", "year")
        print_json([{key: getattr(card, key) for key in keys} for card in cards])
        return
    print_rows(
        ("name", "family", "year", "paper"),
        [(card.name, card.family, str(card.year or ""), card.paper) for card in cards],
    )


def _print_library(rows: list[tuple[str, str, str]], as_json: bool) -> None:
    if as_json:
        print_json([dict(zip(("name", "kind", "outcome"), row, strict=True)) for row in rows])
        return
    print_rows(("name", "kind", "outcome"), rows)


def _print_notes(entry: "Entry") -> None:
    path = notes_of(entry.path)
    if path is None:
        card = f"its card: bench models {entry.spec}"
        raise UserError(f"{entry.card.name}: no notes lie beside {entry.path}; {card}")
    print(path.read_text(encoding="utf-8").rstrip())


def notes_of(path: Path) -> Path | None:
    """Return the notes of a model: NOTES.md of its package, or NAME.md beside its file; None without."""
    notes = path.with_name("NOTES.md") if path.name == "__init__.py" else path.with_suffix(".md")
    return notes if notes.is_file() else None


def _print_card(entry: "Entry", as_json: bool) -> None:
    from bench.config import build_options, flatten, option_names
    from bench.registry import variants

    card, kind = entry.card, entry.load().Config
    values = flatten(build_options(kind, card.options, f"card of {card.name}"))
    docs = option_names(kind)
    if as_json:
        print_json({**asdict(card), "options": {n: {"value": values[n], "doc": docs[n]} for n in docs}})
        return
    print(f"{card.label} ({card.name}), {card.family}")
    if card.reconstruction:
        print("Reconstruction: no official code was found and the paper alone does not fix the model")
    print(f"Paper: {card.paper}\nInputs: {card.inputs}\nFile: {entry.path}")
    print("Deviations:" if card.deviations else "Deviations: none known")
    for text in card.deviations:
        print(f"- {text}")
    if card.notes:
        print(f"Notes: {card.notes}")
    if notes_of(entry.path):
        print(f"Measured: bench models {entry.spec} --notes")
    if card.variants:
        print(f"Variants, run by: bench ablate {entry.spec}")
        print_rows(("variant", "label", "options changed"), [_variant(one) for one in variants(entry)])
    if card.search:
        space = [(name, ", ".join(map(str, values))) for name, values in card.search.items()]
        print_rows(("searched option", "values"), space)
    print_rows(("option", "value", "what it is"), [(name, str(values[name]), docs[name]) for name in docs])


def _variant(entry: "Entry") -> tuple[str, str, str]:
    changed = ", ".join(f"{name}={value}" for name, value in entry.changed.items())
    return entry.card.name, entry.card.label, changed
