"""What models cost on a data set: seconds of training and scoring, memory, work, side by side.

Steps of all models take turns, so that a busy moment meets all; the first steps are left out. An epoch is
the measured steps scaled to its number of steps: no model has to run for minutes to be timed.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.config import build_options
from bench.data.protocol.task import Task
from bench.experiments import processes
from bench.experiments.grid import open_plan
from bench.experiments.plan import Plan
from bench.interface import Batch, Recommender, Stage
from bench.registry import Entry
from bench.training.data import TrainingData, training_data
from bench.training.device import name_of, peak_memory_mb, pick, reset_peak_memory
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step

WARM_UP = 2
"""Steps before the clock runs."""


@dataclass(frozen=True)
class Timed:
    """Cost of one model at one batch size; times are medians over repeats."""

    model: str
    label: str
    batch_size: int
    steps: int
    """Optimizer steps of an epoch."""
    step_seconds: tuple[float, float, float]
    """Seconds of a training step: lower quartile, median, upper quartile of the measured ones."""
    epoch_seconds: float
    """Median step times the steps of an epoch; 0 for a model that is not trained."""
    targets: int
    """Targets of an epoch."""
    score_seconds: float
    """Seconds to rank the 100 candidates of a batch of users."""
    score_batch: int
    """Users of that batch."""
    items_seconds: float
    """Seconds to prepare all items for scoring, once an evaluation."""
    peak_mib: float
    """Memory above what the process held before the model, MiB."""
    parameters: int
    step_gflop: float
    """Floating-point operations of a step in products, 1e9; attention on a CPU is not counted."""
    device: str
    threads: int

    @property
    def targets_per_second(self) -> float:
        """Training targets per second."""
        return self.targets / self.epoch_seconds if self.epoch_seconds else 0.0

    @property
    def users_per_second(self) -> float:
        """Users ranked per second, without the preparation of the items."""
        return self.score_batch / self.score_seconds if self.score_seconds else 0.0


@dataclass
class Runner:
    """A model in the middle of an epoch that never ends."""

    entry: Entry
    model: Recommender
    stage: Stage | None
    optimizer: torch.optim.Optimizer | None
    batches: Iterator[Batch]
    steps: int
    targets: int
    device: torch.device

    def step(self) -> float:
        """Take a training step and return its seconds."""
        assert self.stage is not None and self.optimizer is not None
        batch = next(self.batches).to(self.device)
        self.model.train()
        _wait(self.device)
        begun = time.perf_counter()
        train_step(self.model, batch, self.stage, self.optimizer)
        _wait(self.device)
        return time.perf_counter() - begun


def time_models(plan: Plan, batch_size: int | None, repeats: int = 20, score_batch: int = 128) -> list[Timed]:
    """Time the models of a plan in their last stage.

    Args:
        plan: data set, protocol, models and options.
        batch_size: samples per step; None is each model's own.
        repeats: steps that are measured.
        score_batch: users scored at once.
    """
    task = open_plan(plan)
    data = training_data(task)
    device = pick(plan.training.device)
    runners = [_runner(plan, entry, data, device, batch_size) for entry in plan.models]
    trained = [one for one in runners if one.stage is not None]
    seconds: dict[str, list[float]] = {one.entry.card.name: [] for one in trained}
    for repeat in range(WARM_UP + repeats):
        for one in trained:
            taken = one.step()
            if repeat >= WARM_UP:
                seconds[one.entry.card.name].append(taken)
    scored = _score(runners, data, device, score_batch, max(repeats // 4, 3))
    memory = _memory(plan, batch_size)
    made = []
    for one, (score, items, users) in zip(runners, scored, strict=True):
        name, card = one.entry.card.name, one.entry.card
        low, middle, high = np.quantile(seconds.get(name) or [0.0], [0.25, 0.5, 0.75])
        made.append(
            Timed(
                name,
                card.label + ("†" if card.reconstruction else ""),
                one.stage.batch_size if one.stage else 0,
                one.steps,
                (float(low), float(middle), float(high)),
                float(middle) * one.steps,
                one.targets,
                score,
                users,
                items,
                memory[name],
                sum(p.numel() for p in one.model.parameters()),
                _work(one) if one.stage else 0.0,
                name_of(device),
                torch.get_num_threads(),
            )  # fmt: skip
        )
    return made


def _runner(
    plan: Plan, entry: Entry, data: TrainingData, device: torch.device, batch_size: int | None
) -> Runner:
    kind, name = entry.load(), entry.card.name
    options = {**entry.card.options, **plan.overrides.get(name, {})}
    torch.manual_seed(0)
    model: Recommender = kind(build_options(kind.Config, options, f"model {name}"), data.info).to(device)
    model.set_up(data.events)
    stages = model.stages()
    for stage in stages:
        start_stage(model, stage, data.events)
    if not stages:
        return Runner(entry, model, None, None, iter(()), 0, 0, device)
    last = stages[-1] if batch_size is None else replace(stages[-1], batch_size=batch_size)
    batches = data.batches(last.view, 0)
    model.start_epoch(0, data.events)

    def endless() -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from batches.epoch(epoch, last.batch_size)
            epoch += 1

    steps, targets = batches.num_batches(last.batch_size), batches.num_targets
    return Runner(entry, model, last, make_optimizer(model, last), endless(), steps, targets, device)


@torch.no_grad()
def _score(
    runners: Sequence[Runner], data: TrainingData, device: torch.device, size: int, repeats: int
) -> list[tuple[float, float, int]]:
    """Return seconds of a batch, seconds of all items, and users of the batch, for each model in turn."""
    taken: list[list[tuple[float, float]]] = [[] for _ in runners]
    users = 0
    for repeat in range(1 + repeats):
        for place, one in enumerate(runners):
            model = one.model.eval()
            rows, batch = next(data.validation.batches(model.max_history, size))
            users, batch = len(rows), batch.to(device)
            candidates = torch.randint(1, data.info.num_items + 1, (users, 100), device=device)
            _wait(device)
            begun = time.perf_counter()
            items = model.encode_items()
            _wait(device)
            middle = time.perf_counter()
            model.score_encoded(model.encode(batch), candidates, items)
            _wait(device)
            if repeat:
                taken[place].append((time.perf_counter() - middle, middle - begun))
    return [(*np.median(np.array(part), axis=0).tolist(), users) for part in taken]


def _work(one: Runner) -> float:
    """Return the GFLOP of a training step."""
    assert one.stage is not None and one.optimizer is not None
    counter = FlopCounterMode(display=False)
    with counter:
        train_step(one.model.train(), next(one.batches).to(one.device), one.stage, one.optimizer)
    return float(counter.get_total_flops()) / 1e9


def _memory(plan: Plan, batch_size: int | None) -> dict[str, float]:
    """Return the peak memory of each model's steps, in a process of its own."""
    found = {}
    for entry in plan.models:
        with ProcessPoolExecutor(1, processes.context()) as pool:
            part = replace(plan, models=(entry,))
            found[entry.card.name] = pool.submit(_memory_of, part, batch_size).result()
    return found


def _memory_of(plan: Plan, batch_size: int | None) -> float:
    task: Task = open_plan(plan)
    data, device = training_data(task), pick(plan.training.device)
    before = peak_memory_mb(device)
    reset_peak_memory(device)
    one = _runner(plan, plan.models[0], data, device, batch_size)
    for _ in range(3 if one.stage else 0):
        one.step()
    if not one.stage:
        _score([one], data, device, 128, 1)
    peak = peak_memory_mb(device)
    return max(peak - (before if device.type == "cpu" else 0.0), 0.0)


def _wait(device: torch.device) -> None:
    """Wait for a device that computes on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def as_dict(timed: Timed) -> dict[str, Any]:
    """Return plain values, rates included."""
    rates = {"targets_per_second": timed.targets_per_second, "users_per_second": timed.users_per_second}
    return {**vars(timed), **rates}
