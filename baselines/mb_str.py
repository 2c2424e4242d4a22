"""Yuan, Guo, He, Guo, Liu, Tang: Multi-Behavior Sequential Transformer Recommender. SIGIR 2022,
doi:10.1145/3477495.3532023.

One time-ordered sequence of (item, behavior) events is read in both directions. Projections and feed-
forward networks belong to the behavior of an event, attention kernels and relative positions to the ordered
pair of behaviors of query and key (MB-Trans, MB-SPG). A head of shared and behavior-specific experts (BA-
Pred) turns the state at a masked position into item scores. Trained on masked items of all behaviors;
ranking appends a mask that carries the target behavior. It reads no user id, no time and no content.

Letters: B users, L history, D hidden size, H heads, d = D / H, A behaviors, n masked positions.

The kernel of a pair is applied without an (L, L, A^2) array: a query is turned by the kernels of its behavior
with each of the A key behaviors, giving A blocks of d numbers; a key stands in the block of its own behavior
with zeros in the others. Their dot product is q K_(b_i, b_j) k, and values are summed per block likewise.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import Batch, Card, Cloze, DatasetInfo, Recommender, Stage
from bench.nn.dropout import Dropout
from bench.nn.lengths import by_length
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy
from bench.nn.scoring import dot_scores
from bench.nn.transformer import attention_mask

BUCKETS = 32
"""Relative offsets: 16 for keys at or before the query, 16 for keys after it."""
SHARED_EXPERTS = 3
WHOLE_CATALOG = 100_000
"""Most items for which the softmax is exact by default."""

CARD = Card(
    name="mb_str",
    label="MB-STR",
    model="MBSTR",
    family="multibehavior",
    paper="Yuan, Guo, He, Guo, Liu, Tang: Multi-Behavior Sequential Transformer Recommender. SIGIR 2022, "
    "doi:10.1145/3477495.3532023",
    year=2022,
    inputs="item ids and behavior types in time order; no modality; cloze view",
    deviations=(
        "D = 64 instead of 16: one size for all models",
        "learning rate 2e-3 and 0.4 of the events masked instead of 1e-3 and 0.2: chosen on validation",
        "a fixed share of each window is masked, at least one event; the authors mask each event by a draw",
        "a fifth of the instances mask only the last target event, as in ranking; last_share=0: the release",
        "windows cover the whole training part of a user; the authors draw one window",
        "padding is no class of the softmax",
        "kernels start from N(0, 1) up to d = 32 as in the release, from N(0, 1/d) above (kernel_init)",
    ),
    notes="Trains on 9,100 targets per second and core where SASRec does on 92,800"
    "; masked events alone are targets.",
    search={
        "learning_rate": (0.0003, 0.001, 0.002),
        "hidden_size": (16, 32, 64, 128),
        "mask_ratio": (0.2, 0.3, 0.4, 0.6),
        "dropout": (0.1, 0.2, 0.5),
    },
)


@dataclass(frozen=True)
class MBSTRConfig:
    """Options of MB-STR."""

    hidden_size: int = 64
    """D."""
    num_layers: int = 2
    """MB-Trans layers."""
    num_heads: int = 2
    """H; divides D."""
    dropout: float = 0.2
    """On embeddings, attention weights and outputs, fraction."""
    head: Literal["experts", "linear"] = "experts"
    """BA-Pred, or one layer for all behaviors with an item bias (the paper's ablation)."""
    kernel_init: Literal["auto", "normal", "scaled", "identity"] = "auto"
    """Start of the pair kernels: N(0, 1), N(0, 1/d), identity + N(0, 0.02); auto: normal for d up to 32."""
    num_negatives: int | None = None
    """Uniform items shared by a step's softmax; None: all items up to 100,000 of them, else 4,096."""
    mask_ratio: float = 0.4
    """Share of positions masked, fraction (rho); 0.2 or 0.3 in the release, for sparser data."""
    last_share: float = 0.2
    """Share of instances that mask only the last target event, fraction."""
    loss_weight_target: float = 1.0
    """Weight of masked events of the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of masked events of another behavior; 0 predicts target events alone."""
    max_history: int = 50
    """L, the mask included in ranking."""
    learning_rate: float = 2e-3
    """Learning rate of Adam."""
    weight_decay: float = 1e-6
    """Weight decay of matrices and tables."""
    batch_size: int = 128
    """Histories per step."""
    epochs: int = 1000
    """Most epochs."""
    patience: int = 20
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")


def buckets(length: int) -> Tensor:
    """Return (L, L) int64 bucket of each offset n = query - key: linear up to 8, then logarithmic to 40."""
    positions = torch.arange(length)
    offset = positions[:, None] - positions[None, :]
    size = offset.abs()
    ratio = size.clamp(min=8).double().div(8).log() / math.log(40 / 8)
    far = (8 + (ratio * 8).floor().long()).clamp(max=15)
    return torch.where(size < 8, size, far) + torch.where(offset < 0, 16, 0)


class PerBehavior(nn.Module):
    """A linear map of its own for every behavior, without bias unless asked; padding gives zero."""

    def __init__(self, behaviors: int, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(behaviors, inputs, outputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(behaviors, outputs)) if bias else None

    def forward(self, x: Tensor, rows: list[Tensor]) -> Tensor:
        """Return (E, outputs) from x (E, inputs) and, per behavior, the rows (E_b,) that have it."""
        result = x.new_zeros(len(x), self.weight.shape[2])
        for index, chosen in enumerate(rows):
            part = x[chosen] @ self.weight[index]
            result = result.index_copy(0, chosen, part if self.bias is None else part + self.bias[index])
        return result


class PairKernels(nn.Module):
    """K_c = sum_m softmax_m(alpha[c, m]) W[m]: a (d, d) kernel per ordered pair of behaviors and head."""

    def __init__(self, behaviors: int, heads: int, size: int, init: str) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(behaviors, heads, size, size))  # (A, H, d, d)
        self.mix = nn.Parameter(torch.randn(behaviors, behaviors, behaviors, heads))  # (query, key, A, H)
        with torch.no_grad():
            if init == "scaled":
                self.basis.mul_(size**-0.5)
            elif init == "identity":
                self.basis.mul_(0.02).add_(torch.eye(size))

    def forward(self) -> Tensor:
        """Return (query behavior, key behavior, H, d, d)."""
        return torch.einsum("qkmh,mhde->qkhde", self.mix.softmax(2), self.basis)


class Layer(nn.Module):
    """One MB-Trans layer with its relative positions (MB-SPG)."""

    def __init__(self, config: MBSTRConfig, behaviors: int) -> None:
        super().__init__()
        size, self.heads, self.rate = config.hidden_size, config.num_heads, config.dropout
        self.behaviors, self.width = behaviors, size // config.num_heads
        init = config.kernel_init
        init = ("normal" if self.width <= 32 else "scaled") if init == "auto" else init
        self.query, self.key, self.value = (PerBehavior(behaviors, size, size) for _ in range(3))
        self.key_kernels = PairKernels(behaviors, self.heads, self.width, init)
        self.value_kernels = PairKernels(behaviors, self.heads, self.width, init)
        self.offsets = nn.Embedding(behaviors * behaviors * BUCKETS, self.heads)  # N(0, 1)
        self.inner = PerBehavior(behaviors, size, 4 * size, bias=True)
        self.outer = PerBehavior(behaviors, 4 * size, size, bias=True)
        self.attention_norm, self.network_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, behavior: Tensor, rows: list[Tensor]) -> Tensor:
        """Return (B, L, D) from x (B, L, D).

        Args:
            x: states.
            behavior: (B, L) int64, 0 where padded.
            rows: per behavior, the flat positions (E_b,) in B L that have it.
        """
        flat = x.flatten(0, 1)  # (B L, D)
        attended = self.attention(flat, behavior, rows)
        flat = self.attention_norm(flat + self.dropout(attended))
        network = self.outer(self.dropout(F.relu(self.inner(flat, rows))), rows)
        flat = self.network_norm(flat + self.dropout(network))
        return self.dropout(flat).view_as(x)

    def attention(self, flat: Tensor, behavior: Tensor, rows: list[Tensor]) -> Tensor:
        """Return (B L, D): heads side by side, without output projection."""
        batch, length = behavior.shape
        shape = (batch, length, self.heads, -1)
        heads = (len(flat), self.heads, self.width)
        query = self.turn(self.query(flat, rows).view(heads), rows)  # (B L, H, A d)
        key = self.own_block(self.key(flat, rows).view(heads), rows)
        value = self.own_block(self.value(flat, rows).view(heads), rows)
        query, key, value = (x.view(shape).transpose(1, 2) for x in (query, key, value))  # (B, H, L, A d)
        rate, scale = self.rate if self.training else 0.0, self.width**-0.5
        summed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.bias(behavior), dropout_p=rate, scale=scale
        )
        summed = summed.transpose(1, 2).reshape(len(flat), self.heads, self.behaviors, self.width)
        result = flat.new_zeros(heads)
        for index, chosen in enumerate(rows):  # value kernels of the query's behavior, block by block
            turned = torch.einsum("ehkd,khdf->ehf", summed[chosen], self.value_kernels()[index])
            result = result.index_copy(0, chosen, turned)
        return result.flatten(1)

    def turn(self, query: Tensor, rows: list[Tensor]) -> Tensor:
        """Return (E, H, A d): a query (E, H, d) under the kernels with each key behavior."""
        result = query.new_zeros(len(query), self.heads, self.behaviors, self.width)
        kernels = self.key_kernels()
        for index, chosen in enumerate(rows):
            turned = torch.einsum("ehd,khdf->ehkf", query[chosen], kernels[index])
            result = result.index_copy(0, chosen, turned)
        return result.flatten(2)

    def own_block(self, x: Tensor, rows: list[Tensor]) -> Tensor:
        """Return (E, H, A d): x (E, H, d) in the block of its behavior, zeros in the others."""
        result = x.new_zeros(len(x), self.heads, self.behaviors, self.width)
        for index, chosen in enumerate(rows):
            result[chosen, :, index] = x[chosen]
        return result.flatten(2)

    def bias(self, behavior: Tensor) -> Tensor:
        """Return (B, H, L, L): relative positions of the pair's table, -inf where a key must not be seen."""
        count, bucket = self.behaviors, buckets(behavior.shape[1]).to(behavior.device)
        tables = self.offsets.weight.view(count, count, BUCKETS, self.heads)[:, :, bucket]  # (A, A, L, L, H)
        kind = F.one_hot(behavior, count + 1)[..., 1:].to(tables.dtype)  # (B, L, A), zero where padded
        asked = torch.einsum("bqa,akqjh->bkhqj", kind, tables)  # by key behavior k: (B, A, H, L, L)
        bias = torch.einsum("bkhqj,bjk->bhqj", asked, kind)
        return bias.masked_fill(~attention_mask(behavior > 0), -torch.inf)


