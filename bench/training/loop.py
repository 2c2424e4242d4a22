"""The one training loop: stages, early stopping on validation NDCG@10, best weights kept, a time limit,
resumption.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.batches.loader import TrainingBatches
from bench.errors import UserError
from bench.evaluation.metrics import ndcg
from bench.evaluation.ranks import rank
from bench.interface import Batch, Recommender, Stage, TrainingEvents
from bench.training.average import WeightAverage
from bench.training.checkpoint import Checkpoint, snapshot
from bench.training.data import TrainingData
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
class Patience:
    """Keeps the best weights of a stage and says when it has gone on too long without better ones.

    Without validation events the newest weights count as the best and nothing stops early: there is nothing
    that could choose an epoch.
    """

    stage: Stage
    best_weights: dict[str, Tensor]
    """Best weights so far, on the CPU."""
    steps: int
    """Optimizer steps of an epoch."""
    epochs: int = 0
    """Epochs since they were best."""
    targets: int = 0
    """Targets seen when they were best."""

    def better(self, value: float | None, best: float | None) -> bool:
        """Return whether an epoch's validation figure makes its weights the ones to keep."""
        return value is None or best is None or value > best or self.stage.own_end

    def over(self, value: float | None, targets: int) -> bool:
        """Return whether the stage ends, with `targets` seen so far."""
        if value is None or self.stage.own_end:
            return False
        if self.stage.patience_targets is not None:
            return targets - self.targets >= self.stage.patience_targets
        least = -(-self.stage.patience_steps // max(self.steps, 1))  # epochs, rounded up
        return self.epochs >= max(self.stage.patience, min(least, 5 * self.stage.patience))


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
    state: dict[str, Any] = checkpoint.load() or {"stage": 0, "epoch": 0, "fit": {}}
    result = Fit(**state["fit"])
    begun, resumed = time.monotonic() - result.seconds, state["stage"]
    for stage in stages[:resumed]:
        start_stage(model, stage, data.events)
    for index in range(resumed, len(stages)):
        stage = stages[index]
        start_stage(model, stage, data.events)
        optimizer = make_optimizer(model, stage)
        average = WeightAverage(model, stage.weight_average) if stage.weight_average else None
        batches = data.batches(stage.view, options.seed)
        limit = stage_deadline(options, index, len(stages), result.seconds)
        steps = batches.num_batches(stage.batch_size)
        patience, first = Patience(stage, snapshot(model), steps, targets=result.targets), 0
        if index == resumed and "weights" in state:
            model.load_state_dict(state["weights"])
            optimizer.load_state_dict(state["optimizer"])
            if average:
                average.restore(state["average"])
            patience = Patience(stage, state["best_weights"], steps, state["waited"], state["targets"])
            first, limit = state["epoch"], state["limit"]
        else:
            result.best, result.best_epoch = None, 0
        most = options.epochs if options.epochs is not None else stage.epochs
        deadline = None if limit is None else begun + limit
        watch = Watch(device, deadline, watcher, result)
        result.stopped = "epochs"
        for epoch in range(first, most):
            watcher.epoch(stage.name, epoch, most, steps)
            if stage.new_optimizer:
                optimizer = make_optimizer(model, stage)
            terms = train_epoch(model, data, batches, stage, optimizer, average, epoch, watch)
            where = f"{type(model).__name__}, epoch {epoch + 1}"
            with average.applied() if average else nullcontext():
                value = validate(model, data, device, options.evaluation_batch, where)
                weights = snapshot(model) if patience.better(value, result.best) else None
            result.seconds, result.epochs = time.monotonic() - begun, result.epochs + 1
            seen = {"seconds": result.seconds, "targets": result.targets, **terms, "NDCG@10": value}
            result.curves.append({"stage": stage.name, "epoch": epoch + 1, **seen})
            patience.epochs += 1
            if weights is not None:
                result.best, result.best_epoch = value, epoch + 1
                patience = Patience(stage, weights, steps, 0, result.targets)
            watcher.validated(value, result.best)
            if deadline is not None and time.monotonic() >= deadline:
                result.stopped = "minutes"
                break
            if patience.over(value, result.targets) or (stage.own_end and model.stage_is_over()):
                result.stopped = "model" if stage.own_end else "patience"
                break
            state = {"stage": index, "epoch": epoch + 1, "limit": limit, "fit": vars(result)}
            state |= {
                "waited": patience.epochs,
                "targets": patience.targets,
                "best_weights": patience.best_weights,
            }
            state |= {"weights": snapshot(model), "optimizer": optimizer.state_dict()}
            state |= {"average": average.state()} if average else {}
            checkpoint.save(state)
        if not stage.own_end:
            model.load_state_dict(patience.best_weights)
    model.eval()
    return result


def start_stage(model: Recommender, stage: Stage, events: TrainingEvents) -> None:
    """Tell a model which of its stages begins."""
    model.stage_name = stage.name
    model.start_stage(stage.name, events)


@dataclass
class Watch:
    """What an epoch runs on, when it must end, and who listens."""

    device: torch.device
    deadline: float | None
    """Seconds of the monotonic clock; None is no limit."""
    watcher: Watcher
    result: Fit
    """Samples, targets and seconds are added up here."""


def train_epoch(
    model: Recommender,
    data: TrainingData,
    batches: TrainingBatches,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    epoch: int,
    watch: Watch,
) -> dict[str, float]:
    """Run one epoch, or as much of it as the deadline allows; return mean loss terms."""
    model.train()
    model.start_epoch(epoch, data.events)
    totals: dict[str, float] = {}
    steps, result, deadline = 0, watch.result, watch.deadline
    begun = time.monotonic()
    for batch in batches.epoch(epoch, stage.batch_size):
        terms = train_step(model, batch.to(watch.device), stage, optimizer)
        if average:
            average.update()
        steps += 1
        if not np.isfinite(terms["loss"]):
            where = f"{type(model).__name__}: the loss is {terms['loss']} in epoch {epoch + 1}, step {steps}"
            raise UserError(f"{where}; lower the learning rate")
        totals = {name: totals.get(name, 0.0) + value for name, value in terms.items()}
        result.samples += len(batch)
        result.targets += model.targets_in(batch)
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        watch.watcher.step(terms, len(batch), left)
        if deadline is not None and time.monotonic() >= deadline:
            break
    result.step_seconds += time.monotonic() - begun
    return {name: value / max(steps, 1) for name, value in totals.items()}


def train_step(
    model: Recommender, batch: Batch, stage: Stage, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Do one optimizer step, in micro-batches where the stage asks for them; return its loss terms."""
    set_rates(optimizer, stage)
    optimizer.zero_grad(set_to_none=True)
    size = stage.micro_batch or len(batch)
    totals: dict[str, Tensor] = {}
    for start in range(0, len(batch), size):
        part = batch.rows(slice(start, start + size)) if size < len(batch) else batch
        share = len(part) / len(batch)
        terms = model.loss(part)
        if terms["loss"].dim():
            shape = tuple(terms["loss"].shape)
            raise UserError(f"{type(model).__name__}: the loss has shape {shape}, expected one number")
        (terms["loss"] * share).backward()
        totals = {name: totals.get(name, 0.0) + value.detach() * share for name, value in terms.items()}
    if stage.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], stage.clip_norm
        )
    optimizer.step()
    return {name: float(value) for name, value in totals.items()}


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


def make_optimizer(model: Recommender, stage: Stage) -> torch.optim.Optimizer:
    """Build the stage's optimizer over the parameters that it moves; weight decay spares biases and norms."""
    own_rates = dict(stage.rates)
    moving: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(stage.frozen) if stage.frozen else True)
        if parameter.requires_grad:
            prefix = next((prefix for prefix in own_rates if name.startswith(prefix)), "")
            moving.setdefault((prefix, parameter.dim() >= 2), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": own_rates.get(prefix, stage.learning_rate),
         "weight_decay": stage.weight_decay if matrices else 0.0}
        for (prefix, matrices), parameters in sorted(moving.items(), key=lambda part: part[0], reverse=True)
    ]  # fmt: skip
    for group in groups:
        group["rate"] = group["lr"]  # what `set_rates` rises to
    rate = stage.learning_rate
    if stage.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, eps=1e-6)
    return (torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam)(groups, lr=rate)


def set_rates(optimizer: torch.optim.Optimizer, stage: Stage) -> None:
    """Raise the learning rate linearly over the first steps of the stage, and let it fall with the root of
    their number after `decay_after`; the count lives in the optimizer's groups.
    """
    for group in optimizer.param_groups:
        group["steps"] = group.get("steps", 0) + 1
        rise = min(1.0, group["steps"] / max(stage.warmup_steps, 1))
        fall = min(1.0, stage.decay_after / group["steps"]) ** 0.5 if stage.decay_after else 1.0
        group["lr"] = group["rate"] * rise * fall


def stage_deadline(options: FitOptions, index: int, stages: int, spent: float) -> float | None:
    """Return when a stage must end, in seconds since training began: an even share of what is left."""
    if options.max_minutes is None:
        return None
    return spent + (options.max_minutes * 60 - spent) / (stages - index)
