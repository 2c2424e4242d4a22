"""Models are compared on the same users, or the same pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_same(grounds: Mapping[str, Sequence[tuple[NDArray[Any], ...]]]) -> None:
    """Refuse arrays of other users (or pairs) than those of the first model.

    Raises:
        ValueError: a model's differ.
    """
    first: tuple[NDArray[Any], ...] | None = None
    for name, group in grounds.items():
        for ground in group:
            first = first or ground
            if not all(map(np.array_equal, first, ground)):
                raise ValueError(f"{name}: the records rank other users than those of the other models")
