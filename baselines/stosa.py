"""Fan, Liu, Wang, Wang, Nazari, Zheng, Peng, Yu: Sequential Recommendation via Stochastic Self-Attention.
The Web Conference 2022, arXiv:2201.06035, doi:10.1145/3485447.3512077.

Every item is a Gaussian with a diagonal covariance. A causal transformer weighs earlier events by the
negative squared 2-Wasserstein distance instead of a dot product, and gives a Gaussian at every position;
items are ranked by their distance to it. It reads item ids alone: no behavior type, no modality, no user.

Letters: B users, L history, D hidden size, H heads, d = D / H, C candidates, n labelled positions.

For diagonal covariances the squared distance of N(a, s) and N(b, t) is |a - b|^2 + |sqrt s - sqrt t|^2, that
is the squared Euclidean distance of the points (a, sqrt s) and (b, sqrt t) in 2 D dimensions. Everything
here works on such points: |p - q|^2 = |p|^2 - 2 p q + |q|^2. In the softmax over keys |p|^2 of the query
cancels.

Readings taken
- The released encoder assigns the mean of a block to a misspelt variable, so that the mean of its output is
  the embedding of the last item itself. `mean_stream="updated"` is the model of the paper, `"passthrough"`
  the released one.
- Attention is divided by sqrt d, as in the code; the paper prints no divisor.
- The layer norm after the embedding and the one after attention are shared by both streams, as in the code.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cards import Card
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.dropout import Dropout
from bench.nn.gaussian import LEAST_VARIANCE, point, variance
from bench.nn.lengths import by_length
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import rows_of
from bench.nn.transformer import attention_mask

CARD = Card(
    name="stosa",
    label="STOSA",
    model="STOSA",
    family="sequential",
    paper="Fan et al.: Sequential Recommendation via Stochastic Self-Attention. The Web Conference 2022, "
    "doi:10.1145/3485447.3512077",
    year=2022,
    inputs="item ids of all behaviors in time order, behavior type dropped; no modality; causal view",
    deviations=(
        "means are updated by the blocks as the paper says; the released code drops them (mean_stream)",
        "windows cover the whole training part of a user; the authors train on the last window only",
        "negatives avoid the items of the training part alone; the authors avoid the held-out items too",
        "stops after 20 epochs without a better validation NDCG@10; the authors wait 100 epochs, by MRR",
        "no user margins: the released loss never reads them",
    ),
    notes="Trains on 52,500 targets per second and core where SASRec does on 92,800.",
    search={
        "learning_rate": (0.0001, 0.001),
        "hidden_size": (64, 128),
        "num_layers": (1, 2, 3),
        "num_heads": (1, 2, 4),
        "dropout": (0.1, 0.3, 0.5),
        "loss_weight_pvn": (0.0, 0.001, 0.005, 0.01, 0.05, 0.1),
    },
)


@dataclass(frozen=True)
class STOSAConfig:
    """Options of STOSA."""

    hidden_size: int = 64
    """D, of means and of variances each."""
    num_layers: int = 1
    """Blocks."""
    num_heads: int = 4
    """H; divides D."""
    dropout: float = 0.3
    """On embeddings, outputs of attention and networks, fraction."""
    dropout_attention: float = 0.0
    """On attention weights, fraction."""
    mean_stream: Literal["updated", "passthrough"] = "updated"
    """Blocks update the means, or leave those of the embedding as in the released code."""
    loss_weight_pvn: float = 0.005
    """Weight of the hinge that keeps a positive closer to the state than to its negative (lambda)."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior; 0 trains on target events alone."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 0.0
    """Weight decay of matrices and tables."""
    batch_size: int = 128
    """Histories per step."""
    epochs: int = 500
    """Most epochs."""
    patience: int = 20
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")


def wasserstein(p: Tensor, q: Tensor) -> Tensor:
    """Return (...,) squared 2-Wasserstein distances of Gaussians given as points (..., 2 D)."""
    return (p - q).square().sum(-1)


class Network(nn.Module):
    """Two layers of inner width 4 D with residual and norm."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norm, self.dropout = nn.LayerNorm(size, eps=1e-12), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., D) from x (..., D)."""
        return self.norm(x + self.dropout(self.outer(F.elu(self.inner(x)))))


