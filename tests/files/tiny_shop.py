"""Tiny shop: the example of the page "A data set of your own"."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import TOUCHED, RawData
from bench.errors import UserError

CARD = DatasetCard(
    name="tiny-shop",
    title="Tiny shop: views and purchases of a shop that fits one page",
    real=False,
    licence="none: an example",
    published="nowhere: an example",
    files="log.csv with the columns visitor, product, action and second",
    behaviors="view -> click, buy -> favor; anything else is no event",
    modalities="none",
    size="as many rows as the file has",
)
MAPPING = {"view": "click", "buy": "favor"}


@dataclass(frozen=True)
class Options:
    """Nothing can be chosen."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events of log.csv in file order, times in seconds.

    Args:
        raw: the folder that holds log.csv.
        options: none.

    Raises:
        UserError: the file is missing.
    """
    path = (raw or Path()) / "log.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; put {CARD.files} into the folder given by --raw")
    log = pl.read_csv(path, schema_overrides={"visitor": pl.String, "product": pl.String})
    return RawData(
        events=log.select(
            user="visitor",
            item="product",
            behavior=pl.col("action").replace_strict(MAPPING, default=TOUCHED),
            timestamp=pl.col("second").cast(pl.Int64),
        ),
        behaviors=("click", "favor"),
        mapping=CARD.behaviors,
    )
