"""Taobao UserBehavior: page views, carts, favorites and purchases of nine days of 2017, with categories.

H. Zhu, X. Li, P. Zhang, G. Li, J. He, H. Li, K. Gai, Learning Tree-based Deep Model for Recommender Systems,
KDD 2018; the data set is Tianchi's 649.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names, events, mapping_text
from bench.data.readers.log import LogFiles, LogOptions, among, id_field, log_file, number_field
from bench.data.readers.packing import is_gzip
from bench.data.schema import RawData
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
        "counted. Users stand in the order of their id as text. Repeated events are kept. "
        "Where an item has two categories, that of its first row counts."
    ),
)

COLUMNS = ("user", "item", "category", "behavior", "timestamp")
BEHAVIORS = ("pv", "cart", "fav", "buy")
FIRST, LAST = 1511539200, 1512316799  # 2017-11-25 00:00:00 and 2017-12-03 23:59:59 at UTC+8


@dataclass(frozen=True)
class Options(LogOptions):
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("pv=click", "fav=favor")
    """Shallow -> deep, `pv=click,fav=favor` or `pv,cart,buy`; the last is the target, others are dropped."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events inside the nine days, in file order, and the items with their category.

    Args:
        raw: UserBehavior.csv, or the folder that holds it.
        options: the mapping of behaviors.

    Raises:
        UserError: the file is missing; on reading: it has a header, or a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, BEHAVIORS)
    path = log_file(raw, "taobao", ("UserBehavior.csv",))
    if not is_gzip(path):
        _check_end(path)
    inside = pl.col("timestamp").is_between(FIRST, LAST)
    ids = [id_field(column) for column in ("user", "item", "category")]
    time = number_field("timestamp", "whole seconds since 1970", low=-(2**63))
    log = LogFiles(
        files=(path,),
        columns=COLUMNS,
        fields=(*ids, among("behavior", BEHAVIORS), time),
        select=lambda typed: events(names)(typed.filter(inside)),
        dropped={"outside 2017-11-25..2017-12-03 (UTC+8)": ~inside},
        on_bad_row=options.on_bad_row,
    )
    return RawData(
        events=log,
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=f"{mapping_text(names, BEHAVIORS)}; rows outside 2017-11-25..2017-12-03 (UTC+8) dropped",
        items=lambda ids: log.table(ids, ["category"]),
        attributes=("category",),
    )


def _check_end(path: Path) -> None:
    """Refuse a last line whose time was cut off: it would pass for one of the rows outside the nine days."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        last = file.read().decode("utf-8", "replace").rpartition("\n")[2]
    time = last.rpartition(",")[2]
    if last.count(",") == 4 and len(time) < len(str(FIRST)):
        problem = f"timestamp '{time}', expected {len(str(FIRST))} digits: the file was cut off"
        raise UserError(f"{path}: last row: {problem}; get the file again or remove the line")
