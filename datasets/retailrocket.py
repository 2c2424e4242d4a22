"""Retailrocket: views, carts and transactions of the visitors of one shop over 4.5 months of 2015.

R. Zykov, A. Noskov, A. Anokhin (Retailrocket), Retailrocket recommender system dataset, Kaggle, 2016.
"""

from dataclasses import dataclass
from pathlib import Path

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names, events, mapping_text
from bench.data.readers.blocks import header_of
from bench.data.readers.log import LogFiles, LogOptions, among, id_field, log_file, number_field
from bench.data.schema import RawData

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
        "Repeated events are kept. Some visitors seem to be programs or dealers; nothing marks them. Times "
        "are milliseconds since 1970."
    ),
)

COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
BEHAVIORS = ("view", "addtocart", "transaction")
FIRST = 10**11  # milliseconds: 1973; smaller numbers are seconds


@dataclass(frozen=True)
class Options(LogOptions):
    """Which raw behaviors become what."""

    behaviors: tuple[str, ...] = ("view=click", "addtocart=favor")
    """Shallow -> deep, `view=click,transaction=favor` or `view,addtocart`; the last is the target."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events in file order, times in milliseconds since 1970.

    Args:
        raw: events.csv, or the folder that holds it.
        options: the mapping of behaviors.

    Raises:
        UserError: the file or its header is missing; on reading: a line is malformed or cut off.
    """
    names = behavior_names(options.behaviors, BEHAVIORS)
    path = log_file(raw, "retailrocket", ("events.csv",))
    log = LogFiles(
        files=(path,),
        columns=header_of(path, COLUMNS),
        fields=(
            number_field("timestamp", "whole milliseconds since 1970", low=FIRST),
            id_field("user", "visitorid"),
            among("behavior", BEHAVIORS, "event"),
            id_field("item", "itemid"),
        ),
        select=events(names),
        header=True,
        on_bad_row=options.on_bad_row,
    )
    return RawData(
        events=log,
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=mapping_text(names, BEHAVIORS),
    )
