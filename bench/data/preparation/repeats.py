"""Event rows that stand more than once: the same user, item, behavior and time, as in a log written twice.

They are counted over a log of any length in bounded memory. Two 64-bit hashes and the number of each event
are held, or beyond `HELD` events written to files in a temporary folder, 24 bytes per event. Equal rows have
equal hashes, so they meet in one of the files, and each is read alone. Two hashes, since by a single one some
rows of a log of billions would pass for equal.
"""

from bisect import bisect_right
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.readers.event_rows import row_of
from bench.data.schema import TOUCHED, EventStream, Position, RawData
from bench.errors import UserError

KEY = ("user", "item", "behavior", "timestamp")
HELD = 2_000_000  # events before any goes to the disk
FILES = 256  # of a log beyond that; 5 million events in each, 120 MB, of a log of 1.3 billion


class Repeats:
    """Counts the events of a log that repeat an earlier one; a context, which removes its folder."""

    def __init__(self) -> None:
        self.held: list[NDArray[np.uint64]] = []
        """(events, 3): two hashes and the number in the log, from 0."""
        self.firsts: list[int] = []
        """Number of the first event of each part that has any."""
        self.starts: list[Position] = []
        """Beginning of these parts."""
        self.events = 0
        self.outside = 0
        """Rows outside the mapping among them."""
        self.spilled = False
        self.folder = TemporaryDirectory(prefix="bench-check-", ignore_cleanup_errors=True)

    def __enter__(self) -> "Repeats":
        return self

    def __exit__(self, *error: object) -> None:
        self.folder.cleanup()

    def add(self, events: pl.DataFrame, start: Position = Position()) -> None:  # noqa: B008 (frozen)
        """Count the next events of the log, which begin a part at a position.

        Raises:
            UserError: the temporary folder's disk is full.
        """
        if events.is_empty():
            return
        rows = events.select(KEY).with_columns(pl.col("behavior").cast(pl.String))
        numbers = np.arange(self.events, self.events + len(rows), dtype=np.uint64)
        hashes = [rows.hash_rows(seed=seed).to_numpy() for seed in (1, 2)]
        alone = (rows["behavior"] == TOUCHED).to_numpy()  # of several raw behaviors: never equal
        self.outside += int(alone.sum())
        hashes[0] = np.where(alone, numbers, hashes[0])
        hashes[1] = np.where(alone, np.uint64(0), hashes[1])
        self.held.append(np.stack([*hashes, numbers], axis=1))
        self.firsts.append(self.events)
        self.starts.append(start)
        self.events += len(rows)
        if sum(map(len, self.held)) > HELD:
            self._spill()

    def _spill(self) -> None:
        rows = np.concatenate(self.held)
        part = (rows[:, 0] % np.uint64(FILES)).astype(np.uint8)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=FILES))
        try:
            for number, chosen in enumerate(np.split(order, ends[:-1])):
                with self._file(number).open("ab") as file:
                    rows[chosen].tofile(file)
        except OSError as error:
            fix = "make room, or set TMPDIR to a larger disk"
            raise UserError(f"{self.folder.name}: cannot be written ({error}); {fix}") from error
        self.held, self.spilled = [], True

    def _file(self, number: int) -> Path:
        return Path(self.folder.name) / f"{number}.bin"

    def count(self) -> tuple[int, int]:
        """Return how many events repeat an earlier one, and the number of the first of them, -1 of none."""
        if self.spilled and self.held:
            self._spill()
        total, first = 0, -1
        files = [self._file(number) for number in range(FILES)] if self.spilled else []
        loaded = (np.fromfile(path, np.uint64).reshape(-1, 3) for path in files if path.is_file())
        for rows in loaded if self.spilled else self.held and [np.concatenate(self.held)]:
            again = _repeated(rows)
            total += len(again)
            if len(again) and (first < 0 or again[0] < first):
                first = int(again[0])
        return total, first

    def part_of(self, number: int) -> tuple[Position, int]:
        """Return where the part of an event begins, and the event's number inside it."""
        part = bisect_right(self.firsts, number) - 1
        return self.starts[part], number - self.firsts[part]


def _repeated(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers of the events whose hashes stand before them, ascending; (events, 3) in order."""
    frame = pl.DataFrame(rows, schema=["one", "other", "number"])
    return frame.filter(~pl.struct("one", "other").is_first_distinct())["number"].to_numpy()


def repeats_warning(raw: RawData, repeats: Repeats) -> list[str]:
    """Return the line that warns of repeated rows and names the first; none without any."""
    total, first = repeats.count()
    if not total:
        return []
    start, inside = repeats.part_of(first)
    if isinstance(raw.events, EventStream):
        events = next(iter(raw.events.parts(start))).events
        where = row_of(raw.events, start, inside)
    else:
        events, where = raw.events, f"events, row {first + 1}"
    where = raw.row_of(first) if raw.row_of is not None else where
    user, item, behavior, time = events.select(KEY).row(inside)
    event = f"user {user}, item {item}, {behavior} at {time}"
    events_read = repeats.events - repeats.outside
    counted = f"{total:,} of {events_read:,} events repeat an earlier one, the first at {where}: {event}"
    return [f"warning: {counted}; they are kept unless --set drop_duplicates=true is given"]


def first_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events without those that repeat an earlier one, in the same order."""
    return events.unique(KEY, keep="first", maintain_order=True)
