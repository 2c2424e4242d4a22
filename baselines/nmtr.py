"""Gao, He, Gan, Chen, Feng, Li, Chua, Jin: Neural Multi-Task Recommendation from Multi-Behavior Data.
ICDE 2019, doi:10.1109/ICDE.2019.00140; long version: Learning to Recommend with Multiple Cascading Behaviors,
IEEE TKDE, arXiv:1809.08161.

Users and items have one vector each; every behavior has a small network of its own over them. The score of a
behavior receives the score of the shallower one before it (the cascade), all behaviors are trained together,
and the score of the target behavior ranks the items. It reads no history, no time and no content.

Readings taken
- A pair is labelled by the type of its behaviors: a favor says that the click before it happened too. The
  authors' code counts behaviors instead (one recorded behavior is always the shallowest one), which labels a
  pair with a favor alone as a mere click; `label_mode="count"` is that reading.
- `cascade="mean"` is the authors' code, s_r = (f_r + s_(r-1)) / 2 + bias; `"sum"` is the sum of the paper
  with a bias per behavior.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import Batch, Card, DatasetInfo, Pairs, Recommender, Stage, TrainingEvents

CARD = Card(
    name="nmtr",
    label="NMTR",
    model="NMTR",
    family="multibehavior",
    paper="Gao, He, Gan, Chen, Feng, Li, Chua, Jin: Neural Multi-Task Recommendation from Multi-Behavior "
    "Data. ICDE 2019, doi:10.1109/ICDE.2019.00140",
    year=2019,
    inputs="user id, item id, typed behaviors; no history, no modality; pairs view",
    deviations=(
        "labels by the type of the behavior; the authors' count of behaviors is label_mode='count'",
        "Adam with learning rate 2e-3 instead of Adagrad with 0.01 (optimizer='adagrad')",
        "the last, smaller batch of an epoch is used; the authors drop it",
        "the L2 term is over the rows of the batch, not over whole tables: the cost of a step must not grow "
        "with the catalog",
        "a user without a training event is ranked by the item bias alone",
        "waits 10 epochs or 2,000 steps without a better validation NDCG@10, whichever is more, but "
        "at most 50 epochs: it learns popularity first and taste long after (generated data with useful "
        "clicks: validation 0.150 after 2 epochs, 0.125 after 21, 0.197 after 36)",
    ),
    notes="Reads no history: all its targets are distinct pairs, so that an epoch is a pass over them. "
    "Trains on 55,400 targets per second and core where SASRec does on 92,800.",
    search={
        "learning_rate": (0.0003, 0.001, 0.002),
        "embedding_size": (16, 32, 64, 128),
        "loss_weight_target": (0.3, 0.5, 0.7, 0.9),
        "loss_weight_embedding": (0.0, 1e-06, 1e-05),
    },
)


@dataclass(frozen=True)
class NMTRConfig:
    """Options of NMTR."""

    embedding_size: int = 64
    """E, width of user and item vectors."""
    variant: Literal["gmf", "mlp", "neumf"] = "neumf"
    """What a behavior's network reads: the product, both vectors, or both vectors and their product."""
    num_layers: int = 1
    """Layers of a behavior's tower (`mlp`, `neumf`); each halves the width."""
    cascade: Literal["mean", "sum"] = "mean"
    """How a behavior's score takes in the shallower one's: half each (authors' code), or the sum (paper)."""
    label_mode: Literal["type", "count"] = "type"
    """What a pair's labels follow: its deepest behavior, or how many behaviors it has (authors' code)."""
    num_negatives: int = 4
    """Untouched items per distinct pair."""
    loss_weight_target: float = 0.5
    """Weight of the target behavior's cross-entropy, 0 to 1; the other behaviors share the rest evenly."""
    loss_weight_embedding: float = 0.0
    """Weight of the squared norm of the batch's vectors and of the networks."""
    optimizer: Literal["adam", "adagrad"] = "adam"
    """The authors take `adagrad` with learning rate 0.01."""
    learning_rate: float = 2e-3
    """Learning rate of the optimizer; with 3e-4 the flat start outlasts the patience on ml-100k."""
    batch_size: int = 1024
    """Pairs per step."""
    epochs: int = 300
    """Most epochs."""
    patience: int = 10
    """Least epochs without a better validation NDCG@10 before training ends."""
    patience_steps: int = 2000
    """Least steps likewise, in at most five times those epochs; see the card."""

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise ValueError(f"num_layers={self.num_layers}: expected 1 or more")
        if not 0 <= self.loss_weight_target <= 1:
            raise ValueError(f"loss_weight_target={self.loss_weight_target}: expected 0 to 1")


