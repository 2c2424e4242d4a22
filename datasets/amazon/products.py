"""The products of the Amazon reviews: title, brand, category, price from metadata, pictures from a folder.

The metadata are read as a stream for the products kept only; picture addresses are never fetched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.data.readers.folder import files_of
from bench.data.readers.json_lines import JsonLines
from bench.data.readers.log import Field, OnBadRow
from bench.data.readers.missing import is_missing, present
from bench.data.readers.pictures import pictures

ID = r"^[0-9A-Za-z_-]+$"
ENTITIES = {"&amp;": "&", "&quot;": '"', "&#39;": "'", "&lt;": "<", "&gt;": ">", "&nbsp;": " "}


@dataclass(frozen=True)
class Names:
    """Keys of the metadata of an edition."""

    item: str
    brand: str
    categories: str
    main: str


META = {
    "2018": Names("asin", "brand", "category", "main_cat"),
    "2023": Names("parent_asin", "store", "categories", "main_category"),
}


def id_field(name: str, column: str) -> Field:
    """Return the field of a user or product id, which is text (0001713353 keeps its zeros)."""
    text = pl.col(column)
    fits = text.str.contains(ID) & ~is_missing(text)
    return Field(name, pl.when(fits).then(text), "an id of letters and digits", column)


def is_meta(name: str) -> bool:
    """Say whether a file holds products, not reviews."""
    return name.lower().startswith(("meta_", "all_amazon_meta"))


def category_of(path: Path) -> str:
    """Return the category in a file name: `Books` of `Books_5.json.gz` and `meta_Books.jsonl`."""
    return path.name.partition(".")[0].removeprefix("meta_").removesuffix("_5")


def products(
    folder: Path, reviews: Sequence[Path], edition: str, level: int, on_bad_row: OnBadRow
) -> JsonLines | None:
    """Return the metadata of the categories of the reviews (of all, where the names do not match); None
    without metadata.

    Args:
        folder: where they are looked for.
        reviews: the review files.
        edition: `2018` or `2023`.
        level: level of the list of categories, from 1, that becomes the column `category`.
        on_bad_row: what to do with a malformed line.
    """
    metadata = [path for path in files_of(folder) if is_meta(path.name) and ".json" in path.name]
    wanted = {category_of(path) for path in reviews}
    files = tuple(path for path in metadata if category_of(path) in wanted) or tuple(metadata)
    if not files:
        return None
    names = META[edition]
    columns = (names.item, "title", "price", names.brand, names.categories, names.main)
    categories = pl.col(names.categories)
    depth = pl.min_horizontal(pl.lit(level - 1, pl.Int64), categories.list.len().cast(pl.Int64) - 1)
    of_level = _text(categories.list.get(depth, null_on_oob=True))
    fields = (
        id_field("item", names.item),
        Field("title", _title(_text(pl.col("title"))), "", optional=True),
        Field("price", _price(pl.col("price")), "", optional=True),
        Field("brand", _text(pl.col(names.brand)), "", optional=True),
        Field("category", pl.coalesce(of_level, _text(pl.col(names.main))), "", optional=True),
    )
    lists = (names.categories,)
    return JsonLines(files, columns, fields, _unchanged, on_bad_row=on_bad_row, lists=lists)


def _unchanged(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


def _text(value: pl.Expr) -> pl.Expr:
    """Return a text on one line, its commonest HTML entities resolved; null where it is missing."""
    text = value.str.replace_many(ENTITIES).str.replace_all(r"\s+", " ").str.strip_chars()
    return present(text)


def _price(price: pl.Expr) -> pl.Expr:
    """Return a price such as `$1,299.00` or `12.5`; null for ranges, words and what is missing."""
    amount = price.str.strip_chars().str.extract(r"^\$?\s*(\d[\d,]*(?:\.\d+)?)$", 1)
    return amount.str.replace_all(",", "").cast(pl.Float64, strict=False)


def _title(title: pl.Expr) -> pl.Expr:
    """Return null instead of the piece of a script that some products of 2018 have as their title."""
    return pl.when(~title.str.contains("getTime", literal=True)).then(title)


def items_of(meta: JsonLines | None, folder: Path | None, ids: pl.Series) -> pl.DataFrame:
    """Return the products that are known: item; title, brand, category and price, where there are metadata;
    image.

    Args:
        meta: what `products` returned.
        folder: of pictures named by product, `<asin>.jpg`.
        ids: the products kept.

    Raises:
        UserError: no product kept is among the metadata, or one has two pictures.
    """
    table = meta.table(ids, ("title", "brand", "category", "price")) if meta else None
    if folder is None:
        return table if table is not None else pl.DataFrame({"item": ids[:0]})
    images = pictures(folder, ids)
    return images if table is None else table.join(images, on="item", how="full", coalesce=True)
