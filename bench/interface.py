"""All that a model may know: the batch, the views it trains on, its stages, and `Recommender`.

A new model is one file in `models/` or `baselines/` (or any file given by path) with a `Card`, a frozen
dataclass of options and a subclass of `Recommender`. It sees its own options, the item content and its
batches; no file, device, seed, or option of the run.

Shape letters used everywhere: B users in the batch, L history length, C candidates, N items, D hidden size, M
modalities, A behaviors, H heads, K cut-off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.cards import Card
from bench.data.schema import ItemContent
from bench.diagnostic import Diagnostic
from bench.stages import Causal, Cloze, Impressions, Next, Pairs, Stage, View

__all__ = [
    "Batch", "Card", "Causal", "Cloze", "DatasetInfo", "Diagnostic", "Impressions", "ItemContent", "Next",
    "Pairs", "Recommender", "Stage", "TrainingEvents", "View",
]  # fmt: skip


@dataclass(frozen=True)
class DatasetInfo:
    """What a model may know of the data set when it is built."""

    num_users: int
    """U; user ids in batches are 0..U-1."""
    num_items: int
    """N; item ids are 1..N, 0 is padding, N + 1 is the mask token of the `cloze` view."""
    behaviors: tuple[str, ...]
    """Shallow -> deep; behavior ids are 1..A, A = len(behaviors) is the target behavior."""
    content: ItemContent
    """Modalities and attributes of the items."""


@dataclass(frozen=True)
class TrainingEvents:
    """The training part of the log, flat, for graphs and statistics; no validation or test event."""

    user: NDArray[np.int64]
    """(E,) 0..U-1, ascending; inside a user in time order."""
    item: NDArray[np.int32]
    """(E,) 1..N."""
    behavior: NDArray[np.int8]
    """(E,) 1..A."""
    timestamp: NDArray[np.int64]
    """(E,)."""
    num_items: int
    """N."""

    def item_counts(self, behavior: int | None = None) -> NDArray[np.int64]:
        """Return (N + 1,) the number of events of each item, of one behavior or of all; entry 0 is 0."""
        chosen = self.item if behavior is None else self.item[self.behavior == behavior]
        return np.bincount(chosen, minlength=self.num_items + 1)


@dataclass
class Batch:
    """Tensors of one step. Padding is on the left: the newest event stands at position L-1.

    Which optional fields are set depends on the view; an evaluation batch has `user`, `history`, `behavior`
    and `timestamp` only.
    """

    user: Tensor
    """(B,) int64, 0..U-1."""
    history: Tensor
    """(B, L) int64 item ids, 0 where padded; `cloze`: N + 1 at masked positions."""
    behavior: Tensor
    """(B, L) int64 behavior ids 1..A, 0 where padded."""
    timestamp: Tensor
    """(B, L) int64, 0 where padded."""
    target: Tensor | None = None
    """`next`, `pairs`, `impressions`: (B,) int64, the item to predict or judge."""
    target_behavior: Tensor | None = None
    """`next`, `pairs`: (B,) int64 behavior of the target event."""
    labels: Tensor | None = None
    """`causal`, `cloze`: (B, L) int64, the item to predict at each position, 0 where there is none."""
    label_behavior: Tensor | None = None
    """`causal`, `cloze`: (B, L) int64 behavior of the labelled event, 0 where there is none."""
    label: Tensor | None = None
    """`impressions`: (B,) float32, 1 for a real event, 0 for a negative."""
    negatives: Tensor | None = None
    """`pairs`: (B, k) int64 items that the user did not touch in training."""

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, True where there is a real event."""
        return self.history > 0

    def __len__(self) -> int:
        return len(self.user)

    def stream(self, *behaviors: int) -> tuple[Tensor, Tensor]:
        """Return the events of some behaviors alone, left-padded to the longest in the batch.

        Returns:
            items (B, Lb) int64, 0 where padded, and positions (B, Lb) int64 of the events in
            `history`, 0 where padded. Lb is 0 when nobody has such an event.
        """
        wanted = torch.isin(self.behavior, torch.tensor(behaviors, device=self.behavior.device)) & self.mask
        order = torch.argsort(wanted.to(torch.int8), dim=1, stable=True)  # kept ones right, in time order
        length = int(wanted.sum(1).max()) if len(self) else 0
        order = order[:, order.shape[1] - length :]  # (B, Lb)
        real = wanted.gather(1, order)
        return self.history.gather(1, order) * real, order * real

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def rows(self, chosen: slice | Tensor) -> "Batch":
        """Return some rows of the batch, histories trimmed to the longest among them."""
        part = self._map(lambda value: value[chosen])
        longest = max(int(part.mask.any(0).sum()), 1) if part.history.shape[1] else 0
        cut = part.history.shape[1] - longest
        names = ("history", "behavior", "timestamp", "labels", "label_behavior")
        return replace(part, **{n: getattr(part, n)[:, cut:] for n in names if getattr(part, n) is not None})

    def _map(self, change: Any) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})


