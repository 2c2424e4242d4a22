"""All that a model may know: the batch, the views it trains on, its stages, and `Recommender`.

A new model is one file in `models/` or `baselines/` (or any file given by path) with a `Card`, a frozen
dataclass of options and a subclass of `Recommender`. It sees its own options, the item content and its
batches; no file, device, seed, or option of the run.

Shape letters used everywhere: B users in the batch, L history length, C candidates, N items, D hidden size, M
modalities, A behaviors, H heads, K cut-off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.cards import Card
from bench.data.schema import ItemContent
from bench.diagnostic import Diagnostic

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


@dataclass(frozen=True)
class Causal:
    """Every position predicts the next event of the training part, in windows of `max_history`."""

    max_history: int = 50


@dataclass(frozen=True)
class Cloze:
    """Masked positions are predicted from both sides (BERT4Rec); masks are redrawn each epoch."""

    max_history: int = 50
    mask_ratio: float = 0.2
    """Share of positions masked, at least one, fraction."""
    max_masked: int = 20
    """Upper bound of masked positions in one sequence."""
    last_share: float = 0.1
    """Share of instances (fraction of the epoch) that mask only the last event, cut at a target-behavior
    event."""
    copies: int = 1
    """Masked copies of each sequence in one epoch."""


@dataclass(frozen=True)
class Next:
    """One history, one target: prefixes of the training part."""

    max_history: int = 50
    targets: Literal["target", "all", "last"] = "target"
    """Events to predict: those of the target behavior, all events, or the user's last target-behavior event
    only."""
    max_targets_per_user: int | None = 10
    """Targets drawn per user and epoch; None takes all."""


@dataclass(frozen=True)
class Pairs:
    """User-item pairs with their behavior, and untouched negatives (graph and factor models)."""

    behaviors: tuple[int, ...] | None = None
    """Behavior ids taken as positives; None takes all."""
    negatives: int = 1
    """Negatives per pair, uniform over items the user did not touch in training."""
    max_history: int = 0
    """Events of history before the pair; 0 gives none."""
    distinct: bool = False
    """True: one sample per distinct (user, item), with its deepest behavior, instead of one per behavior."""


@dataclass(frozen=True)
class Impressions:
    """History, item, label: each target-behavior event with sampled negatives (CTR models)."""

    max_history: int = 50
    negatives: int = 4
    """Negatives per positive."""
    max_targets_per_user: int | None = 10
    """Positives drawn per user and epoch; None takes all."""


View = Causal | Cloze | Next | Pairs | Impressions


@dataclass(frozen=True)
class Stage:
    """One phase of training: what is fed, and how the weights move."""

    view: View
    learning_rate: float
    batch_size: int
    """Samples (users, windows or targets) per optimizer step."""
    name: str = "train"
    optimizer: Literal["adam", "adamw", "adagrad"] = "adam"
    weight_decay: float = 0.0
    """Applied to matrices and tables only, never to biases and norms."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.0
    """Decay of an exponential average of the weights over steps, in [0, 1), which is validated and kept; 0:
    the weights themselves. Costs one more copy of them; not for a stage with an end of its own."""
    epochs: int = 200
    """Most epochs of this stage."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before the stage ends; see `patience_steps`."""
    patience_steps: int = 300
    """Optimizer steps that these epochs hold at least, in at most five times as many epochs: on few users an
    epoch is a handful of steps, and ten of them end a training that has hardly begun."""
    patience_targets: int | None = None
    """Targets seen without a better one before the stage ends, at the end of an epoch; None counts epochs.
    Epochs of two models may differ a hundredfold in targets: this makes early stopping mean the same."""
    micro_batch: int | None = None
    """Samples per backward pass; gradients are accumulated up to `batch_size`. Bounds memory."""
    clip_norm: float | None = 5.0
    """Largest gradient norm; None does not clip."""
    frozen: tuple[str, ...] = ()
    """Parameter-name prefixes that do not move in this stage."""
    rates: tuple[tuple[str, float], ...] = ()
    """Parameter-name prefix and the learning rate of these parameters, where it is not that of the others."""
    own_end: bool = False
    """The model says after each epoch whether the stage is over (`Recommender.stage_is_over`), at the latest
    after `epochs`; validation neither ends it nor chooses its weights: the last ones are kept."""
    new_optimizer: bool = False
    """The optimizer begins anew in every epoch, without what it has averaged so far."""

    def __post_init__(self) -> None:
        if self.own_end and self.weight_average:
            raise ValueError(f"stage {self.name}: own_end keeps the last weights, weight_average must be 0")


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
