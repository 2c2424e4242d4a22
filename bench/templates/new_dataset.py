"""NewDataset: say in a line whose events these are. Publisher: Title. Year, address."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names, events, mapping_text
from bench.data.readers.blocks import header_of
from bench.data.readers.log import Field, LogFiles, LogOptions, among, log_file, number_field
from bench.data.readers.missing import present
from bench.data.readers.packing import whole_text
from bench.data.readers.quoted import refused, table_of
from bench.data.schema import RawData

CARD = DatasetCard(  # literals alone: listings read it without running this file
    name="new-dataset",
    title="NewDataset: say in a line what it is",
    real=True,  # False for generated data
    licence="the terms of use, as the publisher states them",
    published="where it can be had, and who is to be cited",
    files="events.csv (user,item,behavior,timestamp); optional: items.csv (item,title)",
    behaviors="view -> click, like -> favor; cart dropped unless behaviors lists it",
    modalities="text (titles)",
    size="users, items and events as published",
    dirt="known faults of the files, and what is done with them; times are seconds since 1970",
)

RAW_BEHAVIORS = ("view", "cart", "like")  # all that the file has
FIRST, LAST = 631_152_000, 4_102_444_800  # 1990 and 2100 in seconds: milliseconds are beyond


@dataclass(frozen=True)
class Options(LogOptions):
    """What `--set NAME=VALUE` can change; `on_bad_row` comes with LogOptions."""

    behaviors: tuple[str, ...] = ("view=click", "like=favor")
    """Shallow -> deep, the last one is the target; rows of others count as touched and are no events."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events in the order of the file, and the items with their titles where there are any.

    Args:
        raw: events.csv, or the folder that holds it.
        options: the mapping of behaviors.

    Raises UserError where a file or its header is missing; on reading, where a line is malformed.
    """
    names = behavior_names(options.behaviors, RAW_BEHAVIORS)
    path = log_file(raw, CARD.name, ("events.csv",))
    log = LogFiles(  # read in blocks, at any length; a wrong line is named by its row
        files=(path,),
        columns=header_of(path, ("user", "item", "behavior", "timestamp")),
        fields=(
            Field("user", present(pl.col("user")), "an id"),  # text; nan, NULL and the like are missing
            Field("item", present(pl.col("item")), "an id"),
            among("behavior", RAW_BEHAVIORS),
            number_field("timestamp", "whole seconds since 1970", low=FIRST, high=LAST),
        ),
        select=events(names),
        header=True,
        on_bad_row=options.on_bad_row,
    )
    order = tuple(dict.fromkeys(names.values()))
    made_up = (path.parent / "SIMULATED.json").is_file()  # tables then say so
    items = items_of(path.with_name("items.csv"), options)
    return RawData(log, order, mapping_text(names, RAW_BEHAVIORS), items, simulated=made_up)


def items_of(path: Path, options: Options) -> pl.DataFrame | None:
    """Return item and title, null where there is none; None without the file."""
    if not path.is_file():
        return None
    table, faults = table_of(path, whole_text(path).decode("utf-8-sig", "surrogateescape"), ("item", "title"))
    if faults and options.on_bad_row == "error":
        raise refused(path, faults)
    return table.select("item", present(pl.col("title")).alias("title"))
