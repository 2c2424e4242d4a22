"""Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks. ICLR
2016, arXiv:1511.06939; in its 2018 form: Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for
Session-based Recommendations. CIKM 2018, arXiv:1706.03847.

A GRU reads the items of a user in time order; its state after each event is scored against item vectors, plus
a bias per item, to rank the next item. It reads item ids alone: no behavior type, no modality, no user
embedding.

Letters: n labelled positions of the batch, J columns (items that a row is compared with), S shared samples.

Columns: where the catalog is no larger than the sample, all items; the loss is then exact. Else the S samples
shared by all rows, drawn with p proportional to count^alpha, and the distinct labels of the batch. Samples
and labels of the batch meet in one softmax, so the log-Q correction needs one scale for both: the expected
number of times that item j stands among the columns, Q_j = S p_j + 1 - (1 - f_j)^n, with f_j the item's share
of training events. The authors take the raw count for in-batch columns and count^alpha for samples. The card
lists every other difference.

`embedding_size`, `bias` and `optimizer` reach another form of the model, that of RecBole: item vectors of
their own width, a linear layer from the state to them, no biases, Adam.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cards import Card
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.dropout import Dropout
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy
from bench.nn.scoring import dot_scores

CARD = Card(
    name="gru4rec",
    label="GRU4Rec",
    model="GRU4Rec",
    family="sequential",
    paper="Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural "
    "Networks. ICLR 2016, arXiv:1511.06939; Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k "
    "Gains. CIKM 2018, arXiv:1706.03847",
    year=2016,
    inputs="item ids of all behaviors in time order, behavior type dropped; no modality; causal view",
    deviations=(
        "padded batches of shuffled histories with backpropagation through all steps and a zero state at "
        "the first event, instead of session-parallel batches without backpropagation in time: these are "
        "user histories, not sessions",
        "no dropout on the recurrent path: the GRU runs over whole sequences; dropout on embeddings and "
        "outputs is kept",
        "exact softmax where the catalog is no larger than the sample (2,048): sampling would cost more "
        "than it saves",
        "one expected count for samples and in-batch columns in the log-Q correction: the authors' two "
        "scales do not mix",
        "a sampled column that equals the row's target is left out instead of pushing the target down",
        "mean over labelled positions instead of sum over the batch size: at the first gradients, 3e-7 to "
        "1.5e-6, Adagrad's eps of 1e-6 is not small, so first steps are larger than the authors'",
        "Adagrad's eps stands outside the root; the authors put it inside",
        "defaults of the authors' port are D = 100, no dropout, logq = 0; here D = 64 as for all models, "
        "and logq = 1 and dropout 0.3 from the authors' tuned ranges",
        "stops after 10 epochs without a better validation NDCG@10; the authors train for 10 epochs",
    ),
    notes="loss=bpr_max is the authors' alternative for small catalogs, loss=top1 the loss of the 2016 "
    "paper.",
    search={
        "learning_rate": (0.01, 0.05, 0.1, 0.2),
        "weight_average": (0.0, 0.99, 0.999),
        "hidden_size": (64, 128, 256),
        "dropout": (0.0, 0.2, 0.5),
    },
)


@dataclass(frozen=True)
class GRU4RecConfig:
    """Options of GRU4Rec."""

    hidden_size: int = 64
    """D, size of the state and, without `embedding_size`, of item vectors."""
    embedding_size: int | None = None
    """Width of item vectors, E, with a linear layer from the state to them; None is D without that layer."""
    num_layers: int = 1
    """GRU layers."""
    constrained: bool = True
    """One item table for input and output; else each has its own."""
    bias: bool = True
    """Biases in the GRU and in the scores of items; False has none."""
    dropout_embedding: float = 0.3
    """On input vectors, fraction."""
    dropout: float = 0.3
    """On the output of every layer, fraction."""
    loss: Literal["ce", "bpr_max", "top1"] = "ce"
    """Softmax cross entropy, BPR-max (2018), TOP1 (2016)."""
    num_negatives: int = 2048
    """S, shared sampled columns per step; a catalog of at most this size is taken whole."""
    sample_alpha: float = 0.5
    """Samples are drawn with p proportional to count^alpha; 0 is uniform, 1 is popularity."""
    logq: float = 1.0
    """Strength of the log-Q correction of `ce` on sampled columns; 0 corrects nothing."""
    bpr_regularization: float = 1.0
    """Lambda of BPR-max, weight of the squared scores of negatives (`bpreg`)."""
    elu: float = 0.5
    """Alpha of the ELU on scores under BPR-max; 0 is linear."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior; 0 trains on target events alone."""
    max_history: int = 50
    """L."""
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    """Adagrad as the authors, or Adam, which wants a smaller learning rate."""
    learning_rate: float = 0.05
    """Learning rate; the authors search 0.01 to 0.25 for Adagrad."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.0
    """Decay of an average of the weights over steps, which is validated and kept, 0.99 say; 0: none."""
    batch_size: int = 64
    """Histories per step; at most 50 times as many rows and in-batch columns."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""


