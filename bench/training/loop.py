"""The one training loop: stages, early stopping on validation NDCG@10, best weights kept, a time limit,
resumption.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.data.batches.loader import TrainingBatches
from bench.errors import UserError
from bench.evaluation.metrics import ndcg
from bench.evaluation.ranks import rank
from bench.interface import Recommender, Stage, TrainingEvents
from bench.training.checkpoint import Checkpoint, snapshot
from bench.training.data import TrainingData
from bench.training.stage_run import StageRun
from bench.training.step import make_optimizer, train_step
from bench.training.watcher import Silent, Watcher


@dataclass(frozen=True)
class FitOptions:
    """Limits of one training run."""

    seed: int = 0
    """Seed of the batches; the caller seeds the weights."""
    epochs: int | None = None
    """Most epochs of each stage; None takes the model's own."""
    max_minutes: float | None = None
    """Most minutes of training and validation together, shared evenly among the stages; None is no limit."""
    evaluation_batch: int = 256
    """Users encoded at once in validation."""


@dataclass
class Fit:
    """How training went."""

    epochs: int = 0
    """Epochs run, all stages together, a broken-off one included."""
    best_epoch: int = 0
    """The epoch (from 1) whose weights are kept, in the last stage; 0 where nothing was trained."""
    best: float | None = None
    """Best validation NDCG@10 of the last stage; None where there is no validation event or no training."""
    stopped: str = "none"
    """`patience`, `epochs`, `minutes`, `model` (by its own rule), or `none` where nothing is trained."""
    seconds: float = 0.0
    """Training and validation together."""
    samples: int = 0
    targets: int = 0
    """Targets seen: labelled positions, or samples of a view without them; repeated visits count."""
    step_seconds: float = 0.0
    """Seconds spent in optimizer steps, batches included, validation excluded."""
    curves: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch: stage, epoch, seconds, targets, mean loss terms, validation NDCG@10 (or None)."""


@dataclass
class Watch:
    """What a stage runs on, when it began and must end, and who listens."""

    device: torch.device
    begun: float
    """Seconds of the monotonic clock at which training began, that of earlier runs counted back."""
    deadline: float | None
    """Seconds of the monotonic clock; None is no limit."""
    watcher: Watcher
    result: Fit
    """Samples, targets and seconds are added up here."""

    def over(self) -> bool:
        """Return whether the time is up."""
        return self.deadline is not None and time.monotonic() >= self.deadline


def fit(
    model: Recommender,
    data: TrainingData,
    device: torch.device,
    options: FitOptions,
    watcher: Watcher | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train a model through its stages and leave it with its best weights, in eval mode.

    Where there is no validation event every stage runs to its epochs (or its time) and keeps its last
    weights.

    Raises:
        UserError: a loss or a score is not finite.
    """
    watcher, checkpoint = watcher or Silent(), checkpoint or Checkpoint(None)
    stages = model.stages()
    model.set_up(data.events)
    state: dict[str, Any] = checkpoint.load() or {"stage": 0, "fit": {}}
    result = Fit(**state["fit"])
    begun, resumed = time.monotonic() - result.seconds, state["stage"]
    for stage in stages[:resumed]:
        start_stage(model, stage, data.events)
    for index, stage in enumerate(stages[resumed:], resumed):
        start_stage(model, stage, data.events)
        batches = data.batches(stage.view, options.seed)
        steps = batches.num_batches(stage.batch_size)
        limit = stage_deadline(options, index, len(stages), result.seconds)
        run = StageRun.begin(model, stage, index, steps, result.targets, limit)
        if index == resumed and "weights" in state:
            run.restore(model, state)
        else:
            result.best, result.best_epoch = None, 0
        deadline = None if run.limit is None else begun + run.limit
        watch = Watch(device, begun, deadline, watcher, result)
        train_stage(model, data, batches, run, options, watch, checkpoint)
    model.eval()
    return result


