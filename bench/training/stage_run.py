"""A stage while it is trained: what changes beside the model, how it is stored and put back, when it ends."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.interface import Recommender, Stage
from bench.training.average import WeightAverage
from bench.training.checkpoint import snapshot
from bench.training.step import make_optimizer


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

    def keep(self, weights: dict[str, Tensor], targets: int) -> None:
        """Take the weights of the newest epoch as the best, with `targets` seen so far."""
        self.best_weights, self.targets, self.epochs = weights, targets, 0

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


@dataclass
class StageRun:
    """What a stage has got so far; `restore` goes on from what `state` gave, to the bit."""

    stage: Stage
    index: int
    """Place among the model's stages, from 0."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    patience: Patience
    limit: float | None
    """Seconds since training began after which the stage ends; None is no limit."""
    epochs: int = 0
    """Epochs done."""

    @classmethod
    def begin(
        cls, model: Recommender, stage: Stage, index: int, steps: int, targets: int, limit: float | None
    ) -> "StageRun":
        """Return a stage before its first epoch.

        Args:
            model: with the weights of the stage before.
            stage: what is trained.
            index: as in the class.
            steps: optimizer steps of an epoch.
            targets: targets seen in the stages before.
            limit: as in the class.
        """
        optimizer = make_optimizer(model, stage)  # first: it says which parameters move
        average = WeightAverage(model, stage.weight_average) if stage.weight_average else None
        patience = Patience(stage, snapshot(model), steps, targets=targets)
        return cls(stage, index, optimizer, average, patience, limit)

    def state(self, model: Recommender) -> dict[str, Any]:
        """Return what a checkpoint keeps of the stage and the model's weights."""
        kept = {
            "stage": self.index,
            "epoch": self.epochs,
            "limit": self.limit,
            "waited": self.patience.epochs,
            "targets": self.patience.targets,
            "best_weights": self.patience.best_weights,
            "weights": snapshot(model),
            "optimizer": self.optimizer.state_dict(),
        }
        return kept | ({"average": self.average.state()} if self.average else {})

    def restore(self, model: Recommender, state: dict[str, Any]) -> None:
        """Put the stage and the model's weights back as a checkpoint has kept them."""
        model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.restore(state["average"])
        best, steps = state["best_weights"], self.patience.steps
        self.patience = Patience(self.stage, best, steps, state["waited"], state["targets"])
        self.epochs, self.limit = state["epoch"], state["limit"]
