"""The commands: parsing and printing only. What they call is imported when they run: help is instant."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import (
    __version__,
    cli_ablate,
    cli_audit,
    cli_cells,
    cli_data,
    cli_figure,
    cli_heatmap,
    cli_models,
    cli_new,
    cli_stress,
    cli_sweep,
    cli_test,
    cli_time,
)
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
    TaskName,
    TaskOption,
    TotalMinutes,
    complete_models,
    console,
    print_rows,
    show_work,
    use_plain_signs,
    warn,
)

if TYPE_CHECKING:
    from bench.experiments.record import Record
    from bench.report.rows import Table

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fair tables of multi-behavior, multi-modal recommenders.\n\n"
    "First table: bench run --models all --dataset ml-100k --max-minutes 2",
)
app.add_typer(cli_data.app, name="data")
app.command()(cli_models.models)
app.add_typer(cli_test.app, name="test")
app.command()(cli_ablate.ablate)
app.command()(cli_heatmap.heatmap)
app.command()(cli_stress.stress)
app.command()(cli_sweep.sweep)
app.command()(cli_time.time)
app.command()(cli_audit.compare)
app.command()(cli_audit.audit)
app.command()(cli_cells.ls)
app.command()(cli_cells.rm)
app.add_typer(cli_figure.app, name="figure")
app.add_typer(cli_new.app, name="new")


class Format(StrEnum):
    """Forms of a printed table."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    json = "json"


Models = Annotated[
    str,
    typer.Option(
        help="all, a family (heuristic, sequential, multimodal, multibehavior, ctr, proposed), NAME,NAME, "
        "recbole:NAME or path/to/model.py; commas join them.",
        autocompletion=complete_models,
    ),
]

KeepModel = Annotated[bool, typer.Option("--keep-model", help="Keep the trained weights beside the records.")]
Tuned = Annotated[
    bool, typer.Option("--tuned", help="Take the best options that bench sweep found, where there are some.")
]


def main() -> None:
    """Run the command line: a user's mistake is one line and exit code 2, an interruption exit code 130."""
    use_plain_signs()
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])  # accepted at any place
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if "--debug" in sys.argv or error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == 130:  # typer's own answer to an interruption
            _interrupted()
        raise


def _interrupted() -> None:
    print("interrupted: finished cells are kept; the same command goes on from here", file=sys.stderr)
    sys.exit(130)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Declare the options of every command."""


@app.command()
def run(
    dataset: DatasetName,
    models: Models = "all",
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
    keep_model: KeepModel = False,
    tuned: Tuned = False,
    as_json: Json = False,
) -> None:
    """Train and test models on a data set, print the table.

    Finished cells are not run again; exit code 1 if a cell failed (the others are kept). Keys of --set:
    MODEL.X for one model, X for every chosen model that has it, data.X, protocol.X, training.X.

    Example: bench run --models sasrec,m3bsr --dataset ml-100k --seeds 3 --set hidden_size=128

    Click prediction: bench run --task ctr --models dnn,din,popularity --dataset ml-100k
    """
    from bench.experiments.grid import default_jobs, find_work, open_plan, run_grid
    from bench.experiments.plan import make_plan
    from bench.experiments.presets import presets
    from bench.experiments.store import Store
    from bench.registry import select

    settings = (set_ or []) + ["training.keep_model=true"] * keep_model
    plan = make_plan(
        dataset, select(models, task.value), settings=settings, task=task.value, candidates=protocol,
        seeds=seeds, epochs=epochs,
        max_minutes=max_minutes, total_minutes=total_minutes, device=device,
    )  # fmt: skip
    found = presets(results, open_plan(plan).dataset.name, plan.models) if tuned else {}
    plan = plan.with_presets({name: preset.options for name, preset in found.items()})
    jobs = jobs or default_jobs(plan.training.device)
    if dry_run:
        work = find_work([plan], Store(results), jobs=jobs, fresh=fresh)
        show_work(work.rows(), work.lines())
        return
    records = run_grid(plan, Store(results), jobs=jobs, fresh=fresh)
    finished = replace(_table(records), tuned=tuple(preset.words() for preset in found.values()))
    _finish(finished, records, results, as_json)


def _finish(finished: "Table", records: "Sequence[Record]", results: Path, as_json: bool) -> None:
    """Print the table of a run and write it; exit code 1 where a cell failed."""
    from bench.report.tables import write_tables

    _show(finished, Format.json if as_json else Format.text)
    paths = write_tables(finished, results / "tables")
    print(f"written: {paths[0].with_suffix('')}.{{md,csv,tex,json}}", file=sys.stderr)
    if any(record.status == "failed" for record in records):
        raise typer.Exit(1)


@app.command()
def table(
    dataset: Annotated[str | None, typer.Option(help="Needed where the store knows several.")] = None,
    protocol: Annotated[str | None, typer.Option(help="uniform99, popular99 or full.")] = None,
    models: Models = "all",
    task: TaskOption = TaskName.rank,
    form: Annotated[Format, typer.Option("--format", help="Form of the table.")] = Format.text,
    metrics: Annotated[
        str | None, typer.Option(help="HR@K, NDCG@K, MRR; with --task ctr AUC, GAUC, LogLoss.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="history, activity, popularity, age, behavior: the first metric in slices of test users."
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Test users under a condition alone: history<=10, popularity=0.")
    ] = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Print the table of finished cells, of all test users or of some.

    Each model is shown as it ran last, on the newest data and candidates.

    Example: bench table --dataset ml-100k --format latex --metrics HR@5,NDCG@5,MRR

    Slices: bench table --dataset ml-100k --by history --metrics NDCG@10

    Click prediction: bench table --dataset ml-100k --task ctr
    """
    from bench.experiments.chosen import in_order, named, stored
    from bench.experiments.store import Store
    from bench.report.tables import comparable, left_out

    finished = named(stored(Store(results), dataset, protocol, task.value), models)
    records = in_order(comparable(finished))
    missing = left_out(finished, records)
    form = Format.json if as_json else form
    if by is None and where is None:
        _show(replace(_table(records, metrics), left_out=missing), form)
        return
    warn(missing)
    if task is TaskName.ctr:
        raise UserError("--by, --where: slices are of ranks; leave --task ctr out")
    _show_slices(records, metrics, (by, where), form, results)