class GRU4Rec(Recommender):
    """Recurrent next-item recommendation."""

    Config = GRU4RecConfig
    shares: Tensor
    drawn: Tensor

    def __init__(self, config: GRU4RecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: GRU4RecConfig = config
        self.max_history = config.max_history
        size, rows = config.hidden_size, info.num_items + 1
        width = config.embedding_size or size
        self.items = nn.Embedding(rows, width, padding_idx=0)
        self.inputs = None if config.constrained else nn.Embedding(rows, width, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(rows)) if config.bias else None
        between = config.dropout if config.num_layers > 1 else 0.0
        self.gru = nn.GRU(width, size, config.num_layers, bias=config.bias, batch_first=True, dropout=between)
        self.projection = nn.Linear(size, width) if config.embedding_size else nn.Identity()
        self.dropout_embedding = Dropout(config.dropout_embedding)
        self.dropout = Dropout(config.dropout)
        self.cumulated: Tensor | None = None  # float64 and always on the CPU: every device draws alike
        self.register_buffer("shares", torch.zeros(rows), persistent=False)  # f_j
        self.register_buffer("drawn", torch.zeros(rows), persistent=False)  # S p_j
        self.initialize()

    def initialize(self) -> None:
        """Set matrices to +-sqrt(6 / (rows + columns)), uniform, gate by gate; biases and padding to zero."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.weight[0].detach())
        for parameter in self.gru.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.detach().chunk(3):
                    nn.init.xavier_uniform_(gate)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        return (
            Stage(
                Causal(c.max_history),
                c.learning_rate,
                c.batch_size,
                optimizer=c.optimizer,
                decay_after=c.decay_after,
                weight_average=c.weight_average,
                epochs=c.epochs,
                patience=c.patience,
                clip_norm=None,
            ),
        )

    def set_up(self, events: TrainingEvents) -> None:
        """Count items, for the samples and the log-Q correction."""
        if self.whole_catalog:
            return
        counts = torch.from_numpy(events.item_counts()).double()  # (N + 1,)
        skewed = torch.where(counts > 0, counts**self.config.sample_alpha, 0.0)
        self.cumulated = skewed.cumsum(0) / skewed.sum()
        self.shares.copy_(counts / counts.sum())
        self.drawn.copy_(skewed / skewed.sum() * self.config.num_negatives)

    @property
    def whole_catalog(self) -> bool:
        """True where every item is a column."""
        return self.info.num_items <= self.config.num_negatives

    def states(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Run the GRU over the events alone.

        Args:
            history: (B, L) int64, left-padded.

        Returns:
            states (B, L, D), with `embedding_size` (B, L, E), real events first, and order (B, L) int64, the
            position in `history` of each of them.
        """
        history = history[:, -self.config.max_history :]
        length = history.shape[1]
        padding = (history == 0).sum(1, keepdim=True)
        order = (torch.arange(length, device=history.device) + padding) % length  # padding goes to the end
        inputs = self.items if self.inputs is None else self.inputs
        states, _ = self.gru(self.dropout_embedding(inputs(history.gather(1, order))))  # (B, L, D)
        return self.projection(self.dropout(states)), order

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss over all labelled positions of the batch."""
        assert batch.labels is not None and batch.label_behavior is not None
        states, order = self.states(batch.history)
        labels = batch.labels[:, -order.shape[1] :].gather(1, order)
        target = batch.label_behavior[:, -order.shape[1] :].gather(1, order) == len(self.info.behaviors)
        weights = torch.where(target, self.config.loss_weight_target, self.config.loss_weight_auxiliary)
        chosen = labels > 0
        rows = (states[chosen], labels[chosen], weights[chosen])  # (n, D), (n,), (n,)
        return {"loss": self.cross_entropy(*rows) if self.config.loss == "ce" else self.pairwise(*rows)}

    def cross_entropy(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return softmax cross entropy over the columns."""
        table, bias = self.items.weight, self.item_bias
        if self.whole_catalog:
            return chunked_cross_entropy(hidden, table, labels, weights, bias)
        log_q = self.config.logq * self.log_expected(len(labels))
        return sampled_cross_entropy(
            hidden, table, labels, self.sample(), weights, bias, log_q, in_batch=True
        )

    def log_expected(self, rows: int) -> Tensor:
        """Return (N + 1,) log Q, from how often each item is expected among the columns of `rows` labels."""
        expected = self.drawn - torch.expm1(rows * torch.log1p(-self.shares))
        return expected.clamp(min=1e-12).log()  # an item that is in no training event is never a column

    def sample(self) -> Tensor:
        """Return (S,) items drawn with replacement, p proportional to count^alpha."""
        assert self.cumulated is not None, "set_up comes first"
        points = torch.rand(self.config.num_negatives, dtype=torch.float64)
        columns = torch.searchsorted(self.cumulated, points, right=True).clamp(max=self.info.num_items)
        return columns.to(self.shares.device)

    def pairwise(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return BPR-max or TOP1 over the columns."""
        if self.whole_catalog:
            columns = torch.arange(1, self.info.num_items + 1, device=labels.device)
        else:
            columns = torch.cat([self.sample(), labels.unique()])
        scores = dot_scores(hidden, self.items.weight, columns, self.item_bias)  # (n, J)
        target = (hidden * self.items.weight[labels]).sum(1)  # (n,)
        target = target if self.item_bias is None else target + self.item_bias[labels]
        negative = columns != labels[:, None]
        if self.config.loss == "top1":
            terms = top1(target, scores, negative)
        else:
            terms = bpr_max(
                self.activate(target), self.activate(scores), negative, self.config.bpr_regularization
            )
        return (terms * weights).sum() / weights.sum().clamp(min=1e-12)

    def activate(self, scores: Tensor) -> Tensor:
        """Return the scores after the final activation of BPR-max."""
        return F.elu(scores, self.config.elu) if self.config.elu else scores

    def encode(self, batch: Batch) -> Tensor:
        """Return the state after the newest event, (B, D) or (B, E); zero where there is no event."""
        states, order = self.states(batch.history)
        count = batch.mask[:, -order.shape[1] :].sum(1)
        last = states[torch.arange(len(states), device=states.device), (count - 1).clamp(min=0)]
        return last * (count > 0)[:, None]

    def encode_items(self) -> Tensor:
        """Return the item table, (N + 1, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products plus item biases (where there are any), (B, C)."""
        return dot_scores(encoded, items, candidates, self.item_bias)


def bpr_max(target: Tensor, scores: Tensor, negative: Tensor, regularization: float) -> Tensor:
    """Return BPR-max (2018, Section 3.3): -log sum_j s_j sigmoid(r_i - r_j) + lambda sum_j s_j r_j^2.

    Args:
        target: (n,) r_i.
        scores: (n, J) r_j.
        negative: (n, J) bool, False at the row's target; s is the softmax over the True columns.
        regularization: lambda.

    Returns:
        (n,) terms, natural log.
    """
    shares = scores.masked_fill(~negative, -torch.inf).log_softmax(1)  # (n, J) log s_j
    gain = -torch.logsumexp(shares + F.logsigmoid(target[:, None] - scores), 1)
    return gain + regularization * (shares.exp() * scores.square()).sum(1)


def top1(target: Tensor, scores: Tensor, negative: Tensor) -> Tensor:
    """Return TOP1 (2016): the mean over negative columns of sigmoid(r_j - r_i) + sigmoid(r_j^2).

    The authors' mean runs over all J columns, less the target's own sigmoid(r_i^2): that adds a constant
    and a factor (J - 1) / J.

    Args:
        target: (n,) r_i.
        scores: (n, J) r_j.
        negative: (n, J) bool, False at the row's target.

    Returns:
        (n,) terms.
    """
    terms = torch.sigmoid(scores - target[:, None]) + torch.sigmoid(scores.square())
    return (terms * negative).sum(1) / negative.sum(1).clamp(min=1)
