"""Sun, Liu, Wu, Pei, Lin, Ou, Jiang: BERT4Rec: Sequential Recommendation with Bidirectional Encoder
Representations from Transformer. CIKM 2019, arXiv:1904.06690.

A bidirectional transformer is trained on the Cloze task: some items of a history are replaced by [MASK] and
predicted from both sides with a softmax over all items. To rank the next item, [MASK] is appended to the last
L - 1 events. It reads item ids alone: no behavior type, no modality, no user embedding.

Reading taken: histories are padded on the left and positions are counted from the newest event, so [MASK]
stands at the same position in ranking as in the training instances that mask the last event. The card lists
every other difference.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cards import Card
from bench.interface import Batch, Cloze, DatasetInfo, Recommender, Stage
from bench.nn.dropout import Dropout
from bench.nn.lengths import by_length
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy
from bench.nn.scoring import dot_scores
from bench.nn.transformer import TransformerBlock, attention_mask

CARD = Card(
    name="bert4rec",
    label="BERT4Rec",
    model="BERT4Rec",
    family="sequential",
    paper="Sun, Liu, Wu, Pei, Lin, Ou, Jiang: BERT4Rec: Sequential Recommendation with Bidirectional Encoder "
    "Representations from Transformer. CIKM 2019, arXiv:1904.06690",
    year=2019,
    inputs="item ids of all behaviors in time order, behavior type dropped; no modality; cloze view",
    deviations=(
        "batches of 64 instead of 256 sequences: more steps in the same time",
        "softmax over items 1..N; the authors' includes padding and [MASK], which are never the answer",
        "left padding and positions from the newest event; the authors pad on the right",
        "masks are redrawn every epoch; the authors freeze ten masked copies",
        "validation and test events are in no training sequence; the authors train on the validation item",
        "learning rate 1e-3 instead of 1e-4, no decay of it: RecSys 2023 replications (arXiv:2309.07602) "
        "reach the published level with it in far fewer steps, and the authors' 400,000 steps are out of "
        "reach of a common budget",
        "AdamW with bias correction and betas (0.9, 0.999); the authors' has no bias correction",
        "no token-type vector: it is one constant",
        "eps of the optimizer is 1e-8 instead of 1e-6",
        "long users are cut into windows of L without overlap; the authors' windows slide",
        "instances that mask only the last event are cut at a target-behavior event, half of an epoch; "
        "the authors' stand at the end of each sequence, 1 in 11",
        "L = 50, 0.6 of the events masked but at most 20, dropout 0.1 on all data; the authors take 200, 0.2 "
        "and 0.2 for dense data",
        "the weights validated and ranked with are an average over steps, by 0.99; the authors have none",
        "mask ratio, share of last-event instances, dropout and average are the best of eight trials, which "
        "M3BSR, SASRec and GRU4Rec had too, on ml-100k (three minutes, validation NDCG@10 0.533; 0.520 "
        "with 0.2, 0.1, 0.2 and none; to early stopping 0.561 and 0.526)",
        "waits 20 epochs or 2,000 steps without a better validation NDCG@10, whichever is more, instead of "
        "10 epochs; steps are counted as if each user had one window and no last-event instance, so that it "
        "waits longer where histories are long (ml-100k: 134 epochs of 74 steps): an epoch labels a part of "
        "the positions, and too short training is the usual fault of "
        "BERT4Rec results (arXiv:2207.07483)",
    ),
    search={
        "learning_rate": (0.0001, 0.001),
        "weight_average": (0.0, 0.99, 0.999),
        "hidden_size": (64, 128, 256),
        "num_layers": (1, 2, 3),
        "mask_ratio": (0.2, 0.4, 0.6),
        "last_share": (0.1, 0.5),
        "dropout": (0.1, 0.2, 0.5),
    },
)


@dataclass(frozen=True)
class BERT4RecConfig:
    """Options of BERT4Rec."""

    hidden_size: int = 64
    """D."""
    num_layers: int = 2
    """Encoder blocks."""
    num_heads: int = 2
    """H; the authors keep D / H = 32."""
    dropout: float = 0.1
    """On embeddings and block outputs, fraction."""
    dropout_attention: float = 0.2
    """On attention weights, fraction."""
    loss: Literal["ce", "ce_sampled"] = "ce"
    """Exact softmax in chunks, or softmax over uniform negatives shared by the batch (for large catalogs)."""
    num_negatives: int = 4096
    """S, negatives of `ce_sampled`."""
    mask_ratio: float = 0.6
    """Share of positions masked, fraction (rho; the authors: 0.2 to 0.6, more for short histories)."""
    max_masked: int = 20
    """Most masked positions in one sequence."""
    last_share: float = 0.5
    """Share of instances that mask only the last event, fraction (the authors: 1 in 11)."""
    copies: int = 1
    """Masked copies of each sequence in one epoch."""
    loss_weight_target: float = 1.0
    """Weight of masked events of the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of masked events of another behavior."""
    max_history: int = 50
    """L, [MASK] included in ranking."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of matrices and tables."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.99
    """Decay of an average of the weights over steps, which is validated and kept, 0.99 say; 0: none."""
    batch_size: int = 64
    """Sequences per step."""
    epochs: int = 3000
    """Most epochs."""
    patience: int = 20
    """Least epochs without a better validation NDCG@10 before training ends."""
    patience_steps: int = 2000
    """Least steps likewise, counted as if each user had one window; 20,000 at the authors' learning
    rate, which is ten times smaller."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")


class BERT4Rec(Recommender):
    """Bidirectional transformer trained on masked items."""

    Config = BERT4RecConfig

    def __init__(self, config: BERT4RecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: BERT4RecConfig = config
        self.max_history = config.max_history - 1  # ranking appends [MASK]
        size, self.mask_token = config.hidden_size, info.num_items + 1
        self.items = nn.Embedding(info.num_items + 2, size, padding_idx=0)
        self.positions = nn.Parameter(torch.empty(config.max_history, size))
        self.input_norm = nn.LayerNorm(size, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(size, config.num_heads, config.dropout, config.dropout_attention)
            for _ in range(config.num_layers)
        )
        self.head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size, eps=1e-12))
        self.item_bias = nn.Parameter(torch.zeros(info.num_items + 1))
        self.initialize()

    def initialize(self) -> None:
        """Set matrices to N(0, 0.02) cut at two deviations, biases and the padding row to zero."""
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.items.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        steps = max(1, math.ceil(self.info.num_users * c.copies / c.batch_size))  # of an epoch, at least
        return (
            Stage(
                Cloze(c.max_history, c.mask_ratio, c.max_masked, c.last_share, c.copies),
                c.learning_rate,
                c.batch_size,
                optimizer="adamw",
                weight_decay=c.weight_decay,
                warmup_steps=c.warmup_steps,
                decay_after=c.decay_after,
                weight_average=c.weight_average,
                epochs=c.epochs,
                patience=max(c.patience, math.ceil(c.patience_steps / steps)),
                clip_norm=5.0,
            ),
        )

    def hidden(self, history: Tensor, chosen: Tensor) -> Tensor:
        """Return (B, L, D), the encoder's output for history (B, L) int64 with [MASK] = N + 1 at the chosen
        positions (B, L) bool, zeros elsewhere: the last block computes no other.
        """
        x = self.items(history) + self.positions[len(self.positions) - history.shape[1] :]
        x = self.dropout(self.input_norm(x))
        allowed = attention_mask(history > 0)
        *whole, last = self.blocks
        for block in whole:
            x = block(x, allowed)
        assert isinstance(last, TransformerBlock)
        result = torch.zeros_like(x)
        result[chosen] = last.at(chosen, x, allowed)
        return result

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross entropy at the masked positions."""
        assert batch.labels is not None and batch.label_behavior is not None
        history, labels = (x[:, -self.config.max_history :] for x in (batch.history, batch.labels))
        chosen = labels > 0
        states = by_length(self.hidden, (history > 0).sum(1), history, chosen)  # (B, L, D)
        hidden = self.head(states[chosen])  # (n, D)
        target = batch.label_behavior[:, -self.config.max_history :][chosen] == len(self.info.behaviors)
        weights = torch.where(
            target, self.config.loss_weight_target, self.config.loss_weight_auxiliary
        )  # (n,)
        table = self.items.weight[:-1]  # (N + 1, D)
        if self.config.loss == "ce":
            return {"loss": chunked_cross_entropy(hidden, table, labels[chosen], weights, self.item_bias)}
        negatives = torch.randint(1, len(table), (self.config.num_negatives,), device=hidden.device)
        return {
            "loss": sampled_cross_entropy(hidden, table, labels[chosen], negatives, weights, self.item_bias)
        }

    def encode(self, batch: Batch) -> Tensor:
        """Return the head's output at a [MASK] after the last L - 1 events, (B, D)."""
        history = F.pad(batch.history[:, -self.max_history :], (0, 1), value=self.mask_token)
        newest = torch.arange(history.shape[1], device=history.device) == history.shape[1] - 1
        return self.head(self.hidden(history, newest.expand_as(history))[:, -1])

    def encode_items(self) -> Tensor:
        """Return the token table, (N + 2, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products plus item biases, (B, C)."""
        return dot_scores(encoded, items, candidates, self.item_bias)
