"""`bench ls` and `bench rm`: the cells of a results folder, listed and removed."""

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.errors import UserError
from bench.terminal import Json, Results, print_json, print_rows

if TYPE_CHECKING:
    from bench.experiments.record import Record
    from bench.experiments.store import Store

Names = Annotated[
    str | None, typer.Option("--models", help="Names with wildcards, joined by commas: 'm3bsr*,sasrec'.")
]
Dataset = Annotated[str | None, typer.Option(help="Of this data set alone.")]
Status = Annotated[str | None, typer.Option(help="done or failed.")]
Key = Annotated[str | None, typer.Option(help="The first characters of a cell's key.")]


def ls(
    models: Names = None,
    dataset: Dataset = None,
    status: Status = None,
    key: Key = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """List the cells of a results folder: what ran, when, how it ended, what it takes on disk.

    Example: bench ls --dataset ml-100k --status failed
    """
    from bench.experiments.store import Store

    store = Store(results.expanduser())
    rows = [_row(store, record) for record in _chosen(store, models, dataset, status, key)]
    if as_json:
        print_json(rows)
        return
    print_rows(
        ("data set", "model", "seed", "status", "epochs", "seconds", "MB", "finished (UTC)", "key"),
        [tuple(str(value) for value in row.values()) for row in rows],
    )
    print(f"cells: {len(rows):,}; MB: {sum(float(row['MB']) for row in rows):,.1f}")


def rm(
    models: Names = None,
    dataset: Dataset = None,
    status: Status = None,
    key: Key = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    results: Results = Path("results"),
) -> None:
    """Remove cells with their ranks, kept weights and checkpoints; shows them and asks first.

    Example: bench rm --dataset ml-100k --status failed
    """
    from bench.experiments.store import Store

    if models is None and dataset is None and status is None and key is None:
        raise UserError("bench rm: which cells? give --models, --dataset, --status or --key; '*' takes all")
    store = Store(results.expanduser())
    records = _chosen(store, models, dataset, status, key)
    if not records:
        print("no such cell: nothing to remove")
        return
    for record in records:
        cell = record.cell
        print(f"{cell.dataset}  {cell.model}  seed {cell.seed}  {record.status}  {record.key[:12]}")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("bench rm: nobody is there to ask; give --yes to remove these")
        if not typer.confirm(f"Remove these ({len(records):,})?"):
            print("nothing removed")
            return
    for record in records:
        store.remove(record.cell)
    print(f"cells removed: {len(records):,}")


def _chosen(
    store: "Store", models: str | None, dataset: str | None, status: str | None, key: str | None
) -> "list[Record]":
    """Return the records of both tasks that all given filters let through, in the order of the folders."""
    if status not in (None, "done", "failed"):
        raise UserError(f"--status {status}: expected done or failed")
    tasks: tuple[Literal["rank", "ctr"], ...] = ("rank", "ctr")
    filters = {} if dataset is None else {"dataset": dataset}
    records = [record for task in tasks for record in store.records(task, **filters)]
    patterns = None if models is None else [part.strip() for part in models.split(",")]
    return [
        record
        for record in records
        if (patterns is None or any(fnmatchcase(record.cell.model, pattern) for pattern in patterns))
        and (status is None or record.status == status)
        and record.key.startswith(key or "")
    ]


def _row(store: "Store", record: "Record") -> dict[str, str | int | float]:
    done = record.status == "done"
    return {
        "dataset": record.cell.dataset,
        "model": record.cell.model,
        "seed": record.cell.seed,
        "status": record.status,
        "epochs": record.outcome.epochs if done else "",
        "seconds": round(record.outcome.train_seconds) if done else "",
        "MB": round(store.size(record.cell) / 1e6, 1),
        "finished": record.finished_at[:16].replace("T", " "),
        "key": record.key[:12],
    }
