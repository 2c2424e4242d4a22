"""`bench time`: what models cost. Parsing and printing only."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.terminal import Device, Json, Pairs, Results, print_json, print_rows


def time(
    dataset: Annotated[
        str, typer.Option(help="A prepared data set; ml-100k and synthetic need no download.")
    ],
    models: Annotated[
        str, typer.Option(help="Names, families and paths of .py files, joined by commas.")
    ] = "all",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per step, the same for all; default: each model's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Steps measured of each model.")] = 20,
    set_: Pairs = None,
    device: Device = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Time models side by side: a step, an epoch, scoring; memory, weights, counted work (Table 4).

    Let nothing else run meanwhile. Nothing is trained to its end and nothing is stored but the table.

    Example: bench time --models sasrec,m3bsr --dataset ml-100k --batch-size 128
    """
    from bench.experiments.plan import make_plan
    from bench.experiments.timing import as_dict, time_models
    from bench.registry import select
    from bench.report import timing

    plan = make_plan(dataset, select(models), settings=set_ or [], seeds=1, device=device)
    print(f"{len(plan.models)} models, {repeats} steps each, taking turns", file=sys.stderr)
    timed = [as_dict(one) for one in time_models(plan, batch_size, repeats)]
    if as_json:
        print_json(timed)
    else:
        print_rows(timing.HEAD, timing.rows(timed))
        print("\n".join(timing.notes(timed, dataset)))
    name = f"time_{dataset}_{'own' if batch_size is None else batch_size}"
    (path, *_) = timing.write(timed, dataset, name, results / "tables")
    print(f"written: {path.with_suffix('')}.{{md,csv,tex,json}}", file=sys.stderr)
