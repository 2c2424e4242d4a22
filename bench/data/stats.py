"""What is in a prepared data set, in numbers. Needs no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.data.protocol.split import split
from bench.data.schema import Interactions
from bench.data.storage import interaction_blocks, read_items, read_metadata

MODALITIES = ("image", "text")  # that each data set is asked for, beside the item id
BINS = 60  # of the time span in a picture
MOST_COUNTED = 1_000_000  # events of a user and behavior in the distribution; longer histories count as this


@dataclass
class Counts:
    """What is counted block by block, so that the events are never held as a whole."""

    behaviors: int
    """A, number of behaviors."""
    events: NDArray[np.int64] = field(init=False)
    """(A + 1,) by behavior id."""
    lengths: list[dict[int, int]] = field(init=False)
    """Behavior id -> events of a user -> users that have as many, users without one left out."""
    targets: int = 0
    """Test targets: users with a target event."""
    met: int = 0
    """Those whose item the user has met before, under any behavior."""
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        self.events = np.zeros(self.behaviors + 1, np.int64)
        self.lengths = [{} for _ in range(self.behaviors + 1)]

    def add(self, events: Interactions) -> None:
        """Count some users."""
        self.events += np.bincount(events.behavior, minlength=self.behaviors + 1)
        user = events.users()
        for id_ in range(1, self.behaviors + 1):
            mine = np.bincount(user[events.behavior == id_])
            for length, users in zip(*np.unique(mine[mine > 0], return_counts=True), strict=True):
                counted = min(int(length), MOST_COUNTED)
                self.lengths[id_][counted] = self.lengths[id_].get(counted, 0) + int(users)
        met, targets = _met_before(events, self.behaviors)
        self.met, self.targets = self.met + met, self.targets + targets
        low, high = int(events.timestamp.min()), int(events.timestamp.max())
        self.first = low if self.first is None else min(self.first, low)
        self.last = high if self.last is None else max(self.last, high)

    def per_user(self, behavior: int, num_users: int) -> dict[str, float]:
        """Return mean, median and most events of a behavior over all users, also those without one."""
        values = np.array(sorted(self.lengths[behavior]), np.int64)
        users = np.array([self.lengths[behavior][value] for value in values.tolist()], np.int64)
        if users.sum() < num_users:
            values = np.concatenate([[0], values])
            users = np.concatenate([[num_users - users.sum()], users])
        ends = np.cumsum(users)  # value i is that of the users ends[i - 1] to ends[i] in ascending order
        middle = [int(values[np.searchsorted(ends, rank, "right")]) for rank in _middle(num_users)]
        return {"mean": self.events[behavior] / num_users, "median": sum(middle) / 2, "max": int(values[-1])}


def _middle(count: int) -> tuple[int, int]:
    """Return the ranks, from 0, of the two middle ones of `count` sorted values."""
    return (count - 1) // 2, count // 2


def statistics(folder: Path) -> dict[str, Any]:
    """Return the sizes and contents of a prepared data set, ready for JSON; the log is read block by block.

    `interactions` and `behaviors` count what is kept, `raw_behaviors` what the raw files hold after the
    mapping, before any filter; `modalities` and `not_encoded` are fractions of the items, `lacking` counts
    those without a modality, encoded or not; `events_per_user` runs over all users, also those without an
    event of the behavior; `target_in_history` is the fraction of the test targets (the last target event of
    each user) whose item the user has met anywhere earlier among the events kept, nothing hidden, None where
    nobody has a target event; times are in the publisher's unit.

    Raises:
        UserError: the folder is not a complete prepared data set.
    """
    metadata = read_metadata(folder)
    names = metadata["behaviors"]
    counts, users = count(folder), _rows(folder / "users.parquet")
    _, content = read_items(folder)
    return {
        "name": metadata["name"],
        "fingerprint": metadata["fingerprint"],
        "users": users,
        "items": content.num_items,
        "interactions": int(counts.events.sum()),
        "behaviors": {name: int(counts.events[id_]) for id_, name in enumerate(names, 1)},
        "raw_behaviors": dict(metadata.get("raw_behaviors", {})),
        "dropped": dict(metadata.get("dropped", {})),
        "first_malformed_rows": list(metadata.get("first_malformed_rows", [])),
        "modalities": content.coverage(),
        "not_encoded": dict(metadata.get("not_encoded", {})),
        "lacking": dict(metadata.get("lacking", {})),
        "broken_pictures": dict(metadata.get("broken_pictures", {})),
        "target_in_history": counts.met / counts.targets if counts.targets else None,
        "events_per_user": {name: counts.per_user(id_, users) for id_, name in enumerate(names, 1)},
        "first_timestamp": counts.first,
        "last_timestamp": counts.last,
        "simulated": bool(metadata.get("simulated", False)),
        "mapping": str(metadata.get("mapping", "")),
        "encoders": dict(metadata.get("encoders", {})),
    }


def count(folder: Path) -> Counts:
    """Return what is counted in the log of a prepared folder."""
    counts = Counts(len(read_metadata(folder)["behaviors"]))
    for block in interaction_blocks(folder):
        counts.add(block)
    return counts


@dataclass(frozen=True)
class Distributions:
    """What a picture of a data set shows."""

    name: str
    simulated: bool
    lengths: dict[str, dict[int, int]]
    """Behavior -> events of a user -> users that have as many; users without one left out."""
    popularity: dict[str, NDArray[np.int64]]
    """Behavior -> events of each item that has any, descending."""
    times: NDArray[np.float64]
    """(BINS + 1,) edges over the time span, in the publisher's unit."""
    over_time: dict[str, NDArray[np.int64]]
    """Behavior -> (BINS,) events."""


