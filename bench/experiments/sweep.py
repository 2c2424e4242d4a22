"""Tuning on validation with Optuna: trials are cells of a store of their own, found again, never run twice.

The objective opens the task with the test part cut out (`bench.data.protocol.blind`), so no trial can see a
test event, and its cells hold no test ranks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from bench.experiments.study import (
    FINISHED,
    Tuning,
    database,
    default_storage,
    open_study,
    quiet,
    study_name,
    without_password,
)
from bench.registry import Entry
from bench.training.device import limit_threads


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
    url = tuning.storage or f"sqlite:///{database(store, task, entry)}"
    if not tuning.storage and not database(store, task, entry).is_file():
        return 0
    with quiet():
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
        with quiet():
            study.optimize(objective, timeout=timeout, callbacks=[finished, stop], catch=(FailedCellError,))
    if tuning.storage:
        where = without_password(url)
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