class Block(nn.Module):
    """Wasserstein self-attention, then a network for each stream."""

    def __init__(self, config: STOSAConfig) -> None:
        super().__init__()
        size, self.heads = config.hidden_size, config.num_heads
        self.updates_means = config.mean_stream == "updated"
        names = ("query", "key", "value", "output")
        self.mean = nn.ModuleDict({name: nn.Linear(size, size) for name in names})
        self.covariance = nn.ModuleDict({name: nn.Linear(size, size) for name in names})
        self.norm, self.dropout = nn.LayerNorm(size, eps=1e-12), Dropout(config.dropout)
        self.dropout_attention = Dropout(config.dropout_attention)
        self.mean_network = Network(size, config.dropout)
        self.covariance_network = Network(size, config.dropout)

    def forward(self, mean: Tensor, variances: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances (B, L, D), (B, L, D) from those of the input.

        Args:
            mean: (B, L, D).
            variances: (B, L, D), above zero.
            allowed: (B, 1, L, L) bool, the keys that each query may see.
        """
        weights = self.dropout_attention(self.weights(mean, variances, allowed))
        value = self.split(variance(self.covariance["value"](variances)))
        mixed = self.join(weights.square() @ value)  # variance of a weighted sum of independent variables
        mixed = self.norm(variances + self.dropout(self.covariance["output"](mixed)))
        spread = variance(self.covariance_network(mixed))
        if not self.updates_means:
            return mean, spread
        mixed = self.join(weights @ self.split(self.mean["value"](mean)))
        mixed = self.norm(mean + self.dropout(self.mean["output"](mixed)))
        return self.mean_network(mixed), spread

    def weights(self, mean: Tensor, variances: Tensor, allowed: Tensor) -> Tensor:
        """Return attention weights (B, H, L, L), queries by keys: softmax of -distance / sqrt d."""
        query, key = (
            point(self.split(self.mean[name](mean)), self.split(variance(self.covariance[name](variances))))
            for name in ("query", "key")
        )  # (B, H, L, 2 d)
        near = 2 * query @ key.transpose(2, 3) - key.square().sum(-1)[:, :, None]  # |query|^2 - distance
        scale = (mean.shape[2] // self.heads) ** -0.5
        return (near * scale).masked_fill(~allowed, -torch.inf).softmax(-1)

    def split(self, x: Tensor) -> Tensor:
        """Return (B, H, L, d) from (B, L, D)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """Return (B, L, D) from (B, H, L, d)."""
        return x.transpose(1, 2).flatten(2)


class STOSA(Recommender):
    """Stochastic self-attention."""

    Config = STOSAConfig
    config: STOSAConfig

    def __init__(self, config: STOSAConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size = config.hidden_size
        self.max_history = config.max_history
        self.means, self.covariances = (nn.Embedding(info.num_items + 1, size, padding_idx=0) for _ in "ms")
        self.mean_positions, self.covariance_positions = (
            nn.Embedding(config.max_history, size) for _ in "ms"
        )
        self.norm, self.dropout = nn.LayerNorm(size, eps=1e-12), Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.untouched: UntouchedItems | None = None
        self.initialize()

    def initialize(self) -> None:
        """Set kernels and tables to N(0.01, 0.02), biases and padding rows to zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, mean=0.01, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for table in (self.means, self.covariances):
            nn.init.zeros_(table.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        return (
            Stage(
                Causal(c.max_history),
                c.learning_rate,
                c.batch_size,
                weight_decay=c.weight_decay,
                epochs=c.epochs,
                patience=c.patience,
                clip_norm=None,
            ),
        )

    def set_up(self, events: TrainingEvents) -> None:
        """Note what each user has touched in training, for the negatives."""
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        sampler = UntouchedItems(user, item, self.info.num_users, self.info.num_items)
        self.untouched = sampler.to(self.means.weight.device)

    def states(self, history: Tensor) -> Tensor:
        """Return (B, L, 2 D), the Gaussian at each position as a point, from history (B, L) int64."""
        history = history[:, -self.config.max_history :]
        allowed = attention_mask(history > 0, causal=True)
        positions = torch.arange(self.config.max_history - history.shape[1], self.config.max_history)
        positions = positions.to(history.device)  # (L,), the newest event has the last one
        mean = self.embed(self.means(history) + self.mean_positions(positions))
        variances = self.embed(self.covariances(history) + self.covariance_positions(positions))
        variances = (variances + 1).clamp(min=LEAST_VARIANCE)
        for block in self.blocks:
            mean, variances = block(mean, variances, allowed)
        return point(mean, variances)

    def embed(self, x: Tensor) -> Tensor:
        """Return what enters the blocks, but for the 1 that is added to variances, (B, L, D)."""
        return F.elu(self.dropout(self.norm(x)))

    def item_points(self, items: Tensor | None = None) -> Tensor:
        """Return the Gaussians of items (...,), or of all of them (N + 1,), as points (..., 2 D)."""
        mean, spread = self.means.weight, self.covariances.weight
        if items is not None:
            mean, spread = self.means(items), self.covariances(items)
        return point(mean, variance(spread))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_bpr + lambda L_pvn over all labelled positions, and the two terms."""
        assert batch.labels is not None and batch.label_behavior is not None and self.untouched is not None
        row, column = torch.nonzero(batch.labels, as_tuple=True)  # n labelled positions
        positive = batch.labels[row, column]
        negative = self.untouched.draw(batch.user[row], (1,))[:, 0]
        state = by_length(self.states, batch.mask.sum(1), batch.history)[row, column]  # (n, 2 D)
        bpr, hinge = ranking_terms(state, self.item_points(positive), self.item_points(negative))
        target = batch.label_behavior[row, column] == len(self.info.behaviors)
        weights = torch.where(target, self.config.loss_weight_target, self.config.loss_weight_auxiliary)
        share = weights / weights.sum().clamp(min=1e-12)
        bpr, hinge = (share * bpr).sum(), (share * hinge).sum()
        return {"loss": bpr + self.config.loss_weight_pvn * hinge, "bpr": bpr, "pvn": hinge}

    def encode(self, batch: Batch) -> Tensor:
        """Return the Gaussian after the newest event as a point, (B, 2 D)."""
        return self.states(batch.history)[:, -1]

    def encode_items(self) -> tuple[Tensor, Tensor]:
        """Return the points of all items (N + 1, 2 D) and their squared lengths (N + 1,)."""
        points = self.item_points()
        return points, points.square().sum(1)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: tuple[Tensor, Tensor]) -> Tensor:
        """Return the negative squared distances, (B, C)."""
        points, lengths = items
        own = encoded.square().sum(1, keepdim=True)
        if candidates.dim() == 1:
            return 2 * encoded @ rows_of(points, candidates).T - rows_of(lengths, candidates) - own
        products = torch.einsum("bd,bcd->bc", encoded, points[candidates])
        return 2 * products - lengths[candidates] - own


def ranking_terms(state: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return L_bpr and L_pvn of each position, (n,) and (n,), from points (n, 2 D)."""
    near, far = wasserstein(state, positive), wasserstein(state, negative)
    return -F.logsigmoid(far - near), F.relu(near - wasserstein(positive, negative))
