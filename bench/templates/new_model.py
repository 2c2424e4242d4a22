"""NewModel: say in a line what it does. Authors: Title. Venue, year.

Letters: B users or windows, L events of a history, D width, C candidates, N items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.interface import Batch, Card, Causal, DatasetInfo, Recommender, Stage

# Literals alone: listings read it without running this file.
CARD = Card(
    name="new-model",
    label="NewModel",
    model="NewModel",
    family="sequential",  # or general, multimodal, multibehavior
    paper="Authors: Title. Venue, year, identifier",
    year=2026,
    inputs="item ids of all behaviors in time order; causal view",
    deviations=(),  # from the paper, each with its reason
    search={"learning_rate": (0.001, 0.003, 0.01), "hidden_size": (32, 64, 128)},  # for bench sweep
)


@dataclass(frozen=True)
class NewModelConfig:
    """Options; `--set new-model.hidden_size=32` changes one."""

    hidden_size: int = 64
    """D, width of an item."""
    decay: float = 0.8
    """What an event counts for, relative to the one after it."""
    max_history: int = 50
    """L, events that a window holds."""
    learning_rate: float = 0.003
    """Learning rate of Adam."""


class NewModel(Recommender):
    """A user is the decayed sum of the items met, the newest counting most."""

    Config = NewModelConfig
    config: NewModelConfig

    def __init__(self, config: NewModelConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)  # info.content has images and texts
        self.max_history = config.max_history
        self.items = nn.Embedding(info.num_items + 1, config.hidden_size, padding_idx=0)  # ids are 1..N
        self.next = nn.Embedding(info.num_items + 1, config.hidden_size)
        nn.init.normal_(self.next.weight, std=0.1)

    def stages(self) -> tuple[Stage, ...]:
        """Return how it is trained: what a batch holds, learning rate, windows per step."""
        return (Stage(Causal(self.max_history), self.config.learning_rate, batch_size=128),)

    def hidden(self, history: Tensor) -> Tensor:
        """Return the user after every event, (B, L, D); a position sees nothing that comes after it."""
        place = torch.arange(history.shape[1], device=history.device)
        age = place[:, None] - place  # (L, L) events between two positions
        return (self.config.decay ** age.clamp(min=0)) * (age >= 0) @ self.items(history)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return what is minimised: the cross entropy of the next item at every labelled position."""
        assert batch.labels is not None
        labelled = batch.labels > 0  # (B, L)
        logits = self.hidden(batch.history)[labelled] @ self.next.weight.T  # (n, N + 1)
        return {"loss": F.cross_entropy(logits, batch.labels[labelled])}

    def encode(self, batch: Batch) -> Tensor:
        """Return the users now, (B, D): done once, however many candidates follow."""
        return self.hidden(batch.history)[:, -1]

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        """Return scores (B, C) of candidates (B, C), or (C,) shared by all users; higher is better."""
        vectors = self.next(candidates)
        return encoded @ vectors.T if candidates.dim() == 1 else torch.einsum("bd,bcd->bc", encoded, vectors)
