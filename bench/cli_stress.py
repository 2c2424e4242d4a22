"""`bench stress`: do models look at their pictures and texts? Parsing and printing only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError
from bench.terminal import (
    Candidates,
    DatasetName,
    Device,
    Epochs,
    Fresh,
    Jobs,
    Json,
    MaxMinutes,
    Pairs,
    Results,
    Seeds,
    TotalMinutes,
    console,
    progress,
)

if TYPE_CHECKING:
    from bench.report.stress import StressTable


def stress(
    dataset: DatasetName,
    models: Annotated[
        str, typer.Option(help="Names, families and paths of .py files, joined by commas.")
    ] = "multimodal,m3bsr",
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train anew on permuted images and texts.")
    ] = False,
    metric: Annotated[str, typer.Option(help="NDCG@K, HR@K or MRR.")] = "NDCG@10",
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
    as_json: Json = False,
) -> None:
    """Test trained models with images, texts or ids taken away or permuted; print what they lose, tested.

    The same weights are tested with everything, no image, no text, images, texts and ids permuted over the
    items. Trainings are those of bench run, with their weights kept; finished ones are not run again.

    Example: bench stress --models multimodal,m3bsr --dataset synthetic --max-minutes 2
    """
    from bench.experiments.grid import default_jobs
    from bench.experiments.plan import make_plan
    from bench.experiments.store import Store
    from bench.experiments.stress_grid import retrained, under_stress
    from bench.registry import select
    from bench.report.stress import build_stress

    plan = make_plan(
        dataset, select(models), settings=[*(set_ or []), "training.keep_model=true"],
        candidates=protocol, seeds=seeds, epochs=epochs,
        max_minutes=max_minutes, total_minutes=total_minutes, device=device,
    )  # fmt: skip
    jobs = jobs or default_jobs(plan.training.device)
    _check_metric(metric)
    with progress() as watch:
        made = (retrained if retrain else under_stress)(plan, Store(results), watch, jobs=jobs, fresh=fresh)
    for line in made.failed:
        print(f"failed: {line}", file=sys.stderr)
    finished = build_stress(made.records, made.ranks, made.conditions, metric.upper(), made.retrained)
    _report(finished, results, as_json)
    if made.failed:
        raise typer.Exit(1)


def _check_metric(metric: str) -> None:
    """Refuse an unknown metric before anything is trained."""
    import numpy as np

    from bench.evaluation.metrics import per_user

    try:
        per_user(metric.upper(), np.ones(1, np.int32))
    except ValueError as error:
        raise UserError(f"--metric {metric}: {error}") from error


def _report(finished: "StressTable", results: Path, as_json: bool) -> None:
    from bench.report import stress as report

    if as_json:
        print(report.to_json_text(finished))
    else:
        report.show(finished, console())
    (path, *_) = report.write(finished, results / "tables")
    print(f"written: {path.with_suffix('')}.{{md,csv,tex,json}}", file=sys.stderr)
    from bench.report import figures

    (path, *_) = figures.stress(finished, results / "figures")
    print(f"written: {path.with_suffix('')}.{{png,pdf}}", file=sys.stderr)
