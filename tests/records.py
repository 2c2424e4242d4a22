"""Records for tests of what is stored and shown: no model runs."""

import dataclasses

from bench.experiments.record import Cell, DataFacts, Environment, Failure, Outcome, Record

ENVIRONMENT = Environment("3.11", "Linux", "CPU", 1, 2, "2.13.0", "2.3.0", "1.35.0", "0.1.0", {})
FACTS = DataFacts(
    name="tiny",
    behaviors=("click", "favor"),
    mapping="pv -> click, fav -> favor",
    encoders={"image": {"name": "ViT-B-32", "hash": "0123456789abcdef"}},
    coverage={"image": 0.5},
    simulated=False,
    target_in_history=0.25,
    users=10,
    items=200,
    interactions=1000,
    validation_users=60,
    test_users=4,
)


def done(
    cell: Cell, arrays, label="A", family="sequential", reconstruction=False, finished_at="", **outcome
) -> Record:
    """Return a finished record; `outcome` changes fields of its `Outcome`."""
    result = Outcome(arrays, **outcome)
    return Record(cell, label, family, reconstruction, result, ENVIRONMENT, FACTS, finished_at)


def failed(record: Record, reason="out of memory") -> Record:
    """Return the record as it would be had its cell failed."""
    return dataclasses.replace(record, result=Failure(reason))
