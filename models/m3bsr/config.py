"""Options of M3BSR, each with the paper's symbol and equation.

Where the paper is ambiguous or wrong, an option names the readings: the default is that of the repaired
preset, and its doc line says which one the paper prints, where that is known.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Start = Literal["mean", "clean", "noised", "none"]


@dataclass(frozen=True)
class Denoising:
    """One conditional diffusion stage: CDMD-M (4.2.1) or CDMD-B (4.2.2)."""

    printed_bar: ClassVar[bool] = False
    """Whether the reverse step is printed with the bar product in its root: Eq. 12 has it, Eq. 8 does not."""
    printed_terms: ClassVar[int] = 2
    """Terms of the printed loss: two in Eq. 10, one in Eq. 13."""

    replace: Literal["none", "identity", "mlp"] = "none"
    """Ablation of the stage and its loss: `identity` passes the streams through, `mlp` puts a network of as
    many parameters there."""
    diffusion_steps: int = 10
    """T, diffusion steps; the forward process of Eq. 6 (15 in 5.1.3, 10 in 5.4)."""
    loss_weight: float = 0.02
    """lambda_m or lambda_b of Eq. 25, weight of the denoising loss (Eq. 10, 13)."""
    schedule: Literal["linear", "cosine", "learnable"] = "linear"
    """beta_t of Eq. 1, 6: linear; abar_t = cos^2(0.9 pi/2 t/T); or learned inside the range, sorted."""
    beta_first: float = 0.001
    """beta_1 of the linear and lower end of the learnable schedule (5.1.3, read as beta)."""
    beta_last: float = 0.1
    """beta_T of the linear and upper end of the learnable schedule."""
    loss: Literal["eps", "trajectory", "printed"] = "eps"
    """Eq. 10, 13: `eps` error of the marginal noise; `trajectory` every step simulated, its goal the state
    before it; `printed` its goal the state that it reads. The last two use one-step noise, under which Eq. 8
    has no bar; `printed` keeps the bar that Eq. 12 prints, and the one term of Eq. 13."""
    norm: Literal["length", "mean"] = "length"
    """|.|^2 of Eq. 10, 13: the squared length, as printed, or its mean over coordinates, by which the weights
    of the paper are too small to train the predictor."""
    detach_streams: bool = True
    """No gradient of the loss `eps` into the streams and their condition: it trains the predictor alone. Else
    streams become constant, which are easily predicted."""
    detach_target: bool = True
    """No gradient into the goal of the losses `trajectory` and `printed`: shrinking all features would lower
    them."""
    predictor: Literal["decoupled", "residual", "printed"] = "decoupled"
    """eps of Eq. 9: `decoupled` own path + cross path + time + network; `residual` x + gamma attention;
    `printed` attention alone."""
    num_heads: int = 4
    """Heads of the cross attention of Eq. 9."""
    cross_scale: float = 1.0
    """Weight of the cross path beside the own path of the decoupled predictor."""
    sampler: Literal["mean", "ancestral"] = "mean"
    """Eq. 8, 12: means alone, or sqrt(beta_t) z added in every step but the last."""
    reverse_steps: int | None = None
    """k of the T steps are taken in the reverse process, evenly spaced; None takes all."""
    train_start: Start = "noised"
    """x_T in training: `noised` a marginal draw (Eq. 6), `mean` sqrt(abar_T) x_0, `clean` x_0, `none` no
    chain."""
    infer_start: Start = "mean"
    """x_T in inference; `noised` draws by `noise_seed` and user, whoever else is in the batch."""
    noise_seed: int = 0
    """Seed of the noise of inference (`infer_start` noised, `sampler` ancestral)."""
    grad_last: int | None = None
    """Gradient flows through the last k reverse steps only; None: through all. Changes gradients."""
    checkpoint: bool = False
    """Recomputes each reverse step in the backward pass: less memory, more time, equal gradients."""

    def __post_init__(self) -> None:
        if not (self.diffusion_steps >= 1 and 0 < self.beta_first <= self.beta_last < 1):
            raise ValueError("expected diffusion_steps >= 1 and 0 < beta_first <= beta_last < 1")
        for name in ("reverse_steps", "grad_last"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= self.diffusion_steps:
                bounds = f"1..diffusion_steps ({self.diffusion_steps})"
                raise ValueError(f"{name} must lie in {bounds}, or be null for all steps")
        whole = self.reverse_steps in (None, self.diffusion_steps) and self.sampler == "mean"
        if self.loss != "eps" and not (whole and self.train_start == "noised"):
            raise ValueError(
                f"loss={self.loss} simulates every step from noise; it needs train_start=noised, "
                "sampler=mean, reverse_steps=null"
            )


@dataclass(frozen=True)
class ModalityDenoising(Denoising):
    """CDMD-M (4.2.1)."""

    cond: Literal["id", "context"] = "id"
    """h_c of Eq. 9: the `id` stream (printed), or its context up to each event, by a Transformer layer of its
    own (`context`, of the causal reading alone)."""


@dataclass(frozen=True)
class BehaviorDenoising(Denoising):
    """CDMD-B (4.2.2)."""

    printed_bar: ClassVar[bool] = True
    printed_terms: ClassVar[int] = 1

    cond: Literal["same", "image", "all"] = "same"
    """h_c of Eq. 12: the favor stream of the `same` modality, of the `image` (printed), or `all` of them
    joined, H_fa."""


@dataclass(frozen=True)
class Experts:
    """Multi-expert interest extraction (4.3)."""

    enabled: bool = True
    """False is the ablation without experts, gate and L_contrast: y is a projection of the mean streams."""
    shared: bool = True
    """False is the ablation without the shared expert, h_common."""
    share: Literal["every_event", "click_to_favor", "both"] = "every_event"
    """Eq. 16: every event queries favors (`causal` alone), clicks query them, or the mean of clicks that
    query favors and favors that query clicks, through one expert."""
    concat: Literal["feature", "time"] = "feature"
    """Eq. 14, 15: modalities joined to one vector per event, or laid side by side, three tokens per event."""
    pool: Literal["last", "mean"] = "last"
    """Eq. 17-19: a sequence becomes a vector at its last event, or by the mean over its events."""
    tie_behaviors: bool = False
    """Eq. 18, 19: one encoder per modality for all behaviors, not one for each."""
    num_layers: int = 1
    """Transformer layers of each expert (Eq. 17-19)."""
    num_heads: int = 4
    """Heads of each expert."""
    dropout: float = 0.1
    """Dropout inside the experts, fraction."""

    def __post_init__(self) -> None:
        if self.num_layers < 1 or not 0 <= self.dropout < 1:
            raise ValueError("expected num_layers >= 1 and dropout in [0, 1)")


@dataclass(frozen=True)
class Disentanglement:
    """Disentanglement of the seven interest vectors (Eq. 20)."""

    loss: Literal["self_infonce", "mean_cos", "sq_cos", "printed"] = "self_infonce"
    """Eq. 20: the vector itself as positive, the mean cosine, the mean squared cosine, or as printed."""
    loss_weight: float = 0.05
    """lambda_c of Eq. 25."""
    temperature: float = 0.3
    """tau of Eq. 20; `mean_cos` and `sq_cos` have none."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")


