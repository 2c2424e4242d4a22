"""Raw files in the publisher's layout of Rec-Tmall, filled with simulated users, at any scale.

At scale 1 the default preparation keeps the paper's users, items and events per user (`planted` gives the
law, and how the paper's Table 1 is read). Beside them stand users too short to be kept, carts and
purchases, products that nobody clicks, and the known dirt: titles, brands and sellers that are empty or
`null`, items of the log that the product table lacks. Rows stand as in the publisher's log sample: together
by item, inside an item in no order of time. All rows of an item stand in one of the three parts, a user's in
any; items come round again with every block of users.

What a model can learn: categories and words of a title tell the leaf that an item lies in, and users have a
leaf at heart.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.datasets.rec_tmall.planted import (
    PERIOD,
    USERS,
    Catalog,
    Integers,
    Visits,
    long_visits,
    plant_catalog,
    short_visits,
)
from bench.datasets.rec_tmall.products import write_products
from bench.errors import UserError
from bench.files import replacing

MARKER, UNFINISHED = "SIMULATED.json", "SIMULATING.json"
PRODUCTS = "tianchi_2014001_rec_tmall_product.txt"
LOGS = tuple(f"tianchi_2014002_rec_tmall_log_part{part}.txt" for part in "abc")
TIME = "%Y-%m-%d %H:%M:%S"
ACTIONS = ("click", "collect", "cart", "alipay")

FEWEST = 0.001  # the smallest scale: 72 users
BLOCK = 50_000  # kept users at once
CHUNK = 1_000_000  # rows of `write_log` at once
CARTS, PURCHASES = 0.08, 0.1  # carts per event (the publisher's sample: 0.074), purchases per cart
LATER = 3600  # seconds from an event to its cart, and on to its purchase, at most
FIRST_TIME = 1_409_529_600  # 2014-09-01; the sample's month
ITEM_IDS, USER_IDS = 8_133_507, 9_774_184  # largest ids of the real files
SHARES = (0.90, 0.94, 0.99)  # of `write_log`: cumulated shares of the actions
ACTIVITY, POPULARITY = 1.5, 2.0  # of `write_log`: sigma over users, exponent over items

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rows:
    """Rows of the log: item, user, action (index in `ACTIONS`) and seconds since `FIRST_TIME`."""

    item: Integers
    user: Integers
    action: Integers
    second: Integers

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Rows":
        """Return some rows."""
        return Rows(self.item[chosen], self.user[chosen], self.action[chosen], self.second[chosen])

    def __add__(self, more: "Rows") -> "Rows":
        parts = zip(vars(self).values(), vars(more).values(), strict=True)
        return Rows(*(np.concatenate(pair) for pair in parts))

    def grouped(self, shelf: Integers, rng: np.random.Generator) -> "Rows":
        """Return the rows by the rank of their item on the shelf (C,), in random order inside an item."""
        order = rng.permutation(len(self.item))
        return self.take(order[np.argsort(shelf[self.item[order]], kind="stable")])

    def append(self, file: IO[bytes], item_ids: Integers, user_ids: Integers) -> None:
        """Write the rows with published ids; times read as the publisher's local ones."""
        frame = pl.DataFrame(
            {
                "item": item_ids[self.item],
                "user": user_ids[self.user],
                "action": pl.Series(ACTIONS).gather(self.action),
                "time": self.second + FIRST_TIME,
            }
        )
        user, time = pl.format("u{}", "user"), pl.from_epoch("time", "s")
        frame.select("item", user.alias("user"), "action", time).write_csv(
            file, include_header=False, separator="\x01", quote_style="never", datetime_format=TIME
        )


def _silent(stage: str, done: int, of: int) -> None:
    """Watch nothing."""


def simulate(out: Path, scale: float, seed: int = 0, watch: Watch = _silent) -> None:
    """Write the product table, the three parts of the log and, last, the marker file into a new folder.

    All is written beside it, under a temporary name, and renamed once it is whole.

    Args:
        out: the folder; must not exist, or be empty.
        scale: 1 is the size that the paper keeps; 0.001 or more.
        seed: of everything.
        watch: progress callback (stage, done, total).

    Raises:
        UserError: the scale is too small, the folder holds files, or it cannot be written.
    """
    if not FEWEST <= scale < float("inf"):
        raise UserError(f"--scale {scale}: expected {FEWEST} or more; 1 is the size that the paper keeps")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; remove it or name another folder")
    try:
        with replacing(out) as partial:
            partial.mkdir()
            _write(partial, scale, seed, watch)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); make room or name another folder") from error


