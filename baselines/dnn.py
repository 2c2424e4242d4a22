"""The base model of click-through-rate prediction, "Embedding & MLP".

Covington, Adams, Sargin: Deep Neural Networks for YouTube Recommendations, RecSys 2016, in the form of the
BaseModel of Zhou et al., KDD 2018, Section 4.2. The mean of the history's item vectors and the vector of the
item to be judged enter a perceptron. It reads item ids and attributes of all behaviors; no behavior type, no
image or text, no order.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Impressions, Recommender, Stage
from bench.nn.ctr import ItemFields, group_impressions, perceptron

CARD = Card(
    name="dnn",
    label="DNN",
    model="DNN",
    family="ctr",
    tasks=("ctr",),
    paper="Covington, Adams, Sargin: Deep Neural Networks for YouTube Recommendations. RecSys 2016; the "
    "BaseModel of Zhou et al., KDD 2018, arXiv:1706.06978",
    year=2016,
    inputs="item ids and attributes of all behaviors, behavior type dropped; no modality; impressions view",
    deviations=(
        "mean pooling as in 2016; the BaseModel of 2018 sums (pooling=sum)",
        "Dice instead of ReLU or PReLU, as in DIN, so that the two differ in the attention alone",
        "no user profile, no context fields, no example age: the data sets have none",
        "labels are target-behavior events against uniform negatives, not shown-and-not-clicked items",
        "Adam instead of SGD with decaying rate",
    ),
    search={
        "learning_rate": (0.0001, 0.001, 0.002),
        "embedding_size": (32, 64, 128),
        "weight_decay": (0.0, 1e-05),
    },
)


@dataclass(frozen=True)
class DNNConfig:
    """Options of DNN."""

    embedding_size: int = 64
    """Width of each table: item id, and each attribute."""
    pooling: Literal["mean", "sum"] = "mean"
    """Over the events of the history."""
    head_hidden: tuple[int, ...] = (200, 80)
    """Widths of the perceptron."""
    num_negatives: int = 4
    """Uniform negatives of each positive, drawn anew each epoch."""
    max_targets_per_user: int | None = 10
    """Positives drawn per user and epoch; None takes all."""
    max_history: int = 50
    """L, latest events read."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 0.0
    """Weight decay of Adam, on matrices and tables."""
    batch_size: int = 640
    """Rows per step: positives and their negatives."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10."""


class DNN(Recommender):
    """Pooled history and item, joined by a perceptron."""

    Config = DNNConfig

    def __init__(self, config: DNNConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: DNNConfig = config
        self.max_history = config.max_history
        self.items = ItemFields(info.content, config.embedding_size)
        self.head = perceptron(2 * self.items.size, config.head_hidden)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: each target event with its negatives."""
        c = self.config
        view = Impressions(c.max_history, c.num_negatives, c.max_targets_per_user)
        return (Stage(view, c.learning_rate, c.batch_size, weight_decay=c.weight_decay, epochs=c.epochs,
                      patience=c.patience),)  # fmt: skip

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return binary cross entropy over the rows."""
        assert batch.target is not None and batch.label is not None
        groups = group_impressions(batch.user, batch.history, batch.behavior, batch.target, batch.label)
        logits = self.logits(self.pooled(batch.history[groups.first]), groups.items)[
            groups.row, groups.column
        ]
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch.label)}

    def encode(self, batch: Batch) -> Tensor:
        """Return the pooled histories, (B, D)."""
        return self.pooled(batch.history)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        """Return the logits of the candidates, (B, C)."""
        if candidates.dim() == 1:
            candidates = candidates.expand(len(encoded), -1)
        return self.logits(encoded, candidates)

    def pooled(self, history: Tensor) -> Tensor:
        """Return the mean (or sum) of the vectors, (B, D), of histories (B, L) int64; zero without events."""
        history = history[:, -self.max_history :]
        total = self.items(history).sum(1)  # item 0 is the zero vector
        if self.config.pooling == "sum":
            return total
        return total / (history > 0).sum(1, keepdim=True).clamp(min=1)

    def logits(self, pooled: Tensor, items: Tensor) -> Tensor:
        """Return (B, C) logits of items (B, C) under pooled histories (B, D)."""
        target = self.items(items)
        pooled = pooled[:, None].expand(-1, items.shape[1], -1)
        return self.head(torch.cat([pooled, target], -1).flatten(0, 1)).view(items.shape)
