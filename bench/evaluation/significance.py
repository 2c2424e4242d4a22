"""Paired tests over users between models that ranked, or judged, the same candidates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.floating]], NDArray[np.float64]]
"""Weights of the users (S, R) -> (R,) the value of a model under each column of weights."""


@dataclass(frozen=True)
class PairedTest:
    """Outcome of a paired test of a - b = 0."""

    difference: float
    """Difference of a metric over all users, a - b."""
    p: float
    """Two-sided p-value."""
    low: float
    """Lower end of the 95 % bootstrap interval of the difference."""
    high: float
    """Upper end."""


def paired_test(
    a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0, draws: int = 10_000
) -> PairedTest:
    """Test whether two models differ on the same users: sign-flip randomisation test (Fisher), two-sided.

    Under the null hypothesis the sign of each user's difference is a fair coin. The p-value counts the
    observed arrangement among the draws, so it is never 0: its floor is 1 / (draws + 1).

    Args:
        a: (S,) per-user values of the first model.
        b: (S,) of the second, same users in the same order.
        seed: of the random signs and the bootstrap.
        draws: random sign arrangements and bootstrap samples.

    Raises:
        ValueError: the two are not of equal length, or empty.
    """
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"paired test needs equal, non-empty arrays; got {a.shape} and {b.shape}")
    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    rng = np.random.default_rng(seed)
    flipped, resampled = np.empty(draws), np.empty(draws)
    chunk = max(1, 4_000_000 // gap.size)  # bounds memory to about 32 MB a block at any number of users
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        signs = rng.integers(0, 2, (rows, gap.size), dtype=np.int8) * 2 - 1
        flipped[start : start + rows] = signs @ gap
        resampled[start : start + rows] = gap[rng.integers(0, gap.size, (rows, gap.size))].mean(1)
    slack = 1e-12 * np.abs(gap).sum()
    p = (1 + np.count_nonzero(np.abs(flipped) >= abs(gap.sum()) - slack)) / (draws + 1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedTest(float(gap.mean()), float(p), float(low), float(high))


def paired_p_values(
    best: NDArray[np.float64], others: NDArray[np.float64], seed: int = 0, draws: int = 10_000
) -> list[float]:
    """Return the p-values of `paired_test` between one model and several, without intervals.

    All comparisons share the random signs, so that a table over 70,000 users takes seconds.

    Args:
        best: (S,) per-user values of the one model.
        others: (R, S) of the others, same users in the same order.
        seed: of the random signs.
        draws: random sign arrangements.
    """
    gaps = (best - others).T  # (S, R)
    observed, slack = np.abs(gaps.sum(0)), 1e-12 * np.abs(gaps).sum(0)
    rng = np.random.default_rng(seed)
    users = len(gaps)
    chunk = max(1, 4_000_000 // max(users, 1))  # 32 MB of signs at any number of users
    reached = np.zeros(len(others), np.int64)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        drawn = rng.integers(0, 256, (rows, -(-users // 8)), dtype=np.uint8)
        bits = np.unpackbits(drawn, axis=1, count=users)
        flipped = (2.0 * bits - 1.0) @ gaps  # (rows, R)
        reached += (np.abs(flipped) >= observed - slack).sum(0)
    return [float(p) for p in (1 + reached) / (draws + 1)]


def paired_bootstrap(
    best: Statistic, others: Sequence[Statistic], users: int, seed: int = 0, draws: int = 1000
) -> list[PairedTest]:
    """Test one model against several by resampling users, for a metric that is no mean over users (AUC).

    All models see the same resamples. The p-value is two-sided: how often the resampled difference lies as
    far from the observed one as that lies from 0 (Efron and Tibshirani 1993, chapter 16), the observed
    arrangement counted, so that its floor is 1 / (draws + 1).

    Args:
        best: value of the one model under weights of the users.
        others: of the others.
        users: S.
        seed: of the resamples.
        draws: resamples.

    Raises:
        ValueError: there is no user.
    """
    if users < 1:
        raise ValueError("a bootstrap needs at least one user")
    whole = np.ones((users, 1))
    level = best(whole)[0]
    observed = np.array([level - other(whole)[0] for other in others])
    resampled = np.empty((len(others), draws))
    rng = np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // users)  # bounds memory to about 32 MB at any number of users
    for start in range(0, draws, chunk):
        weights = _resampled(rng, users, min(chunk, draws - start))
        level = best(weights)
        for row, other in enumerate(others):
            resampled[row, start : start + chunk] = level - other(weights)
    return [_bootstrapped(*pair) for pair in zip(observed, resampled, strict=True)]


def _resampled(rng: np.random.Generator, users: int, columns: int) -> NDArray[np.float32]:
    """Return (users, columns) how often each user was drawn, `users` draws with replacement per column."""
    drawn = rng.integers(0, users, (users, columns)) * columns + np.arange(columns)
    return np.bincount(drawn.ravel(), minlength=users * columns).reshape(users, columns).astype(np.float32)


def _bootstrapped(observed: float, resampled: NDArray[np.float64]) -> PairedTest:
    reached = np.count_nonzero(np.abs(resampled - observed) >= abs(observed) - 1e-12)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedTest(float(observed), float(1 + reached) / (len(resampled) + 1), float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values in the given order (Holm 1979), controlling the family-wise error."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, np.float64)[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.minimum(np.maximum.accumulate(scaled), 1.0)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(value) for value in result]
