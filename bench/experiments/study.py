"""Studies of Optuna: where they lie, how they are named and opened. Workers may share one."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna

from bench.data.protocol.task import Task
from bench.errors import UserError
from bench.experiments.record import Cell
from bench.experiments.store import Store
from bench.registry import Entry

FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
HEARTBEAT, GRACE = 30, 90
"""Seconds between signs of life of a worker, and after which its trial is given up."""
ATTEMPTS = 6
"""Times that a storage is opened: workers that start together may make its tables at once."""

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


def study_name(cell: Cell, space: Mapping[str, Any]) -> str:
    """Return the name of a study: another model, data, protocol, limit, code or space is another study."""
    content = [cell.as_dict(), {name: list(values) for name, values in space.items()}]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return f"{cell.model} on {cell.dataset} {digest[:12]}"


def default_storage(store: Store, task: Task, entry: Entry) -> str:
    """Return the URL of the SQLite file of a model and data set, whose folder is made."""
    path = database(store, task, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def database(store: Store, task: Task, entry: Entry) -> Path:
    """Return the SQLite file of a model and data set, which need not be there."""
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
    with quiet():
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
    raise UserError(f"--storage {without_password(url)}: cannot be opened ({reason}); {fix}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own lines and warnings off the screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...{at}{tail}" if at else url
