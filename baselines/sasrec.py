"""Kang, McAuley: Self-Attentive Sequential Recommendation. ICDM 2018, arXiv:1808.09781.

A causal transformer reads the items of a user in time order and at every position predicts the next one by a
dot product with the item table. It reads item ids alone: no behavior type, no modality, no user embedding.

Readings taken
- The authors' code and the paper disagree on the residual. `norm="original"` is the code: only the query is
  normalised,
  keys and values see the raw input, and the residual is the normalised tensor. `norm="pre"` is the paper's
  formula, x + f(norm(x)); `norm="post"` is norm(x + f(x)). There is no output projection in any of them, as
  in the code.
- sqrt(D) scales the item vectors on the input side only.
- `block="bert"` is another reading, that of RecBole: BERT4Rec's block under a causal mask. It has an output
  projection, a GELU network of inner size 4 D and a norm after each residual; the sum of item and position is
  normalised, not scaled, and the last block's output is taken as it is; kernels start from N(0, 0.02).

Losses: `bce` with one negative is the 2018 model. `ce` (exact softmax) and `ce_sampled` follow Klenitskiy and
Vasilev, Turning Dross Into Gold Loss, RecSys 2023, arXiv:2309.07602; `gbce` follows Petrov and Macdonald,
gSASRec, RecSys 2023, arXiv:2308.07192. The cards list every other difference.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.cards import Card
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.dropout import Dropout
from bench.nn.lengths import by_length
from bench.nn.losses import bce, chunked_cross_entropy, gbce, sampled_cross_entropy
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores
from bench.nn.transformer import TransformerBlock, attend, attention_mask

CARDS = (
    Card(
        name="sasrec",
        label="SASRec",
        model="SASRec",
        family="sequential",
        paper="Kang, McAuley: Self-Attentive Sequential Recommendation. ICDM 2018, arXiv:1808.09781",
        year=2018,
        inputs="item ids of all behaviors in time order, behavior type dropped; no modality; causal view",
        deviations=(
            "windows cover the whole training part of a user; the authors train on the last window only",
            "users are shuffled each epoch; the authors draw them with replacement",
            "Adam with its default betas (0.9, 0.999) instead of (0.9, 0.98), as for all models here",
            "item and position tables start from N(0, 0.02): Glorot's rule depends on the catalog size and "
            "gives vanishing entries for large ones",
            "D = 64 and dropout 0.2 instead of 50 and 0.5 (0.2 for the authors' densest data): one size for "
            "all models",
            "stops after 10 epochs without a better validation NDCG@10; the authors evaluate every 20 epochs",
        ),
        search={
            "learning_rate": (0.0001, 0.0005, 0.001),
            "weight_average": (0.0, 0.99, 0.999),
            "hidden_size": (64, 128, 256),
            "num_layers": (1, 2, 3),
            "num_heads": (1, 2),
            "dropout": (0.1, 0.2, 0.5),
        },
    ),
    Card(
        name="sasrec-ce",
        label="SASRec-CE",
        model="SASRec",
        family="sequential",
        paper="Klenitskiy, Vasilev: Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec? "
        "RecSys 2023, arXiv:2309.07602",
        year=2023,
        inputs="item ids of all behaviors in time order, behavior type dropped; no modality; causal view",
        deviations=(
            "as for sasrec, but for the loss: exact softmax over all items at every position, computed in "
            "chunks",
            "dropout 0.2 instead of 0.1",
        ),
        options={"loss": "ce"},
        notes="The loss accounts for most of the known gap between SASRec and newer models.",
        search={
            "learning_rate": (0.0001, 0.0005, 0.001),
            "weight_average": (0.0, 0.99, 0.999),
            "hidden_size": (64, 128, 256),
            "num_layers": (1, 2, 3),
            "num_heads": (1, 2),
            "dropout": (0.1, 0.2, 0.5),
        },
    ),
)


@dataclass(frozen=True)
class SASRecConfig:
    """Options of SASRec."""

    hidden_size: int = 64
    """D; `d` in the paper."""
    num_layers: int = 2
    """Attention blocks, `b` in the paper."""
    num_heads: int = 1
    """H; divides D."""
    dropout: float = 0.2
    """On embeddings, attention weights and inside the feed-forward part, fraction."""
    block: Literal["sasrec", "bert"] = "sasrec"
    """Attention block of the paper, or BERT4Rec's, as RecBole has it; see the top of the file."""
    norm: Literal["original", "pre", "post"] = "original"
    """Where the layer norms of the paper's block stand; see the top of the file."""
    loss: Literal["bce", "ce", "ce_sampled", "gbce"] = "bce"
    """Binary with sampled negatives, exact softmax, sampled softmax, or calibrated binary."""
    num_negatives: int | None = None
    """Per position (`ce_sampled`: user); None takes 1 for `bce`, 3000 for `ce_sampled`, 256 for `gbce`."""
    gbce_calibration: float = 0.75
    """t of gSASRec, fraction; `gbce` only."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior; 0 trains on target events alone."""
    loss_weight_embedding: float = 0.0
    """Weight of the squared norm of the item table (`l2_emb` in the authors' code)."""
    max_history: int = 50
    """L; positions, `n` in the paper."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.0
    """Decay of an average of the weights over steps, which is validated and kept, 0.99 say; 0: none."""
    batch_size: int = 128
    """Histories per step."""
    epochs: int = 1000
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")


class Block(nn.Module):
    """Self-attention and a two-layer network of inner size D, Sections III-B to III-D of the paper."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm, self.num_heads, self.rate = config.norm, config.num_heads, config.dropout
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.attention_norm, self.network_norm = nn.LayerNorm(size, eps=1e-8), nn.LayerNorm(size, eps=1e-8)
        self.network = nn.Sequential(
            nn.Linear(size, size),
            nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(size, size),
            Dropout(config.dropout),
        )

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """Return (B, L, D) from x (B, L, D) and the keys allowed to each query (B, 1, L, L) bool."""
        if self.norm == "original":
            normed = self.attention_norm(x)
            y = self.network_norm(self.attention(normed, x, allowed) + normed)
            return self.network(y) + y
        if self.norm == "pre":
            normed = self.attention_norm(x)
            x = x + self.attention(normed, normed, allowed)
            return x + self.network(self.network_norm(x))
        x = self.attention_norm(x + self.attention(x, x, allowed))
        return self.network_norm(x + self.network(x))

    def attention(self, query: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        """Return attention of `query` over `source`, both (B, L, D), without output projection."""
        rate = self.rate if self.training else 0.0
        return attend(self.query(query), self.key(source), self.value(source), allowed, self.num_heads, rate)


class SASRec(Recommender):
    """Self-attentive sequential recommendation."""

    Config = SASRecConfig

    def __init__(self, config: SASRecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: SASRecConfig = config
        self.max_history = config.max_history
        self.items = nn.Embedding(info.num_items + 1, config.hidden_size, padding_idx=0)
        self.positions = nn.Parameter(torch.empty(config.max_history, config.hidden_size))
        self.blocks = nn.ModuleList(self.make_block() for _ in range(config.num_layers))
        bert, size = config.block == "bert", config.hidden_size
        self.input_scale = 1.0 if bert else size**0.5
        self.input_norm = nn.LayerNorm(size, eps=1e-12) if bert else nn.Identity()
        self.last_norm = nn.Identity() if bert else nn.LayerNorm(size, eps=1e-8)
        self.dropout = Dropout(config.dropout)
        self.untouched: UntouchedItems | None = None
        self.initialize()

    def make_block(self) -> nn.Module:
        """Return an attention block."""
        c = self.config
        if c.block == "bert":
            return TransformerBlock(c.hidden_size, c.num_heads, c.dropout, c.dropout)
        return Block(c)

    def initialize(self) -> None:
        """Set tables to N(0, 0.02), kernels to Glorot uniform (`bert`: N(0, 0.02)), biases and the padding
        row to zero.
        """
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.zeros_(self.items.weight[0].detach())
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.config.block == "bert":
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        view = Causal(c.max_history)
        return (
            Stage(
                view, c.learning_rate, c.batch_size, decay_after=c.decay_after,
                weight_average=c.weight_average, epochs=c.epochs, patience=c.patience, clip_norm=None,
            ),
        )  # fmt: skip

    def set_up(self, events: TrainingEvents) -> None:
        """Note what each user has touched in training, for the negatives."""
        if self.config.loss != "ce":
            user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
            sampler = UntouchedItems(user, item, self.info.num_users, self.info.num_items)
            self.untouched = sampler.to(self.positions.device)

    def hidden(self, history: Tensor) -> Tensor:
        """Return F (B, L, D): what each position says of the next item, from history (B, L) int64."""
        history = history[:, -self.config.max_history :]
        mask = history > 0
        real = mask[..., None].to(self.positions.dtype)  # (B, L, 1)
        positions = self.positions[len(self.positions) - history.shape[1] :]  # (L, D)
        x = self.input_norm(self.items(history) * self.input_scale + positions)  # (B, L, D)
        x = self.dropout(x) * real
        allowed = attention_mask(mask, causal=True)
        for block in self.blocks:
            x = block(x, allowed) * real
        return self.last_norm(x)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss over all labelled positions of the batch."""
        assert batch.labels is not None and batch.label_behavior is not None
        history = batch.history[:, -self.config.max_history :]
        hidden = by_length(self.hidden, (history > 0).sum(1), history)  # (B, L, D)
        labels = batch.labels[:, -hidden.shape[1] :]  # the events that are read
        target = batch.label_behavior[:, -hidden.shape[1] :] == len(self.info.behaviors)
        weights = torch.where(target, self.config.loss_weight_target, self.config.loss_weight_auxiliary)
        if self.config.loss == "ce_sampled":
            weights = weights * (labels > 0)
            negatives = self.draw(batch.user, 3000)  # (B, S)
            value = sampled_cross_entropy(hidden, self.items.weight, labels, negatives, weights)
        else:
            row, column = torch.nonzero(labels, as_tuple=True)  # n labelled positions
            value = self.row_loss(
                hidden[row, column], labels[row, column], batch.user[row], weights[row, column]
            )
        if self.config.loss_weight_embedding:
            value = value + self.config.loss_weight_embedding * self.items.weight.square().sum()
        return {"loss": value}

    def row_loss(self, hidden: Tensor, labels: Tensor, user: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of n positions: hidden (n, D), labels (n,), user (n,), weights (n,)."""
        table = self.items.weight
        if self.config.loss == "ce":
            return chunked_cross_entropy(hidden, table, labels, weights)
        candidates = torch.cat([labels[:, None], self.draw(user, 1 if self.config.loss == "bce" else 256)], 1)
        logits = dot_scores(hidden, table, candidates)  # (n, 1 + k)
        if self.config.loss == "bce":
            return bce(logits[:, 0], logits[:, 1:], weights)
        return gbce(logits[:, 0], logits[:, 1:], self.info.num_items, self.config.gbce_calibration, weights)

    def draw(self, user: Tensor, default: int) -> Tensor:
        """Return (len(user), k) items that the users did not touch in training."""
        assert self.untouched is not None, "set_up comes first"
        return self.untouched.draw(user, (self.config.num_negatives or default,))

    def encode(self, batch: Batch) -> Tensor:
        """Return F at the newest event, (B, D)."""
        return self.hidden(batch.history)[:, -1]

    def encode_items(self) -> Tensor:
        """Return the item table, (N + 1, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return the dot products with the candidates, (B, C)."""
        return dot_scores(encoded, items, candidates)
