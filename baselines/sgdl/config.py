"""Options of SGDL."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SGDLConfig:
    """Options of SGDL."""

    embedding_size: int = 64
    """D."""
    num_layers: int = 1
    """Graph layers K; 0 is matrix factorisation."""
    input: Literal["union", "target", "auxiliary"] = "union"
    """Pairs: of all behaviors, of the target behavior, or of the others."""
    memory_epochs: int = 10
    """Epochs h over which memorised pairs are counted; half of them make a pair memorised."""
    weight_hidden_size: int = 100
    """Inner width of the network from a loss to a weight."""
    scheduler_grad: Literal["final", "exact"] = "final"
    """Gradients whose cosines the scheduler reads: in the propagated vectors, or in the tables (slow)."""
    selection: Literal["gumbel", "reinforce"] = "gumbel"
    """How memorised pairs are drawn: straight-through Gumbel softmax, or draws with a policy gradient."""
    temperature: float = 1.0
    """Temperature of the Gumbel softmax (tau)."""
    faithful_reset: bool = False
    """Scheduler and optimizer begin anew in every epoch, as in the release."""
    learning_rate: float = 5e-3
    """Learning rate of Adam and length of the trial steps; the first stage has a fifth of it."""
    learning_rate_weights: float = 5e-4
    """Learning rate of the network from losses to weights."""
    learning_rate_scheduler: float = 5e-3
    """Learning rate of the scheduler."""
    batch_size: int = 1024
    """Pairs per step."""
    memory_stage_epochs: int = 50
    """Most epochs of the first stage."""
    epochs: int = 200
    """Most epochs of the second stage."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""
