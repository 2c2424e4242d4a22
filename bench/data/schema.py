"""The data contract: raw data as readers give them, events, item content, a prepared data set.

This file imports nothing of the project.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

TOUCHED = "(outside the mapping)"
"""Behavior that a reader gives a row of a raw behavior that the mapping leaves out: it is no event, but the
user has touched the item, so the item is no negative of this user."""


@dataclass(frozen=True)
class RawFeatures:
    """Ready-made feature vectors of one modality, as a publisher or user brings them."""

    items: list[Any]
    """Raw item id of each row."""
    vectors: NDArray[np.floating]
    """(rows, D) float16 or float32; may be a memory map."""


@dataclass(frozen=True)
class StreamedFeatures:
    """Ready-made feature vectors of one modality, read block by block and never held as a whole."""

    width: int
    """D."""
    blocks: Callable[[pl.Series], Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]]
    """Gets the raw ids kept, ascending; yields the 0-based rows among them and (rows, D) vectors, a few MB at
    a time, each item at most once."""


@dataclass(frozen=True)
class Position:
    """How far a log has been read: everything before `offset` of file `file`."""

    file: int = 0
    offset: int = 0
    """Bytes, after decompression."""
    row: int = 0
    """Rows of this file before the offset, blank lines and header included."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a raw log."""

    events: pl.DataFrame
    """Columns and order of `RawData.events`."""
    rows: int
    """Raw rows read, those left out included."""
    dropped: Mapping[str, int]
    """Why rows were left out -> how many."""
    end: Position
    """Where the next part begins."""
    size: int
    """Raw bytes read, as `EventStream.size` counts them."""
    bad_rows: tuple[str, ...] = ()
    """The first malformed rows that were left out: file, row, value, what was expected."""


class EventStream(ABC):
    """A raw log that is read part by part, in file order, so that its length does not matter."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What tells this stream from one of other files or with other options."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the raw files, for the progress."""

    @abstractmethod
    def parts(self, start: Position) -> Iterator[Part]:
        """Yield the parts from a position on, which is that of the beginning or the end of a part."""

    def collect(self) -> pl.DataFrame:
        """Return all events, held at once."""
        return pl.concat([part.events for part in self.parts(Position())])


@dataclass(frozen=True)
class RawData:
    """What a reader in `datasets/` returns: the publisher's files in the project's words, nothing filtered
    yet.
    """

    events: "pl.DataFrame | EventStream"
    """Columns user, item (string or int64), behavior (string or `pl.Enum`, of `behaviors`), timestamp
    (int64); row order = file order. A stream where they may be too many to be held."""
    behaviors: tuple[str, ...]
    """Shallow -> deep; the last one is the target behavior."""
    mapping: str
    """How raw behaviors became these, in words that go under every table."""
    items: pl.DataFrame | Callable[[pl.Series], pl.DataFrame] | None = None
    """Column item (same type as in `events`), and where known title (string), image (path as string),
    attributes; or a function that gets the raw ids kept, ascending, and returns the table of those it knows.
    """
    attributes: tuple[str, ...] = ()
    """Names of the categorical columns of `items`: brand, seller, category."""
    numbers: tuple[str, ...] = ()
    """Names of the numerical columns of `items`, float, null where unknown: price."""
    features: "Mapping[str, RawFeatures | StreamedFeatures]" = field(default_factory=dict)
    """Ready-made vectors by modality (`image`, `text`); a modality given here is not encoded again."""
    pictures: Path | None = None
    """Folder where pictures are looked for by item id; it need not exist. Errors name what lies in it."""
    row_of: Callable[[int], str] | None = None
    """Number of an event, from 0 -> its file and row in words, where the reader knows it."""
    simulated: bool = False
    """True for generated data; every table then says so."""
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Planted quantities of generated data, row order = `items`; kept beside the data set, never shown to a
    model."""

    def collected(self) -> "RawData":
        """Return the same with streams and functions turned into tables: to look at a log that is short."""
        events = self.events if isinstance(self.events, pl.DataFrame) else self.events.collect()
        ids = events.filter(pl.col("behavior").cast(pl.String) != TOUCHED)["item"].unique().sort()
        items = self.items(ids) if callable(self.items) else self.items
        return replace(self, events=events, items=items)


@dataclass(frozen=True)
class Interactions:
    """All events of all users in flat arrays, sorted by user, then timestamp, then file order."""

    offsets: NDArray[np.int64]
    """(U + 1,): the events of user u (0-based) are `offsets[u]:offsets[u + 1]`."""
    item: NDArray[np.int32]
    """(E,) item ids 1..N."""
    behavior: NDArray[np.int8]
    """(E,) behavior ids 1..A, shallow -> deep; A is the target."""
    timestamp: NDArray[np.int64]
    """(E,) in the publisher's unit; only the order is used."""

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return len(self.offsets) - 1

    def __len__(self) -> int:
        return len(self.item)

    def users(self) -> NDArray[np.int64]:
        """Return (E,) the 0-based user of each event."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    def user_of(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the 0-based user of each given event index."""
        return np.searchsorted(self.offsets, events, side="right") - 1


@dataclass(frozen=True)
class Touched:
    """The distinct items of each user under any behavior, before any truncation: what a negative must not
    be.
    """

    offsets: NDArray[np.int64]
    """(U + 1,)."""
    item: NDArray[np.int32]
    """Ascending inside a user."""

    def of(self, user: int) -> NDArray[np.int32]:
        """Return the items of one 0-based user, ascending."""
        return self.item[self.offsets[user] : self.offsets[user + 1]]


@dataclass(frozen=True)
class ItemContent:
    """What is known of the items beside their id. Row 0 is padding; absent is not zero: see `present`."""

    num_items: int
    """N; item ids are 1..N."""
    features: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    """Modality -> (N + 1, D) float16 or float32, memory-mapped; rows of absent items are zero."""
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Modality -> (N + 1,), True where the item has this modality."""
    attributes: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    """Attribute -> (N + 1,) category ids 1..V, 0 = unknown."""
    numbers: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Numerical attribute, such as the price -> (N + 1,) values, NaN = unknown."""

    def coverage(self) -> dict[str, float]:
        """Return the fraction of items 1..N that have each modality."""
        return {name: float(mask[1:].mean()) for name, mask in self.present.items()}


@dataclass(frozen=True)
class Dataset:
    """A prepared data set."""

    name: str
    behaviors: tuple[str, ...]
    """Shallow -> deep; behavior id = position + 1; the last is the target."""
    interactions: Interactions
    touched: Touched
    content: ItemContent
    users: pl.Series
    """Raw id of user u at row u."""
    items: pl.DataFrame
    """Row i - 1 describes item i: raw id `item`, and title, image path, attributes where known."""
    metadata: Mapping[str, Any]
    """mapping, encoders, preparation options, raw behavior counts, simulated, fingerprint."""
    folder: Path | None = None

    @property
    def num_items(self) -> int:
        """N."""
        return self.content.num_items

    @property
    def target_behavior(self) -> int:
        """Behavior id of the target, A."""
        return len(self.behaviors)

    @property
    def fingerprint(self) -> str:
        """Hex digest over everything that can change a result."""
        return str(self.metadata["fingerprint"])
