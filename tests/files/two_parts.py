"""A model of two parts that can be taken out: the last item's successor, and how common an item is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.interface import Batch, Card, Causal, DatasetInfo, Diagnostic, Recommender, Stage

CARD = Card(
    name="two-parts",
    label="TwoParts",
    model="TwoParts",
    family="sequential",
    paper="none: for the tests of ablations",
    year=2025,
    inputs="item ids of all behaviors; view `causal`",
    variants={
        "no_move": ("w/o Move", {"move.enabled": False}),
        "no_bias": ("w/o Bias", {"bias": False}),
    },
)


@dataclass(frozen=True)
class Move:
    """The part that reads the history."""

    enabled: bool = True
    """Without it every user gets the same scores."""
    hidden_size: int = 16
    """D."""


@dataclass(frozen=True)
class Options:
    """Options of TwoParts."""

    move: Move = field(default_factory=Move)
    """From the last item to the next."""
    bias: bool = True
    """A score of each item, the same for all users."""
    learning_rate: float = 0.03
    """Of Adam."""


class TwoParts(Recommender):
    """First-order transitions plus a bias of each item."""

    Config = Options
    config: Options

    def __init__(self, config: Options, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.bias = nn.Parameter(torch.zeros(info.num_items + 1), requires_grad=config.bias)
        self.last = nn.Embedding(info.num_items + 1, config.move.hidden_size)
        self.next = nn.Embedding(info.num_items + 1, config.move.hidden_size)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(Causal(), self.config.learning_rate, batch_size=64, epochs=20),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        real = batch.labels > 0  # (B, L)
        fit = F.cross_entropy(self._scores(batch.history[real]), batch.labels[real])
        size = self.bias.square().mean()
        return {"loss": fit + 0.01 * size, "fit": fit, "size": size}

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        return self._scores(batch.history[:, -1]).gather(1, candidates)  # (B, C)

    def diagnostics(self, batch: Batch) -> Mapping[str, Diagnostic]:
        seen = batch.mask.sum(1).double()  # (B,)
        counts = torch.stack([(batch.behavior == b).sum(1).double() for b in (1, 2)])  # (behaviors, B)
        rare = (counts / seen).mean(1)
        table = torch.stack([rare, 1 - rare], 1)  # (behaviors, 2)
        lengths = torch.tensor([[float("nan")], [float(seen.mean())]])
        return {
            "gates": Diagnostic("share of events", table, ("click", "favor"), ("this", "other"), "fraction"),
            "length": Diagnostic("history", lengths, ("nothing", "all"), ("mean",), "events", form="bars"),
        }

    def _scores(self, last: Tensor) -> Tensor:
        """Return (E, N + 1) scores of all items after the given ones (E,)."""
        moved = self.last(last) @ self.next.weight.T
        return (moved if self.config.move.enabled else 0 * moved) + self.config.bias * self.bias
