"""Tmall of IJCAI-15: clicks, carts, purchases and favorites of half a year, with category, seller and brand.

Alibaba Group, IJCAI-15 competition "Repeat Buyers Prediction after Sales Promotion", 2015; Tianchi's 42.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names, events, mapping_text
from bench.data.readers.blocks import header_of
from bench.data.readers.log import Field, LogFiles, LogOptions, among, id_field, log_file, whole
from bench.data.readers.missing import is_missing
from bench.data.schema import RawData

CARD = DatasetCard(
    name="tmall",
    title="Tmall (IJCAI-15): real clicks and favorites of half a year, with category, seller and brand",
    real=True,
    licence="research use, no redistribution (terms of Tianchi; accept them there)",
    published=(
        "https://tianchi.aliyun.com/dataset/42 (cite: Alibaba Group, IJCAI-15 Repeat Buyers Prediction "
        "competition, 2015)"
    ),
    files="user_log_format1.csv of data_format1 (1.8 GB), as unpacked; the file or its folder",
    behaviors="0 (click) -> click, 3 (favorite) -> favor; 1 (cart) and 2 (purchase) dropped unless listed",
    modalities="none; category, seller and brand of an item are attributes",
    size="424,170 users, 1.09 million items, 54.9 million events (as commonly quoted)",
    dirt=(
        "Times are days (month and day, no year), and the file is not in time order: inside a day the order "
        "of the file stands for the unknown one. The brand may be empty or 'null' (unknown then). Repeated "
        "events are kept. Where an item has two categories, sellers or brands, those of its first row count."
    ),
)

COLUMNS = ("user_id", "item_id", "cat_id", "seller_id", "brand_id", "time_stamp", "action_type")
ATTRIBUTES = ("category", "seller", "brand")
UNKNOWN = -1  # stands for a missing brand until the item table is made
ACTIONS = ("0", "1", "2", "3")
WORDS = "action_type: 0 click, 1 cart, 2 purchase, 3 favorite"


@dataclass(frozen=True)
class Options(LogOptions):
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("0=click", "3=favor")
    """Shallow -> deep: `0=click,3=favor` or `0=click,2=buy`; the last is the target, others are dropped."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events in file order, times as month * 100 + day, and the items with their attributes.

    Args:
        raw: user_log_format1.csv, its folder, or the folder around data_format1.
        options: the mapping of behaviors.

    Raises:
        UserError: the file or its header is missing; on reading: a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, ACTIONS)
    path = log_file(raw, "tmall", ("user_log_format1.csv", "data_format1/user_log_format1.csv"))
    log = LogFiles(
        files=(path,),
        columns=header_of(path, COLUMNS),
        fields=_fields(),
        select=events(names),
        header=True,
        on_bad_row=options.on_bad_row,
    )
    return RawData(
        events=log,
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=f"{mapping_text(names, ACTIONS)} ({WORDS}); times are days",
        items=lambda ids: log.table(ids, ATTRIBUTES).with_columns(pl.col("brand").replace(UNKNOWN, None)),
        attributes=ATTRIBUTES,
    )


def _fields() -> tuple[Field, ...]:
    names = {"user": "user_id", "item": "item_id", "category": "cat_id", "seller": "seller_id"}
    number = pl.when(whole("brand_id") >= 0).then(whole("brand_id"))
    brand = pl.when(is_missing(pl.col("brand_id"))).then(UNKNOWN).otherwise(number)
    month, day = whole("time_stamp") // 100, whole("time_stamp") % 100
    day_of_year = pl.when(month.is_between(1, 12) & day.is_between(1, 31)).then(whole("time_stamp"))
    return (
        *(id_field(name, column) for name, column in names.items()),
        Field("brand", brand, "nothing or a whole number", "brand_id"),
        Field("timestamp", day_of_year, "a day as mmdd", "time_stamp"),
        among("behavior", ACTIONS, "action_type"),
    )
