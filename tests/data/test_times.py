"""Odd times are told of with their counts, usual ones are not."""

import numpy as np
import pytest

from bench.data.preparation.times import Times

DAY = 86400
REAL = 1511539200 + np.arange(1000) * DAY  # 2017 to 2020


def told(*times) -> list[str]:
    found = Times()
    for part in np.array_split(np.concatenate([np.asarray(t, np.int64) for t in times]), 3):
        found.add(part)
    return found.warnings()


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
def test_times_of_one_unit_and_a_few_years_are_usual(scale):
    assert told(REAL * scale) == []


@pytest.mark.parametrize("times", [np.arange(1101, 1130), np.zeros(50), np.arange(15000, 16000)])
def test_a_log_in_days_or_without_times_is_as_it_is(times):
    assert told(times) == []


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ([0, 0], "1,000 in s, 2 are 0"), ([5, 86400], "2 lie below 1973 in seconds"),
        (REAL[:7] * 1000, "1,000 in s, 7 in ms"), ([253402214400], "1 in ms"),  # 9999 in seconds
    ],
)  # fmt: skip
def test_other_units_and_placeholders_are_counted(odd, words):
    (line,) = told(REAL, odd)
    assert line.startswith("warning: times of") and words in line


def test_years_far_from_the_others_are_counted_by_year():
    (line,) = told(REAL, [4070908800] * 2, [315532800])  # 2099 and 1980
    assert "most about 2019: 1 of 1980, 2 of 2099; repair or remove them" in line


def test_a_long_log_of_many_years_is_usual():
    assert told(946684800 + np.arange(8000) * DAY) == []  # 2000 to 2021
