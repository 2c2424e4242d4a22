"""Tuning on validation with Optuna: trials are cells of a store of their own, found again, never run twice.

The objective opens the task with the test part cut out (`bench.data.protocol.blind`), so no trial can see a
test event, and its cells hold no test ranks. Studies lie in any storage that Optuna knows; workers share one.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna

from bench.config import build_options, flatten
from bench.data.protocol.blind import without_test
from bench.data.protocol.task import Task
from bench.errors import UserError
from bench.evaluation.metrics import ndcg
from bench.experiments.grid import make_cell, open_plan
from bench.experiments.plan import Plan
from bench.experiments.progress import Note, Teller
from bench.experiments.record import Cell, Record
from bench.experiments.run import run_cell
from bench.experiments.store import Store
from bench.files import replacing
from bench.registry import Entry
from bench.training.device import limit_threads

FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
HEARTBEAT, GRACE = 30, 90
"""Seconds between signs of life of a worker, and after which its trial is given up."""
ATTEMPTS = 6
"""Times that a storage is opened: workers that start together may make its tables at once."""

TARGET = "validation NDCG@10"
Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "halving", "none"]


@dataclass(frozen=True)
class Tuning:
    """How a model is tuned."""

    trials: int
    """Trials finished, pruned ones too, all workers together."""
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    storage: str = ""
    """Optuna URL; empty is a SQLite file under the results folder."""
    minutes: float | None = None
    """Minutes for all trials of one model; None is no limit."""
    seed: int = 0
    """Seed of the sampler."""


@dataclass(frozen=True)
class Tuned:
    """What a sweep of one model gave."""

    model: str
    dataset: str
    options: Mapping[str, Any]
    """The best configuration: option -> value, those searched alone."""
    value: float
    """Its validation NDCG@10."""
    trials: int
    pruned: int
    minutes: float
    """Minutes that all trials took together."""
    storage: str
    """Where the trials lie: the file below the results folder, or the URL without its password."""
    url: str
    """The URL itself; not written anywhere."""
    study: str
    default: float | None
    """Validation NDCG@10 of the default configuration, the first trial; None where it did not finish."""
    fingerprint: str
    """Fingerprint of the data."""


def space_of(entry: Entry, plan: Plan) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Return option -> values to try, and the default configuration among them.

    Args:
        entry: the model; its card declares the values.
        plan: an option that the user has set is not searched.

    Raises:
        UserError: the card declares no search space, or the user has set all of it.
    """
    kind, name = entry.load(), entry.card.name
    fixed = plan.fixed.get(name, frozenset())
    options = {**entry.card.options, **plan.overrides.get(name, {})}
    config: Any = build_options(kind.Config, options, f"model {name}")
    defaults = flatten(config)
    space, default = {}, {}
    for option, values in entry.card.search.items():
        if option in fixed:
            continue
        space[option] = values if defaults[option] in values else (defaults[option], *values)
        default[option] = defaults[option]
    if not space:
        reason = "all of it is set by --set" if entry.card.search else "its card declares none (Card.search)"
        raise UserError(f"{name}: no search space; {reason}")
    return space, default


def finished_trials(plan: Plan, entry: Entry, store: Store, tuning: Tuning) -> int:
    """Return how many trials of a model's sweep are finished; nothing is made or run.

    Raises:
        UserError: no search space, or a storage that cannot be opened.
    """
    space, _ = space_of(entry, plan)
    task = without_test(open_plan(plan))
    base = make_cell(task, entry, plan.overrides.get(entry.card.name, {}), plan.training, plan.seeds[0])
    url = tuning.storage or f"sqlite:///{_database(store, task, entry)}"
    if not tuning.storage and not _database(store, task, entry).is_file():
        return 0
    with _quiet():
        try:
            study = optuna.load_study(study_name=study_name(base, space), storage=url)
        except KeyError:  # this storage has other studies
            return 0
        return sum(trial.state in FINISHED for trial in study.get_trials(deepcopy=False))


