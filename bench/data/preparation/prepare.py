"""Raw data to a prepared folder: filters, id maps, the order of events, item content.

The rules are those of the M3BSR paper (arXiv:2508.05352): users with 5 events or more, their last 50 events.
Repeated events of a user on an item are events of their own; rows that are equal also in behavior and time
are dropped by an option only.
Ids follow the ascending order of the raw ids, numbers by value and text by code point, so that nothing
depends on the order of files, on hashes or on threads.

Events go through in buckets, ranges of users (`bench.data.preparation.runs`). What is held at once is a
bucket, the raw ids of the kept users and of the items, and the item table.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.parallel import mapped
from bench.data.preparation.check import check_raw
from bench.data.preparation.content import describe_items
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.order import distinct, distinct_pairs, numbering, order_by, ranks
from bench.data.preparation.repeats import first_rows
from bench.data.preparation.replaced import replaced
from bench.data.preparation.runs import (
    RUNS_FORMAT,
    Runs,
    Tally,
    Watch,
    counts,
    frequent_items,
    numbered,
    read_frame,
    silent,
    write_frame,
    write_runs,
)
from bench.data.schema import EventStream, Interactions, RawData, Touched
from bench.data.storage import FORMAT, LogWriter, finish, write_users
from bench.errors import UserError
from bench.files import replacing

CACHE = ".encoded"  # beside the prepared folders: vectors that encoders made
REPEATED = "equal to an earlier one in user, item, behavior and time"
UNFINISHED = ".unfinished"  # beside the prepared folders: what an interrupted preparation can go on from


@dataclass(frozen=True)
class PrepareOptions:
    """Which users, items and events are kept."""

    min_events: int = 5
    """Users with fewer events, of all behaviors, are dropped; counted before `keep_last`."""
    keep_last: int | None = 50
    """Events of a user kept, the latest ones; null keeps all."""
    min_item_events: int = 1
    """Items with fewer raw events are dropped with their events, once, before users are counted."""
    drop_duplicates: bool = False
    """Keep only the first of rows equal in user, item, behavior and time, before anything is counted."""

    def __post_init__(self) -> None:
        if self.keep_last == 0 or min(self.min_events, self.min_item_events, self.keep_last or 1) < 1:
            raise ValueError("min_events, keep_last and min_item_events must be 1 or more")


@dataclass
class KeptLog:
    """What the filters left, bucket after bucket; the events themselves lie in a folder."""

    folder: Path
    users: list[pl.Series] = field(default_factory=list)
    """Raw ids of the users kept, one series per bucket, ascending over all."""
    items: list[pl.Series] = field(default_factory=list)
    """Distinct raw ids of their items; now and then merged."""
    events: int = 0
    targets: int = 0
    users_seen: int = 0
    most_events: int = 0
    """Most events of one user, before the filters."""
    repeated: int = 0
    """Rows dropped since they repeat an earlier one."""

    def add(self, seen: Mapping[str, int], target: int) -> None:
        """Count the next bucket, which has been written."""
        events = read_frame(_bucket(self.folder, "events", len(self.users)))
        touched = read_frame(_bucket(self.folder, "touched", len(self.users)))
        self.users_seen += seen["users"]
        self.most_events = max(self.most_events, seen["most"])
        self.repeated += seen["repeated"]
        self.users.append(distinct(events["user"]))
        self.items.append(distinct(touched["item"]))
        if sum(map(len, self.items[1:])) > len(self.items[0]):
            self.items = [self.all_items()]
        self.events += len(events)
        self.targets += int((events["behavior"] == target).sum())

    def all_items(self) -> pl.Series:
        """Return the raw ids of the items, ascending."""
        return distinct(pl.concat(self.items))


def prepare(
    raw: RawData,
    name: str,
    folder: Path,
    options: PrepareOptions,
    encoders: EncoderOptions,
    reader: Mapping[str, Any],
    watch: Watch = silent,
    asked: Collection[str] = (),
) -> Path:
    """Prepare a data set and write it into a folder, which is replaced as a whole or left as it was.

    Args:
        raw: what a reader returned.
        name: of the data set.
        folder: prepared folder; vectors made by encoders are kept beside it, and so is what an interrupted
            reading of a long log has finished.
        options: filters.
        encoders: how titles and pictures become vectors.
        reader: `name` and `options` of the reader, the hash of its `code`, and its `file` where it was given
            by path; recorded. Unfinished work of another code is begun again.
        watch: progress callback (stage, done, total).
        asked: modalities that must not be missing: those whose encoder the user has named.

    Returns:
        The folder.

    Raises:
        UserError: the data are faulty, nothing is left after filtering, an encoder is not installed, the disk
            is full, or the folder exists and is no prepared data set.
    """
    check_raw(raw)
    with replaced(folder) as partial:
        work = _work_folder(raw, folder, partial, reader)
        tally, kept_log = _keep(raw, options, work, watch)
        items = kept_log.all_items()
        _write_log(kept_log, items, partial, watch)
        recorded = {
            "reader": reader.get("name", ""),
            "reader_options": dict(reader.get("options", {})),
            "reader_code": reader.get("code", ""),
            "reader_file": reader.get("file", ""),
            "prepare_options": asdict(options),
            "encoder_options": asdict(encoders),
        }
        made = describe_items(raw, items, encoders, asked, partial, folder.parent / CACHE, watch)
        finish(partial, name, raw.behaviors, {**_origin(raw, tally), **recorded, **made})
        _clear(work)
    return folder


def _clear(work: Path) -> None:
    """Remove finished work, and its parents where no other data set's unfinished work lies in them."""
    shutil.rmtree(work)
    with suppress(OSError):
        work.parent.rmdir()
        work.parent.parent.rmdir()


