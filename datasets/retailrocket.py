"""Retailrocket: views, carts and transactions of the visitors of one shop over 4.5 months of 2015.

R. Zykov, A. Noskov, A. Anokhin (Retailrocket), Retailrocket recommender system dataset, Kaggle, 2016.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import RawData
from bench.datasets.csv_log import Rule, among, behavior_names, headed, id_rule, log_file, mapping_text, whole

CARD = DatasetCard(
    name="retailrocket",
    title="Retailrocket: real views and carts of one shop in 2015",
    real=True,
    licence="CC BY-NC-SA 4.0 (as commonly quoted; see the page)",
    published=(
        "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset (cite: Zykov, Noskov, Anokhin, "
        "Retailrocket recommender system dataset, Kaggle, 2016)"
    ),
    files="events.csv as unpacked (94 MB); or its folder; item_properties and category_tree are unread",
    behaviors="view -> click, addtocart -> favor; transaction dropped unless behaviors lists it",
    modalities="none; properties of items are published as hashes that change over time, and are not read",
    size="1,407,580 visitors, 2,756,101 events: 2,664,312 views, 69,332 carts, 22,457 transactions",
    dirt=(
        "Events are not in time order (sorted later, file order breaks ties). Most visitors have one event. "
        "Repeated events are kept. Some visitors seem to be programs or dealers; nothing marks them."
    ),
)

COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
BEHAVIORS = ("view", "addtocart", "transaction")


@dataclass(frozen=True)
class Options:
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("view=click", "addtocart=favor")
    """Shallow -> deep, `view=click,transaction=favor` or `view,addtocart`; the last is the target."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events in file order, times in milliseconds since 1970.

    Args:
        raw: events.csv, or the folder that holds it.
        options: the mapping of behaviors.

    Raises:
        UserError: the file is missing, or a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, BEHAVIORS)
    log = headed(log_file(raw, "retailrocket", ("events.csv",)), COLUMNS)
    time = Rule("timestamp", whole("timestamp") < 0, "whole milliseconds since 1970")
    log.check([time, id_rule("visitorid"), among("event", BEHAVIORS), id_rule("itemid")])
    events = log.scan().filter(pl.col("event").is_in(list(names)))
    return RawData(
        events=log.collect(
            events.select(
                whole("visitorid").alias("user"),
                whole("itemid").alias("item"),
                pl.col("event").replace_strict(names, return_dtype=pl.String).alias("behavior"),
                whole("timestamp"),
            )
        ),
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=mapping_text(names, BEHAVIORS),
    )
