"""A prepared data set on disk.

A folder holds `events.parquet`, `users.parquet`, `items.parquet`, `touched.parquet`, one memory-mapped
`feature_<modality>.npy` per modality and, written last, `dataset.json`. A folder without `dataset.json` is
not a prepared data set, so an interrupted preparation never looks complete.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.data.parallel import ahead
from bench.data.schema import Dataset, Interactions, ItemContent, Touched
from bench.errors import UserError
from bench.files import replacing

FORMAT = 3
METADATA = "dataset.json"
CHUNK = 65536
BLOCK = 1_000_000  # events written, and read, at once
EVENTS = pa.schema(
    [("user", pa.int64()), ("item", pa.int32()), ("behavior", pa.int8()), ("timestamp", pa.int64())]
)
REPEATING = ["user", "behavior"]  # columns whose values repeat; a dictionary of the others only costs time
TOUCHED = pa.schema([("user", pa.int64()), ("item", pa.int32())])


class LogWriter:
    """Writes events and touched items user after user, so that they are never held as a whole.

    Args:
        folder: gets `events.parquet` and `touched.parquet`.
    """

    def __init__(self, folder: Path) -> None:
        self.events = pq.ParquetWriter(folder / "events.parquet", EVENTS, use_dictionary=REPEATING)
        self.touched = pq.ParquetWriter(folder / "touched.parquet", TOUCHED, use_dictionary=REPEATING)
        self.users = 0

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.events.close()
        self.touched.close()

    def add(self, events: Interactions, touched: Touched) -> None:
        """Append the next users, as many in `events` as in `touched`."""
        user = events.users() + self.users
        columns = (user, events.item, events.behavior, events.timestamp)
        self.events.write_table(_table(columns, EVENTS), row_group_size=BLOCK)
        owner = np.repeat(np.arange(events.num_users), np.diff(touched.offsets)) + self.users
        self.touched.write_table(_table((owner, touched.item), TOUCHED), row_group_size=BLOCK)
        self.users += events.num_users


def _table(columns: Iterable[NDArray[Any]], schema: pa.Schema) -> pa.Table:
    """Return an Arrow table; made through polars, since pyarrow imports pandas to look at an array."""
    return pl.DataFrame(dict(zip(schema.names, columns, strict=True))).to_arrow().cast(schema)


def write_users(users: pl.Series, folder: Path) -> None:
    """Write the raw id of each user."""
    pl.DataFrame({"user": users}).write_parquet(folder / "users.parquet")


def write_items(items: pl.DataFrame, content: ItemContent, folder: Path) -> None:
    """Write raw ids and descriptions of the items, which modalities each has, and its categories."""
    extra = [pl.Series(f"has_{name}", mask[1:]) for name, mask in sorted(content.present.items())]
    extra += [pl.Series(f"attribute_{name}", ids[1:]) for name, ids in sorted(content.attributes.items())]
    extra += [pl.Series(f"number_{name}", values[1:]) for name, values in sorted(content.numbers.items())]
    items.with_columns(extra).write_parquet(folder / "items.parquet")


def finish(folder: Path, name: str, behaviors: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Write `dataset.json`, with the fingerprint of what lies in the folder; this completes it."""
    complete = {**metadata, "format": FORMAT, "name": name, "behaviors": list(behaviors)}
    complete["fingerprint"] = fingerprint(folder, behaviors)
    with replacing(folder / METADATA) as partial:
        partial.write_text(json.dumps(complete, indent=1) + "\n", encoding="utf-8")


