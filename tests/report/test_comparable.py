import dataclasses

import pytest

from bench.report.tables import (
    build,
    comparable,
    notes,
)
from tests.report.test_tables import record


def test_records_against_other_candidates_never_share_a_table():
    with pytest.raises(ValueError, match="do not belong in one table"):
        build([record("a", [1] * 4), record("b", [1] * 4, candidates_hash="d")])


def test_records_of_other_users_never_share_a_table():
    other = record("b", [1] * 4)
    other.outcome.arrays["test_user"][0] = 9
    with pytest.raises(ValueError, match="b: the records rank other users"):
        build([record("a", [1] * 4), other])


def test_comparable_keeps_the_newest_data_and_each_model_as_it_ran_last():
    old = record("a", [1] * 4, candidates_hash="old", finished_at="2025-01-01")
    first = [record("a", [1] * 4, seed=s, epochs=5, finished_at="2025-01-02") for s in (0, 1)]
    last = [record("a", [1] * 4, seed=s, epochs=9, finished_at="2025-01-03") for s in (0, 1)]
    other = record("b", [1] * 4, finished_at="2025-01-02")
    assert comparable([last[0], old, *first, other, last[1]]) == [last[0], other, last[1]]
    assert comparable([]) == []


def test_vectors_of_another_processor_share_a_table_and_are_named_under_it():
    encoders = {"image": {"name": "efficientnet", "hash": "e", "coverage": 0.5}}

    def prepared(model, fingerprint, **changes):
        one = record(model, [1] * 4, fingerprint=fingerprint)
        facts = {"encoders": encoders, "coverage": {"image": 0.5}, **changes}
        return dataclasses.replace(one, dataset=dataclasses.replace(one.dataset, **facts))

    here, there = prepared("a", "1" * 64), prepared("b", "2" * 64)
    assert comparable([here, there]) == [here, there]
    (line,) = [line for line in notes(build([here, there])) if line.startswith("Prepared more than once")]
    assert "11111111 (A); 22222222 (B): equal events, candidates and encoders; vectors differ" in line
    assert not any("Prepared more" in line for line in notes(build([here])))
    for changes in (
        {"users": 7},
        {"encoders": {"image": {**encoders["image"], "hash": "other"}}},
        {"encoders": {}},
    ):
        with pytest.raises(ValueError, match="do not belong in one table"):
            build([here, prepared("b", "2" * 64, **changes)])
    plain = [prepared(model, print_, encoders={}) for model, print_ in (("a", "1"), ("b", "2"))]
    with pytest.raises(ValueError, match="do not belong in one table"):
        build(plain)  # no vectors: nothing may differ
