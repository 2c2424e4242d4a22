"""What each task measures: the values of a record, the chance level, and who is best.

Reads stored ranks and pairs alone; a new metric or cut-off needs no new training.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.evaluation import ctr
from bench.evaluation.metrics import chance, per_user
from bench.evaluation.significance import holm, paired_bootstrap, paired_p_values
from bench.experiments.store import Record

Task = Literal["rank", "ctr"]
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "rank": ("HR@10", "NDCG@10", "HR@20", "NDCG@20"),
    "ctr": ctr.METRICS,
}
"""Task -> metrics of its table unless told otherwise."""
TESTED: Mapping[str, str] = {"rank": "NDCG@10", "ctr": "AUC"}
"""Task -> metric that says who is best."""
TESTS: Mapping[str, str] = {"rank": "paired sign-flip test", "ctr": "paired bootstrap"}
LOWER_IS_BETTER = ctr.LOWER_IS_BETTER


def spelled(task: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return metric names as tables print them, whatever the case they were given in."""
    known = {name.upper(): name for name in ctr.METRICS} if task == "ctr" else {}
    return tuple(known.get(name.upper(), name.upper()) for name in names)


def measured(record: Record, names: Sequence[str]) -> dict[str, float]:
    """Return metrics of a finished record by name.

    Raises:
        ValueError: the record's task has no such metric.
    """
    if record.task == "ctr":
        return ctr.values(record.pairs, names)
    ranks = record.ranks["test_rank"]
    return {name: float(per_user(name, ranks).mean()) for name in names}


def chance_level(record: Record, names: Sequence[str]) -> dict[str, float]:
    """Return the expected metrics of a scorer that knows nothing, on the candidates of a finished record."""
    if record.task == "ctr":
        return ctr.chance(record.pairs, names)
    sizes = record.ranks["test_size"]
    levels: dict[str, float] = {}
    for name in names:
        cut = name.partition("@")[2]
        levels[name] = chance(sizes, int(cut))[name] if cut else _chance_reciprocal(sizes)
    return levels


def compared(
    done: Mapping[str, Sequence[Record]], against: str | None = None
) -> tuple[str | None, dict[str, float]]:
    """Return the best model by the tested metric and the p-value of each other one against it.

    Args:
        done: model -> its finished records, one a seed, all of one task; seeds are averaged.
        against: the model that the others are tested against, in place of the best.

    Returns:
        That model, None where there is none; model -> Holm-adjusted p-value.

    Raises:
        ValueError: the records do not measure the same users.
    """
    if not done:
        return None, {}
    task = next(iter(done.values()))[0].task
    return _compared_pairs(done, against) if task == "ctr" else _compared_ranks(done, against)


def _compared_ranks(
    done: Mapping[str, Sequence[Record]], against: str | None
) -> tuple[str, dict[str, float]]:
    _same({name: [(r.ranks["test_user"],) for r in group] for name, group in done.items()})
    values = {
        name: np.mean([per_user(TESTED["rank"], r.ranks["test_rank"]) for r in group], axis=0)
        for name, group in done.items()
    }
    best = against or max(values, key=lambda name: float(values[name].mean()))
    others = [name for name in values if name != best]
    if not others:
        return best, {}
    raw = paired_p_values(values[best], np.stack([values[name] for name in others]))
    return best, dict(zip(others, holm(raw), strict=True))


def _compared_pairs(
    done: Mapping[str, Sequence[Record]], against: str | None
) -> tuple[str, dict[str, float]]:
    _same({n: [(r.pairs["test_user"], r.pairs["test_label"]) for r in group] for n, group in done.items()})
    first = next(iter(done.values()))[0].pairs
    users, place = np.unique(first["test_user"], return_inverse=True)
    models = {
        name: ctr.WeightedAUC(place, first["test_label"], [r.pairs["test_score"] for r in group])
        for name, group in done.items()
    }
    once = np.ones((len(users), 1))
    best = against or max(models, key=lambda name: float(models[name](once)[0]))
    others = [name for name in models if name != best]
    if not others:
        return best, {}
    tests = paired_bootstrap(models[best], [models[name] for name in others], len(users))
    return best, dict(zip(others, holm([test.p for test in tests]), strict=True))


def _same(grounds: Mapping[str, Sequence[tuple[NDArray[np.int32], ...]]]) -> None:
    """Refuse records of other users (or pairs) than those of the first one."""
    first: tuple[NDArray[np.int32], ...] | None = None
    for name, group in grounds.items():
        for ground in group:
            first = first or ground
            if not all(map(np.array_equal, first, ground)):
                raise ValueError(f"{name}: the records rank other users than those of the other models")


def _chance_reciprocal(sizes: NDArray[np.int32]) -> float:
    """Return the expected reciprocal rank where the rank is uniform on 1..size: H(size) / size."""
    counts = np.arange(1, int(sizes.max()) + 1)
    return float((np.cumsum(1.0 / counts) / counts)[sizes - 1].mean())
