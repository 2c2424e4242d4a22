"""Options of MMSBR."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MMSBRConfig:
    """Options of MMSBR."""

    hidden_size: int = 64
    """D, also the number of principal components that image and text are brought to."""
    num_rounds: int = 3
    """Rounds of a text and an image block; half the layers of the release."""
    num_heads: int = 4
    """H of the blocks; divides D."""
    num_pivots: int = 4
    """P, vectors of an item through which text and image meet."""
    num_features: int = 4
    """F, views of a text or image."""
    pivot: Literal["auto", "own", "shared"] = "auto"
    """Pivots and features of each item's own; or shared pivots with one vector per item, and frozen features
    behind linear maps: less memory. `auto` shares over more than 100,000 items."""
    dropout: float = 0.1
    """In the views and blocks, fraction."""
    item_dropout: float = 0.0
    """Behind the pivots and in the numerical branch, fraction."""
    pseudo: Literal["auto", "retrieval", "ridge", "off"] = "auto"
    """Where a pseudo text comes from: the texts nearest to the image, or a regression, which `auto` takes
    over more than 100,000 items; `off`: no contrast."""
    num_retrieved: int = 2
    """Other items whose mean is a pseudo vector (K_p)."""
    loss_weight_contrast: float = 0.01
    """Weight of the contrast of a modality with its pseudo form (lambda)."""
    con: Literal["batch", "code"] = "batch"
    """Contrast: unit vectors of the step's items; or raw products over the whole catalog, as released."""
    temperature: float = 0.1
    """Temperature of that contrast; 1 in the release's form."""
    num_hard: int = 100
    """Hardest others in its denominator."""
    numeric: Literal["auto", "on", "off"] = "auto"
    """The branch of a numerical attribute; `auto` is on where the data have a price."""
    number: str = "price"
    """Name of that attribute."""
    num_levels: int = 100
    """Levels of the attribute within a category."""
    price_sign: Literal["code", "similarity"] = "similarity"
    """A session near the price of an item raises its score, by 1 + exp(-D / tau); released is 1 + D."""
    price_temperature: float = 1.0
    """tau of the former, relative to D's width."""
    init: Literal["kept", "release"] = "kept"
    """Image and text keep their principal components; or start at random, an accident of the release."""
    whole_catalog: int = 4096
    """Most items over which the softmax is exact; over more it is over 2,048 drawn ones and the step's
    targets, corrected for how often each is drawn."""
    loss_weight_target: float = 1.0
    """Weight of positions whose next event has the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of positions whose next event has another behavior."""
    max_history: int = 50
    """L."""
    learning_rate: float = 3e-3
    """Learning rate of Adam."""
    batch_size: int = 64
    """Windows per step."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
