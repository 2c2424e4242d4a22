"""The events of a raw log by user, at any length: sorted runs on disk, merged bucket by bucket.

Each part of the log becomes a run, a file sorted by user. A bucket is a range of users; its rows are one
slice of each run. So memory is bounded by a part and by a bucket, whatever the length of the log, plus a few
bytes per run and bucket; the disk holds 25 bytes per event kept. A run is finished when its line stands in
the ledger: after an interruption reading goes on behind the last one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from bench.data.parallel import ahead
from bench.data.preparation.check import check_events
from bench.data.preparation.order import ranks, stable_order
from bench.data.schema import TOUCHED, EventStream, Part, Position
from bench.errors import UserError

Watch = Callable[[str, int, int], None]
"""Progress callback: stage, amount done, total."""

BUCKET_ROWS = 1_000_000  # events of a bucket, about; a single user is never cut
STEP = 2048  # rows of a run that are read together, and of which the first helps to find the buckets' edges
OUTSIDE = "outside the mapping of behaviors: no event, but the item counts as touched"
LEDGER = "runs.jsonl"
BAD_ROWS = 5  # malformed rows remembered
RUNS_FORMAT = 2  # of runs and their ledger: work of another one is begun again


def silent(stage: str, done: int, of: int) -> None:
    """Watch nothing."""


@dataclass
class Tally:
    """What was seen of a log before any user was left out."""

    rows: int = 0
    """Raw rows, those left out included."""
    events: int = 0
    size: int = 0
    """Raw bytes."""
    behaviors: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    """The first malformed rows that were left out."""

    def add(self, rows: int, events: int, size: int, behaviors: Any, dropped: Any, bad_rows: Any) -> None:
        """Count a part."""
        self.bad_rows = [*self.bad_rows, *bad_rows][:BAD_ROWS]
        self.rows, self.events, self.size = self.rows + rows, self.events + events, self.size + size
        for mine, more in ((self.behaviors, behaviors), (self.dropped, dropped)):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count

    def expected_rows(self, size: int) -> int:
        """Return how many rows a log of `size` bytes will have had, judged by those read."""
        return max(self.rows, int(self.rows * size / max(self.size, 1)))


def of_part(part: Part) -> dict[str, Any]:
    """Return what `Tally.add` counts of a part."""
    behaviors, dropped = counts(part.events)
    return {
        "rows": part.rows, "events": sum(behaviors.values()), "size": part.size,
        "behaviors": behaviors, "dropped": dict(part.dropped) | dropped, "bad_rows": list(part.bad_rows),
    }  # fmt: skip


def numbered(events: pl.DataFrame, behaviors: Sequence[str]) -> pl.DataFrame:
    """Return user, item, behavior (id, from 1; 0 is `TOUCHED`), timestamp."""
    ids = {name: number for number, name in enumerate([TOUCHED, *behaviors])}
    behavior = pl.col("behavior").cast(pl.String).replace_strict(ids, return_dtype=pl.Int8)
    if events["behavior"].dtype == pl.Enum([*behaviors, TOUCHED]):
        behavior = (pl.col("behavior").to_physical().cast(pl.Int8) + 1) % (len(behaviors) + 1)
    return events.select("user", "item", behavior, pl.col("timestamp").cast(pl.Int64))


def counts(events: pl.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Return behavior -> rows, and the reason why others are no events -> rows."""
    by_behavior = dict(events["behavior"].cast(pl.String).value_counts().iter_rows())
    touched = by_behavior.pop(TOUCHED, 0)
    return by_behavior, ({OUTSIDE: touched} if touched else {})


