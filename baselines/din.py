"""Zhou et al.: Deep Interest Network for Click-Through Rate Prediction. KDD 2018, arXiv:1706.06978.

Judges one item at a time: the events of a history are summed, each weighted by an activation unit that sees
the event and the item to be judged, and a perceptron reads this sum beside the item. It reads item ids and
attributes of all behaviors; no behavior type, no image or text.

Readings taken
- The activation unit reads [t ; h ; t - h ; t * h], the four parts of the authors' code; the paper's figure
  shows the outer product of h and t. Weights are not normalised (paper, Section 4.3).
- Hidden widths 80 and 40 in the unit and 200 and 80 in the perceptron, Dice in both; the paper gives the
  latter two.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Impressions, Recommender, Stage
from bench.nn.ctr import ItemFields, TargetAttention, group_impressions, perceptron, score_in_blocks

CARD = Card(
    name="din",
    label="DIN",
    model="DIN",
    family="ctr",
    tasks=("ctr",),
    paper="Zhou et al.: Deep Interest Network for Click-Through Rate Prediction. KDD 2018, arXiv:1706.06978",
    year=2018,
    inputs="item ids and attributes of all behaviors, behavior type dropped; no modality; impressions view",
    deviations=(
        "no user profile and no context fields: the data sets have none",
        "labels are target-behavior events against uniform negatives, not shown-and-not-clicked items",
        "Adam instead of SGD with decaying rate; early stopping instead of the mini-batch aware regulariser",
        "the mean and variance of Dice are taken over real events, not over padding",
    ),
    search={
        "learning_rate": (0.0001, 0.001, 0.002),
        "embedding_size": (32, 64, 128),
        "weight_decay": (0.0, 1e-05),
    },
)


@dataclass(frozen=True)
class DINConfig:
    """Options of DIN."""

    embedding_size: int = 64
    """Width of each table: item id, and each attribute."""
    attention_hidden: tuple[int, ...] = (80, 40)
    """Widths of the activation unit."""
    head_hidden: tuple[int, ...] = (200, 80)
    """Widths of the perceptron."""
    num_negatives: int = 4
    """Uniform negatives of each positive, drawn anew each epoch."""
    max_targets_per_user: int | None = 10
    """Positives drawn per user and epoch; None takes all."""
    max_history: int = 50
    """L, latest events read."""
    score_chunk: int = 100
    """User-item pairs scored at once; bounds memory."""
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


class DIN(Recommender):
    """Deep interest network."""

    Config = DINConfig

    def __init__(self, config: DINConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: DINConfig = config
        self.max_history = config.max_history
        self.items = ItemFields(info.content, config.embedding_size)
        self.attention = TargetAttention(self.items.size, config.attention_hidden)
        self.head = perceptron(2 * self.items.size, config.head_hidden)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: each target event with its negatives."""
        c = self.config
        view = Impressions(c.max_history, c.num_negatives, c.max_targets_per_user)
        return (Stage(view, c.learning_rate, c.batch_size, weight_decay=c.weight_decay, epochs=c.epochs,
                      patience=c.patience),)  # fmt: skip

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return binary cross entropy over the rows, Eq. 1 of the paper."""
        assert batch.target is not None and batch.label is not None
        groups = group_impressions(batch.user, batch.history, batch.behavior, batch.target, batch.label)
        logits = self.logits(batch.history[groups.first], groups.items)[groups.row, groups.column]
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch.label)}

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        """Return the logits of the candidates, (B, C), `score_chunk` pairs at a time."""

        def judge(rows: slice, part: Tensor) -> Tensor:
            return self.logits(batch.history[rows], part)

        return score_in_blocks(candidates, self.config.score_chunk, judge)

    def logits(self, history: Tensor, items: Tensor) -> Tensor:
        """Return (B, C) logits of items (B, C) under histories (B, L) int64."""
        history = history[:, -self.max_history :]
        target = self.items(items)
        interest = self.attention(self.items(history), history > 0, target)  # (B, C, D)
        return self.head(torch.cat([interest, target], -1).flatten(0, 1)).view(items.shape)
