"""What a trained model shows of its inside: small labelled tables of means over users, ready to be drawn."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Diagnostic:
    """One table of means over the users of a batch.

    The harness averages it over the held validation users, stores it in the record and draws it
    (`bench figure diagnostics`). A model may return any name. These four mean the same in every model:

    - `norms`: rows are streams (`click image`), columns `kept` and `removed`; form `bars`.
    - `gates`: rows are behaviors, columns modalities; form `heatmap`.
    - `cosines`: rows and columns are the interest vectors; form `heatmap`.
    - `noise_error`: rows are noise predictors, columns the diffusion steps `1`..`T`; form `lines`.
    """

    title: str
    """What is shown, a phrase: `gate weight of each modality, by behavior`."""
    values: Tensor
    """(R, K) float, means over the users of the batch; NaN where no user of the batch has the value."""
    rows: tuple[str, ...]
    """R labels."""
    columns: tuple[str, ...]
    """K labels."""
    unit: str = ""
    """Unit of the values: `cosine`, `fraction`, `squared error per coordinate`."""
    axes: tuple[str, str] = ("", "")
    """What the rows and what the columns are: `("predictor", "diffusion step")`."""
    form: Literal["heatmap", "bars", "lines"] = "heatmap"
    """How it is drawn: `bars` groups the columns by row, `lines` draws one line per row over the columns."""

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        if tuple(self.values.shape) != shape or 0 in shape:
            raise ValueError(f"diagnostic '{self.title}': values {tuple(self.values.shape)}, labels {shape}")
