"""What a model is trained on: the views of a data set, and the stages that feed them. Models import both from
`bench.interface`.
"""

from dataclasses import dataclass
from typing import Literal


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