class BehaviorNetwork(nn.Module):
    """f_r: from a user's and an item's vector to the evidence for one behavior."""

    def __init__(self, config: NMTRConfig) -> None:
        super().__init__()
        size, self.variant = config.embedding_size, config.variant
        parts = {"gmf": 1, "mlp": 2, "neumf": 3}[config.variant]
        layers = 1 if config.variant == "gmf" else config.num_layers
        shrink = 1 if config.variant == "gmf" else 2
        widths = [max(parts * size // shrink**layer, 1) for layer in range(layers + 1)]
        bias = config.variant != "gmf"
        self.tower = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1, bias=False)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return (..., C) from user (..., 1, E) and item (..., C, E)."""
        user = user.expand_as(item)
        product = user * item  # (..., C, E)
        x = {"gmf": [product], "mlp": [user, item], "neumf": [user, item, product]}[self.variant]
        hidden = torch.cat(x, -1)
        for layer in self.tower:
            hidden = F.relu(layer(hidden))
        return self.output(hidden).squeeze(-1)


class NMTR(Recommender):
    """Neural multi-task recommendation with cascaded behaviors."""

    Config = NMTRConfig
    max_history = 1
    config: NMTRConfig
    known: Tensor

    def __init__(self, config: NMTRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        count = len(info.behaviors)
        self.users = nn.Embedding(info.num_users, config.embedding_size)
        self.items = nn.Embedding(info.num_items + 1, config.embedding_size, padding_idx=0)
        biases = count if config.cascade == "sum" else 1
        self.bias = nn.Parameter(torch.zeros(biases, info.num_items + 1))  # (R or 1, N + 1)
        self.networks = nn.ModuleList(BehaviorNetwork(config) for _ in info.behaviors)
        self.register_buffer("known", torch.zeros(info.num_users, dtype=torch.bool))
        self.pairs = self.behaviors_of_pair = torch.zeros(0, dtype=torch.int64)
        shallow = (1 - config.loss_weight_target) / max(count - 1, 1)
        self.weights = [shallow] * (count - 1) + [config.loss_weight_target if count > 1 else 1.0]
        self.initialize()

    def initialize(self) -> None:
        """Set tables to a normal(0, 0.01) cut at two deviations, kernels to uniform(+-sqrt(3 / fan in))."""
        for table in (self.users, self.items):
            nn.init.trunc_normal_(table.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.items.weight[0].detach())
        for module in self.networks.modules():
            if isinstance(module, nn.Linear):
                bound = (3 / module.in_features) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def set_up(self, events: TrainingEvents) -> None:
        """Note which behaviors each distinct pair has, as bits, and which users have a training event."""
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        bits = 2 ** (torch.from_numpy(events.behavior).long() - 1)  # bit r - 1: behavior r
        triples = torch.unique(torch.stack([user * (self.info.num_items + 1) + item, bits]), dim=1)
        device = self.known.device
        pairs, owner = torch.unique(triples[0], return_inverse=True)
        flags = torch.zeros(len(pairs), dtype=torch.int64).scatter_add_(0, owner, triples[1])
        self.pairs, self.behaviors_of_pair = pairs.to(device), flags.to(device)
        self.known[user.to(device)] = True

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: distinct pairs of all behaviors, each with its negatives."""
        c = self.config
        view = Pairs(negatives=c.num_negatives, distinct=True)
        return (
            Stage(
                view,
                c.learning_rate,
                c.batch_size,
                optimizer=c.optimizer,
                epochs=c.epochs,
                patience=c.patience,
                patience_steps=c.patience_steps,
                clip_norm=None,
            ),
        )

    def labels(self, user: Tensor, item: Tensor) -> Tensor:
        """Return (R, B) 0/1 labels of training pairs: which behaviors count as done."""
        key = user * (self.info.num_items + 1) + item
        flags = self.behaviors_of_pair[torch.searchsorted(self.pairs, key)]  # (B,)
        present = torch.stack([flags >> r & 1 for r in range(len(self.networks))])  # (R, B)
        if self.config.label_mode == "count":
            number = torch.arange(1, len(self.networks) + 1, device=user.device)
            return (present.sum(0) >= number[:, None]).float()
        return present.flip(0).cummax(0).values.flip(0).float()  # done or something deeper done

    def logits(self, user: Tensor, candidates: Tensor) -> list[Tensor]:
        """Return s_1 .. s_R, each (B, C), of users (B, E) and candidates (B, C) or (C,)."""
        items = self.items(candidates)  # (B, C, E) or (C, E)
        items = items if candidates.dim() == 2 else items.expand(len(user), -1, -1)
        scores: list[Tensor] = []
        for r, network in enumerate(self.networks):
            score = network(user[:, None], items)
            if scores:
                score = score + scores[-1] if self.config.cascade == "sum" else (score + scores[-1]) / 2
            scores.append(score + self.bias[r if len(self.bias) > 1 else 0][candidates])
        return scores

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return sum over behaviors of lambda_r BCE_r over positives and negatives, and the L2 term."""
        assert batch.target is not None and batch.negatives is not None
        user = self.users(batch.user)  # (B, E)
        candidates = torch.cat([batch.target[:, None], batch.negatives], 1)  # (B, 1 + k)
        labels = F.pad(self.labels(batch.user, batch.target)[..., None], (0, batch.negatives.shape[1]))
        terms = [
            F.binary_cross_entropy_with_logits(score, label)
            for score, label in zip(self.logits(user, candidates), labels, strict=True)
        ]
        loss = torch.stack([weight * term for weight, term in zip(self.weights, terms, strict=True)]).sum()
        if self.config.loss_weight_embedding:
            rows = user.square().sum(1).mean() + self.items(candidates).square().sum(2).mean()
            kernels = [p.square().sum() for p in self.networks.parameters() if p.dim() == 2]
            loss = loss + self.config.loss_weight_embedding * (rows + torch.stack(kernels).sum())
        named = {f"bce_{name}": term for name, term in zip(self.info.behaviors, terms, strict=True)}
        return {"loss": loss, **named}

    def encode(self, batch: Batch) -> Tensor:
        """Return (B,) user ids: nothing else of a batch is read."""
        return batch.user

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: None) -> Tensor:
        """Return s_R, (B, C); for users without a training event the item bias."""
        score = self.logits(self.users(encoded), candidates)[-1]
        return torch.where(self.known[encoded][:, None], score, self.bias[-1][candidates])
