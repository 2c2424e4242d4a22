"""Options of Diff-MSIN, each with its symbol or source.

"released" is the authors' public code, "re-implementation" the independent one that the card names.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DiffMSINConfig:
    """Options of Diff-MSIN."""

    variant: Literal["repaired", "released"] = "repaired"
    """`released` has five defects of the released code, its raw inputs and its sizes; see the card."""
    hidden_size: int = 64
    """d; `released` takes the width of the widest feature table instead (512 for CLIP), unprojected."""
    diffusion_steps: int | None = None
    """T, rounds of noising and reversing in SRC; None: 10, in `released` 12."""
    noise: float | None = None
    """Standard deviation of the noise e of each round; None: 0.1, in `released` 1; see the card."""
    own_share: float | None = None
    """rho, share of a modality's own stream in its eps; None: 0, eps is what the others say, in `released`
    1; see the card."""
    synergy_input: Literal["experts", "streams"] = "experts"
    """What SRC reads: what the unique experts give (both codes), or the input streams beside them."""
    grad_last: int | None = None
    """Gradient flows through the last k rounds only; None: through all. Cheaper, changes gradients; ours."""
    mfe: Literal["residual", "gated"] = "residual"
    """Experts: H + F(H) per modality (released); or, gated, mixed with what the shared expert says of all of
    them (re-implementation)."""
    history: Literal["merged", "click", "favor"] = "merged"
    """Events read: all; or, as published, of one kind: the shallower behaviors' or the target behavior's."""
    backbone: Literal["din", "none"] = "din"
    """The DIN branch on ids, on (released) or off."""
    fdaf: Literal["score_map", "gated_cross"] = "score_map"
    """Fusion: a map of scores over streams and positions (released); or gates, a cross network and attention
    (re-implementation)."""
    score_pool: Literal["flat", "sum"] = "flat"
    """The score map q enters the head position by position (released), or summed over positions."""
    num_cross_layers: int = 3
    """Layers of the cross network of `gated_cross` (re-implementation: 3)."""
    num_heads: int = 4
    """Heads of the attention of `gated_cross`."""
    attention_hidden: tuple[int, ...] | None = None
    """Widths of the activation unit of the DIN branch; None: 80, 40 (DIN's), in `released` 256, 128."""
    head_hidden: tuple[int, ...] = (256, 128)
    """Widths of the last perceptron (released)."""
    decouple: Literal["mean_cos", "sq_cos", "r_style"] = "mean_cos"
    """L_dec: mean cosine of the pooled streams (released), mean squared cosine, or unique minus shared
    outputs (re-implementation)."""
    loss_weight_decouple: float = 0.1
    """Weight of L_dec (released; the re-implementation tuned it to 0.001)."""
    syn_loss: Literal["hinge", "hinge_margin", "released"] | None = None
    """L_syn; `released` pushes positives away from the target, `hinge_margin` is the re-implementation's.
    None: `hinge`, in `released` that one."""
    loss_weight_synergy: float = 0.05
    """Weight of L_syn (released; the re-implementation tuned it to 0.001 and to 0.5)."""
    objective: Literal["bce", "softmax"] = "bce"
    """Binary cross entropy of each item (released), or cross entropy of the real one among its negatives."""
    num_negatives: int = 4
    """Uniform negatives of each positive, drawn anew each epoch; 1 gives CTR pairs at one to one."""
    max_targets_per_user: int | None = 10
    """Positives drawn per user and epoch; None takes all."""
    max_history: int = 50
    """L, latest events read (released)."""
    trainable_features: bool = False
    """Image and text vectors move in training; `released` always moves them."""
    score_chunk: int = 100
    """User-item pairs scored at once; bounds memory."""
    learning_rate: float = 2e-3
    """Learning rate of Adam (released: 1e-3); see the card."""
    decay_after: int = 0
    """Steps after which the learning rate falls with the root of their number; 0: it stays."""
    weight_average: float = 0.0
    """Decay of an average of the weights over steps, which is validated and kept, 0.99 say; 0: none."""
    weight_decay: float = 0.0
    """Weight decay of Adam, on matrices and tables (released: 1e-3)."""
    batch_size: int = 160
    """Rows per step: positives and their negatives (released: 128); see the card."""
    epochs: int = 200
    """Most epochs (released: 15)."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 (released: 10, of the test AUC)."""

    def __post_init__(self) -> None:
        if self.fdaf == "gated_cross" and self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        counts = {"diffusion_steps": self.rounds, "num_negatives": self.num_negatives}
        counts["max_history"] = self.max_history
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count} must be 1 or more")

    @property
    def released(self) -> bool:
        """True for `variant=released`."""
        return self.variant == "released"

    @property
    def rounds(self) -> int:
        """T as it is run."""
        return self.diffusion_steps if self.diffusion_steps is not None else 12 if self.released else 10

    @property
    def noise_scale(self) -> float:
        """The noise as it is run."""
        return self.noise if self.noise is not None else 1.0 if self.released else 0.1

    @property
    def residual(self) -> float:
        """The own share as it is run."""
        return self.own_share if self.own_share is not None else 1.0 if self.released else 0.0

    @property
    def unit_hidden(self) -> tuple[int, ...]:
        """The widths of the activation unit as it is built."""
        return self.attention_hidden or ((256, 128) if self.released else (80, 40))

    @property
    def synergy(self) -> str:
        """L_syn as it is run."""
        return self.syn_loss or ("released" if self.released else "hinge")