def tune(plan: Plan, entry: Entry, store: Store, tuning: Tuning, told: Callable[[str], None]) -> Tuned:
    """Search the options of one model on the validation part of a data set.

    Args:
        plan: data set, protocol, limits; its models are not read.
        entry: the model.
        store: the results; trials go to a store below it.
        tuning: how.
        told: gets one line per finished trial.

    Raises:
        UserError: no search space, no validation event, a storage that cannot be opened, or no trial that
            finished.
    """
    overrides = plan.overrides.get(entry.card.name, {})
    space, default = space_of(entry, plan)
    task = without_test(open_plan(plan))
    if not len(task.split.validation):
        raise UserError(f"{plan.dataset}: no validation event, so nothing can be tuned on it")
    trials = Store(store.root / "sweeps" / task.dataset.name)
    base = make_cell(task, entry, overrides, plan.training, plan.seeds[0])
    name = study_name(base, space)
    url = tuning.storage or default_storage(store, task, entry)
    study = open_study(url, name, tuning, space)
    study.enqueue_trial(default, skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        chosen = {option: trial.suggest_categorical(option, values) for option, values in space.items()}
        cell = replace(base, options={**base.options, **chosen})
        return value_of(cell, entry, task, plan, trials, trial)

    def finished(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        told(line_of(study, trial, tuning.trials))

    done = sum(trial.state in FINISHED for trial in study.get_trials(deepcopy=False))
    if done < tuning.trials:
        stop = optuna.study.MaxTrialsCallback(tuning.trials, states=FINISHED)
        timeout = None if tuning.minutes is None else tuning.minutes * 60
        with _quiet():
            study.optimize(objective, timeout=timeout, callbacks=[finished, stop], catch=(FailedCellError,))
    if tuning.storage:
        where = _without_password(url)
    else:
        where = str(Path(url.removeprefix("sqlite:///")).relative_to(store.root.absolute()))
    return _result(study, entry, task, url, where)


class FailedCellError(Exception):
    """A trial whose training failed: another configuration may work."""


def value_of(cell: Cell, entry: Entry, task: Task, plan: Plan, store: Store, trial: optuna.Trial) -> float:
    """Return the validation NDCG@10 of a cell, from the store or trained now.

    Raises:
        optuna.TrialPruned: the validation curve is not worth going on.
        FailedCellError: the training failed.
    """
    record = store.find(cell.key)
    if record is None:
        limit_threads(1)
        watcher = Pruning(trial)
        record = run_cell(cell, entry, task, plan.training, store, watcher)
        if watcher.pruned:
            store.checkpoint_path(cell.key).unlink(missing_ok=True)
            raise optuna.TrialPruned
        if record.status == "failed":
            raise FailedCellError(record.reason)
    return validation_of(record)


def validation_of(record: Record) -> float:
    """Return the validation NDCG@10 of a finished record."""
    return float(ndcg(np.asarray(record.outcome.arrays["validation_rank"]), 10).mean())


class PrunedError(Exception):
    """Ends a training whose trial is pruned."""


class Pruning(Teller):
    """Reports each epoch's validation to a trial, and ends the training where the pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__("", _drop)
        self.trial, self.pruned, self.step_number = trial, False, 0

    def validated(self, value: float | None, best: float | None) -> None:
        """See `Watcher`."""
        self.step_number += 1
        if best is not None:
            self.trial.report(best, self.step_number)
            if self.trial.should_prune():
                self.pruned = True
                raise PrunedError(f"pruned after {self.step_number} epochs")


def _drop(note: Note) -> None:
    pass


def study_name(cell: Cell, space: Mapping[str, Any]) -> str:
    """Return the name of a study: another model, data, protocol, limit, code or space is another study."""
    content = [cell.as_dict(), {name: list(values) for name, values in space.items()}]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return f"{cell.model} on {cell.dataset} {digest[:12]}"


def default_storage(store: Store, task: Task, entry: Entry) -> str:
    """Return the URL of the SQLite file of a model and data set, whose folder is made."""
    path = _database(store, task, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def _database(store: Store, task: Task, entry: Entry) -> Path:
    folder = (store.root / "sweeps" / task.dataset.name).absolute()
    return folder / f"{entry.card.name.replace(':', '_')}.db"


def open_study(url: str, name: str, tuning: Tuning, space: Mapping[str, tuple[Any, ...]]) -> optuna.Study:
    """Open a study, or make it; trials of workers that died are given up after a while.

    Raises:
        UserError: the storage cannot be opened.
    """
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=tuning.seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=tuning.seed),
        "grid": lambda: optuna.samplers.GridSampler({k: list(v) for k, v in space.items()}, seed=tuning.seed),
    }
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=5),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=5),
        "none": optuna.pruners.NopPruner,
    }
    with _quiet():
        for attempt in range(ATTEMPTS):
            try:
                storage = optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
                return optuna.create_study(
                    storage=storage, sampler=samplers[tuning.sampler](), pruner=pruners[tuning.pruner](),
                    study_name=name, direction="maximize", load_if_exists=True,
                )  # fmt: skip
            except Exception as error:  # drivers raise whatever they like
                reason = " ".join(str(error).split())[:200]
                if "already exists" in reason or "locked" in reason:  # another worker makes the tables now
                    time.sleep(0.5 * (attempt + 1))
                    continue
                break
    fix = "expected an Optuna URL such as sqlite:///sweep.db or postgresql://user@host/name"
    raise UserError(f"--storage {_without_password(url)}: cannot be opened ({reason}); {fix}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own lines and warnings off the screen."""
    import warnings

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)


def line_of(study: optuna.Study, trial: optuna.trial.FrozenTrial, of: int) -> str:
    """Return what is said of a finished trial."""
    done = sum(one.state in FINISHED for one in study.get_trials(deepcopy=False))
    options = ", ".join(f"{name}={value}" for name, value in trial.params.items())
    if trial.state == optuna.trial.TrialState.COMPLETE:
        what = f"validation NDCG@10 {trial.value:.4f} (best {study.best_value:.4f})"
    else:
        what = trial.state.name.lower()
    return f"[{done}/{of}] {what}: {options}"


def _result(study: optuna.Study, entry: Entry, task: Task, url: str, where: str) -> Tuned:
    trials = study.get_trials(deepcopy=False)
    complete = [one for one in trials if one.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        fix = "raise the limits, or look at the failed cells in results/sweeps"
        raise UserError(f"{entry.card.name}: none of {len(trials)} trials finished; {fix}")
    best = study.best_trial
    seconds = sum(one.duration.total_seconds() for one in trials if one.state in FINISHED and one.duration)
    first = trials[0]
    return Tuned(
        model=entry.card.name,
        dataset=task.dataset.name,
        options=dict(best.params),
        value=float(study.best_value),
        trials=sum(one.state in FINISHED for one in trials),
        pruned=sum(one.state == optuna.trial.TrialState.PRUNED for one in trials),
        minutes=seconds / 60,
        storage=where,
        url=url,
        study=study.study_name,
        default=first.value if first.state == optuna.trial.TrialState.COMPLETE else None,
        fingerprint=task.dataset.fingerprint,
    )


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...{at}{tail}" if at else url


def preset_path(results: Path, dataset: str, model: str) -> Path:
    """Return where the best configuration of a model on a data set is written."""
    return results / "presets" / dataset / f"{model.replace(':', '_')}.json"


def write_preset(results: Path, tuned: Tuned) -> Path:
    """Write the best configuration, for `bench run --tuned`."""
    path = preset_path(results, tuned.dataset, tuned.model)
    with replacing(path) as partial:
        values = {name: value for name, value in vars(tuned).items() if name != "url"}
        partial.write_text(json.dumps(values, indent=1, default=list) + "\n", encoding="utf-8")
    return path


def draw(tuned: Tuned, save: Callable[[Any, str], list[Path]]) -> list[Path]:
    """Draw the history of the trials, the importance of the options, and the two most important together.

    Args:
        tuned: a sweep.
        save: writes a figure under a name.
    """
    import optuna.visualization.matplotlib as pictures

    written: list[Path] = []

    def keep(axes: Any, part: str, title: str, legend: str | None = None) -> None:
        axes.set_title("", loc="left")  # where Optuna puts the one of the bars
        axes.set_title(f"{tuned.model} on {tuned.dataset}: {title}", fontsize="medium")
        if old := axes.get_legend():  # Optuna puts it outside, where it takes a third of the picture
            old.remove()
        if legend:
            axes.legend(loc=legend)
        axes.figure.tight_layout()
        written.extend(save(axes.figure, f"sweep_{tuned.model}_{tuned.dataset}_{part}"))

    with _quiet():
        study = optuna.load_study(study_name=tuned.study, storage=tuned.url)
        history = pictures.plot_optimization_history(study, target_name=TARGET)
        keep(history, "history", "trials in their order", "best")
        values = [one.params for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        varied = [option for option in tuned.options if len({repr(v.get(option)) for v in values}) > 1]
        if len(values) < 4 or len(varied) < 2:
            print(f"{tuned.model}: too few trials to tell which options matter", file=sys.stderr)
            return written
        importance = optuna.importance.get_param_importances(study, params=varied)
        bars: Any = pictures.plot_param_importances(study, params=varied, target_name=TARGET)
        keep(bars, "importance", "importance of the options")
        two = list(importance)[:2]
        contour: Any = pictures.plot_contour(study, params=two, target_name=TARGET)
        keep(contour, "contour", "the two options that matter most")
    return written
