"""`bench ablate`: a model beside itself without each of its parts. Parsing and printing only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    TaskName,
    TaskOption,
    TotalMinutes,
    console,
    show_work,
)

if TYPE_CHECKING:
    from bench.report.ablation import Ablation


def ablate(
    model: Annotated[str, typer.Argument(help="A model whose card declares variants, or path/to/model.py.")],
    dataset: DatasetName,
    variants: Annotated[str | None, typer.Option(help="NAME,NAME; default: all that are declared.")] = None,
    task: TaskOption = TaskName.rank,
    seeds: Seeds = 3,
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
    """Run a model and its variants; print the differences, tested, and draw them.

    Finished cells are not run again; exit code 1 if a cell failed. Options of the model go to its variants
    too, all but those that make the variant; MODEL:VARIANT.X sets one of a variant alone.

    Example: bench ablate m3bsr --dataset ml-100k --seeds 3
    """
    from bench.experiments.ablation import members
    from bench.experiments.grid import default_jobs, find_work, run_grid
    from bench.experiments.plan import make_plan
    from bench.experiments.store import Store
    from bench.report.ablation import compare

    plan = make_plan(
        dataset, members(model, variants), settings=set_ or [], task=task.value, candidates=protocol,
        seeds=seeds, epochs=epochs,
        max_minutes=max_minutes, total_minutes=total_minutes, device=device,
    )  # fmt: skip
    jobs = jobs or default_jobs(plan.training.device)
    if dry_run:
        work = find_work([plan], Store(results), jobs=jobs, fresh=fresh)
        show_work(work.rows(), work.lines())
        return
    records = run_grid(plan, Store(results), jobs=jobs, fresh=fresh)
    _report(compare(records), results, as_json)
    if any(record.status == "failed" for record in records):
        raise typer.Exit(1)


def _report(comparison: "Ablation", results: Path, as_json: bool) -> None:
    from bench.report import ablation

    if as_json:
        print(ablation.to_json_text(comparison))
    else:
        ablation.show(comparison, console())
    (path, *_) = ablation.write(comparison, results / "tables")
    print(f"written: {path.with_suffix('')}.{{md,csv,tex,json}}", file=sys.stderr)
    if any(row.metrics for row in comparison.table.rows):
        from bench.report import figures

        (path, *_) = figures.ablation(comparison, results / "figures")
        print(f"written: {path.with_suffix('')}.{{png,pdf}}", file=sys.stderr)
