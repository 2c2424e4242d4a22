"""FPMC: a user's taste plus what follows what. The example of the page "A model of your own".

Rendle, Freudenthaler, Schmidt-Thieme: Factorizing Personalized Markov Chains for Next-Basket Recommendation.
WWW 2010, doi:10.1145/1772690.1772773. It predicts the next item from the user and the item before.

Letters: B users, L history, C candidates, N items, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.interface import Batch, Card, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores

CARD = Card(
    name="fpmc",
    label="FPMC",
    model="FPMC",
    family="sequential",
    paper="Rendle, Freudenthaler, Schmidt-Thieme: Factorizing Personalized Markov Chains for Next-Basket "
    "Recommendation. WWW 2010, doi:10.1145/1772690.1772773",
    year=2010,
    inputs="user ids, item ids of all behaviors in time order; causal view",
    deviations=(
        "A basket is one event: the log has no baskets.",
        "Adam instead of plain stochastic gradient descent: the training loop has no other.",
        "Weight decay acts on all tables alike; the paper has one constant for each.",
    ),
    search={"learning_rate": (0.001, 0.003, 0.01), "hidden_size": (32, 64, 128)},
    variants={"no_user": ("w/o user", {"use_user": False})},
)


@dataclass(frozen=True)
class FPMCConfig:
    """Options of FPMC."""

    hidden_size: int = 64
    """D, width of every vector (the paper's k)."""
    use_user: bool = True
    """Score the item under the user too; False leaves the Markov chain alone."""
    max_history: int = 50
    """L, events of a training window."""
    learning_rate: float = 0.003
    """Learning rate of Adam."""
    weight_decay: float = 0.0
    """L2 penalty of the tables (the paper's lambda)."""


class FPMC(Recommender):
    """Scores x(u, l, i) = <V_u, V_i> + <W_l, W_i>, l being the last item."""

    Config = FPMCConfig
    config: FPMCConfig

    def __init__(self, config: FPMCConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.max_history = config.max_history  # events that an evaluation batch shows
        width = config.hidden_size
        self.last = nn.Embedding(info.num_items + 1, width, padding_idx=0)  # W_l, zero where there is none
        self.next = nn.Embedding(info.num_items + 1, width)  # W_i
        tables = [self.last, self.next]
        if config.use_user:
            self.user = nn.Embedding(info.num_users, width)  # V_u
            self.taste = nn.Embedding(info.num_items + 1, width)  # V_i
            tables += [self.user, self.taste]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)
        with torch.no_grad():
            self.last.weight[0] = 0  # the line above has drawn the padding row too
        self.untouched: UntouchedItems | None = None

    def stages(self) -> tuple[Stage, ...]:
        """Return one stage: every position of a window predicts the event after it."""
        view, config = Causal(self.config.max_history), self.config
        return (Stage(view, config.learning_rate, batch_size=64, weight_decay=config.weight_decay),)

    def set_up(self, events: TrainingEvents) -> None:
        """Prepare the draw of negatives: items that a user has not touched in training."""
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        sampler = UntouchedItems(user, item, self.info.num_users, self.info.num_items)
        self.untouched = sampler.to(self.last.weight.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the pairwise loss of S-BPR over all labelled positions."""
        assert batch.labels is not None and self.untouched is not None
        labelled = batch.labels > 0  # (B, L)
        rows = labelled.nonzero()[:, 0]  # (n,) the row of each label
        positive = batch.labels[labelled]  # (n,)
        negative = self.untouched.draw(batch.user[rows], (1,)).squeeze(1)  # (n,)
        before = self.hidden(batch.user[rows], batch.history[labelled])  # (n, D or 2 D)
        items = self.encode_items()
        gap = (before * (items[positive] - items[negative])).sum(1)  # x(u, l, i) - x(u, l, j)
        return {"loss": -F.logsigmoid(gap).mean()}  # S-BPR

    def hidden(self, user: Tensor, last: Tensor) -> Tensor:
        """Return what stands left of the dot product: the last item, beside it the user, (n, D or 2 D)."""
        parts = [self.last(last), self.user(user)] if self.config.use_user else [self.last(last)]
        return torch.cat(parts, dim=1)

    def encode(self, batch: Batch) -> Tensor:
        """Return the users now: the newest event stands at the end of the history."""
        return self.hidden(batch.user, batch.history[:, -1])

    def encode_items(self) -> Tensor:
        """Return what stands right of the dot product, for all items, (N + 1, D or 2 D)."""
        tables = [self.next.weight, self.taste.weight] if self.config.use_user else [self.next.weight]
        return torch.cat(tables, dim=1)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return scores (B, C) of candidates (B, C), or (C,) shared by all users."""
        return dot_scores(encoded, items, candidates)
