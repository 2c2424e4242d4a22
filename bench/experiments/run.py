"""One cell: build, train, rank the test items (or score the test pairs) once, record."""

import os
import platform
import subprocess
import time
import traceback
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bench.config import ProtocolOptions, TrainingOptions, build_options
from bench.data.batches.loader import target_in_history
from bench.data.protocol.task import Task
from bench.errors import UserError
from bench.evaluation.kinds import KINDS
from bench.experiments.diagnostics import diagnose
from bench.experiments.kept import save_weights
from bench.experiments.record import NOT_VALIDATED, Cell, DataFacts, Environment, Failure, Outcome, Record
from bench.experiments.store import Store
from bench.interface import Recommender
from bench.registry import Entry
from bench.training.checkpoint import Checkpoint
from bench.training.data import HeldPart, TrainingData, held_part, training_data
from bench.training.device import name_of, peak_memory_mb, pick, reset_peak_memory
from bench.training.loop import Fit, FitOptions, fit
from bench.training.watcher import Watcher


def run_cell(
    cell: Cell,
    entry: Entry,
    task: Task,
    training: TrainingOptions,
    store: Store,
    watcher: Watcher,
    minutes: float | None = None,
) -> Record:
    """Run one cell and store its record, failed or done; a failure is a record, never a lost table.

    Args:
        cell: what is run; its key names the record.
        entry: the model.
        task: data set, split and candidates.
        training: limits and device.
        store: where the record goes; its checkpoint is found here again after an interruption.
        watcher: listens to the training.
        minutes: limit of the training where it is not that of the cell: its part of shared minutes.
    """
    limit = cell.max_minutes if minutes is None else minutes
    try:
        outcome, device, model = _run(cell, entry, task, training, store, watcher, limit)
        if training.keep_model:
            save_weights(model, store.weights_path(cell), cell.key)
        record = _record(cell, entry, task, outcome, device)
        store.write(record)
        store.checkpoint_path(cell.key).unlink(missing_ok=True)
    except Exception as error:  # a user's model may raise anything, and the other cells must go on
        record = _record(cell, entry, task, _failure(error), torch.device("cpu"))
        if store.find(cell.key) is None:  # a finished record outlives a second run that fails
            store.write(record)
    return record


def _run(
    cell: Cell,
    entry: Entry,
    task: Task,
    training: TrainingOptions,
    store: Store,
    watcher: Watcher,
    limit: float | None,
) -> tuple[Outcome, torch.device, Recommender]:
    kind = entry.load()
    config: Any = build_options(kind.Config, cell.options, f"model {cell.model}")
    device = pick(training.device)
    checkpoint = Checkpoint(store.checkpoint_path(cell.key), cell.key)
    data = training_data(task)
    lacking = KINDS[task.protocol.task].needs_validation
    if lacking and not len(data.validation.targets):
        raise UserError(lacking)
    torch.manual_seed(cell.seed)
    reset_peak_memory(device)
    model = kind(config, data.info).to(device)
    options = FitOptions(cell.seed, cell.epochs, limit, training.evaluation_batch)
    result = fit(model, data, device, options, watcher, checkpoint)
    remark = _remark(limit, result, validation=len(task.split.validation))
    outcome = _outcome(model, result, remark, data, task, device, training.evaluation_batch)
    return outcome, device, model


def _outcome(
    model: Recommender,
    result: Fit,
    remark: str,
    data: TrainingData,
    task: Task,
    device: torch.device,
    batch_size: int,
) -> Outcome:
    """Measure validation and test with the kept weights; the only place that reads the test part."""
    arrays = _measured(model, data.validation, "validation", task.protocol, device, batch_size)
    test = held_part(task, task.interactions, task.split.test, task.test)
    begun = time.perf_counter()
    arrays |= _measured(model, test, "test", task.protocol, device, batch_size)
    speed = len(test.targets) / max(time.perf_counter() - begun, 1e-9)
    return Outcome(
        arrays,
        remark,
        parameters=sum(p.numel() for p in model.parameters()),
        train_seconds=result.seconds,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        samples_per_second=result.samples / result.step_seconds if result.step_seconds else 0.0,
        targets_seen=result.targets,
        targets_per_second=result.targets / result.step_seconds if result.step_seconds else 0.0,
        score_users_per_second=speed,
        peak_memory_mb=peak_memory_mb(device),
        curves=result.curves,
        extra={**model.extra_terms(), **diagnose(model, data.validation, device, batch_size)},
    )


def _remark(limit: float | None, result: Fit, validation: int) -> str:
    remarks = [NOT_VALIDATED] if result.epochs and not validation else []
    if result.stopped == "minutes" and limit:
        remarks.append(f"stopped at {round(limit, 1) or round(limit, 3):g} min")
    return "; ".join(remarks)


def _measured(
    model: Recommender,
    part: HeldPart,
    name: str,
    protocol: ProtocolOptions,
    device: torch.device,
    batch_size: int,
) -> dict[str, NDArray[Any]]:
    """Return the ranks of a part, or its pairs and their scores, under the names that are stored."""
    where = f"{type(model).__name__}, after training"
    arrays = KINDS[protocol.task].measure(model, part, protocol, device, batch_size, where)
    return {f"{name}_{kind}": array for kind, array in arrays.items()}


def _failure(error: Exception) -> Failure:
    if isinstance(error, UserError):
        return Failure(_one_line(f"{error}"))
    return Failure(_one_line(f"{type(error).__name__}: {error}"), traceback.format_exc())


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _record(cell: Cell, entry: Entry, task: Task, result: Outcome | Failure, device: torch.device) -> Record:
    card = entry.card
    return Record(
        cell, card.label, card.family, card.reconstruction, result, environment(device), data_facts(task)
    )


def data_facts(task: Task) -> DataFacts:
    """Return what stands under a table about the data of a task."""
    dataset, events, metadata = task.dataset, task.interactions, task.dataset.metadata
    return DataFacts(
        name=dataset.name,
        behaviors=tuple(dataset.behaviors),
        mapping=metadata.get("mapping", ""),
        encoders=metadata.get("encoders", {}),
        coverage=dataset.content.coverage(),
        simulated=bool(metadata.get("simulated", False)),
        target_in_history=target_in_history(
            events,
            task.split.test,
            max_history=50,
            target_behavior=dataset.target_behavior,
            drop_target_click=task.protocol.drop_target_click,
        ),
        users=events.num_users,
        items=dataset.num_items,
        interactions=len(dataset.interactions),
        validation_users=len(task.split.validation),
        test_users=len(task.split.test),
        hidden_events=task.hidden_events,
    )


def environment(device: torch.device) -> Environment:
    """Return what this process runs in."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        device=name_of(device),
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        torch=_installed("torch"),
        numpy=_installed("numpy"),
        polars=_installed("polars"),
        m3bench=_installed("m3bench"),
        git=git_state(Path(__file__).parent),
    )


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def git_state(folder: Path) -> Mapping[str, Any]:
    """Return commit and whether the tree has changes; empty outside a checkout."""
    try:
        commit, status = (
            subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.strip(), "dirty": bool(status.strip())}