def _work_folder(raw: RawData, folder: Path, partial: Path, reader: Mapping[str, Any]) -> Path:
    """Return the folder of runs and buckets: of a long log, one that the next attempt goes on from."""
    if not isinstance(raw.events, EventStream):
        return partial / "work"
    parent = folder.parent / UNFINISHED / folder.name
    digest = _digest(raw.events.identity, raw.behaviors, reader, FORMAT, RUNS_FORMAT)
    for other in parent.iterdir() if parent.is_dir() else []:
        if other.name != digest:  # of other files or reader options: nobody will go on from it
            shutil.rmtree(other)
    return parent / digest


def _digest(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, default=dict).encode()).hexdigest()[:16]


def _keep(raw: RawData, options: PrepareOptions, work: Path, watch: Watch) -> tuple[Tally, KeptLog]:
    """Filter all buckets; each leaves two files, its events and its touched items, with raw ids.

    Buckets that an interrupted attempt with equal options finished are taken as they are.

    Raises:
        UserError: no user, or no target event, is left.
    """
    if isinstance(raw.events, EventStream):
        tally = write_runs(raw.events, raw.behaviors, work, watch)
        runs = Runs(work)
        frequent = runs.frequent_items(options.min_item_events)
        read, count = runs.bucket, runs.buckets
    else:
        behaviors, outside = counts(raw.events)
        tally = Tally(len(raw.events), sum(behaviors.values()), 0, behaviors, outside)
        whole = numbered(raw.events, raw.behaviors)
        frequent = frequent_items([whole], options.min_item_events)
        read, count = (lambda number: whole), 1
    if options.drop_duplicates:
        frequent = frequent_items((first_rows(read(n)) for n in range(count)), options.min_item_events)
    kept_log = KeptLog(work / f"kept-{_digest(asdict(options), FORMAT)}")
    kept_log.folder.mkdir(parents=True, exist_ok=True)

    def filtered(number: int) -> dict[str, int]:
        done = _bucket(kept_log.folder, "seen", number).with_suffix(".json")
        if not done.is_file():
            bucket = read(number)
            events, outside = bucket.filter(pl.col("behavior") > 0), bucket.filter(pl.col("behavior") == 0)
            rows = first_rows(events) if options.drop_duplicates else events
            seen = _filter(rows, outside, frequent, options, kept_log.folder, number)
            seen["repeated"] = len(events) - len(rows)
            with replacing(done) as partial:
                partial.write_text(json.dumps(seen), encoding="utf-8")
        return dict(json.loads(done.read_text(encoding="utf-8")))

    for number, seen in enumerate(mapped(filtered, range(count))):
        kept_log.add(seen, len(raw.behaviors))
        watch("events sorted", number + 1, count)
    if kept_log.repeated:
        tally.dropped[REPEATED] = kept_log.repeated
    _require_events(kept_log, tally, raw.behaviors[-1], options)
    return tally, kept_log


