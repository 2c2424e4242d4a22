"""Checks of reading as such: again, in another process, from any part on, and through the preparation."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl

from bench.config import text_of
from bench.data.contract.subject import Read, Subject
from bench.data.schema import EventStream, Position

CODE = (
    "import sys; from bench.data.contract.reads import print_digest; from bench.errors import UserError\n"
    "try: print_digest(*sys.argv[1:])\n"
    "except UserError as error: sys.exit(str(error))"
)
CAUSES = "sets, threads, files listed in no order, `unique` and joins without maintain_order, random draws"


def check_the_raw_files_are_read(subject: Subject) -> str:
    """The reader reads what it is checked on."""
    read = subject.first
    simulated = "; SIMULATED" if read.raw.simulated else ""
    return f"{len(read.events):,} events and touched items{simulated}"


def check_every_read_gives_the_same(subject: Subject) -> str:
    """A second read in the same process gives the same events in the same order, and the same items."""
    first, second = subject.first, subject.read()
    assert first.raw.behaviors == second.raw.behaviors, (
        f"read twice and saw behaviors {first.raw.behaviors}, then {second.raw.behaviors}; look for {CAUSES}"
    )
    wrong = _difference(first.events, second.events)
    assert not wrong, f"read the events twice and saw {wrong}; look for {CAUSES}"
    if first.items is not None and second.items is not None:
        wrong = _difference(first.items.sort("item"), second.items.sort("item"))
        assert not wrong, f"read the items twice and saw {wrong}; look for {CAUSES}"
    return ""


def _difference(first: pl.DataFrame, second: pl.DataFrame) -> str:
    """Return how two tables differ; empty where they do not."""
    if first.equals(second):
        return ""
    if first.shape != second.shape:
        return f"{len(first):,} rows, then {len(second):,}"
    pairs = zip(first.iter_rows(), second.iter_rows(), strict=True)
    number, (one, other) = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return f"row {number} as {one}, then as {other}"


def check_another_process_reads_the_same(subject: Subject) -> str:
    """A process whose sets and dictionaries of text are hashed otherwise gives the same events and items."""
    raw = "" if subject.raw is None else str(subject.raw)
    pairs = [f"{key}={text_of(value)}" for key, value in subject.overrides.items()]
    command = [sys.executable, "-P", "-c", CODE, subject.reader.spec, raw, *pairs]
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    others = [  # two, since the hashes of one may by chance give the order that they give here
        subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    said = [(*process.communicate(), process.returncode) for process in others]
    expected = digest(subject.first)
    for printed, complaint, failed in said:
        seen = (complaint.strip().splitlines() or ["nothing"])[-1] if failed else "other events or items"
        assert not failed and printed.strip() == expected, (
            f"read in another process, where text has other hashes, and saw {seen}; look for {CAUSES}"
        )
    return ""


def print_digest(spec: str, raw: str, *pairs: str) -> None:
    """Print what a reader gives as one hash; run by the other process."""
    from bench.config import parse_settings
    from bench.data.sources import find

    subject = Subject(find(spec), Path(raw) if raw else None, parse_settings(pairs).shared)
    print(digest(subject.first))


def digest(read: Read) -> str:
    """Return a SHA-256, hex, over behaviors, events in their order, and items by id."""
    made = hashlib.sha256(json.dumps(read.raw.behaviors).encode())
    made.update(read.events.write_csv().encode())
    if read.items is not None:
        made.update(read.items.sort("item").write_csv().encode())
    return made.hexdigest()


def check_a_stream_goes_on_from_any_part(subject: Subject) -> str:
    """A stream begun after any of its parts gives what follows; so an interrupted preparation goes on."""
    stream = subject.first.raw.events
    if not isinstance(stream, EventStream):
        return "not checked: the events come as one table, which is held in memory as a whole"
    parts = list(stream.parts(Position())) if stream.size < 2**28 else []
    for number, part in enumerate(parts, 1):
        rest = [one.events for one in stream.parts(part.end)]
        expected = [one.events for one in parts[number:]]
        same = len(rest) == len(expected) and all(map(pl.DataFrame.equals, rest, expected))
        assert same, (
            f"began after part {number} of {len(parts)} and saw {sum(map(len, rest)):,} events in place of "
            f"{sum(map(len, expected)):,}; look at `parts(start)` and at the `end` of each Part"
        )
    again = subject.open()[0].events
    assert isinstance(again, EventStream) and again.identity == stream.identity, (
        "opened the files twice and saw two identities; look at `identity`, by which an interrupted "
        "preparation finds its work again: no clock and no random draw"
    )
    return f"parts: {len(parts)}" if parts else "not checked: longer than 256 MiB, try a part of the files"
