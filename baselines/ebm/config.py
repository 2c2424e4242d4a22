"""Options of EBM."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EBMConfig:
    """Options of EBM."""

    hidden_size: int = 64
    """D."""
    num_layers: int = 2
    """Blocks of the encoder; one more follows the filters."""
    num_chunks: int = 4
    """K; divides D."""
    dropout: float = 0.2
    """On embeddings and outputs of blocks, fraction."""
    mixer: Literal["complex", "real", "filter"] = "complex"
    """Network over the spectrum: complex; real parts alone (release); a complex vector, then over time."""
    soft: Literal["freq", "linear"] = "freq"
    """Soft filter: of the spectrum, by the shares of the behaviors, or a matrix per behavior (release)."""
    fft2: bool = False
    """The soft filter transforms time and channels instead of time alone."""
    similarity: Literal["score", "vector"] = "score"
    """Contrast: dot product of the pooled part with the target, or every coordinate of the pooled part."""
    temperature: float = 1.0
    """Temperature of the Gumbel softmax that keeps or drops an event (tau)."""
    epsilon: float = 1e-3
    """Distortion in the compactness term; its factor is D / (L epsilon^2)."""
    loss_weight_compactness: float = 1e-4
    """Weight of the log-determinant; with 0.01 (release) validation stays at popularity."""
    loss_weight_contrast: float = 0.1
    """Weight of the two contrastive terms."""
    loss: Literal["bce", "ce"] = "ce"
    """Binary with one negative, or the exact softmax."""
    targets: Literal["target", "all"] = "all"
    """Events to predict."""
    loss_weight_target: float = 1.0
    """Weight of targets of the target behavior."""
    loss_weight_auxiliary: float = 0.5
    """Weight of targets of other behaviors."""
    guided: bool = True
    """Four stages: encoder, eliminator, filter, everything; False trains everything at once."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam; half of it in the last of four stages."""
    weight_decay: float = 0.0
    """Weight decay of matrices and tables."""
    batch_size: int = 256
    """Prefixes per step."""
    first_epochs: int = 30
    """Most epochs of the encoder alone."""
    first_patience: int = 3
    """Epochs without a better validation NDCG@10 before that stage ends."""
    filter_epochs: int = 5
    """Most epochs of the eliminator alone, and of the filter alone."""
    epochs: int = 200
    """Most epochs of the last stage."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_chunks:
            raise ValueError(f"num_chunks={self.num_chunks} does not divide hidden_size={self.hidden_size}")
