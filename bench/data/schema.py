"""The data contract: events, item content, a prepared data set, and its form on disk.

A prepared folder holds `events.parquet`, `users.parquet`, `items.parquet`, `touched.parquet`, one
memory-mapped `feature_<modality>.npy` per modality and, written last, `dataset.json`. A folder without
`dataset.json` is not a prepared data set, so an interrupted preparation never looks complete.

This file imports nothing of the project but its error class.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.errors import UserError

FORMAT = 1
METADATA = "dataset.json"


@dataclass(frozen=True)
class RawFeatures:
    """Ready-made feature vectors of one modality, as a publisher or user brings them."""

    items: list[Any]
    """Raw item id of each row."""
    vectors: NDArray[np.floating]
    """(rows, D) float16 or float32; may be a memory map."""


@dataclass(frozen=True)
class RawData:
    """What a reader in `datasets/` returns: the publisher's files in the project's words, nothing filtered
    yet.
    """

    events: pl.DataFrame
    """Columns user, item (string or int64), behavior (string, one of `behaviors`), timestamp (int64); row
    order = file order."""
    behaviors: tuple[str, ...]
    """Shallow -> deep; the last one is the target behavior."""
    mapping: str
    """How raw behaviors became these, in words that go under every table."""
    items: pl.DataFrame | None = None
    """Column item (same type as in `events`), and where known title (string), image (path as string),
    attributes."""
    attributes: tuple[str, ...] = ()
    """Names of the categorical columns of `items`: brand, seller, category."""
    features: Mapping[str, RawFeatures] = field(default_factory=dict)
    """Ready-made vectors by modality (`image`, `text`); a modality given here is not encoded again."""
    simulated: bool = False
    """True for generated data; every table then says so."""
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Planted quantities of generated data, row order = `items`; kept beside the data set, never shown to a
    model."""


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


def fingerprint(dataset: Dataset) -> str:
    """Return a SHA-256 over events, behaviors, touched items, features, attributes and raw ids.

    Names, paths and dates are left out: two preparations of the same raw files agree.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, dataset.behaviors]).encode())
    for name, array in _arrays(dataset):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), 65536):
            digest.update(np.ascontiguousarray(array[start : start + 65536]).tobytes())
    for column in (dataset.users, dataset.items["item"]):
        digest.update("\0".join(map(str, column.to_list())).encode())
    return digest.hexdigest()


def _arrays(dataset: Dataset) -> Iterator[tuple[str, NDArray[Any]]]:
    events, touched, content = dataset.interactions, dataset.touched, dataset.content
    yield from (("offsets", events.offsets), ("item", events.item), ("behavior", events.behavior))
    yield from (("timestamp", events.timestamp), ("touched", touched.offsets), ("touched_item", touched.item))
    for kind, arrays in (("f", content.features), ("p", content.present), ("a", content.attributes)):
        yield from ((f"{kind}:{name}", arrays[name]) for name in sorted(arrays))


def save(dataset: Dataset, folder: Path) -> Dataset:
    """Write a data set into a folder and return it with its fingerprint; `dataset.json` is written last.

    Feature arrays that already are `feature_<modality>.npy` inside `folder` are not written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events, content = dataset.interactions, dataset.content
    pl.DataFrame(
        {
            "user": events.users(),
            "item": events.item,
            "behavior": events.behavior,
            "timestamp": events.timestamp,
        }
    ).write_parquet(folder / "events.parquet")
    touched_users = np.repeat(np.arange(events.num_users), np.diff(dataset.touched.offsets))
    pl.DataFrame({"user": touched_users, "item": dataset.touched.item}).write_parquet(
        folder / "touched.parquet"
    )
    pl.DataFrame({"user": dataset.users}).write_parquet(folder / "users.parquet")
    extra = [pl.Series(f"has_{name}", mask[1:]) for name, mask in sorted(content.present.items())]
    extra += [pl.Series(f"attribute_{name}", ids[1:]) for name, ids in sorted(content.attributes.items())]
    dataset.items.with_columns(extra).write_parquet(folder / "items.parquet")
    for name, array in content.features.items():
        path = folder / f"feature_{name}.npy"
        if not (isinstance(array, np.memmap) and array.filename and Path(array.filename) == path):
            np.save(path, array)
    metadata = {
        **dataset.metadata,
        "format": FORMAT,
        "name": dataset.name,
        "behaviors": list(dataset.behaviors),
    }
    metadata["fingerprint"] = fingerprint(dataset)
    partial = folder / (METADATA + ".partial")
    partial.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / METADATA)
    return load(folder)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return `dataset.json` of a prepared folder.

    Raises:
        UserError: the folder is not a complete prepared data set, or of another format.
    """
    path = folder / METADATA
    if not path.is_file():
        raise UserError(
            f"{folder}: no {METADATA} there, so this is not a complete prepared data set; prepare it again"
        )
    metadata = json.loads(path.read_text(encoding="utf-8"))
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {metadata.get('format')}, expected {FORMAT}; prepare the data set again"
        )
    return dict(metadata)


def load(folder: Path) -> Dataset:
    """Open a prepared folder; features stay on disk (memory maps), events are read.

    Raises:
        UserError: the folder is not a complete prepared data set.
    """
    metadata = read_metadata(folder)
    events = pl.read_parquet(folder / "events.parquet")
    users = pl.read_parquet(folder / "users.parquet")["user"]
    touched = pl.read_parquet(folder / "touched.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    present = {
        name.removeprefix("has_"): _padded(items[name], np.bool_)
        for name in items.columns
        if name.startswith("has_")
    }
    attributes = {
        name.removeprefix("attribute_"): _padded(items[name], np.int32)
        for name in items.columns
        if name.startswith("attribute_")
    }
    features = {name: np.load(folder / f"feature_{name}.npy", mmap_mode="r") for name in present}
    return Dataset(
        name=metadata["name"],
        behaviors=tuple(metadata["behaviors"]),
        interactions=Interactions(
            offsets=_offsets(events["user"], len(users)),
            item=events["item"].to_numpy().astype(np.int32, copy=False),
            behavior=events["behavior"].to_numpy().astype(np.int8, copy=False),
            timestamp=events["timestamp"].to_numpy().astype(np.int64, copy=False),
        ),
        touched=Touched(
            _offsets(touched["user"], len(users)), touched["item"].to_numpy().astype(np.int32, copy=False)
        ),
        content=ItemContent(len(items), features, present, attributes),
        users=users,
        items=items.select([name for name in items.columns if not name.startswith(("has_", "attribute_"))]),
        metadata=metadata,
        folder=folder,
    )


def _padded(column: pl.Series, dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(1, dtype), column.to_numpy().astype(dtype)])


def _offsets(users: pl.Series, num_users: int) -> NDArray[np.int64]:
    counts = np.bincount(users.to_numpy(), minlength=num_users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
