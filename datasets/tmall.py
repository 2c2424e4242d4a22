"""Tmall of IJCAI-15: clicks, carts, purchases and favorites of half a year, with category, seller and brand.

Alibaba Group, IJCAI-15 competition "Repeat Buyers Prediction after Sales Promotion", 2015; Tianchi's 42.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import RawData
from bench.datasets.csv_log import (
    Rule,
    among,
    behavior_names,
    headed,
    id_rule,
    item_table,
    log_file,
    mapping_text,
    whole,
)

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
        "of the file stands for the unknown one. The brand may be empty (unknown then). Repeated events are "
        "kept. Where an item has two categories, sellers or brands, those of its first kept event count."
    ),
)

COLUMNS = ("user_id", "item_id", "cat_id", "seller_id", "brand_id", "time_stamp", "action_type")
ATTRIBUTES = {"category": "cat_id", "seller": "seller_id", "brand": "brand_id"}
ACTIONS = ("0", "1", "2", "3")
WORDS = "action_type: 0 click, 1 cart, 2 purchase, 3 favorite"


@dataclass(frozen=True)
class Options:
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("0=click", "3=favor")
    """Shallow -> deep: `0=click,3=favor` or `0=click,2=buy`; the last is the target, others are dropped."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events in file order, times as month * 100 + day, and the items with their attributes.

    Args:
        raw: user_log_format1.csv, its folder, or the folder around data_format1.
        options: the mapping of behaviors.

    Raises:
        UserError: the file is missing, or a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, ACTIONS)
    places = ("user_log_format1.csv", "data_format1/user_log_format1.csv")
    log = headed(log_file(raw, "tmall", places), COLUMNS)
    log.check(_rules())
    wanted = log.scan().filter(pl.col("action_type").is_in(list(names)))
    kept = log.collect(
        wanted.select(
            whole("user_id").alias("user"),
            whole("item_id").alias("item"),
            pl.col("action_type").replace_strict(names, return_dtype=pl.String).alias("behavior"),
            whole("time_stamp").alias("timestamp"),
            *(whole(column).alias(name) for name, column in ATTRIBUTES.items()),
        )
    )
    return RawData(
        events=kept.select("user", "item", "behavior", "timestamp"),
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=f"{mapping_text(names, ACTIONS)} ({WORDS}); times are days",
        items=item_table(kept, list(ATTRIBUTES)),
        attributes=tuple(ATTRIBUTES),
    )


def _rules() -> list[Rule]:
    ids = [id_rule(column) for column in ("user_id", "item_id", "cat_id", "seller_id")]
    given = pl.col("brand_id") != ""
    brand = Rule("brand_id", given & (whole("brand_id") < 0).fill_null(True), "nothing or a whole number")
    month, day = whole("time_stamp") // 100, whole("time_stamp") % 100
    time = Rule("time_stamp", ~(month.is_between(1, 12) & day.is_between(1, 31)), "a day as mmdd")
    return [*ids, brand, time, among("action_type", ACTIONS)]
