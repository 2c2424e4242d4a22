from itertools import product
from math import erfc

import numpy as np
import pytest

from bench.evaluation.significance import holm, paired_bootstrap, paired_test


def test_p_value_equals_the_exact_enumeration_of_all_sign_flips():
    gap = np.array([0.5, 0.3, -0.1, 0.4, 0.2, 0.6, -0.2, 0.1])
    flips = np.array(list(product([-1, 1], repeat=len(gap)))) @ gap
    exact = np.mean(np.abs(flips) >= abs(gap.sum()) - 1e-12)
    assert paired_test(gap, np.zeros(8), draws=40_000).p == pytest.approx(exact, abs=0.005)


def test_equal_models_are_never_significant():
    values = np.random.default_rng(0).random(50)
    outcome = paired_test(values, values)
    assert outcome.p == 1.0 and outcome.difference == 0.0 and outcome.low == outcome.high == 0.0


def test_false_alarms_come_at_the_stated_rate():
    rng = np.random.default_rng(3)
    alarms = [paired_test(rng.random(60), rng.random(60), seed=i, draws=400).p < 0.05 for i in range(300)]
    assert 0.02 < np.mean(alarms) < 0.09


def test_clear_difference_is_found_and_the_interval_holds_the_mean():
    rng = np.random.default_rng(4)
    base = rng.random(400)
    outcome = paired_test(base + 0.05 + 0.1 * rng.standard_normal(400), base)
    assert outcome.p < 0.001 and outcome.low < outcome.difference < outcome.high and outcome.low > 0


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="equal"):
        paired_test(np.zeros(3), np.zeros(4))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def mean_of(values):
    """The mean over users as a statistic under weights (S, R)."""
    return lambda weights: values @ weights / weights.sum(0)


def test_the_bootstrap_of_a_mean_agrees_with_its_standard_error():
    rng = np.random.default_rng(5)
    a, b = rng.random(400), rng.random(400) - 0.03
    (found,) = paired_bootstrap(mean_of(a), [mean_of(b)], 400, draws=8000)
    gap = a - b
    assert found.difference == pytest.approx(gap.mean())
    error = gap.std() / np.sqrt(400)
    assert [found.low, found.high] == pytest.approx(
        [gap.mean() - 1.96 * error, gap.mean() + 1.96 * error], abs=0.1 * error
    )
    normal = erfc(gap.mean() / error / np.sqrt(2))
    assert found.p == pytest.approx(normal, abs=0.02)


def test_the_bootstrap_never_separates_a_model_from_itself_and_has_a_floor():
    values = np.random.default_rng(6).random(50)
    same, far = paired_bootstrap(mean_of(values), [mean_of(values), mean_of(values - 1)], 50, draws=200)
    assert (same.p, same.difference) == (1.0, 0.0)
    assert far.p == pytest.approx(1 / 201)


def test_bootstrap_false_alarms_come_at_the_stated_rate():
    rng = np.random.default_rng(7)
    tests = [
        paired_bootstrap(mean_of(rng.random(60)), [mean_of(rng.random(60))], 60, seed=i, draws=400)[0].p
        for i in range(300)
    ]
    assert 0.02 < np.mean(np.array(tests) < 0.05) < 0.09


def test_models_see_the_same_resamples_whatever_stands_beside_them():
    rng = np.random.default_rng(8)
    a, b, c = rng.random((3, 30))
    together = paired_bootstrap(mean_of(a), [mean_of(b), mean_of(c)], 30, draws=100)
    assert together[1] == paired_bootstrap(mean_of(a), [mean_of(c)], 30, draws=100)[0]
    with pytest.raises(ValueError, match="at least one user"):
        paired_bootstrap(mean_of(a), [], 0)