def save(dataset: Dataset, folder: Path) -> Dataset:
    """Write a data set into a folder and return it with its fingerprint; `dataset.json` is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    with LogWriter(folder) as writer:
        writer.add(dataset.interactions, dataset.touched)
    write_users(dataset.users, folder)
    write_items(dataset.items, dataset.content, folder)
    for name, array in dataset.content.features.items():
        np.save(folder / f"feature_{name}.npy", array)
    finish(folder, dataset.name, dataset.behaviors, dataset.metadata)
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
    events = pl.read_parquet(folder / "events.parquet", glob=False)
    users = pl.read_parquet(folder / "users.parquet", glob=False)["user"]
    touched = pl.read_parquet(folder / "touched.parquet", glob=False)
    items, content = read_items(folder)
    return Dataset(
        name=metadata["name"],
        behaviors=tuple(metadata["behaviors"]),
        interactions=_interactions(events, len(users)),
        touched=Touched(
            _offsets(touched["user"], len(users)), touched["item"].to_numpy().astype(np.int32, copy=False)
        ),
        content=content,
        users=users,
        items=items,
        metadata=metadata,
        folder=folder,
    )


def read_items(folder: Path) -> tuple[pl.DataFrame, ItemContent]:
    """Return the descriptions of the items of a prepared folder and their content; features stay on disk."""
    table = pl.read_parquet(folder / "items.parquet", glob=False)
    masks = [name for name in table.columns if name.startswith("has_")]
    categories = [name for name in table.columns if name.startswith("attribute_")]
    present = {name.removeprefix("has_"): _padded(table[name], np.bool_) for name in masks}
    attributes = {name.removeprefix("attribute_"): _padded(table[name], np.int32) for name in categories}
    values = [name for name in table.columns if name.startswith("number_")]
    numbers = {name.removeprefix("number_"): _padded(table[name], np.float32, np.nan) for name in values}
    features = {name: np.load(folder / f"feature_{name}.npy", mmap_mode="r") for name in present}
    content = ItemContent(len(table), features, present, attributes, numbers)
    return table.drop(*masks, *categories, *values), content


def interaction_blocks(folder: Path) -> Iterator[Interactions]:
    """Yield the events of a prepared folder, some whole users at a time, about `BLOCK` events.

    Users without an event at the end of a block belong to none; `Interactions.users` counts from 0 in each.
    """
    held = pl.DataFrame(schema={name: pl.Int64 for name in EVENTS.names})
    for part in pq.ParquetFile(folder / "events.parquet").iter_batches(BLOCK):
        frame = pl.DataFrame(pl.from_arrow(part)).cast(pl.Int64)
        held = pl.concat([held, frame]) if len(held) else frame
        whole = held.filter(pl.col("user") < held["user"][-1])  # the last user may go on in the next part
        if len(whole):
            held = held.filter(pl.col("user") == held["user"][-1])
            yield _from_zero(whole)
    if len(held):
        yield _from_zero(held)


def _from_zero(events: pl.DataFrame) -> Interactions:
    first, last = int(events["user"][0]), int(events["user"][-1])
    return _interactions(events.with_columns(pl.col("user") - first), last - first + 1)


def _interactions(events: pl.DataFrame, num_users: int) -> Interactions:
    return Interactions(
        offsets=_offsets(events["user"], num_users),
        item=events["item"].to_numpy().astype(np.int32, copy=False),
        behavior=events["behavior"].to_numpy().astype(np.int8, copy=False),
        timestamp=events["timestamp"].to_numpy().astype(np.int64, copy=False),
    )


def _padded(column: pl.Series, dtype: Any, padding: float = 0) -> NDArray[Any]:
    return np.concatenate([np.full(1, padding, dtype), column.to_numpy().astype(dtype)])


def _offsets(users: pl.Series, num_users: int) -> NDArray[np.int64]:
    counts = np.bincount(users.to_numpy(), minlength=num_users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def fingerprint(folder: Path, behaviors: Sequence[str]) -> str:
    """Return a SHA-256 over events, behaviors, touched items, features, attributes and raw ids of a folder.

    Names, paths and dates are left out: two preparations of the same raw files agree. Read block by block.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, list(behaviors)]).encode())
    for file in ("events.parquet", "touched.parquet"):
        for column in pq.read_schema(folder / file).names:
            _digest_column(digest, folder / file, column)
    items, content = read_items(folder)
    parts = (
        ("f", content.features),
        ("p", content.present),
        ("a", content.attributes),
        ("n", content.numbers),
    )
    for kind, arrays in parts:
        for name in sorted(arrays):
            digest.update(f"{kind}:{name}{arrays[name].dtype.str}{arrays[name].shape}".encode())
            _digest_array(digest, arrays[name])
    for ids in (pl.read_parquet(folder / "users.parquet", glob=False)["user"], items["item"]):
        digest.update(f"ids{len(ids)}".encode())
        for start in range(0, len(ids), CHUNK):
            digest.update("\0".join(["", *map(str, ids.slice(start, CHUNK).to_list())]).encode())
    return digest.hexdigest()


def _digest_column(digest: Any, path: Path, column: str) -> None:
    file = pq.ParquetFile(path)
    digest.update(f"{path.stem}.{column}{file.metadata.num_rows}".encode())
    for part in ahead(file.iter_batches(BLOCK, columns=[column])):
        values = pl.DataFrame(pl.from_arrow(part)).to_series()  # pyarrow's own way to NumPy imports pandas
        digest.update(np.ascontiguousarray(values.to_numpy()))


def _digest_array(digest: Any, array: NDArray[Any]) -> None:
    """Add the bytes of an array; a mapped one is read, since touched pages of a map count as memory."""
    if not isinstance(array, np.memmap) or array.filename is None:
        digest.update(np.ascontiguousarray(array).tobytes())
        return
    with Path(array.filename).open("rb") as file:
        file.seek(array.offset)
        while block := file.read(2**22):
            digest.update(block)
