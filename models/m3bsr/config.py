"""Options of M3BSR, each with the paper's symbol and equation."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Denoising:
    """One conditional diffusion stage: CDMD-M (4.2.1) or CDMD-B (4.2.2)."""

    steps: int = 10
    """T, diffusion steps; the forward process of Eq. 6."""
    weight: float = 0.02
    """lambda_m or lambda_b of Eq. 24, weight of the noise-prediction loss (Eq. 10, 13)."""
    beta_first: float = 0.001
    """beta_1 of the linear schedule (5.1.3, read as beta)."""
    beta_last: float = 0.1
    """beta_T."""
    num_heads: int = 4
    """Heads of the cross attention of Eq. 9."""
    cross_scale: float = 1.0
    """Weight of the cross path beside the own path of the noise predictor."""
    grad_last: int | None = None
    """Gradient flows through the last k reverse steps only; None: through all. Changes gradients."""
    checkpoint: bool = False
    """Recomputes each reverse step in the backward pass: less memory, more time, equal gradients."""


@dataclass(frozen=True)
class Experts:
    """Multi-expert interest extraction (4.3)."""

    layers: int = 1
    """Transformer layers of each expert (Eq. 17-19)."""
    num_heads: int = 4
    """Heads of each expert."""
    dropout: float = 0.1
    """Dropout inside the experts, fraction."""


@dataclass(frozen=True)
class Disentanglement:
    """Disentanglement of the seven interest vectors (Eq. 20)."""

    weight: float = 0.05
    """lambda_c of Eq. 24."""
    temperature: float = 0.3
    """tau of Eq. 20."""


@dataclass(frozen=True)
class Softmax:
    """Main loss (Eq. 24)."""

    full_up_to: int = 100_000
    """Largest catalog trained with the full softmax; above, a sampled one."""
    negatives: int = 2048
    """Shared uniform negatives of the sampled softmax."""


@dataclass(frozen=True)
class M3BSRConfig:
    """Options of M3BSR."""

    hidden_size: int = 64
    """d, searched in {64, 128, 256, 512} by the paper."""
    id_size: int = 16
    """Width of each id table and of the ID modality (Eq. 3)."""
    user_field: bool = True
    """The user's id is a field of the ID modality (Eq. 3)."""
    trainable_features: bool = False
    """Image and text vectors move in training."""
    cdmd_m: Denoising = field(default_factory=Denoising)
    """Modality denoising, Eq. 6-10."""
    cdmd_b: Denoising = field(default_factory=Denoising)
    """Behavior denoising, Eq. 11-13."""
    meie: Experts = field(default_factory=Experts)
    """Experts, Eq. 14-19."""
    disent: Disentanglement = field(default_factory=Disentanglement)
    """Disentanglement, Eq. 20."""
    softmax: Softmax = field(default_factory=Softmax)
    """Main loss, Eq. 24."""
    max_history: int = 50
    """Latest events read, clicks and favors together."""
    max_targets_per_user: int | None = 10
    """Favors drawn as targets per user and epoch; None takes all."""
    learning_rate: float = 2e-3
    """Of Adam; the paper searches {1e-5, 1e-4, 1e-3} at batch 1024."""
    batch_size: int = 64
    """Targets per optimizer step; the paper has 1024."""
    micro_batch: int = 64
    """Targets per backward pass; bounds memory, changes no gradient but by the noise drawn."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 (5.1.3)."""