def train_stage(
    model: Recommender,
    data: TrainingData,
    batches: TrainingBatches,
    run: StageRun,
    options: FitOptions,
    watch: Watch,
    checkpoint: Checkpoint,
) -> None:
    """Train a stage from where it is to its end and leave the model with the weights that it keeps."""
    stage, result = run.stage, watch.result
    most = options.epochs if options.epochs is not None else stage.epochs
    result.stopped = "epochs"
    while run.epochs < most:
        watch.watcher.epoch(stage.name, run.epochs, most, run.patience.steps)
        if stage.new_optimizer:
            run.optimizer = make_optimizer(model, stage)
        terms = train_epoch(model, data, batches, run, watch)
        run.epochs += 1
        where = f"{type(model).__name__}, epoch {run.epochs}"
        with run.average.applied() if run.average else nullcontext():
            value = validate(model, data, watch.device, options.evaluation_batch, where)
            weights = snapshot(model) if run.patience.better(value, result.best) else None
        result.seconds, result.epochs = time.monotonic() - watch.begun, result.epochs + 1
        seen = {"seconds": result.seconds, "targets": result.targets, **terms, "NDCG@10": value}
        result.curves.append({"stage": stage.name, "epoch": run.epochs, **seen})
        run.patience.epochs += 1
        if weights is not None:
            result.best, result.best_epoch = value, run.epochs
            run.patience.keep(weights, result.targets)
        watch.watcher.validated(value, result.best)
        if watch.over():
            result.stopped = "minutes"
            break
        if run.patience.over(value, result.targets) or (stage.own_end and model.stage_is_over()):
            result.stopped = "model" if stage.own_end else "patience"
            break
        checkpoint.save({"fit": vars(result), **run.state(model)})
    if not stage.own_end:
        model.load_state_dict(run.patience.best_weights)


def start_stage(model: Recommender, stage: Stage, events: TrainingEvents) -> None:
    """Tell a model which of its stages begins."""
    model.stage_name = stage.name
    model.start_stage(stage.name, events)


def train_epoch(
    model: Recommender,
    data: TrainingData,
    batches: TrainingBatches,
    run: StageRun,
    watch: Watch,
) -> dict[str, float]:
    """Run one epoch, or as much of it as the deadline allows; return mean loss terms."""
    stage, epoch = run.stage, run.epochs
    model.train()
    model.start_epoch(epoch, data.events)
    totals: dict[str, float] = {}
    steps, result = 0, watch.result
    begun = time.monotonic()
    for batch in batches.epoch(epoch, stage.batch_size):
        terms = train_step(model, batch.to(watch.device), stage, run.optimizer)
        if run.average:
            run.average.update()
        steps += 1
        if not np.isfinite(terms["loss"]):
            where = f"{type(model).__name__}: the loss is {terms['loss']} in epoch {epoch + 1}, step {steps}"
            raise UserError(f"{where}; lower the learning rate")
        totals = {name: totals.get(name, 0.0) + value for name, value in terms.items()}
        result.samples += len(batch)
        result.targets += model.targets_in(batch)
        left = None if watch.deadline is None else max(watch.deadline - time.monotonic(), 0.0)
        watch.watcher.step(terms, len(batch), left)
        if watch.over():
            break
    result.step_seconds += time.monotonic() - begun
    return {name: value / max(steps, 1) for name, value in totals.items()}


def validate(
    model: Recommender, data: TrainingData, device: torch.device, batch_size: int, where: str = ""
) -> float | None:
    """Return the mean validation NDCG@10, the one figure that training is steered by; None where there is no
    validation event.
    """
    part = data.validation
    if not len(part.targets):
        return None
    return float(
        ndcg(rank(model, part.held, part.batches(model.max_history, batch_size), device, where), 10).mean()
    )


def stage_deadline(options: FitOptions, index: int, stages: int, spent: float) -> float | None:
    """Return when a stage must end, in seconds since training began: an even share of what is left."""
    if options.max_minutes is None:
        return None
    return spent + (options.max_minutes * 60 - spent) / (stages - index)
