"""Two models on the same users: what differs, by how much, how surely.

Values are per user; seeds are averaged before users are compared, so that a seed is never taken for a user.
Letters: U users, S seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.significance import PairedTest, paired_test

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The first model less the second."""

    sign_flip: PairedTest
    """Mean difference, p and 95 % interval (bootstrap) over users, seeds averaged."""
    wilcoxon_p: float
    """Wilcoxon's test of the signed ranks of the differences; 1 where all are 0."""
    t_p: float
    """Student's paired test over users."""
    effect: float
    """Cohen's d of the differences: mean over deviation; 0 where all are equal."""
    wins: int
    losses: int
    ties: int
    """Users of whom the first has more, less, as much."""
    seed_means: tuple[tuple[float, ...], tuple[float, ...]]
    """Mean over users of each seed, of both models."""
    both: PairedTest
    """Difference and interval over seeds x users, seeds and users drawn apart; p from these draws."""
    margin: float
    equivalent: bool
    """The 90 % interval over users lies within +-margin: two one-sided tests at 5 %."""


def compare(
    first: Values, second: Values, margin: float = 0.01, seed: int = 0, draws: int = 2000
) -> Comparison:
    """Compare two models.

    Args:
        first: (S, U) values of the one model.
        second: (S', U) of the other, same users in the same order.
        margin: difference that would not matter.
        seed: of the random draws.
        draws: bootstrap samples of the test over seeds and users.

    Raises:
        ValueError: users differ in number, or there is none.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.size:
        raise ValueError(f"expected (seeds, users) of the same users, got {first.shape} and {second.shape}")
    a, b = first.mean(0), second.mean(0)
    gap = a - b
    test = paired_test(a, b, seed=seed)
    spread = float(gap.std(ddof=1)) if len(gap) > 1 else 0.0
    narrow = _interval(gap, seed, 0.9)
    return Comparison(
        sign_flip=test,
        wilcoxon_p=_wilcoxon(gap),
        t_p=_student(gap),
        effect=float(gap.mean()) / spread if spread else 0.0,
        wins=int((gap > 0).sum()),
        losses=int((gap < 0).sum()),
        ties=int((gap == 0).sum()),
        seed_means=(tuple(first.mean(1).tolist()), tuple(second.mean(1).tolist())),
        both=over_seeds_and_users(first, second, seed, draws),
        margin=margin,
        equivalent=bool(-margin < narrow[0] and narrow[1] < margin),
    )


def over_seeds_and_users(first: Values, second: Values, seed: int = 0, draws: int = 2000) -> PairedTest:
    """Return difference, p and 95 % interval where seeds and users are drawn anew, each on its own.

    Users are drawn once for both models, seeds of each model apart (a two-way bootstrap, Owen 2007): the
    interval widens with the deviation between seeds, and a thousand users of one seed stay one seed. With one
    seed it is the bootstrap over users.
    """
    rng = np.random.default_rng([seed, 11])
    users = first.shape[1]
    drawn = np.empty(draws)
    for row in range(draws):
        weight = np.bincount(rng.integers(0, users, users), minlength=users) / users
        means = [
            (values[rng.integers(0, len(values), len(values))] @ weight).mean() for values in (first, second)
        ]
        drawn[row] = means[0] - means[1]
    observed = float(first.mean() - second.mean())
    reached = int((np.abs(drawn - observed) >= abs(observed) - 1e-12).sum())
    low, high = np.quantile(drawn, [0.025, 0.975])
    return PairedTest(observed, (1 + reached) / (draws + 1), float(low), float(high))


def _interval(gap: Values, seed: int, level: float, draws: int = 5000) -> tuple[float, float]:
    """Return the bootstrap interval of the mean."""
    rng = np.random.default_rng([seed, 12])
    means = np.empty(draws)
    chunk = max(1, 4_000_000 // len(gap))
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        means[start : start + rows] = gap[rng.integers(0, len(gap), (rows, len(gap)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wilcoxon(gap: Values) -> float:
    from scipy.stats import wilcoxon  # takes half a second: not needed to show help

    if not gap.any():
        return 1.0
    return float(wilcoxon(gap, zero_method="wilcox", method="approx").pvalue)


def _student(gap: Values) -> float:
    from scipy.stats import ttest_1samp

    if len(gap) < 2 or not gap.std():
        return 1.0 if not gap.any() else 0.0
    return float(ttest_1samp(gap, 0.0).pvalue)
