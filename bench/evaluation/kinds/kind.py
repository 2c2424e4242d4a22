"""What a kind of task is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""What a record stores of a kind: `{test,validation}_{...}`."""


@dataclass(frozen=True)
class Kind:
    """One kind of task: how it is measured, what its metrics are, how models are compared."""

    name: str
    arrays: str
    """Field of a record that holds what it measures, and name of its file."""
    metrics: tuple[str, ...]
    """Metrics of its table by default."""
    tested: str
    """Metric that says who is best."""
    test: str
    """Name of the test, for the notes."""
    lower_is_better: tuple[str, ...]
    """Metrics of which a small value is a good one."""
    needs_validation: str
    """Why it cannot do without validation events; empty where it can."""
    spelled: Callable[[str], str]
    """Name of a metric as tables print it, whatever the case it was given in."""
    measure: Callable[..., dict[str, NDArray[Any]]]
    """(model, held-out part, protocol options, device, users at once, where) -> arrays by short name."""
    values: Callable[[Arrays, Sequence[str]], dict[str, float]]
    """(arrays, metrics) -> mean value of each; ValueError for a metric that it does not have."""
    chance: Callable[[Arrays, Sequence[str]], dict[str, float]]
    """(arrays, metrics) -> what a scorer that knows nothing is expected to have."""
    compare: Callable[[Mapping[str, Sequence[Arrays]], str | None], tuple[str, dict[str, float]]]
    """(model -> arrays of its seeds, reference or None) -> reference or best, and the others' p, adjusted."""
    facts: Callable[[Arrays], dict[str, float]]
    """What of a record's arrays stands under its table."""
    notes: Callable[[Mapping[str, Any], Mapping[str, float]], list[str]]
    """(protocol, facts) -> lines under the table."""
    saturated: Callable[[Sequence[str], Mapping[str, float]], tuple[str, ...]]
    """(metrics, facts) -> those that some users cannot fail."""
