"""What the checks of a data set look at: one read of its raw files, and further ones of altered copies."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl

from bench.data import library
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import TOUCHED, Dataset, EventStream, Position, RawData
from bench.data.sources import Reader
from bench.data.storage import load
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.contract.raw_text import RawText

MOST_EVENTS = 2_000_000
"""Events of a stream that are looked at: a log of any length is checked by its beginning."""
NOTHING_ENCODED = EncoderOptions(text="none", image="none")


@dataclass(frozen=True)
class Read:
    """What one call of a reader gave, held whole or as far as `MOST_EVENTS`."""

    raw: RawData
    events: pl.DataFrame
    left_out: Mapping[str, int]
    """Why rows were left out -> how many, where the events come as a stream."""

    @cached_property
    def items(self) -> pl.DataFrame | None:
        """The item table; of a function that of the items of the events."""
        given = self.raw.items
        return given(self.ids) if callable(given) else given

    @cached_property
    def ids(self) -> pl.Series:
        """The raw ids of the items of the events, ascending."""
        return self.events.filter(~touched())["item"].unique().sort()

    def same_events(self, other: "Read") -> bool:
        """Return whether another read gave the same events, in whatever order."""
        return in_order(self.events).equals(in_order(other.events))


@dataclass(frozen=True)
class Subject:
    """A reader, the raw files on which it is checked, and its options."""

    reader: Reader
    raw: Path | None
    """None for a data set that needs no files."""
    overrides: Mapping[str, Any]

    def open(self, raw: Path | None = None, on_bad_row: str = "error") -> tuple[RawData, PrepareOptions]:
        """Call the reader on the raw files, or on others; with the usual filters of the data set.

        Raises:
            UserError: what the reader says.
        """
        given, _, filters, _ = library.read_raw(self.reader, raw or self.raw, self.overrides, on_bad_row)
        return given, filters

    def read(self, raw: Path | None = None, on_bad_row: str = "error") -> Read:
        """Call the reader and hold its events."""
        with self.reader.blamed():
            return held(self.open(raw, on_bad_row)[0])

    @cached_property
    def opened(self) -> tuple[RawData, PrepareOptions]:
        """The first call of the reader."""
        return self.open()

    @cached_property
    def first(self) -> Read:
        """The first read, which most checks look at."""
        with self.reader.blamed():
            return held(self.opened[0])

    @cached_property
    def prepared(self) -> Dataset:
        """The data set as it is prepared, without vectors; its folder is gone.

        Raises:
            UserError: it cannot be prepared.
        """
        raw = replace(self.first.raw, events=self.first.events, items=self.first.items, features={})
        with TemporaryDirectory(prefix="bench-test-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / "prepared"
            prepare(raw, self.reader.card.name, folder, self.opened[1], NOTHING_ENCODED, {})
            return load(folder)

    @cached_property
    def texts(self) -> "list[RawText]":
        """The text files among the raw ones that hold the events."""
        from bench.data.contract.raw_text import raw_texts

        return raw_texts(self)

    @contextmanager
    def altered(self, files: Mapping[Path, bytes | None]) -> Iterator[Path]:
        """Give a copy of the raw files, made of links, in which some files hold other bytes or are missing.

        Args:
            files: path of a raw file -> its new contents, None to leave it out.
        """
        assert self.raw is not None
        folder = self.raw if self.raw.is_dir() else self.raw.parent
        with TemporaryDirectory(prefix="bench-test-", ignore_cleanup_errors=True) as temporary:
            copy = Path(temporary) / folder.resolve().name
            copy.mkdir()
            for path in folder.iterdir():
                if path not in files:
                    _link(path.resolve(), copy / path.name)
            for path, text in files.items():
                if text is not None:
                    (copy / path.name).write_bytes(text)
            yield copy if self.raw.is_dir() else copy / self.raw.name


def _link(path: Path, link: Path) -> None:
    """Put a link to a file or folder somewhere; a copy where links are not allowed."""
    try:
        link.symlink_to(path)
    except OSError:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, link)


@contextmanager
def looking(done: str, where: str) -> Iterator[None]:
    """Turn what the harness's own checks say into what was done, what was seen and where to look."""
    try:
        yield
    except UserError as error:
        raise AssertionError(f"{done} and saw: {error}; look at {where}") from error


def held(raw: RawData) -> Read:
    """Return what a reader gave, with the events of a stream in one table."""
    if not isinstance(raw.events, EventStream):
        return Read(raw, raw.events, {})
    tables: list[pl.DataFrame] = []
    left_out: dict[str, int] = {}
    for part in raw.events.parts(Position()):
        tables.append(part.events)
        for why, count in part.dropped.items():
            left_out[why] = left_out.get(why, 0) + count
        if sum(map(len, tables)) >= MOST_EVENTS:
            break
    return Read(raw, pl.concat(tables), left_out)


def touched() -> pl.Expr:
    """Return the condition of a row outside the mapping of behaviors."""
    return pl.col("behavior").cast(pl.String) == TOUCHED


def in_order(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table as text, its rows in an order of their own."""
    return table.cast(pl.String).sort(table.columns)
