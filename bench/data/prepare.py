"""Raw data to a prepared folder: filters, id maps, the order of events, item content.

The rules are those of the M3BSR paper (arXiv:2508.05352): users with 5 events or more, their last 50 events.
Repeated events of a user on an item are events of their own; a reader that wants them merged merges them.
Ids follow the ascending order of the raw ids, numbers by value and text by code point, so that nothing
depends on the order of files, on hashes or on threads.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.check import check_raw
from bench.data.content import item_table, not_encoded, write_content, write_truth
from bench.data.encoders import EncoderOptions
from bench.data.schema import METADATA, Dataset, Interactions, RawData, Touched, load, save
from bench.errors import UserError

CACHE = ".encoded"  # beside the prepared folders: vectors that encoders made


@dataclass(frozen=True)
class PrepareOptions:
    """Which users, items and events are kept."""

    min_events: int = 5
    """Users with fewer events, of all behaviors, are dropped; counted before `keep_last`."""
    keep_last: int | None = 50
    """Events of a user kept, the latest ones; null keeps all."""
    min_item_events: int = 1
    """Items with fewer raw events are dropped with their events, once, before users are counted."""

    def __post_init__(self) -> None:
        if self.keep_last == 0 or min(self.min_events, self.min_item_events, self.keep_last or 1) < 1:
            raise ValueError("min_events, keep_last and min_item_events must be 1 or more")


@dataclass(frozen=True)
class Log:
    """The events kept, with project ids."""

    interactions: Interactions
    touched: Touched
    users: pl.Series
    """(U,) raw ids, ascending."""
    items: pl.Series
    """(N,) raw ids, ascending."""


def prepare(
    raw: RawData,
    name: str,
    folder: Path,
    options: PrepareOptions,
    encoders: EncoderOptions,
    reader: Mapping[str, Any],
) -> Dataset:
    """Prepare a data set and write it into a folder, which is replaced as a whole or left as it was.

    Args:
        raw: what a reader returned.
        name: of the data set.
        folder: prepared folder; vectors made by CLIP are kept beside it.
        options: filters.
        encoders: how titles and pictures become vectors.
        reader: `name` and `options` of the reader, recorded.

    Raises:
        UserError: the raw data are faulty, nobody is left after filtering, or content cannot be encoded.
    """
    check_raw(raw)
    log = build_log(raw, options)
    folder = folder.resolve()  # arrays mapped from it are known again by their full path
    with _replaced(folder) as partial:
        _write(raw, log, name, partial, folder.parent / CACHE, (options, encoders, reader))
    return load(folder)


def build_log(raw: RawData, options: PrepareOptions) -> Log:
    """Filter, order and number the events.

    Users that pass the filters keep their last events. Their touched items, and with them the N items of the
    data set, are those of all their events, the ones cut off by `keep_last` included.

    Raises:
        UserError: no user, or no target event, is left.
    """
    events = _filtered(raw, options)
    user = events["user"].rle_id().to_numpy().astype(np.int64)  # sorted by user, so runs are users
    items = events["item"].unique().sort()
    item = _numbered(events["item"], items)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64)
    keep = slice(None) if options.keep_last is None else _last(offsets, options.keep_last)
    interactions = Interactions(
        offsets=_offsets(user[keep], len(offsets) - 1),
        item=item[keep],
        behavior=events["behavior"].to_numpy()[keep],
        timestamp=events["timestamp"].to_numpy()[keep],
    )
    if not (interactions.behavior == len(raw.behaviors)).any():
        raise UserError(
            f"no '{raw.behaviors[-1]}' event (the target behavior) is left among {len(interactions)} events; "
            "raise keep_last, lower min_events, or map another behavior to the target"
        )
    users = events["user"].gather(offsets[:-1])
    return Log(interactions, _touched(user, item, len(offsets) - 1, len(items)), users, items)


def _filtered(raw: RawData, options: PrepareOptions) -> pl.DataFrame:
    """Return the events of the users and items kept by user, timestamp, file order; behaviors as ids."""
    ids = dict(zip(raw.behaviors, range(1, len(raw.behaviors) + 1), strict=True))
    behavior = pl.col("behavior").cast(pl.String).replace_strict(ids, return_dtype=pl.Int8)
    columns = ("user", "item", behavior, pl.col("timestamp").cast(pl.Int64))
    events = raw.events.select(*columns)
    if options.min_item_events > 1:
        events = events.filter(pl.len().over("item") >= options.min_item_events)
    kept = events.filter(pl.len().over("user") >= options.min_events)
    if kept.is_empty():
        users, most = raw.events["user"].n_unique(), events.group_by("user").len().get_column("len").to_list()
        raise UserError(
            f"no user is left: of {users} users with {len(raw.events)} events none has {options.min_events} "
            f"(min_events) on items of at least {options.min_item_events} (min_item_events), the most active "
            f"has {max(most, default=0)}; lower them by --set data.min_events=..., data.min_item_events=..."
        )
    return kept.sort("user", "timestamp", maintain_order=True)


def _numbered(column: pl.Series, ids: pl.Series) -> NDArray[np.int32]:
    """Return the place, from 1, of each raw id among the ascending ids."""
    numbers = pl.DataFrame({"id": ids, "number": np.arange(1, len(ids) + 1, dtype=np.int32)})
    joined = pl.DataFrame({"id": column}).join(numbers, on="id", how="left", maintain_order="left")
    return joined["number"].to_numpy()


def _last(offsets: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return (E,) True for the last events of each user."""
    ends = np.repeat(offsets[1:], np.diff(offsets))
    return np.arange(offsets[-1]) >= ends - count


