"""The smallest example of the docs: a model in one file."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bench.interface import Batch, Card, Causal, DatasetInfo, Recommender, Stage

CARD = Card(
    name="newest-item",
    label="NewestItem",
    model="NewestItem",
    family="sequential",
    paper="none: an example of the docs",
    year=2025,
    inputs="item ids of all behaviors; view `causal`",
)


@dataclass(frozen=True)
class Options:
    """Options of NewestItem."""

    hidden_size: int = 32
    """D."""
    learning_rate: float = 0.01
    """Of Adam."""


class NewestItem(Recommender):
    """First-order transitions: a user is the embedding of the last item."""

    Config = Options
    config: Options

    def __init__(self, config: Options, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.last = nn.Embedding(info.num_items + 1, config.hidden_size, padding_idx=0)
        self.next = nn.Embedding(info.num_items + 1, config.hidden_size)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(Causal(), self.config.learning_rate, batch_size=64, epochs=20),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        real = batch.labels > 0  # (B, L)
        logits = self.last(batch.history[real]) @ self.next.weight.T  # (events, N + 1)
        return {"loss": F.cross_entropy(logits, batch.labels[real])}

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        user = self.last(batch.history[:, -1])  # (B, D)
        return (self.next(candidates) @ user[:, :, None]).squeeze(2)  # (B, C)