class Recommender(nn.Module):
    """The model interface.

    A subclass defines `Config` (a frozen dataclass with a doc line under each field), `loss`, `stages`, and
    either `score` or the pair `encode` + `score_encoded`. The pair lets the evaluator encode a user once and
    rank whole catalogs; a model that must see the candidate while encoding (DIN) defines `score`.
    """

    Config: ClassVar[type]
    max_history: int = 50
    """Events of history that an evaluation batch shows; an instance may set its own."""
    stage_name: str = ""
    """Name of the stage in training, set by the harness before `start_stage`; after training the last one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.score is Recommender.score and cls.score_encoded is Recommender.score_encoded:
            raise TypeError(f"{cls.__name__} must define score, or encode and score_encoded")

    def __init__(self, config: Any, info: DatasetInfo) -> None:
        super().__init__()
        self.config = config
        self.info = info

    def stages(self) -> tuple[Stage, ...]:
        """Return the training stages in order; an empty tuple for a model that is not trained."""
        return ()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return named scalar terms; the one called `loss` is minimised, the others are shown."""
        raise TypeError(f"{type(self).__name__} has stages but no loss")

    def targets_in(self, batch: Batch) -> int:
        """Return how many targets `loss` has just read of a batch, also where it draws them."""
        return len(batch) if batch.labels is None else int((batch.labels > 0).sum())

    def set_up(self, events: TrainingEvents) -> None:
        """Build what the training part alone fixes: graphs, counts. Called once, before the first stage, also
        for a model without stages.
        """

    def start_stage(self, stage: str, events: TrainingEvents) -> None:
        """Prepare a stage: pseudo-labels, cluster centres. Called once before each, in their order, with the
        best weights of the stage before.

        A resumed training calls it again for the stages already begun, before the stored weights are loaded:
        what a stage derives from learned weights belongs in a buffer.
        """

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Prepare an epoch: `epoch` counts from 0 in each stage, whose name is `stage_name`."""

    def stage_is_over(self) -> bool:
        """Return whether a stage with `own_end` ends with the epoch just trained; asked after each epoch."""
        return False

    def encode(self, batch: Batch) -> Any:
        """Return the users in any form that `score_encoded` reads; default: the batch itself."""
        return batch

    def encode_items(self) -> Any:
        """Return what scoring needs of all items (a (N + 1, D) table, say), computed once per evaluation."""
        return None

    def score_encoded(self, encoded: Any, candidates: Tensor, items: Any) -> Tensor:
        """Score candidates for encoded users.

        Args:
            encoded: what `encode` returned for B users.
            candidates: (B, C) int64, or (C,) int64 shared by all B users.
            items: what `encode_items` returned.

        Returns:
            (B, C) float scores, higher is better.
        """
        if candidates.dim() == 1:
            candidates = candidates.expand(len(encoded), -1)
        return self.score(encoded, candidates)

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        """Return (B, C) scores of the candidates (B, C) int64, from the histories alone."""
        return self.score_encoded(self.encode(batch), candidates, self.encode_items())

    def exchange_content(self, owner: Mapping[str, Tensor]) -> None:
        """Let each item show the image or text of another one, or none: the test of whether a trained model
        looks at them.

        The default asks every module that has a method of this name (`bench.nn.content`). A model that holds
        content in other places, or what it derived from it, must exchange that too.

        Args:
            owner: modality -> (N + 1,) int64, the item whose vector each item shows from now on; 0 is none.
        """
        for module in self.modules():
            if module is not self and (exchange := getattr(module, "exchange_content", None)):
                exchange(owner)

    def extra_terms(self) -> Mapping[str, float]:
        """Return figures worth storing after training (gate weights, norms); default: none."""
        return {}

    def item_views(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Return what items look like at stages of the model, by name: (items (n,) int64, vectors (n, D)),
        one entry per event of the batch; default: nothing. `bench figure embeddings` draws them.
        """
        return {}

    def diagnostics(self, batch: Batch) -> Mapping[str, Diagnostic]:
        """Return what the model shows of its inside on the users of a batch, by name; default: nothing.

        Called after training and testing, in eval mode, without gradients, on evaluation batches of the
        validation part, with a seed set before each; the same names and labels for every batch.
        """
        return {}
