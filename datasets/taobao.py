"""Taobao UserBehavior: page views, carts, favorites and purchases of nine days of 2017, with categories.

H. Zhu, X. Li, P. Zhang, G. Li, J. He, H. Li, K. Gai, Learning Tree-based Deep Model for Recommender Systems,
KDD 2018; the data set is Tianchi's 649.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import RawData
from bench.datasets.csv_log import (
    Log,
    Rule,
    among,
    behavior_names,
    id_rule,
    item_table,
    log_file,
    mapping_text,
    whole,
)
from bench.errors import UserError

CARD = DatasetCard(
    name="taobao",
    title="Taobao UserBehavior: real page views and favorites of nine days of 2017, with categories",
    real=True,
    licence="research use, no redistribution (terms of Tianchi; accept them there)",
    published=(
        "https://tianchi.aliyun.com/dataset/649 (cite: Zhu, Li, Zhang, Li, He, Li, Gai, Learning Tree-based "
        "Deep Model for Recommender Systems, KDD 2018)"
    ),
    files="UserBehavior.csv as unpacked from UserBehavior.csv.zip (3.5 GB); the file or its folder",
    behaviors="pv -> click, fav -> favor; cart and buy dropped unless behaviors lists them",
    modalities="none; the category of an item is an attribute",
    size="987,994 users, 4,162,024 items, 9,439 categories, 100,150,807 events (as commonly quoted)",
    dirt=(
        "No header. Some times lie outside 2017-11-25..2017-12-03 (UTC+8): these rows are dropped and "
        "counted in the mapping. Users stand in the order of their id as text. Repeated events are kept. "
        "Where an item has two categories, that of its first kept event counts."
    ),
)

COLUMNS = ("user", "item", "category", "behavior", "timestamp")
BEHAVIORS = ("pv", "cart", "fav", "buy")
FIRST, LAST = 1511539200, 1512316799  # 2017-11-25 00:00:00 and 2017-12-03 23:59:59 at UTC+8


@dataclass(frozen=True)
class Options:
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("pv=click", "fav=favor")
    """Shallow -> deep, `pv=click,fav=favor` or `pv,cart,buy`; the last is the target, others are dropped."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events inside the nine days, in file order, and the items with their category.

    Args:
        raw: UserBehavior.csv, or the folder that holds it.
        options: the mapping of behaviors.

    Raises:
        UserError: the file is missing, has a header, or a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, BEHAVIORS)
    log = Log(log_file(raw, "taobao", ("UserBehavior.csv",)), COLUMNS, header=False)
    _check_ends(log.path)
    inside = whole("timestamp").is_between(FIRST, LAST)
    ids = [id_rule(column) for column in ("user", "item", "category")]
    time = Rule("timestamp", whole("timestamp").is_null(), "whole seconds since 1970")
    dropped = log.check([*ids, among("behavior", BEHAVIORS), time], {"outside": (~inside).sum()})["outside"]
    wanted = log.scan().filter(pl.col("behavior").is_in(list(names)) & inside)
    behavior = pl.col("behavior").replace_strict(names, return_dtype=pl.String)
    numbers = (whole(column) for column in ("user", "item", "category", "timestamp"))
    kept = log.collect(wanted.select(*numbers, behavior))
    days = "2017-11-25..2017-12-03 (UTC+8)"
    return RawData(
        events=kept.select("user", "item", "behavior", "timestamp"),
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=f"{mapping_text(names, BEHAVIORS)}; {dropped} raw rows outside {days} dropped",
        items=item_table(kept, ["category"]),
        attributes=("category",),
    )


def _check_ends(path: Path) -> None:
    """Refuse a header, and a last line whose time was cut off: both would pass for a dropped or odd row."""
    with path.open("rb") as file:
        first = file.readline().decode("utf-8-sig", "replace").strip()
        file.seek(max(0, path.stat().st_size - 200))
        last = file.read().decode("utf-8", "replace").rpartition("\n")[2]
    if first and not first[0].isdigit() and not any(part.isdigit() for part in first.split(",")):
        problem = f"'{first}' looks like a header, expected events from row 1 on"
        raise UserError(f"{path}: row 1: {problem}; remove this line")
    time = last.rpartition(",")[2]
    if last.count(",") == 4 and len(time) < len(str(FIRST)):
        problem = f"timestamp '{time}', expected {len(str(FIRST))} digits: the file was cut off"
        raise UserError(f"{path}: last row: {problem}; get the file again or remove the line")