@dataclass(frozen=True)
class Softmax:
    """Main loss (Eq. 24)."""

    kind: Literal["auto", "full", "sampled"] = "auto"
    """Over the whole catalog (printed), over sampled items, or by the size of the catalog."""
    full_up_to: int = 100_000
    """Largest catalog that `auto` trains with the full softmax."""
    num_negatives: int = 2048
    """Shared uniform negatives of the sampled softmax."""
    in_batch: bool = False
    """The other targets of the batch are negatives too; the log-Q correction then no longer cancels."""


@dataclass(frozen=True)
class M3BSRConfig:
    """Options of M3BSR."""

    hidden_size: int = 64
    """d, searched in {64, 128, 256, 512} by the paper."""
    id_size: int = 16
    """Width of each id table and of the ID modality (Eq. 3)."""
    reading: Literal["causal", "prefix"] = "causal"
    """`causal`: an event is denoised and read under what came before it, so that every position of a window
    is a training sample; `prefix`: each target with its own prefix, in which every event sees every other."""
    packed: bool = True
    """Token-wise work runs on the real events of a batch alone, not on padding: equal numbers, less time."""
    id_fields: tuple[str, ...] | None = None
    """Fields of the ID modality beside the item (Eq. 3), `user` and attributes of the data set; None takes
    those of the paper (user, brand, seller) that there are, `all` takes all."""
    absent: Literal["left_out", "constant"] = "left_out"
    """A modality that no item of the data set has: without streams and experts, or a constant stream of its
    learned vector (as for single items that lack it)."""
    trainable_features: bool = False
    """Image and text vectors move in training."""
    space: Literal["projected", "raw_standardized"] = "projected"
    """Where CDMD-M adds its noise (Eq. 6): behind the projection of Eq. 4, 5, or on raw features scaled to
    variance 1."""
    cdmd_m: ModalityDenoising = field(default_factory=lambda: ModalityDenoising(reverse_steps=1))
    """Modality denoising, Eq. 6-10."""
    cdmd_b: BehaviorDenoising = field(default_factory=lambda: BehaviorDenoising(reverse_steps=1))
    """Behavior denoising, Eq. 11-13."""
    meie: Experts = field(default_factory=Experts)
    """Experts, Eq. 14-19."""
    disent: Disentanglement = field(default_factory=Disentanglement)
    """Disentanglement, Eq. 20."""
    fusion: Literal["project", "mean", "tile"] = "project"
    """Eq. 21, 22: the unique vectors projected to d, their mean under a scalar gate, or h_common repeated to
    their width (nearest to the print)."""
    head: Literal["tied", "tied_id", "linear", "sum"] = "tied"
    """Eq. 23: scores from an item encoder over id, image and text, over the id alone, a free matrix
    (printed), or the sum of the first and the third."""
    popularity_bias: bool = True
    """b of Eq. 23 starts at the log frequency of the training targets, not at 0."""
    softmax: Softmax = field(default_factory=Softmax)
    """Main loss, Eq. 24."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior; `causal` alone."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior; 0 trains on favors alone; `causal` alone."""
    dropout: float = 0.0
    """On the vectors of events before CDMD-B and on y, fraction."""
    targets: Literal["all_favors", "last_only"] = "all_favors"
    """Eq. 24: every favor of the training part with its own prefix, or one per user (printed); `prefix`
    alone."""
    max_history: int = 50
    """Latest events read, clicks and favors together."""
    max_targets_per_user: int | None = 10
    """Favors drawn as targets per user and epoch; None takes all; `prefix` alone."""
    autocast: bool = False
    """bfloat16 for the products of experts, fusion and item encoder; diffusion and loss stay in float32."""
    learning_rate: float = 5e-3
    """Learning rate of Adam; the paper searches {1e-5, 1e-4, 1e-3} at batch 1024."""
    batch_size: int = 32
    """Windows, under `prefix` targets, per optimizer step; the paper has 1024 targets."""
    micro_batch: int = 64
    """Windows or targets per backward pass; bounds memory. Under `prefix` it changes no gradient but by the
    noise drawn; causal windows weigh alike, whatever number of targets their part of the batch has."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.99
    """Decay of an average of the weights over steps, which is validated and kept, 0.99 say; 0: none."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 (5.1.3)."""

    def __post_init__(self) -> None:
        if self.hidden_size < 2 or self.hidden_size % 2:
            raise ValueError(f"hidden_size={self.hidden_size} must be even, for the time embedding")
        if self.reading == "causal" and self.targets == "last_only":
            raise ValueError("targets=last_only needs reading=prefix: choose m3bsr:prefix")
        if self.reading == "prefix" and self.meie.share == "every_event":
            raise ValueError("reading=prefix needs meie.share=click_to_favor or both: choose m3bsr:prefix")
        if self.reading == "prefix" and self.cdmd_m.cond == "context":
            raise ValueError("cdmd_m.cond=context needs reading=causal")
        if min(self.loss_weight_target, self.loss_weight_auxiliary) < 0 or not self.loss_weight_target:
            raise ValueError("expected loss_weight_target above 0 and loss_weight_auxiliary at 0 or more")
        for name in ("cdmd_m", "cdmd_b", "meie"):
            heads = getattr(self, name).num_heads
            if heads < 1 or self.hidden_size % heads:
                raise ValueError(f"{name}.num_heads={heads} does not divide hidden_size={self.hidden_size}")
