"""The harness from Python: what the commands `run`, `table` and `ablate` do, for programs and notebooks.

    from bench import ablate, load_dataset, run, table

    results = run("ml-100k", models="popularity,gru4rec", seeds=1, epochs=2)
    print(results.to_pandas())
    print(results.curves())

Errors that a user can mend are `bench.errors.UserError`, one line each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.config import text_of
from bench.data import library
from bench.data.schema import Dataset
from bench.experiments.ablation import members
from bench.experiments.chosen import in_order, named, stored
from bench.experiments.grid import default_jobs, run_grid
from bench.experiments.plan import make_plan
from bench.experiments.record import Outcome, Record
from bench.experiments.store import Store
from bench.registry import select
from bench.report.ablation import Ablation, compare
from bench.report.tables import Table, build, comparable, left_out

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Results(Table):
    """A table with the records it is made of: ranks and training curves are at hand."""

    records: tuple[Record, ...] = ()
    """The cells, finished and failed."""

    def ranks(self, part: Literal["test", "validation"] = "test") -> "pandas.DataFrame":
        """Return what was measured: model, seed, user, rank (from 1) and number of candidates, a row per
        held-out event; in the task `ctr` user, label and score of each pair. Failed cells have no row.
        """
        return self._joined(
            lambda outcome: {
                name.removeprefix(f"{part}_"): values
                for name, values in outcome.arrays.items()
                if name.startswith(f"{part}_")
            }
        )

    def curves(self) -> "pandas.DataFrame":
        """Return model, seed, and what was written after each epoch: loss terms, validation, seconds."""
        return self._joined(lambda outcome: outcome.curves)

    def _joined(self, rows: Callable[[Outcome], Any]) -> "pandas.DataFrame":
        """Return the rows of all finished cells below each other, model and seed in front."""
        import pandas

        frames = []
        for record in self.records:
            if record.status == "done":
                frame = pandas.DataFrame(rows(record.outcome))
                frame.insert(0, "model", record.cell.model)
                frame.insert(1, "seed", record.cell.seed)
                frames.append(frame)
        return pandas.concat(
            [frame for frame in frames if len(frame)] or [pandas.DataFrame()], ignore_index=True
        )


def _results(records: Sequence[Record], metrics: list[str] | None = None) -> Results:
    return Results(**vars(build(records, metrics)), records=tuple(records))


def run(
    dataset: str,
    models: str = "all",
    *,
    task: Literal["rank", "ctr"] = "rank",
    protocol: str | None = None,
    seeds: int = 3,
    epochs: int | None = None,
    max_minutes: float | None = None,
    total_minutes: float | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    jobs: int | None = None,
    results: str | Path = "results",
    fresh: bool = False,
    progress: bool = True,
) -> Results:
    """Train and test models on a data set and return their table; finished cells are not run again.

    With several jobs a script needs `if __name__ == "__main__":` around it.

    Args:
        dataset: a prepared one, or one that prepares itself (`ml-100k`, `synthetic`).
        models: comma list of names, families, paths of .py files, `NAME:VARIANT`, or `all`.
        task: `rank` or `ctr`.
        protocol: `uniform99` (default), `popular99`, `full`.
        seeds: how many, from 0.
        epochs: most epochs of each training stage.
        max_minutes: minutes after which a training stops.
        total_minutes: minutes for all trainings together, instead; what one leaves goes to the others.
        options: what `--set` takes: `{"hidden_size": 128, "sasrec.dropout": 0.1, "data.keep_last": 50}`.
        device: `auto` (default), `cpu`, `cuda`, `cuda:1`, `mps`.
        jobs: cells side by side; None is one per core, at most four.
        results: folder of the records.
        fresh: run finished cells again.
        progress: show bars on stderr.

    Returns:
        the table, a failed cell being a row with its reason; `to_pandas()` makes a DataFrame of it.

    Raises:
        UserError: no such data set, model or option.
    """
    settings = [f"{key}={text_of(value)}" for key, value in (options or {}).items()]
    plan = make_plan(
        dataset, select(models, task), settings=settings, task=task, candidates=protocol, seeds=seeds,
        epochs=epochs, max_minutes=max_minutes, total_minutes=total_minutes, device=device,
    )  # fmt: skip
    store, jobs = Store(Path(results).expanduser()), jobs or default_jobs(plan.training.device)
    return _results(run_grid(plan, store, jobs=jobs, fresh=fresh, quiet=not progress))


def ablate(
    model: str,
    dataset: str,
    variants: str | None = None,
    *,
    seeds: int = 3,
    epochs: int | None = None,
    max_minutes: float | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    jobs: int | None = None,
    results: str | Path = "results",
    fresh: bool = False,
    progress: bool = True,
) -> Ablation:
    """Train and test a model and its variants; finished cells are not run again.

    Args:
        model: its name, or the path of a .py file; its card declares the variants.
        dataset: as in `run`, like all that follows.
        variants: comma list of their names; None takes all.
        seeds: how many, from 0.
        epochs: most epochs of each training stage.
        max_minutes: minutes after which a training stops.
        options: what `--set` takes.
        device: where it runs.
        jobs: cells side by side.
        results: folder of the records.
        fresh: run finished cells again.
        progress: show bars on stderr.

    Returns:
        each variant's difference from the model, tested; `to_pandas()` makes a DataFrame of it.

    Raises:
        UserError: no such data set, model, variant or option.
    """
    settings = [f"{key}={text_of(value)}" for key, value in (options or {}).items()]
    plan = make_plan(
        dataset, members(model, variants), settings=settings, seeds=seeds, epochs=epochs,
        max_minutes=max_minutes, device=device,
    )  # fmt: skip
    store, jobs = Store(Path(results).expanduser()), jobs or default_jobs(plan.training.device)
    return compare(run_grid(plan, store, jobs=jobs, fresh=fresh, quiet=not progress))


def table(
    dataset: str | None = None,
    models: str = "all",
    *,
    task: Literal["rank", "ctr"] = "rank",
    protocol: str | None = None,
    metrics: list[str] | None = None,
    results: str | Path = "results",
) -> Results:
    """Return the table of finished cells: each model as it ran last, on the newest data and candidates.

    Args:
        dataset: needed where the store knows several.
        models: comma list as in `run`.
        task: `rank` or `ctr`.
        protocol: of the candidates; None takes the newest.
        metrics: `HR@K`, `NDCG@K`, `MRR`; in the task `ctr` `AUC`, `GAUC`, `LogLoss`.
        results: folder of the records.

    Raises:
        UserError: the store holds no such cell.
    """
    records = named(stored(Store(Path(results).expanduser()), dataset, protocol, task), models)
    shown = in_order(comparable(records))
    return replace(_results(shown, metrics), left_out=left_out(records, shown))


def load_dataset(name: str, options: Mapping[str, Any] | None = None) -> Dataset:
    """Return a prepared data set; one that needs no files is prepared first where it has to be.

    Args:
        name: of a data set of `bench data list`, or of a prepared folder.
        options: what `--set data.X=` takes.

    Raises:
        UserError: it is not prepared and its files have to be brought, or there is no data set of this name.
    """
    return library.open_dataset(name, dict(options or {}))