def _write(folder: Path, scale: float, seed: int, watch: Watch) -> None:
    """Write all files; items, ids, log and products have random streams of their own."""
    marker = {"data_set": "rec_tmall", "scale": scale, "seed": seed}
    (folder / UNFINISHED).write_text(json.dumps(marker) + "\n", encoding="utf-8")
    planted, numbers, log, table = np.random.SeedSequence(seed).spawn(4)
    catalog = plant_catalog(scale, np.random.default_rng(planted))
    half, rng = round(USERS * scale), np.random.default_rng(numbers)
    item_ids = _distinct(len(catalog.leaf), ITEM_IDS, rng)
    user_ids = _distinct(2 * half, USER_IDS, rng)
    _write_log(folder, catalog, (item_ids, user_ids), log, watch)
    write_products(folder / PRODUCTS, catalog, item_ids, table, watch)
    (folder / UNFINISHED).rename(folder / MARKER)


def _distinct(count: int, largest: int, rng: np.random.Generator) -> Integers:
    """Return distinct ids in random order, from 1 to `largest`, or to more where they do not suffice."""
    return 1 + rng.choice(max(largest, count), count, replace=False)


def _write_log(
    folder: Path,
    catalog: Catalog,
    ids: tuple[Integers, Integers],
    seed: np.random.SeedSequence,
    watch: Watch,
) -> None:
    """Write the parts of the log, block of users after block.

    The first half of the users is kept by the paper's preparation, the second is too short.
    """
    item_ids, user_ids = ids
    half = len(user_ids) // 2
    starts = range(0, half, BLOCK)
    shelf = np.random.default_rng(seed).permutation(len(item_ids))
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in LOGS]
        for start, own in zip(starts, seed.spawn(len(starts)), strict=True):
            users, rng = np.arange(start, min(start + BLOCK, half)), np.random.default_rng(own)
            long = _rows(long_visits(catalog, len(users), rng), users, rng)
            short = _rows(short_visits(catalog, len(users), rng), users + half, rng)
            rows = (long + short).grouped(shelf, rng)
            for part, file in enumerate(files):
                rows.take(rows.item % len(files) == part).append(file, item_ids, user_ids)
            watch("users simulated", start + len(users), half)


def _rows(visits: Visits, users: Integers, rng: np.random.Generator) -> Rows:
    """Return the clicks and favors of users, and carts and purchases that follow some of them."""
    real = visits.real
    user = np.repeat(users, visits.lengths)
    events = Rows(visits.item[real], user, visits.favor[real].astype(np.int64), visits.second[real])
    carts = _followed(events, "cart", CARTS, rng)
    return events + carts + _followed(carts, "alipay", PURCHASES, rng)


def _followed(rows: Rows, action: str, share: float, rng: np.random.Generator) -> Rows:
    some = rows.take(rng.random(len(rows.item)) < share)
    later = some.second + rng.integers(1, LATER, len(some.second))
    return Rows(some.item, some.user, np.full(len(later), ACTIONS.index(action)), later)


def write_log(path: Path, rows: int, users: int, items: int, seed: int = 0, watch: Watch = _silent) -> None:
    """Write a long log of one file at once, for benchmarks: long-tailed users and items, nothing planted.

    Args:
        path: file to write.
        rows: lines of it; a million at a time stand together by item.
        users: a log-normal law spreads the rows over them.
        items: from which rows are drawn by a power law.
        seed: of everything.
        watch: progress callback (stage, done, total).
    """
    rng = np.random.default_rng(seed)
    item_ids, user_ids = _distinct(items, ITEM_IDS, rng), _distinct(users, USER_IDS, rng)
    active = np.cumsum(rng.lognormal(0, ACTIVITY, users))
    shelf = rng.permutation(items)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            size = min(CHUNK, rows - start)
            drawn = np.sort(rng.random(size)) * active[-1]  # sorted, so that the search stays in the cache
            chunk = Rows(
                item=(items * rng.random(size) ** POPULARITY).astype(np.int64),
                user=np.searchsorted(active, drawn, side="right").clip(max=users - 1),
                action=np.searchsorted(SHARES, rng.random(size), side="right"),
                second=rng.integers(PERIOD, size=size),
            )
            chunk.grouped(shelf, rng).append(file, item_ids, user_ids)
            watch("rows written", start + size, rows)