def distributions(folder: Path) -> Distributions:
    """Return what is drawn of a prepared folder; memory grows with the number of items."""
    metadata, counts = read_metadata(folder), count(folder)
    names = dict(enumerate(metadata["behaviors"], 1))
    items = np.zeros((len(names) + 1, _rows(folder / "items.parquet") + 1), np.int64)
    edges = np.linspace(counts.first or 0, (counts.last or 0) + 1, BINS + 1)
    times = np.zeros((len(names) + 1, BINS), np.int64)
    for block in interaction_blocks(folder):
        for id_ in names:
            mine = block.behavior == id_
            items[id_] += np.bincount(block.item[mine], minlength=items.shape[1])
            times[id_] += np.histogram(block.timestamp[mine], edges)[0]
    popularity = {name: np.sort(items[id_][items[id_] > 0])[::-1] for id_, name in names.items()}
    lengths = {name: counts.lengths[id_] for id_, name in names.items()}
    over_time = {name: times[id_] for id_, name in names.items()}
    simulated = bool(metadata.get("simulated", False))
    return Distributions(metadata["name"], simulated, lengths, popularity, edges, over_time)


def _rows(path: Path) -> int:
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _met_before(events: Interactions, target_behavior: int) -> tuple[int, int]:
    """Return how many test targets' items their users have met before, and how many targets there are."""
    test = split(events, target_behavior).test
    pair = events.users() * (int(events.item.max(initial=0)) + 1) + events.item
    # `first`: event of each pair that comes first; `which`: (E,) pair of each event
    _, first, which = np.unique(pair, return_index=True, return_inverse=True)
    return int((first[which[test]] < test).sum()), len(test)


def _lacking(stats: dict[str, Any], modality: str) -> str:
    lacking = stats["lacking"].get(modality)
    return "" if lacking is None else f" ({lacking:,} of {stats['items']:,} lack one)"


def text_report(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the result of `statistics` as rows of a name and a text."""
    rows = [("fingerprint", stats["fingerprint"][:16])]
    paper = stats.get("paper", {})
    for name in ("users", "items", "interactions"):
        beside = f" (paper: {paper[name]:,})" if name in paper else ""
        rows.append((name, f"{stats[name]:,}{beside}"))
    for name, count in stats["behaviors"].items():
        each, raw = stats["events_per_user"][name], stats["raw_behaviors"].get(name)
        before = "" if raw is None else f" of {raw:,} raw"
        beside = f" (paper: {paper[name]:g})" if name in paper else ""
        spread = f"median {each['median']:g}, most {each['max']:,}"
        shape = f"per user: mean {each['mean']:.2f}{beside}, {spread}"
        rows.append((name, f"{count:,}{before}; {shape}"))
    for name, coverage in stats["modalities"].items():
        made = stats["encoders"].get(name, {})
        by = f"; {made['name']}, width {made['dim']}, hash {made['hash'][:12]}" if made else ""
        rows.append((name, f"{coverage:.1%} of the items{_lacking(stats, name)}{by}"))
    for name, share in stats["not_encoded"].items():
        encoder = "tfidf-svd" if name == "text" else "efficientnet"
        fix = f"not encoded (--set data.{name}={encoder})"
        rows.append((name, f"{share:.1%} of the items{_lacking(stats, name)}; {fix}"))
    for name in MODALITIES:
        if name not in stats["modalities"] and name not in stats["not_encoded"]:
            rows.append((name, "0.0% of the items: none has one that could be encoded"))
    met = stats["target_in_history"]
    rows.append(("target in history", "no target" if met is None else f"{met:.1%} of the test targets"))
    rows.append(("timestamps", f"{stats['first_timestamp']} to {stats['last_timestamp']}"))
    rows.append(("mapping", stats["mapping"]))
    rows += [("left out", f"{count:,} rows: {why}") for why, count in stats["dropped"].items()]
    rows += [("left out", row) for row in stats["first_malformed_rows"]]
    if broken := stats["broken_pictures"].get("count"):
        rows.append(("left out", f"{broken:,} broken pictures, whose items count as without"))
        rows += [("left out", fault) for fault in stats["broken_pictures"]["first"]]
    rows.append(("simulated", "yes" if stats["simulated"] else "no"))
    return rows
