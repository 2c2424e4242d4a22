"""`bench heatmap`: two options of a model against each other. Parsing and printing only."""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError
from bench.terminal import (
    Candidates,
    DatasetName,
    Device,
    DryRun,
    Epochs,
    Fresh,
    Jobs,
    Json,
    MaxMinutes,
    Pairs,
    Results,
    Seeds,
    TotalMinutes,
    show_work,
)

if TYPE_CHECKING:
    from bench.experiments.heatmap import Axes
    from bench.experiments.record import Record
    from bench.registry import Entry


class Part(StrEnum):
    """Held-out parts."""

    validation = "validation"
    test = "test"


PartOption = Annotated[Part, typer.Option(help="Users shown; who chooses by the map takes validation.")]


def heatmap(
    model: Annotated[str, typer.Argument(help="A model, or path/to/model.py.")],
    dataset: DatasetName,
    options: Annotated[
        list[str] | None, typer.Argument(help="Two options with their values: hidden_size=32,64,128.")
    ] = None,
    panel: Annotated[
        str | None, typer.Option(help="A heat map of the paper; of m3bsr: behavior, modality, contrast.")
    ] = None,
    metric: Annotated[str, typer.Option(help="NDCG@K, HR@K or MRR.")] = "NDCG@10",
    part: PartOption = Part.validation,
    seeds: Seeds = 1,
    protocol: Candidates = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    total_minutes: TotalMinutes = None,
    set_: Pairs = None,
    device: Device = None,
    jobs: Jobs = None,
    results: Results = Path("results"),
    fresh: Fresh = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draw a heat map of two options; cells from the store, missing ones run; tests say whether it is noise.

    Example: bench heatmap sasrec --dataset ml-100k hidden_size=32,64 dropout=0.1,0.2,0.5 --max-minutes 1

    Fig. 4 of the M3BSR paper: bench heatmap m3bsr --dataset ml-100k --panel contrast --max-minutes 2
    """
    from bench.experiments.grid import default_jobs, find_work
    from bench.experiments.heatmap import axes_of, plans_of, run_map
    from bench.experiments.plan import make_plan
    from bench.experiments.store import Store
    from bench.registry import select

    chosen = [_one(model, select(model))]
    plan = make_plan(
        dataset, chosen, settings=set_ or [], candidates=protocol, seeds=seeds, epochs=epochs,
        max_minutes=max_minutes, total_minutes=total_minutes, device=device,
    )  # fmt: skip
    axes = axes_of(chosen[0], plan, panel, options or [])
    jobs = jobs or default_jobs(plan.training.device)
    if dry_run:
        work = find_work(plans_of(plan, axes), Store(results), jobs=jobs, fresh=fresh)
        show_work(work.rows(), work.lines())
        return
    cells = run_map(plan, axes, Store(results), jobs=jobs, fresh=fresh)
    _report(cells, axes, metric, part, results, as_json)


def _one(model: str, chosen: "Sequence[Entry]") -> "Entry":
    """Return the only model that was chosen."""
    if len(chosen) != 1:
        names = ", ".join(entry.card.name for entry in chosen)
        raise UserError(f"{model}: a heat map is of one model; choose one of {names}")
    return chosen[0]


def _report(
    cells: "Mapping[tuple[int, int], list[Record]]",
    axes: "Axes",
    metric: str,
    part: Part,
    results: Path,
    as_json: bool,
) -> None:
    """Print the map and write it; exit code 1 if a cell failed."""
    from bench.report import figures
    from bench.report import heatmap as report

    failed = [record for records in cells.values() for record in records if record.status == "failed"]
    for record in failed:
        print(f"failed: {record.label} {dict(record.cell.options)}: {record.reason}", file=sys.stderr)
    shown, values = (axes.x, axes.y), (axes.x_values, axes.y_values)
    try:
        chart = report.build_map(cells, shown, values, axes.default, metric.upper(), part.value)
    except ValueError as error:
        raise UserError(f"no heat map of {metric}: {error}") from error
    print(report.to_json_text(chart) if as_json else "\n".join(report.notes(chart)))
    (path, *_) = report.write(chart, results / "tables")
    (picture, *_) = figures.heat(chart, results / "figures")
    print(f"written: {path.with_suffix('')}.{{csv,json}}", file=sys.stderr)
    print(f"written: {picture.with_suffix('')}.{{png,pdf}}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
