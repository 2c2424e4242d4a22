"""Metrics as views of stored ranks. One held-out item per user, so the ideal DCG is 1.

Ranks are 1-based. The discount is 1 / log2(1 + rank), cut at K (Jarvelin and Kekalainen 2002).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def hit_rate(ranks: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Return (S,) 1.0 where the held-out item is among the first k, else 0.0 (HR@K = recall@K)."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Return (S,) 1 / log2(1 + rank) where rank <= k, else 0.0 (NDCG@K for one relevant item)."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def reciprocal_rank(ranks: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return (S,) 1 / rank, no cut-off (MRR)."""
    return 1.0 / ranks.astype(np.float64)


METRICS: dict[str, Callable[..., NDArray[np.float64]]] = {"HR": hit_rate, "NDCG": ndcg}
"""Name -> value of each rank at a cut-off, called `NAME@K`. A new metric is a new entry."""
WHOLE: dict[str, Callable[[NDArray[np.integer]], NDArray[np.float64]]] = {"MRR": reciprocal_rank}
"""Name -> value of each rank, without a cut-off."""


def per_user(name: str, ranks: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return (S,) the values of a metric called by its table name: `HR@10`, `NDCG@20`, `MRR`.

    Raises:
        ValueError: the name is none of these.
    """
    kind, at, cut = name.upper().partition("@")
    if kind in WHOLE and not at:
        return WHOLE[kind](ranks)
    if kind in METRICS and cut.isdigit() and int(cut) > 0:
        return METRICS[kind](ranks, int(cut))
    *most, last = [*(f"{known}@K" for known in METRICS), *WHOLE]
    raise ValueError(f"metric {name!r}: expected {', '.join(most)} or {last}")


def chance_of(name: str, sizes: NDArray[np.integer]) -> float:
    """Return the expected value of a metric where a scorer knows nothing.

    Args:
        name: as in `per_user`.
        sizes: (S,) number of candidates of each user, the held-out item included; its rank is then uniform on
            1..size, so the expectation is the mean of the metric over these ranks.
    """
    counts = np.bincount(sizes)
    ranks = np.arange(1, len(counts))
    expected = np.cumsum(per_user(name, ranks)) / ranks  # of a user with as many candidates
    weights = counts[1:] / max(counts[1:].sum(), 1)
    return float(weights @ expected)


def chance(sizes: NDArray[np.integer], k: int) -> dict[str, float]:
    """Return the expected HR@k and NDCG@k of a scorer that knows nothing.

    Args:
        sizes: (S,) number of candidates of each user, the held-out item included; its rank is then uniform on
            1..size.
        k: cut-off.
    """
    counts = np.bincount(sizes)
    possible = np.arange(1, len(counts))
    hits = np.minimum(possible, k) / possible
    gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1.0 + np.arange(1, k + 1)))])
    weights = counts[1:] / max(counts[1:].sum(), 1)
    return {
        f"HR@{k}": float(weights @ hits),
        f"NDCG@{k}": float(weights @ (gains[np.minimum(possible, k)] / possible)),
    }