def write_runs(stream: EventStream, behaviors: Sequence[str], folder: Path, watch: Watch) -> Tally:
    """Read a log to its end and write its runs into a folder, behind those that are there already.

    Raises:
        UserError: whatever the stream raises, or a part with faulty events.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally, start, number = Tally(), Position(), 0
    for line in _ledger(folder):
        start, number = Position(**line.pop("end")), number + 1
        tally.add(**line)
    for part in ahead(stream.parts(start)):
        check_events(part.events, tuple(behaviors))
        line = of_part(part)
        events = numbered(part.events, behaviors)
        run = events[stable_order(ranks(events["user"]))]  # by user, then in the order of the log
        write_frame(run, _run(folder, number), STEP)
        write_frame(run.select("user").gather_every(STEP), _run(folder, number, "users"))
        with (folder / LEDGER).open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"end": asdict(part.end), **line}) + "\n")
        number += 1
        tally.add(**line)
        watch("rows read", tally.rows, tally.expected_rows(stream.size))
    if not tally.events:
        dropped = "; ".join(f"{count} {why}" for why, count in tally.dropped.items())
        raise UserError(
            f"events: none left of {tally.rows} rows ({dropped or 'no behavior of the mapping'}); see the "
            "option behaviors and that these are the right files"
        )
    watch("rows read", tally.rows, tally.rows)
    return tally


def write_frame(frame: pl.DataFrame, path: Path, step: int | None = None) -> None:
    """Write a table as Arrow file, in batches of `step` rows where some of them are to be read alone."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=step)


def read_frame(path: Path) -> pl.DataFrame:
    """Return a table that `write_frame` wrote; numbers stay on the disk."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    return pl.DataFrame(pl.from_arrow(table, rechunk=False))


def read_rows(path: Path, first: int, last: int) -> pl.DataFrame:
    """Return rows `first` to before `last` of a table in batches of `STEP` rows.

    They are read and not mapped: pages come in large groups, and of hundreds of runs all would be in memory.
    """
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batches = [reader.get_batch(number) for number in range(first // STEP, -(-last // STEP))]
    table = pa.Table.from_batches(batches).slice(first % STEP, last - first)
    return pl.DataFrame(pl.from_arrow(table, rechunk=False))


def _ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of finished runs; a line that was cut off does not count, nor does its run."""
    path = folder / LEDGER
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    yield from map(json.loads, whole)


def _run(folder: Path, number: int, what: str = "run") -> Path:
    return folder / f"{what}-{number:06d}.arrow"


class Runs:
    """The runs of a folder, read bucket by bucket.

    Args:
        folder: where `write_runs` wrote.
    """

    def __init__(self, folder: Path) -> None:
        rows = [line["events"] for line in _ledger(folder)]  # of each run
        self.files = [_run(folder, number) for number in range(len(rows))]
        sampled = [read_frame(_run(folder, number, "users"))["user"] for number in range(len(rows))]
        sample = pl.concat(sampled).sort()  # users of every STEP-th row: the edges are quantiles of it
        number = -(-sum(rows) // BUCKET_ROWS)  # of buckets, rounded up
        edges = sample.gather([len(sample) * cut // number for cut in range(1, number)]).unique().sort()
        edges = edges.filter(edges > sample[0])  # the first rows of sorted runs are in it: the least user
        self.cuts = [self._cuts(path, edges) for path in self.files]
        """By run: the first row of each bucket, and at the end the number of its rows."""
        self.buckets = len(edges) + 1

    def _cuts(self, path: Path, edges: pl.Series) -> list[int]:
        """Return the rows of a run at which its buckets begin, and its length."""
        users = read_frame(path)["user"]
        return [0, *users.search_sorted(edges, "left"), len(users)]

    def bucket(self, number: int) -> pl.DataFrame:
        """Return the rows of a range of users, in the order of the log for each user."""
        slices = [
            read_rows(path, cuts[number], cuts[number + 1])
            for path, cuts in zip(self.files, self.cuts, strict=True)
            if cuts[number + 1] > cuts[number]
        ]
        return pl.concat(slices, rechunk=True)

    def frequent_items(self, least: int) -> pl.Series | None:
        """Return `frequent_items` of all runs."""
        return frequent_items((read_frame(path) for path in self.files), least)


def frequent_items(frames: Iterable[pl.DataFrame], least: int) -> pl.Series | None:
    """Return the raw ids of the items with `least` rows or more, None where all have: `least` is 1.

    Memory grows with the number of distinct items.
    """
    if least <= 1:
        return None
    total = pl.DataFrame()
    for frame in frames:
        counted = frame.filter(pl.col("behavior") > 0).group_by("item").len()
        total = pl.concat([total, counted]).group_by("item").agg(pl.col("len").sum())
    return total.filter(pl.col("len") >= least)["item"]