def _require_events(kept_log: KeptLog, tally: Tally, target: str, options: PrepareOptions) -> None:
    """Raise a UserError where the filters left no user, or no event of the target behavior."""
    if not kept_log.events:
        raise UserError(
            f"no user is left: of {kept_log.users_seen} users with {tally.events} events none has "
            f"{options.min_events} (min_events) on items of at least {options.min_item_events} "
            f"(min_item_events), the most active has {kept_log.most_events}; lower them by "
            "--set data.min_events=..., data.min_item_events=..."
        )
    if not kept_log.targets:
        raise UserError(
            f"no '{target}' event (the target behavior) is left among {kept_log.events} events; "
            "raise keep_last, lower min_events, or map another behavior to the target"
        )


def _filter(
    bucket: pl.DataFrame,
    outside: pl.DataFrame,
    frequent: pl.Series | None,
    options: PrepareOptions,
    folder: Path,
    number: int,
) -> dict[str, int]:
    """Write the last events of the users kept, and their distinct items over all their events; beside them
    the distinct items of their rows outside the mapping, which make no item known.

    Events are ordered by user, timestamp and order of the log; touched items by user and item.

    Returns:
        How many users there were before, and the most events of one.
    """
    if frequent is not None:
        bucket = bucket.join(frequent.to_frame(), on="item", how="semi", maintain_order="left")
    user = ranks(bucket["user"])
    order = order_by(user, bucket["timestamp"].to_numpy())  # (n,) rows by user, then time
    lengths = np.diff(np.flatnonzero(np.diff(user[order], prepend=-1)), append=len(order))  # (U,)
    enough = lengths >= options.min_events  # (U,)
    order = last = order[np.repeat(enough, lengths)]
    if options.keep_last is not None:
        ends = np.repeat(np.cumsum(lengths[enough]), lengths[enough])  # where each row's user ends in `order`
        last = order[np.arange(len(order)) >= ends - options.keep_last]
    write_frame(bucket[last], _bucket(folder, "events", number))
    touched = distinct_pairs(bucket.select("user", "item")[order])
    write_frame(touched, _bucket(folder, "touched", number))
    also = outside.select("user", "item").join(touched.select("user").unique(), on="user", how="semi")
    write_frame(distinct_pairs(also) if len(also) else also, _bucket(folder, "outside", number))
    return {"users": len(lengths), "most": int(lengths.max(initial=0))}


def _bucket(work: Path, what: str, number: int) -> Path:
    return work / f"{what}-{number:06d}.arrow"


def _write_log(kept_log: KeptLog, items: pl.Series, folder: Path, watch: Watch) -> None:
    """Number users and items and write the log; users are numbered as they come, in ascending order."""
    item_numbers = numbering(items)

    def numbered_bucket(number: int) -> tuple[Interactions, Touched]:
        events = read_frame(_bucket(kept_log.folder, "events", number))
        touched = read_frame(_bucket(kept_log.folder, "touched", number))
        outside = read_frame(_bucket(kept_log.folder, "outside", number))
        if len(outside := outside.filter(pl.col("item").is_in(items.implode()))):
            touched = distinct_pairs(pl.concat([touched, outside]))
        interactions = Interactions(
            offsets=_offsets(events["user"]),
            item=item_numbers(events["item"]),
            behavior=events["behavior"].to_numpy(),
            timestamp=events["timestamp"].to_numpy(),
        )
        return interactions, Touched(_offsets(touched["user"]), item_numbers(touched["item"]))

    with LogWriter(folder) as writer:
        for number, log in enumerate(mapped(numbered_bucket, range(len(kept_log.users)), workers=1)):
            writer.add(*log)
            watch("events written", number + 1, len(kept_log.users))
    write_users(pl.concat(kept_log.users), folder)


def _offsets(users: pl.Series) -> NDArray[np.int64]:
    """Return where each user's rows begin, and the end; rows lie together."""
    return np.concatenate([[0], np.cumsum(np.bincount(users.rle_id().to_numpy()))]).astype(np.int64)


def _origin(raw: RawData, tally: Tally) -> dict[str, Any]:
    """Return what the metadata say of the raw data."""
    return {
        "mapping": raw.mapping,
        "simulated": raw.simulated,
        "raw_rows": tally.rows,
        "raw_behaviors": {behavior: tally.behaviors.get(behavior, 0) for behavior in raw.behaviors},
        "dropped": tally.dropped,
        "first_malformed_rows": tally.bad_rows,
    }
