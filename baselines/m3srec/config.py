"""Options of M3SRec."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class M3SRecConfig:
    """Options of M3SRec."""

    hidden_size: int = 64
    """D."""
    num_heads: int = 2
    """H; divides D."""
    num_specific_layers: int = 1
    """Layers with experts of each modality (K_s)."""
    num_cross_layers: int = 1
    """Layers with experts of all modalities (K_c)."""
    num_experts: int = 4
    """E, of one mixture."""
    num_active: int = 2
    """K, experts that a token is sent to; E is the dense mixture."""
    inner_size: int | None = None
    """Hidden width of an expert; None is 4 D."""
    noise_std: float = 0.1
    """Scale of the noise on the router's logits in training."""
    dropout: float = 0.2
    """On embeddings and outputs of the layers, fraction."""
    use_id: bool = True
    """Item ids are a modality beside image and text."""
    score: Literal["fused", "id"] = "fused"
    """Candidates: cosine with their fused id, image and text over the temperature, or a dot product with the
    id."""
    temperature: float = 0.07
    """Temperature of the cosines."""
    pretrain: bool = True
    """A contrastive stage on image and text comes first; without images and texts there is none."""
    loss_weight_cross: float = 0.5
    """Weight of the contrast of one modality's sequence with the other's next item."""
    loss_weight_align: float = 0.1
    """Weight of the contrast of image and text of an item."""
    loss_weight_balance: float = 0.01
    """Weight of the experts' balance."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 128
    """Windows per step."""
    pretrain_epochs: int = 30
    """Most epochs of the first stage."""
    pretrain_patience: int = 5
    """Epochs without a better validation NDCG@10, by content alone, before the first stage ends."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        if not 1 <= self.num_active <= self.num_experts:
            raise ValueError(f"num_active={self.num_active} must be from 1 to num_experts={self.num_experts}")
