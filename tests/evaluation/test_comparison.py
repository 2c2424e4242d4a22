"""Comparing two models: against scipy on known cases, and the share of false alarms by simulation."""

import numpy as np
import pytest
from scipy import stats

from bench.evaluation.comparison import compare, over_seeds_and_users


def values(seed: int, users: int = 300, seeds: int = 1, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((seeds, users)) + shift


def test_tests_and_effect_size_are_those_of_scipy() -> None:
    a, b = values(0, seeds=3), values(1, seeds=2, shift=0.05)
    made = compare(a, b)
    x, y = a.mean(0), b.mean(0)
    assert made.t_p == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert made.wilcoxon_p == pytest.approx(stats.wilcoxon(x, y, method="approx").pvalue)
    assert made.sign_flip.p == pytest.approx(stats.ttest_rel(x, y).pvalue, abs=0.02)
    gap = x - y
    assert made.effect == pytest.approx(gap.mean() / gap.std(ddof=1))
    low, high = stats.t.interval(0.95, len(gap) - 1, gap.mean(), stats.sem(gap))
    assert (made.sign_flip.low, made.sign_flip.high) == pytest.approx((low, high), abs=4e-3)
    assert (made.wins, made.losses, made.ties) == ((gap > 0).sum(), (gap < 0).sum(), 0)
    assert made.seed_means == (tuple(a.mean(1)), tuple(b.mean(1)))


def test_equal_models_are_ties_and_equivalent() -> None:
    a = values(0)
    made = compare(a, a)
    assert (made.wins, made.losses, made.ties) == (0, 0, 300)
    assert made.wilcoxon_p == made.t_p == made.sign_flip.p == 1 and made.equivalent and made.effect == 0


def test_equivalence_is_stated_where_the_interval_lies_within_the_margin() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((1, 4000))
    b = a + rng.normal(0, 0.1, (1, 4000))  # standard error 0.0016
    assert compare(a, b, margin=0.01).equivalent
    assert not compare(a, b, margin=0.001).equivalent
    assert not compare(a, b + 0.02, margin=0.01).equivalent


def test_the_rate_of_false_alarms_is_five_percent_for_models_that_differ_by_seed_alone() -> None:
    """Two models of one kind: users share their level, each seed has its own noise."""
    alarms = {"sign_flip": 0, "wilcoxon": 0, "t": 0}
    runs = 400
    for run in range(runs):
        rng = np.random.default_rng(run)
        level = rng.random(80)
        a, b = (level + rng.normal(0, 0.3, (1, 80)) for _ in range(2))
        gap = (a - b)[0]
        from bench.evaluation.comparison import _student, _wilcoxon
        from bench.evaluation.significance import paired_test

        alarms["sign_flip"] += paired_test(a[0], b[0], seed=run, draws=500).p < 0.05
        alarms["wilcoxon"] += _wilcoxon(gap) < 0.05
        alarms["t"] += _student(gap) < 0.05
    error = (0.05 * 0.95 / runs) ** 0.5
    for name, count in alarms.items():
        assert abs(count / runs - 0.05) < 3.5 * error, (name, count / runs)


def test_seeds_are_not_taken_for_users() -> None:
    """Models whose seeds deviate much more than their users: two seeds cannot settle it."""
    alarms, naive, runs = 0, 0, 120
    for run in range(runs):
        rng = np.random.default_rng(run)
        a, b = (rng.random((3, 200)) * 0.1 + rng.normal(0, 0.05, (3, 1)) for _ in range(2))
        alarms += over_seeds_and_users(a, b, seed=run, draws=300).p < 0.05
        naive += stats.ttest_rel(a.mean(0), b.mean(0)).pvalue < 0.05
    assert naive / runs > 0.7  # users alone call almost every pair different
    assert alarms / runs < 0.3  # three seeds leave some false alarms, a known weakness of small bootstraps


def test_the_interval_over_seeds_and_users_is_that_over_users_for_one_seed() -> None:
    a, b = values(0), values(1)
    both, alone = over_seeds_and_users(a, b), compare(a, b).sign_flip
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high), abs=0.012)
    assert both.difference == pytest.approx(alone.difference)


def test_other_users_are_refused() -> None:
    with pytest.raises(ValueError, match="same users"):
        compare(values(0), values(1, users=299))
