"""Slices of the test users, by what the data say of them: from stored ranks, without new training.

Per test user: `history` (events shown before the held-out one), `activity` (target events among them),
`popularity` (training events of the held-out item, 0 is an item that nobody met in training), `age` (time
since that item was first met in training, in the publisher's unit), `behavior` (the deepest behavior under
which the user met the item before).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import library
from bench.data.protocol.shuffle import changes_of, shuffled
from bench.data.protocol.task import Task, open_task
from bench.data.storage import load
from bench.errors import UserError, hint
from bench.experiments.record import Outcome, Record, data_key
from bench.experiments.run import data_facts

NAMES = ("history", "activity", "popularity", "age", "behavior")
PARTS = 4
"""Slices of a number: about as many users in each."""
UNSEEN = -1
COMPARED = {"<=": np.less_equal, ">=": np.greater_equal, "<": np.less, ">": np.greater, "=": np.equal}


@dataclass(frozen=True)
class Slice:
    """Some of the test users."""

    label: str
    rows: NDArray[np.bool_]
    """(S,) which of the held-out events, in their order."""

    def within(self, other: "Slice") -> "Slice":
        """Return the part that lies in another slice too."""
        return replace(self, rows=self.rows & other.rows)

    def named(self, label: str) -> "Slice":
        """Return it under another name."""
        return replace(self, label=label)


def everybody(task: Task) -> Slice:
    """Return all test users."""
    return Slice("all", np.ones(len(task.split.test), bool))


def task_of(records: Sequence[Record]) -> Task:
    """Open the data set and protocol that records were made with; vectors may be those of another processor.

    Raises:
        UserError: the data are not prepared here, or were prepared otherwise since.
    """
    first = records[0]
    name, changed = changes_of(first.cell.dataset)
    dataset = shuffled(load(library.resolve(name, {})), changed)
    task = open_task(dataset, first.cell.protocol)
    made = data_key(first.cell.fingerprint, first.dataset), first.cell.candidates_hash
    if made != (data_key(dataset.fingerprint, data_facts(task)), task.candidates_hash):
        fix = "prepare it as it was, or run the models again"
        problem = "the prepared data are not those that the records were made of"
        raise UserError(f"{first.cell.dataset}: {problem}; {fix}")
    return task


def values_of(task: Task, name: str) -> NDArray[np.int64]:
    """Return (S,) a property of the held-out test events; `behavior` as ids, 0 where the item is new to the
    user, `age` as -1 where the item was not met in training.

    Raises:
        UserError: no such property.
    """
    events, test = task.interactions, task.split.test
    users, items = events.user_of(test), events.item[test]
    start = events.offsets[users]
    if name == "history":
        return test - start
    if name == "activity":
        target = np.concatenate([[0], np.cumsum(events.behavior == task.dataset.target_behavior)])
        counts: NDArray[np.int64] = target[test] - target[start]
        return counts
    if name == "behavior":
        return _met_before(task)
    if name not in NAMES:
        raise UserError(f"no property '{name}' of test users; {hint(name, NAMES)}")
    trained = np.arange(len(events)) < np.repeat(task.split.train_end, np.diff(events.offsets))  # (E,)
    if name == "popularity":
        return np.bincount(events.item[trained], minlength=task.dataset.num_items + 1)[items]
    first = np.full(task.dataset.num_items + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, events.item[trained], events.timestamp[trained])
    known = first[items] < np.iinfo(np.int64).max
    return np.where(known, np.maximum(events.timestamp[test] - np.where(known, first[items], 0), 0), UNSEEN)


def _met_before(task: Task) -> NDArray[np.int64]:
    """Return (S,) the deepest behavior before the held-out event on the same item, 0 where there is none."""
    events, test = task.interactions, task.split.test
    users = events.user_of(test)
    deepest = np.zeros(len(test), np.int64)
    for row, (user, stop) in enumerate(zip(users, test, strict=True)):
        before = slice(events.offsets[user], stop)
        same = events.item[before] == events.item[stop]
        earlier = events.timestamp[before] < events.timestamp[stop]
        if (same & earlier).any():
            deepest[row] = events.behavior[before][same & earlier].max()
    return deepest


def slices_by(task: Task, name: str) -> list[Slice]:
    """Return slices by a property: a category each, or parts of about as many users; empty ones left out."""
    values = values_of(task, name)
    if name == "behavior":
        labels = ("new to the user", *(f"{one} before" for one in task.dataset.behaviors))
        made = [Slice(label, values == number) for number, label in enumerate(labels)]
    else:
        made = _parts(values, name)
    return [part for part in made if part.rows.any()]


def _parts(values: NDArray[np.int64], name: str) -> list[Slice]:
    """Return slices of a number; items that nobody met in training are one of their own."""
    special = {"popularity": (0, "0 (unseen)"), "age": (UNSEEN, "unseen")}.get(name)
    made = []
    rest = np.ones(len(values), bool)
    if special is not None:
        rest = values != special[0]
        made.append(Slice(special[1], ~rest))
    if not rest.any():
        return made
    edges = np.unique(np.quantile(values[rest], np.linspace(0, 1, PARTS + 1)).astype(np.int64))
    if len(edges) == 1:
        return [*made, Slice(f"{edges[0]:,}", rest)]
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        first = low if number == 0 else low + 1
        label = f"{first:,}" if first == high else f"{first:,}-{high:,}"
        made.append(Slice(label, rest & (values >= first) & (values <= high)))
    return made


def where(task: Task, condition: str) -> Slice:
    """Return the test users under a condition such as `history<=10` or `popularity=0,history>20`.

    Raises:
        UserError: not of that form, no such property, or nobody is left.
    """
    rows = np.ones(len(task.split.test), bool)
    for part in condition.split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*(<=|>=|<|>|=)\s*(-?[\w.]+)\s*", part)
        if not match:
            raise UserError(f"--where {part!r}: expected NAME<=NUMBER, such as history<=10 or popularity=0")
        name, sign, given = match.groups()
        rows &= COMPARED[sign](values_of(task, name), _number(task, name, given))
    if not rows.any():
        raise UserError(f"--where {condition}: none of the {len(rows):,} test users is left; widen it")
    return Slice(condition, rows)


def _number(task: Task, name: str, given: str) -> float:
    """Return the value that a property is compared with; behaviors may be named."""
    if name == "behavior" and given in ("none", *task.dataset.behaviors):
        return ("none", *task.dataset.behaviors).index(given)
    try:
        return float(given)
    except ValueError as error:
        known = f"; {hint(given, ('none', *task.dataset.behaviors))}" if name == "behavior" else ""
        raise UserError(f"--where {name} {given}: expected a number{known}") from error


def restricted(records: Sequence[Record], part: Slice) -> list[Record]:
    """Return the records as if the test part held some users alone.

    Raises:
        UserError: a record ranks another number of users.
    """
    made = []
    for record in records:
        if not isinstance(record.result, Outcome):
            made.append(record)
            continue
        given = record.result.arrays
        if len(given["test_rank"]) != len(part.rows):
            who = f"{record.label}, seed {record.cell.seed}"
            raise UserError(f"{who}: ranks {len(given['test_rank'])} users, expected {len(part.rows)}")
        arrays: Mapping[str, Any] = {
            name: given[name][part.rows] if name.startswith("test_") else given[name] for name in given
        }
        facts = replace(record.dataset, test_users=int(part.rows.sum()))
        made.append(replace(record, result=replace(record.result, arrays=arrays), dataset=facts))
    return made
