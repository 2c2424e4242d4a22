"""Options of SSDRec."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SSDRecConfig:
    """Options of SSDRec."""

    hidden_size: int = 64
    """D."""
    backbone: Literal["sasrec", "gru4rec"] = "sasrec"
    """What ranks on the cleaned sequence."""
    num_layers: int = 2
    """Layers of the backbone."""
    num_heads: int = 2
    """Attention heads of the backbone; divides D."""
    dropout: float = 0.2
    """In the backbone, fraction."""
    dropout_graph: float = 0.3
    """On what the graphs give, fraction."""
    dropout_embedding: float = 0.3
    """On the item vectors that the denoiser reads, fraction."""
    min_cooc: int | None = None
    """Co-occurrences that an edge between two items (users) exceeds; None: 10, or the first of 2, 1, 0 that
    leaves as many edges as there are items."""
    cold_item_ratio: float = 0.8
    """Rarest items, fraction, that have no incompatible ones."""
    cold_user_ratio: float = 0.9
    """Least active users, fraction, that have no dissimilar ones."""
    num_neighbors: int = 50
    """Most neighbors of a node in the similarity and incompatibility graphs."""
    graph_refresh: int = 1
    """Steps after which the graph vectors are computed anew; between them they get no gradient."""
    item_pool: int = 5000
    """Items that may be inserted: the most frequent ones where there are more."""
    augment: bool = True
    """Insert two items around one position in training."""
    gate_query: Literal["user", "target"] = "user"
    """What the item-level gate asks with in training; ranking has the user alone (the release: target)."""
    curriculum: float = 0.2
    """Share of the samples that the first epoch leaves out; falls to 0 over ten epochs."""
    temperature: float = 0.5
    """Temperature of the Gumbel softmax at the start; it scales gradients alone."""
    loss_weight_target: float = 1.0
    """Weight of targets of the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of targets of another behavior."""
    num_negatives: int | None = None
    """Uniform items shared by a step's softmax; None: all items up to 100,000 of them, else 4,096."""
    max_targets_per_user: int = 20
    """Targets drawn per user and epoch."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 256
    """Prefixes per step."""
    epochs: int = 300
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
