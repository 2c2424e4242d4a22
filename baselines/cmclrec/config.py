"""Options of CMCLRec."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CMCLRecConfig:
    """Options of CMCLRec."""

    simulator: bool = True
    """Short histories are filled up with simulated events; without, the backbone alone is trained."""
    hidden_size: int = 64
    """D."""
    num_layers: int = 2
    """Attention blocks of the backbone."""
    num_heads: int = 2
    """H; divides D."""
    dropout: float = 0.2
    """On embeddings, attention weights and inside the networks, fraction."""
    warm_events: int = 10
    """Training events from which a user is warm; fewer where that left under a fifth warm."""
    num_neighbors: int = 20
    """K, warm users whose sequences a simulated one is made of."""
    max_simulated: int = 10
    """Most simulated events in front of a history."""
    temperature: float = 0.1
    """Temperature of the contrast between the two views of a user."""
    simulator_temperature: float = 0.1
    """Temperature of the weights of the neighbors."""
    loss_weight_contrast: float = 0.1
    """Weight of the contrast while tuning."""
    cut_share: float = 0.3
    """Share of the windows that are cut to a short history while tuning, fraction."""
    split_views: bool = True
    """User features come from a random half of the events, and the other view drops content half of the
    time."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam; a tenth of it while tuning."""
    batch_size: int = 128
    """Windows per step of the backbone; eight times as many users per step of the mapping."""
    epochs: int = 200
    """Most epochs of the backbone."""
    mapping_epochs: int = 50
    """Most epochs of the mapping."""
    tuning_epochs: int = 200
    """Most epochs of the tuning."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before the training of the backbone, or the tuning, ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
