"""Checks of the events that a reader gives: their form, ids, behaviors, times, users."""

from datetime import UTC, datetime

import numpy as np
import polars as pl

from bench.data.contract.subject import Subject, looking, touched
from bench.data.preparation.check import check_columns, check_ids, check_mapped, check_timestamps
from bench.data.preparation.repeats import KEY
from bench.data.preparation.times import EDGES, UNITS
from bench.data.protocol.split import split
from bench.data.readers.known import first_ids

NAMES = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
LAST_YEAR = 2100


def check_events_have_their_four_columns(subject: Subject) -> str:
    """There are events, with user, item, behavior and timestamp."""
    events = subject.first.events
    with looking("read the events", "`select`, which gives the columns user, item, behavior, timestamp"):
        check_columns(events, "events", KEY)
    assert len(events), (
        "read the raw files and saw no event; look at what `read` filters, and that these are the right files"
    )
    return f"{len(events):,} rows"


def check_no_id_is_missing(subject: Subject) -> str:
    """Ids are text or whole numbers of 0 or more; none is empty or a word for a missing value."""
    events = subject.first.events
    for column in ("user", "item"):
        where = f"the field of the {column}: a missing id makes a malformed row (`present`, `id_field`)"
        with looking("read the events", where):
            check_ids(events[column], "events", column)
    return f"{events['user'].n_unique():,} users, {events['item'].n_unique():,} items"


def check_behaviors_are_those_declared(subject: Subject) -> str:
    """Every row has a behavior of `RawData.behaviors`, or is outside the mapping; the target occurs."""
    read = subject.first
    with looking("read the events", "the names in RawData(behaviors=...) and in the mapping"):
        check_mapped(read.events["behavior"], read.raw.behaviors)
    counts = dict(read.events["behavior"].cast(pl.String).value_counts().iter_rows())
    target = read.raw.behaviors[-1]
    seen = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items()))
    assert counts.get(target), (
        f"counted the behaviors and saw no '{target}', the target, but {seen}; look at the mapping of raw "
        "behaviors, whose last name has to occur"
    )
    absent = [name for name in read.raw.behaviors if name not in counts]
    events = sum(counts.get(name, 0) for name in read.raw.behaviors)
    share = f"{counts[target] / events:.1%} of {events:,} events are '{target}', the target"
    return f"warning: no event is '{absent[0]}', which is declared; {share}" if absent else share


def check_times_are_seconds_or_say_their_unit(subject: Subject) -> str:
    """Times are whole numbers of one unit: seconds since 1970, or a unit that the card names."""
    events, card = subject.first.events, subject.reader.card
    with looking("read the events", "the field of the timestamp (`number_field`)"):
        check_timestamps(events["timestamp"])
    times = events["timestamp"].cast(pl.Int64).to_numpy()
    units = np.bincount(np.searchsorted(EDGES, times, side="right"), minlength=len(UNITS))
    seen = {UNITS[code]: int(count) for code, count in enumerate(units) if count}
    counted = ", ".join(f"{count:,} in {NAMES.get(unit, unit)}" for unit, count in seen.items())
    assert len(seen) == 1, (
        f"sorted {len(times):,} times by their size and saw several units: {counted}; look at what marks a "
        "missing time, and at files of two units"
    )
    (unit,) = seen
    middle = int(np.median(times))
    if unit in NAMES:
        said = f"{card.dirt} {card.size} {card.files} {subject.first.raw.mapping}".lower()
        assert NAMES[unit] in said, (
            f"looked at {len(times):,} times and saw {NAMES[unit]}, the middle one is {middle}; look at the "
            f"field of the timestamp: divide to whole seconds, or say '{NAMES[unit]}' in the card's `dirt`"
        )
        return f"{NAMES[unit]}, as the card says"
    if unit != "s":
        return f"no seconds since 1973: the middle time is {middle}; the card's `dirt` says what it counts"
    latest = datetime.fromtimestamp(int(times.max()), UTC) if times.max() < 2**37 else None
    assert latest and latest.year < LAST_YEAR, (
        f"looked at {len(times):,} times and saw the latest at {times.max()}, after the year {LAST_YEAR}; "
        "look at the field of the timestamp, whose bounds refuse such a row (`number_field(..., low, high)`)"
    )
    first = datetime.fromtimestamp(int(times.min()), UTC)
    return f"seconds, {first:%Y-%m-%d} to {latest:%Y-%m-%d}"


def check_times_put_the_events_of_a_user_in_order(subject: Subject) -> str:
    """Not all events of all users are at one time."""
    events = subject.first.events.filter(~touched())
    spans = events.group_by("user").agg(
        pl.len().alias("events"), pl.col("timestamp").n_unique().alias("times")
    )
    several = spans.filter(pl.col("events") > 1)
    at_once = int((several["times"] == 1).sum())
    assert not len(several) or at_once < len(several), (
        f"compared the times of each user and saw one time for all events of each of {len(several):,} users, "
        f"such as {first_ids(several['user'].sort())}; look at the field of the timestamp: a constant, or "
        "dates cut to a year, leave the order to the rows of the file"
    )
    if at_once > len(several) / 2:
        return f"warning: {at_once:,} of {len(several):,} users have all events at one time; rows break ties"
    return ""


def check_events_are_not_read_twice(subject: Subject) -> str:
    """Less than half of the events repeat an earlier one."""
    events = subject.first.events.filter(~touched()).select(KEY)
    again = len(events) - events.n_unique() if len(events) else 0
    assert again < max(len(events) / 2, 1), (
        f"counted {len(events):,} events and saw that {again:,} repeat an earlier one in user, item, "
        "behavior and time; look for a file that is read twice, such as the plain and the .gz one, or a join "
        "that multiplies rows"
    )
    counted = f"{again:,} of {len(events):,} events repeat an earlier one"
    return f"warning: {counted}; they are kept unless drop_duplicates=true" if again else ""


def check_users_have_two_target_events(subject: Subject) -> str:
    """After the usual preparation, some users have a target event for validation and one for the test."""
    data = subject.prepared
    target, log = data.target_behavior, data.interactions
    deep = np.bincount(log.users()[log.behavior == target], minlength=log.num_users)
    two = int((deep > 1).sum())
    name = data.behaviors[-1]
    assert two, (
        f"prepared {log.num_users:,} users and saw none with two events of '{name}', the target "
        f"({int((deep == 1).sum()):,} with one), so that there is no validation part; look at the order "
        "of the behaviors, whose last is the target, and at the mapping"
    )
    parts = split(log, target)
    validation, tested = len(parts.validation), len(parts.test)
    return f"{validation:,} users for validation and {tested:,} for the test, of {log.num_users:,}"
