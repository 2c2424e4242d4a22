"""Options of KMCLR."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KMCLRConfig:
    """Options of KMCLR."""

    embedding_size: int = 64
    """D, of both modules."""
    num_layers: int = 3
    """Graph layers of the knowledge module."""
    num_behavior_layers: int = 2
    """Graph layers of the behavior module."""
    kg: Literal["auto", "attributes", "coclick", "none"] = "auto"
    """Knowledge graph: attributes of the items, their neighbors in click streams, or none; auto: attributes
    where there are any, else neighbors."""
    num_entities: int = 10
    """Most triples per item."""
    dropout: float = 0.4
    """On attention weights, entities and item vectors, fraction."""
    dropout_edge: float = 0.3
    """Edges left out of the target graph in each training step, fraction."""
    dropout_entity: float = 0.5
    """Triples left out of each of the two graphs that tell how stable an item is, fraction."""
    temperature: float = 0.2
    """Temperature of the contrast between the two views."""
    knowledge_share: float = 0.1
    """Share of the knowledge vectors in the final ones; the behavior vectors have the rest."""
    norm: Literal["none", "sym"] = "none"
    """Adjacency of the behavior module: raw (release), or normalised by both degrees."""
    tatec_sign: Literal["correct", "release"] = "correct"
    """TATEC is a similarity; the release trains it as a distance."""
    loss_weight_contrast: float = 0.1
    """Weight of the contrast between views, of users and of items each."""
    loss_weight_decay: float = 1e-4
    """Weight of the squared norms of the knowledge module's rows in a batch."""
    loss_weight_translation: float = 1e-3
    """Weight of the norms in TransR."""
    loss_weight_embedding: float = 1e-3
    """Weight of the squared norms of the final vectors in a batch (rho)."""
    loss_weight_behavior_contrast: float = 0.005
    """Weight of the contrast between behaviors (kappa)."""
    learning_rate: float = 5e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW, of matrices and tables."""
    batch_size: int = 1024
    """Target pairs per step."""
    epochs: int = 100
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.knowledge_share <= 1:
            raise ValueError(f"knowledge_share={self.knowledge_share}: expected 0 to 1")
