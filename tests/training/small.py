"""A small model and how it is stopped, for the tests of the training loop."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from bench.interface import Next, Recommender, Stage
from bench.training.watcher import Silent

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    epochs: int = 5
    patience: int = 100
    patience_steps: int = 0
    rate: float = 0.05
    micro_batch: int | None = None
    stages: int = 1
    broken: bool = False


class Small(Recommender):
    """Mean of item vectors, with dropout so that the random state matters."""

    Config = Options

    def __init__(self, config, info):
        super().__init__(config, info)
        self.table = nn.Embedding(info.num_items + 1, 8, padding_idx=0)
        self.head = nn.Linear(8, info.num_items + 1)

    def stages(self):
        c = self.config
        given = {"epochs": c.epochs, "patience": c.patience, "micro_batch": c.micro_batch}
        stage = Stage(Next(10), c.rate, 16, patience_steps=c.patience_steps, **given)
        return tuple(dataclasses.replace(stage, name=f"s{number}") for number in range(c.stages))

    def hidden(self, batch):
        mean = self.table(batch.history).sum(1) / batch.mask.sum(1, keepdim=True).clamp(min=1)
        return nn.functional.dropout(mean, 0.3, self.training)

    def loss(self, batch):
        value = nn.functional.cross_entropy(self.head(self.hidden(batch)), batch.target)
        return {"loss": value * float("nan") if self.config.broken else value, "main": value}

    def score(self, batch, candidates):
        return self.head(self.hidden(batch)).gather(1, candidates)


def model_for(data, **options):
    torch.manual_seed(0)
    return Small(Options(**options), data.info)


class StopAfter(Silent):
    """Breaks the run off in the given epoch, as a kill would."""

    def __init__(self, epoch):
        self.last = epoch

    def epoch(self, stage, number, of, batches):
        if number == self.last and stage == "s1":
            raise KeyboardInterrupt


def without_validation(data):
    blind = dataclasses.replace(data.validation, targets=data.validation.targets[:0])
    return dataclasses.replace(data, validation=blind)
