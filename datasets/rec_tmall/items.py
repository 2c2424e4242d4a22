"""Items of Rec-Tmall: the product table, full or as the publisher's sample, and pictures the user has."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.data.readers.blocks import blocks
from bench.data.readers.known import require_known
from bench.data.readers.log import ROW, Field, LogFiles, OnBadRow
from bench.data.readers.missing import present
from bench.data.readers.packing import whole_text
from bench.data.readers.pictures import pictures
from bench.data.readers.quoted import refused, table_of
from bench.data.schema import Position

SOH = "\x01"  # separates the fields of the full files
PRODUCT = ("item_id", "title", "pict_url", "category", "brand_id", "seller_id")
ATTRIBUTES = ("category", "brand", "seller")


@dataclass(frozen=True)
class Items:
    """What is known of the items, read for the kept ones alone; called with their ids."""

    products: Path | None
    """The product table."""
    images: Path | None
    """Folder of pictures named by item id."""
    on_bad_row: OnBadRow

    def __call__(self, ids: pl.Series) -> pl.DataFrame:
        """Return item, title, category, brand, seller and image of the items among `kept` that are known.

        Raises:
            UserError: a faulty product table, or one that knows none of the items; an item has two pictures.
        """
        table = ids.to_frame("item").clear()
        if self.products is not None:
            table = _products(self.products, ids, self.on_bad_row)
        if self.images is None:
            return table
        return table.join(pictures(self.images, ids, prefix="i"), on="item", how="full", coalesce=True)


def prefixed_id(name: str, column: str, prefix: str) -> Field:
    """Return the field of an id that may carry a letter in front: `161` or `i161`."""
    digits = pl.col(column).str.strip_prefix(prefix)
    number = digits.cast(pl.UInt64, strict=False).cast(pl.Int64, strict=False)  # null below 0
    return Field(name, number, f"a whole number of 0 or more, with or without '{prefix}' before it", column)


def full_form(path: Path) -> bool:
    """Return whether the first line is of the full files, separated by SOH; the sample's has commas.

    Raises:
        UserError: the file cannot be read, or is empty.
    """
    first = next(blocks((path,), Position(), size=1))
    return SOH.encode() in first.text.partition(b"\n")[0]


def _fields() -> tuple[Field, ...]:
    columns = {"title": "title", "category": "category", "brand": "brand_id", "seller": "seller_id"}
    return (
        prefixed_id("item", "item_id", "i"),
        *(Field(name, _known(column), "any text", column, optional=True) for name, column in columns.items()),
    )


def _known(column: str) -> pl.Expr:
    return present(pl.col(column).str.strip_chars())


def _products(path: Path, ids: pl.Series, on_bad_row: OnBadRow) -> pl.DataFrame:
    if not full_form(path):
        return _sample_products(path, ids, on_bad_row)
    table = LogFiles(
        (path,), PRODUCT, _fields(), lambda typed: typed, separator=SOH, on_bad_row=on_bad_row, lossy=True
    )
    return table.table(ids, ["title", *ATTRIBUTES])


def _sample_products(path: Path, ids: pl.Series, on_bad_row: OnBadRow) -> pl.DataFrame:
    """Read the publisher's sample, a small CSV file with a header: UTF-8 or GB18030, fields may be quoted.

    Raises:
        UserError: a column is missing, or the text of a row is no row of a product.
    """
    data = whole_text(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030", "replace")
    fields = _fields()
    table, faults = table_of(path, text, [field.column for field in fields])
    typed = table.select(ROW, *(field.value.alias(field.name) for field in fields))
    for row, value in table.filter(typed["item"].is_null()).select(ROW, "item_id").iter_rows():
        faults[row] = f"item_id '{value}', expected {fields[0].expected}"
    if faults and on_bad_row == "error":
        raise refused(path, faults)
    known = typed.drop(ROW).filter(pl.col("item").is_in(ids.implode()))
    require_known(path, len(known), typed["item"].drop_nulls(), ids)
    return known.unique("item", keep="first", maintain_order=True)
