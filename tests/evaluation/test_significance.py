from itertools import product

import numpy as np
import pytest

from bench.evaluation.significance import holm, paired_test


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
