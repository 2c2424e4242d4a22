"""`bench figure`: figures from the store. Parsing and printing only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError, hint
from bench.terminal import Results, TaskName, TaskOption, expanded, progress, warn

if TYPE_CHECKING:
    from bench.experiments.record import Record

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Draw figures from the store."
)

Out = Annotated[
    Path | None,
    typer.Option(callback=expanded, help="Folder of the figures; default: figures/ under --results."),
]


Color = Annotated[
    str,
    typer.Option(help="An attribute, cluster (generated data), or words of the titles: Comedy,Drama,Horror."),
]


@app.command()
def diagnostics(
    run: Annotated[
        str, typer.Option(help="Key of a finished cell or its folder's name (m3bsr-seed0-...), or a prefix.")
    ],
    results: Results = Path("results"),
    out: Out = None,
) -> None:
    """Draw one training: loss terms, validation, and what the model shows of its inside.

    Example: bench figure diagnostics --run m3bsr-seed0
    """
    from bench.report import figures

    record = _find(results, run)
    files = figures.diagnostics(record, out or results / "figures")
    if fault := record.outcome.extra.get("diagnostics_error"):
        print(f"{record.label}: its diagnostics failed: {fault}", file=sys.stderr)
    _written(files)


@app.command()
def embeddings(
    run: Annotated[
        list[str],
        typer.Option(
            help="Key of a cell run with --keep-model, or its folder's name, or a prefix; several are joined."
        ),
    ],
    color: Color = "cluster",
    items: Annotated[int, typer.Option(min=50, help="Most items drawn.")] = 800,
    seeds: Annotated[int, typer.Option(min=1, help="Projections that the figures are measured over.")] = 20,
    results: Results = Path("results"),
    out: Out = None,
) -> None:
    """Draw items at the stages of trained models by t-SNE (Fig. 5), with the numbers that decide.

    Example: bench figure embeddings --run m3bsr-seed0 --color Comedy,Drama,Horror,Sci-Fi
    """
    from bench.experiments import embeddings as stages
    from bench.experiments.slices import task_of
    from bench.experiments.store import Store
    from bench.report import embeddings as report
    from bench.report import figures

    store, records = Store(results), [_find(results, one) for one in run]
    task = task_of(records)
    if len({record.cell.fingerprint for record in records}) > 1:
        raise UserError("--run: the cells are of several data sets; draw one at a time")
    kinds, names = stages.kinds_of(task.dataset, color)
    views = stages.named_views(records, task, store)
    colored, panels = len(names) - 2, []
    with progress() as watch:
        for number, (name, view) in enumerate(views.items(), start=1):
            part = stages.sample(view, kinds, items, colored)
            flats = [stages.project(part.vectors, seed) for seed in range(seeds)]
            measured = stages.spread(part, kinds, colored, flats)
            panels.append(report.Panel(name, flats[0], kinds[part.items], measured))
            watch("views projected", number, len(views))
    made = report.Embeddings(task.dataset.name, color, names, tuple(panels), seeds)
    print("\n".join(report.lines_of(made)))
    name = f"embeddings_{records[0].cell.model}_{task.dataset.name}"
    written = [
        report.write(made, results / "tables", name),
        *figures.embeddings(made, out or results / "figures", name),
    ]
    print("".join(f"written: {path}\n" for path in written), end="", file=sys.stderr)


@app.command()
def ablation(
    model: Annotated[str, typer.Argument(help="A model that `bench ablate` ran, or path/to/model.py.")],
    dataset: Annotated[str, typer.Option(help="The data set it ran on.")],
    task: TaskOption = TaskName.rank,
    protocol: Annotated[str | None, typer.Option(help="uniform99, popular99, full; default: newest.")] = None,
    variants: Annotated[str | None, typer.Option(help="NAME,NAME; default: all that ran.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="A panel each; default: the first two of the task, HR@10,NDCG@10.")
    ] = None,
    results: Results = Path("results"),
    out: Out = None,
) -> None:
    """Draw the bars of an ablation that was run.

    Example: bench figure ablation m3bsr --dataset ml-100k --metrics HR@5,NDCG@5
    """
    from bench.experiments.ablation import fitting, members
    from bench.experiments.store import Store
    from bench.report import figures
    from bench.report.ablation import compare
    from bench.report.rows import comparable, left_out

    entries = members(model, variants)
    names = {entry.card.name for entry in entries}
    records = [
        record
        for record in Store(results).records(task.value, dataset=dataset)
        if record.cell.model in names and (protocol is None or record.cell.protocol.candidates == protocol)
    ]
    shown = comparable(records)
    fitted, missing = fitting(shown, entries)
    warn(left_out(records, shown))
    if missing:
        warn([f"not run like the full model, left out: {', '.join(missing)}"])
    chosen = [name.strip() for name in metrics.split(",")] if metrics else None
    try:
        comparison = compare(fitted, chosen)
    except ValueError as error:
        raise UserError(f"no figure of {metrics}: {error}") from error
    _written(figures.ablation(comparison, out or results / "figures", chosen and comparison.table.metrics))


def _find(results: Path, run: str) -> "Record":
    """Return the one finished cell whose key or folder name begins with `run`."""
    from bench.experiments.store import Store

    folder = Path(run).name.replace(":", "_")
    store = Store(results)
    done = [*store.records(status="done"), *store.records(task="ctr", status="done")]
    records = {_name(record): record for record in done}
    matches = [name for name in records if name.startswith(folder) or records[name].key.startswith(run)]
    if len(matches) == 1:
        return records[matches[0]]
    if not matches:
        keys = [record.key[:12] for record in records.values()]
        close = hint(folder, keys if set(folder) <= set("0123456789abcdef") else records)
        raise UserError(f"--run {run}: no finished cell of this key in {results}; {close}")
    listed = ", ".join(sorted(matches)[:6]) + (", ..." if len(matches) > 6 else "")
    raise UserError(f"--run {run}: {len(matches)} cells begin so; give more of the key: {listed}")


def _name(record: "Record") -> str:
    return f"{record.cell.model}-seed{record.cell.seed}-{record.key[:12]}".replace(":", "_")


def _written(paths: list[Path]) -> None:
    for path in paths:
        print(path)