@app.command()
def doctor(results: Results = Path("results")) -> None:
    """Show what is installed and what is missing.

    Example: bench doctor
    """
    from bench.doctor import findings

    print_rows(("what", "found"), findings(results))


@app.command()
def env(results: Results = Path("results")) -> None:
    """Print the versions and the machine as a block to paste into a bug report; no folder is named.

    Example: bench env
    """
    from bench.doctor import report

    print(report(results))


def _show_slices(
    records: "list[Record]",
    metrics: str | None,
    chosen: tuple[str | None, str | None],
    form: Format,
    results: Path,
) -> None:
    """Print the table of some test users, or one metric by slices, which is also written and drawn."""
    from bench.experiments import slices
    from bench.report import figures
    from bench.report import slices as report

    by, condition = chosen
    task = slices.task_of(records)
    part = slices.where(task, condition) if condition else slices.everybody(task)

    def table_of(chosen: slices.Slice) -> "Table":
        made = _table(slices.restricted(records, chosen), metrics)
        return replace(made, where=condition or "")

    if by is None:
        _show(table_of(part), form)
        return
    parts = [part.named("all"), *(one.within(part) for one in slices.slices_by(task, by))]
    tables = [(one.label, table_of(one)) for one in parts if one.rows.any()]
    made = report.make(by, tables[0][1].metrics[0] if metrics else tables[0][1].kind.tested, tables)
    if form is Format.text:
        report.show(made, console())
    else:
        print(report.FORMS[form.value](made).rstrip("\n"))
    (path, *_) = report.write(made, results / "tables")
    (picture, *_) = figures.slices(made, results / "figures")
    print(f"written: {path.with_suffix('')}.{{md,csv,tex,json}}", file=sys.stderr)
    print(f"written: {picture.with_suffix('')}.{{png,pdf}}", file=sys.stderr)


def _table(records: "list[Record]", metrics: str | None = None) -> "Table":
    from bench.report.tables import build

    try:
        return build(records, metrics and [name.strip() for name in metrics.split(",")])
    except ValueError as error:
        raise UserError(f"no table of {metrics}: {error}") from error


def _show(finished: "Table", form: Format) -> None:
    from bench.report import tables

    if form is Format.text:
        tables.show(finished, console())
        return
    make = {
        Format.markdown: tables.to_markdown,
        Format.csv: tables.to_csv,
        Format.latex: tables.to_latex,
        Format.json: tables.to_json,
    }
    print(make[form](finished).rstrip("\n"))