class BehaviorHead(nn.Module):
    """BA-Pred: shared experts and one of the behavior, mixed by the behavior's gate."""

    def __init__(self, size: int, behaviors: int) -> None:
        super().__init__()
        self.shared = nn.ModuleList(nn.Linear(size, size) for _ in range(SHARED_EXPERTS))
        self.own = nn.ModuleList(nn.Linear(size, size) for _ in range(behaviors))
        self.gates = nn.Parameter(torch.randn(behaviors, size, SHARED_EXPERTS + 1))
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, behavior: Tensor) -> Tensor:
        """Return (n, D) from states (n, D) and the behaviors asked for (n,), 1..A."""
        mixed = torch.zeros_like(x)
        for index, own in enumerate(self.own):
            chosen = torch.nonzero(behavior == index + 1).squeeze(1)
            part = x[chosen]
            experts = torch.stack([expert(part) for expert in (*self.shared, own)], 1)  # (n_b, 4, D)
            gate = (part @ self.gates[index]).softmax(-1)  # (n_b, 4)
            mixed = mixed.index_copy(0, chosen, (gate[..., None] * experts).sum(1))
        return x + self.norm(mixed)


class MBSTR(Recommender):
    """Multi-behavior sequential transformer."""

    Config = MBSTRConfig
    config: MBSTRConfig

    def __init__(self, config: MBSTRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, behaviors = config.hidden_size, len(info.behaviors)
        self.max_history = config.max_history - 1  # ranking appends the mask
        self.items = nn.Embedding(info.num_items + 2, size, padding_idx=0)  # the last row is the mask
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.zeros_(self.items.weight[0].detach())
        self.layers = nn.ModuleList(Layer(config, behaviors) for _ in range(config.num_layers))
        self.head = BehaviorHead(size, behaviors) if config.head == "experts" else nn.Linear(size, size)
        self.item_bias = None if config.head == "experts" else nn.Parameter(torch.zeros(info.num_items + 1))
        self.dropout = Dropout(config.dropout)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        view = Cloze(c.max_history, c.mask_ratio, c.max_history, c.last_share)
        return (
            Stage(
                view,
                c.learning_rate,
                c.batch_size,
                weight_decay=c.weight_decay,
                epochs=c.epochs,
                patience=c.patience,
            ),
        )

    def hidden(self, history: Tensor, behavior: Tensor) -> Tensor:
        """Return (B, L, D) for items (B, L), masks N + 1, and their behaviors (B, L), which masks keep."""
        history, behavior = history[:, -self.config.max_history :], behavior[:, -self.config.max_history :]
        flat = behavior.flatten()
        rows = [torch.nonzero(flat == index + 1).squeeze(1) for index in range(len(self.info.behaviors))]
        x = self.dropout(self.items(history))
        for layer in self.layers:
            x = layer(x, behavior, rows)
        return x

    def read(self, x: Tensor, behavior: Tensor) -> Tensor:
        """Return (n, D), what scores items, from states (n, D) and the behaviors asked for (n,)."""
        return self.head(x, behavior) if isinstance(self.head, BehaviorHead) else F.relu(self.head(x))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross entropy at the masked positions; 0 where nothing is masked."""
        assert batch.labels is not None and batch.label_behavior is not None
        history, events, labels, label_behavior = (
            x[:, -self.config.max_history :]
            for x in (batch.history, batch.behavior, batch.labels, batch.label_behavior)
        )  # (B, L) each
        chosen = labels > 0  # n masked positions
        labels, behavior = labels[chosen], label_behavior[chosen]
        states = by_length(self.hidden, (history > 0).sum(1), history, events)  # (B, L, D)
        x = self.read(states[chosen], behavior)
        c = self.config
        target = behavior == len(self.info.behaviors)
        weights = torch.where(target, c.loss_weight_target, c.loss_weight_auxiliary)
        table, number = self.items.weight[:-1], c.num_negatives
        if number is None and self.info.num_items <= WHOLE_CATALOG:
            return {"loss": chunked_cross_entropy(x, table, labels, weights, self.item_bias)}
        negatives = torch.randint(1, len(table), (number or 4096,)).to(x.device)
        return {"loss": sampled_cross_entropy(x, table, labels, negatives, weights, self.item_bias)}

    def encode(self, batch: Batch) -> Tensor:
        """Return what scores items at a mask of the target behavior after the last L - 1 events, (B, D)."""
        deepest = len(self.info.behaviors)
        history = F.pad(batch.history[:, -self.max_history :], (0, 1), value=self.info.num_items + 1)
        behavior = F.pad(batch.behavior[:, -self.max_history :], (0, 1), value=deepest)
        return self.read(self.hidden(history, behavior)[:, -1], torch.full_like(batch.user, deepest))

    def encode_items(self) -> Tensor:
        """Return the token table, (N + 2, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products, plus item biases under the linear head, (B, C)."""
        return dot_scores(encoded, items, candidates, self.item_bias)
