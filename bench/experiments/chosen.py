"""Which stored records a table shows, and in which order."""

from typing import Literal

from bench.errors import UserError, hint
from bench.experiments.record import Record
from bench.experiments.store import Store
from bench.registry import entries, select, table_order


def stored(
    store: Store, dataset: str | None, protocol: str | None, task: Literal["rank", "ctr"] = "rank"
) -> list[Record]:
    """Return the records of one data set and task, of some candidates where they are named."""
    records = store.records(task, **({"dataset": dataset} if dataset else {}))
    if protocol:
        records = [record for record in records if record.cell.protocol.candidates == protocol]
    names = sorted({record.cell.dataset for record in records})
    if not names:
        wanted = " ".join(filter(None, [dataset, protocol])) or "anything"
        option, which = ("", "") if task == "rank" else (f" --task {task}", f" under the task {task}")
        fix = f"first: bench run{option} --dataset {dataset or 'ml-100k'}"
        raise UserError(f"{store.root}: holds no cell of {wanted}{which}; {fix}")
    if len(names) > 1:
        several = ", ".join(names)
        raise UserError(f"{store.root}: holds several data sets; choose one with --dataset: {several}")
    return records


def named(records: list[Record], spec: str) -> list[Record]:
    """Return the records of the models and families of a comma list, registered or not.

    A variant (`NAME:VARIANT`) is chosen by its name alone; it is no part of `all` or of its family.
    """
    parts = {model_name(part.strip()) for part in spec.split(",")}
    known = {"all"} | {name for record in records for name in (record.cell.model, record.family)}
    for part in sorted(parts - known):
        raise UserError(f"--models {part}: no such model or family in the store; {hint(part, known)}")
    models = {*entries(), *(record.cell.model for record in records)}

    def wanted(model: str, family: str) -> bool:
        variant = model.rpartition(":")[0] in models
        return model in parts or bool(parts & {"all", family} and not variant)

    return [record for record in records if wanted(record.cell.model, record.family)]


def model_name(spec: str) -> str:
    """Return the name of a model given by the path of its file; any other word as it is.

    Raises:
        UserError: the file cannot be read, or holds several models.
    """
    if not spec.endswith(".py"):
        return spec
    found = [entry.card.name for entry in select(spec)]
    if len(found) > 1:
        raise UserError(f"{spec}: holds several models; name one of {', '.join(found)}")
    return found[0]


def in_order(records: list[Record]) -> list[Record]:
    """Sort records as the registry sorts models; those that it does not know come last."""
    order = table_order()
    return sorted(records, key=lambda r: (order.get(r.cell.model, len(order)), r.cell.model, r.cell.seed))
