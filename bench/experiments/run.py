"""One cell: build, train, rank the test items (or score the test pairs) once, record."""

import os
import platform
import subprocess
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
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
from bench.experiments.store import NOT_VALIDATED, Cell, Record, Store
from bench.interface import Recommender
from bench.registry import Entry
from bench.training.checkpoint import Checkpoint
from bench.training.data import HeldPart, TrainingData, held_part, training_data
from bench.training.device import name_of, peak_memory_mb, pick, reset_peak_memory
from bench.training.loop import Fit, FitOptions, fit
from bench.training.watcher import Watcher


@dataclass(frozen=True)
class Outcome:
    """What training and testing a model gave."""

    model: Recommender
    fit: Fit
    arrays: dict[str, NDArray[Any]]
    """`Record.ranks` or `Record.pairs`, as the task wants."""
    score_users_per_second: float
    peak_memory_mb: float
    shown: dict[str, Any]
    """What the model shows of its inside; see `diagnose`."""


def run_cell(
    cell: Cell, entry: Entry, task: Task, training: TrainingOptions, store: Store, watcher: Watcher
) -> Record:
    """Run one cell and store its record, failed or done; a failure is a record, never a lost table.

    Args:
        cell: what is run; its key names the record.
        entry: the model.
        task: data set, split and candidates.
        training: limits and device.
        store: where the record goes; its checkpoint is found here again after an interruption.
        watcher: listens to the training.
    """
    try:
        record = _finished(cell, entry, task, *_run(cell, entry, task, training, store, watcher))
        store.write(record)
        store.checkpoint_path(cell.key).unlink(missing_ok=True)
    except Exception as error:  # a user's model may raise anything, and the other cells must go on
        record = _failed(cell, entry, task, error)
        if store.find(cell.key) is None:  # a finished record outlives a second run that fails
            store.write(record)
    return record


def _run(
    cell: Cell, entry: Entry, task: Task, training: TrainingOptions, store: Store, watcher: Watcher
) -> tuple[Outcome, torch.device]:
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
    options = FitOptions(cell.seed, cell.epochs, cell.max_minutes, training.evaluation_batch)
    result = fit(model, data, device, options, watcher, checkpoint)
    return _test(model, result, data, task, device, training.evaluation_batch), device


def _test(
    model: Recommender, result: Fit, data: TrainingData, task: Task, device: torch.device, batch_size: int
) -> Outcome:
    """Measure validation and test with the kept weights; the only place that reads the test part."""
    found = _measured(model, data.validation, "validation", task.protocol, device, batch_size)
    test = held_part(task, task.interactions, task.split.test, task.test)
    begun = time.perf_counter()
    found |= _measured(model, test, "test", task.protocol, device, batch_size)
    speed = len(test.targets) / max(time.perf_counter() - begun, 1e-9)
    memory, shown = peak_memory_mb(device), diagnose(model, data.validation, device, batch_size)
    return Outcome(model, result, found, speed, memory, shown)


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
    found = KINDS[protocol.task].measure(model, part, protocol, device, batch_size, where)
    return {f"{name}_{kind}": array for kind, array in found.items()}


def _finished(cell: Cell, entry: Entry, task: Task, outcome: Outcome, device: torch.device) -> Record:
    result = outcome.fit
    remarks = [NOT_VALIDATED] if result.epochs and not len(task.split.validation) else []
    if result.stopped == "minutes" and cell.max_minutes:
        remarks.append(f"stopped at {cell.max_minutes:g} min")
    record = Record(
        key=cell.key,
        cell=cell,
        status="done",
        reason="; ".join(remarks),
        label=entry.card.label,
        family=entry.card.family,
        reconstruction=entry.card.reconstruction,
        parameters=sum(p.numel() for p in outcome.model.parameters()),
        train_seconds=result.seconds,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        samples_per_second=result.samples / result.step_seconds if result.step_seconds else 0.0,
        targets_seen=result.targets,
        targets_per_second=result.targets / result.step_seconds if result.step_seconds else 0.0,
        score_users_per_second=outcome.score_users_per_second,
        peak_memory_mb=outcome.peak_memory_mb,
        curves=result.curves,
        extra={**outcome.model.extra_terms(), **outcome.shown},
        environment=environment(device),
        dataset=dataset_facts(task),
    )
    setattr(record, KINDS[record.task].arrays, outcome.arrays)
    return record


def _failed(cell: Cell, entry: Entry, task: Task, error: Exception) -> Record:
    reason = f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return Record(
        key=cell.key,
        cell=cell,
        status="failed",
        reason=" ".join(reason.split())[:500],
        label=entry.card.label,
        family=entry.card.family,
        reconstruction=entry.card.reconstruction,
        environment=environment(torch.device("cpu")),
        dataset=dataset_facts(task),
        extra={} if isinstance(error, UserError) else {"traceback": traceback.format_exc()},
    )


def dataset_facts(task: Task) -> dict[str, Any]:
    """Return what stands under a table: sizes, mapping, encoders, coverage, share of targets in the
    history.
    """
    dataset, events = task.dataset, task.interactions
    shown = target_in_history(
        events,
        task.split.test,
        max_history=50,
        target_behavior=dataset.target_behavior,
        drop_target_click=task.protocol.drop_target_click,
    )
    metadata = dataset.metadata
    return {
        "name": dataset.name,
        "behaviors": list(dataset.behaviors),
        "mapping": metadata.get("mapping", ""),
        "encoders": metadata.get("encoders", {}),
        "coverage": dataset.content.coverage(),
        "simulated": bool(metadata.get("simulated", False)),
        "target_in_history": shown,
        "users": events.num_users,
        "items": dataset.num_items,
        "interactions": len(dataset.interactions),
        "validation_users": len(task.split.validation),
        "test_users": len(task.split.test),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a reader needs to judge a timing or repeat a run."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": name_of(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **{name: installed(name) for name in ("torch", "numpy", "polars", "m3bench")},
        "git": git_state(Path(__file__).parent),
    }


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