def _offsets(user: NDArray[np.int64], num_users: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))]).astype(np.int64)


def _touched(user: NDArray[np.int64], item: NDArray[np.int32], num_users: int, num_items: int) -> Touched:
    keys = np.sort(user * (num_items + 1) + item)
    keys = keys[np.diff(keys, prepend=-1) > 0]
    owner, touched = np.divmod(keys, num_items + 1)
    return Touched(_offsets(owner, num_users), touched.astype(np.int32))


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that replaces `folder` once all went well, and is removed otherwise."""
    if folder.exists() and not (folder / METADATA).is_file():
        raise UserError(f"{folder}: exists and is no prepared data set; remove it or choose another name")
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    older = folder.with_name(f"{folder.name}.older-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(older)
        partial.rename(folder)
    except BaseException:
        if older.exists() and not folder.exists():
            older.rename(folder)
        raise
    finally:
        for left in (partial, older):
            shutil.rmtree(left, ignore_errors=True)


def _write(
    raw: RawData,
    log: Log,
    name: str,
    folder: Path,
    cache: Path,
    recorded: tuple[PrepareOptions, EncoderOptions, Mapping[str, Any]],
) -> None:
    options, encoders, reader = recorded
    items = item_table(raw, log.items)
    content, made = write_content(raw, items, encoders, folder, cache)
    write_truth(raw, log.items, folder)
    counts = dict(raw.events["behavior"].cast(pl.String).value_counts().iter_rows())
    metadata = {
        "mapping": raw.mapping,
        "simulated": raw.simulated,
        "reader": reader.get("name", ""),
        "reader_options": dict(reader.get("options", {})),
        "prepare_options": asdict(options),
        "encoder_options": asdict(encoders),
        "encoders": made,
        "not_encoded": not_encoded(items, content),
        "attributes": {name: int(ids.max()) for name, ids in content.attributes.items()},
        "raw_behaviors": {behavior: counts.get(behavior, 0) for behavior in raw.behaviors},
    }
    dataset = Dataset(name, raw.behaviors, log.interactions, log.touched, content, log.users, items, metadata)
    save(dataset, folder)
