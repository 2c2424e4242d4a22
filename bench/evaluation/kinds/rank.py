"""The kind `rank`: the held-out item among its candidates, HR@K, NDCG@K, MRR.

Reads stored ranks alone: a new metric or cut-off is an entry of `bench.evaluation.metrics` and needs no new
training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.kinds.kind import Arrays, Kind
from bench.evaluation.kinds.same import require_same
from bench.evaluation.metrics import chance_of, per_user
from bench.evaluation.significance import holm, paired_p_values

TESTED = "NDCG@10"
ASKED = 100
"""Candidates of a user, the held-out item included, where there are untouched items enough."""


def measure(
    model: Any, part: Any, protocol: Any, device: Any, batch_size: int, where: str
) -> dict[str, NDArray[Any]]:
    """Return `user`, `rank` and `size` (number of candidates) of a held-out part, (S,) each."""
    from bench.evaluation.ranks import rank  # imports torch

    ranks = rank(model, part.held, part.batches(model.max_history, batch_size), device, where)
    return {"user": part.held.users, "rank": ranks, "size": part.held.sizes(model.info.num_items)}


def values(arrays: Arrays, names: Sequence[str]) -> dict[str, float]:
    """Return the mean of each metric over the test users."""
    return {name: float(per_user(name, arrays["test_rank"]).mean()) for name in names}


def chance(arrays: Arrays, names: Sequence[str]) -> dict[str, float]:
    """Return the expected value of each metric where the rank is uniform over a user's candidates."""
    return {name: chance_of(name, arrays["test_size"]) for name in names}


def compare(done: Mapping[str, Sequence[Arrays]], against: str | None) -> tuple[str, dict[str, float]]:
    """Test the models by paired sign flips over users, seeds averaged."""
    require_same({name: [(one["test_user"],) for one in group] for name, group in done.items()})
    gains = {
        name: np.mean([per_user(TESTED, one["test_rank"]) for one in group], axis=0)
        for name, group in done.items()
    }
    best = against or max(gains, key=lambda name: float(gains[name].mean()))
    others = [name for name in gains if name != best]
    if not others:
        return best, {}
    raw = paired_p_values(gains[best], np.stack([gains[name] for name in others]))
    return best, dict(zip(others, holm(raw), strict=True))


def facts(arrays: Arrays) -> dict[str, float]:
    """Return the smallest and the median number of candidates of the test users."""
    sizes = arrays["test_size"]
    if not len(sizes):
        return {}
    return {"least_candidates": int(sizes.min()), "median_candidates": float(np.median(sizes))}


def notes(protocol: Mapping[str, Any], known: Mapping[str, float]) -> list[str]:
    """Say where users have fewer candidates than the protocol's name promises."""
    least = known.get("least_candidates", ASKED)
    if protocol.get("candidates") == "full" or least >= ASKED:
        return []
    few = f"Candidates: fewer than {ASKED} where a user has too few untouched items: {least:,} at the least"
    return [f"{few}, median {known['median_candidates']:g}"]


def saturated(names: Sequence[str], known: Mapping[str, float]) -> tuple[str, ...]:
    """Return the metrics whose cut-off takes in all candidates of some user, who then cannot miss."""
    least = known.get("least_candidates", np.inf)
    return tuple(name for name in names if (cut := name.partition("@")[2]) and int(cut) >= least)


KIND = Kind(
    name="rank",
    arrays="ranks",
    metrics=("HR@10", "NDCG@10", "HR@20", "NDCG@20"),
    tested=TESTED,
    test="paired sign-flip test",
    lower_is_better=(),
    needs_validation="",
    spelled=str.upper,
    measure=measure,
    values=values,
    chance=chance,
    compare=compare,
    facts=facts,
    notes=notes,
    saturated=saturated,
)
