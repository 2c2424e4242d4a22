"""What an ablation runs, a model and its variants, and which stored cells may stand in one."""

from collections.abc import Sequence
from typing import Any

from bench.errors import UserError, hint
from bench.experiments.record import Cell, Record
from bench.registry import Entry, entries, select, variants


def members(model: str, chosen: str | None = None) -> list[Entry]:
    """Return a model followed by its variants.

    Args:
        model: a registry name, or the path of a .py file that holds one model with variants.
        chosen: comma list of variants, `no_gate,no_noise`; None takes all that the card declares.

    Raises:
        UserError: not one model, a model without variants, or no such variant.
    """
    selected = select(model)
    if selected[0].base:
        variant = selected[0].card.name.removeprefix(f"{selected[0].base}:")
        raise UserError(f"{model}: a variant; give its model: {selected[0].spec} --variants {variant}")
    declaring = [entry for entry in selected if entry.card.variants]
    if len(declaring) > 1 or (len(selected) > 1 and not model.endswith(".py")):
        names = ", ".join(entry.card.name for entry in declaring or selected)
        raise UserError(f"{model}: an ablation takes one model; choose one of {names}")
    if not declaring:
        raise UserError(f"{model}: its card declares no variants; {_with_variants()}")
    known = variants(declaring[0])
    return [declaring[0], *(known if chosen is None else _chosen(known, chosen))]


def _with_variants() -> str:
    names = [entry.card.name for entry in entries().values() if entry.card.variants]
    return f"models that do: {', '.join(names)}" if names else "no registered model does"


def _chosen(known: Sequence[Entry], chosen: str) -> list[Entry]:
    by_name = {entry.card.name.removeprefix(f"{entry.base}:"): entry for entry in known}
    wanted = [part.strip() for part in chosen.split(",") if part.strip()]
    for name in wanted:
        if name not in by_name:
            raise UserError(f"--variants {name}: no such variant of {known[0].base}; {hint(name, by_name)}")
    if not wanted:
        raise UserError(f"--variants {chosen!r}: no variant chosen; {hint('', by_name)}")
    return [entry for name, entry in by_name.items() if name in wanted]


def fitting(records: Sequence[Record], entries: Sequence[Entry]) -> tuple[list[Record], list[str]]:
    """Return the records of an ablation among those of a store, and the names of the variants left out.

    A variant may stand beside the full model only where it ran with the same code, limits and options, those
    that make it a variant excepted.

    Args:
        records: those that may share a table (`bench.report.rows.comparable`).
        entries: the model and its variants, as `members` returns them.

    Raises:
        UserError: the full model is missing, or no variant fits it.
    """
    name, command, rest = entries[0].card.name, f"bench ablate {entries[0].spec}", entries[1:]
    fitted = [record for record in records if record.cell.model == name]
    if not fitted:
        raise UserError(f"the store holds no cell of {name} there; first: {command}")
    missing, full = [], fitted[0].cell
    for entry in rest:
        wanted = {**_terms(full), "options": {**full.options, **entry.changed}}
        ran = [record for record in records if record.cell.model == entry.card.name]
        alike = [record for record in ran if _terms(record.cell) == wanted]
        fitted += alike
        missing += [] if alike else [entry.card.name]
    if len(missing) == len(rest):
        reason = "no variant was run with the code, limits and options of the full model's last run"
        raise UserError(f"{name}: {reason}; run: {command}")
    return fitted, missing


def _terms(cell: Cell) -> dict[str, Any]:
    values = cell.as_dict()
    return {name: values[name] for name in ("options", "code_hash", "epochs", "max_minutes")}
