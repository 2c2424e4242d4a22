"""Options of MISSRec."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MISSRecConfig:
    """Options of MISSRec."""

    reading: Literal["causal", "prefix"] = "causal"
    """All positions of a window in one pass, interests read in the order in which they came up; or one
    history and one target, interests read as a set."""
    hidden_size: int = 64
    """D."""
    num_heads: int = 4
    """H; divides D."""
    inner_size: int = 256
    """Width of the feed-forward networks."""
    dropout: float = 0.2
    """On embeddings and outputs, fraction."""
    sequence: Literal["add", "stack"] = "add"
    """An event is the sum of its modalities, or they are tokens of their own, the first of which is read."""
    fusion: Literal["dynamic_shared", "dynamic_instance", "static"] = "dynamic_shared"
    """Weights of image and text of a candidate: by one learned scalar, one per item, or equal."""
    inductive: bool = False
    """Items have no ids."""
    clustering: Literal["dpc_knn", "kmeans"] = "dpc_knn"
    """How interests are found: density peaks, or mini-batch k-means (release)."""
    interest_ratio: float = 0.5
    """Interests relative to the number of image and text vectors, fraction."""
    max_interests: int = 2048
    """Most interests."""
    max_cluster_tokens: int = 20_000
    """Vectors among which density peaks are looked for; of more, a random part."""
    num_density_neighbors: int = 5
    """Nearest vectors, itself included, that the density of a vector is measured by (k)."""
    recluster_every: int = 1
    """Epochs between searches for interests."""
    temperature: float = 0.07
    """Temperature of the cosines."""
    loss_weight_interest: float = 0.05
    """Weight of the diversity of interests (512 times the gamma of the release, whose batch it is)."""
    reg: Literal["mean", "code"] = "mean"
    """Diversity: of real interests, mean over the batch; or with padding and summed, as released."""
    pretrain: Literal["none", "in_domain"] = "none"
    """A contrastive stage without ids on the same training part."""
    loss_weight_sequence: float = 1e-3
    """Weight of the contrast of two views of a history in that stage (lambda)."""
    targets: Literal["target", "all"] = "all"
    """Events to predict in the prefix reading."""
    max_targets_per_user: int | None = 10
    """Targets drawn per user and epoch in the prefix reading; None takes all."""
    loss_weight_target: float = 1.0
    """Weight of targets of the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of other targets."""
    max_history: int = 50
    """L."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 128
    """Windows or histories per step."""
    pretrain_epochs: int = 20
    """Most epochs of the contrastive stage."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        if not 0 < self.interest_ratio <= 1:
            raise ValueError(f"interest_ratio={self.interest_ratio} must be above 0 and at most 1")
