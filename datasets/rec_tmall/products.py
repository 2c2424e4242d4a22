"""The product table of the simulated Rec-Tmall: titles, categories, brands, sellers that tell of leaves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from bench.datasets.rec_tmall.planted import LEAVES, Catalog, Integers

UNLISTED = 0.005  # items of the catalog without a line in the table
NO_TITLE, NO_BRAND, NO_SELLER = 0.03, 0.15, 0.01  # products whose field is empty or `null`
TITLE = (2, 3, 2)  # words of the parent, of the leaf, of no meaning
VOCABULARY = (12, 16, 500)  # words of each parent, of each leaf, without meaning
WORD_MISSING = 0.2  # share of the words of a title left out
BRANDS, SELLERS = 5, 40  # of a leaf
CHUNK = 100_000  # products at once
IDEOGRAPHS, FIRST_IDEOGRAPH = 20_000, 0x4E00  # of Unicode's main block


def write_products(
    path: Path, catalog: Catalog, item_ids: Integers, seed: np.random.SeedSequence, watch: Callable[..., None]
) -> None:
    """Write a line for most items of the catalog, in the order of their ids.

    Args:
        path: file to write.
        catalog: C items and their leaves.
        item_ids: (C,) published id of each item.
        seed: of everything here.
        watch: progress callback (stage, done, total).
    """
    listed = np.argsort(item_ids)[np.random.default_rng(seed).random(len(item_ids)) >= UNLISTED]
    starts = range(0, len(listed), CHUNK)
    with path.open("wb") as file:
        for start, own in zip(starts, seed.spawn(len(starts)), strict=True):
            items = listed[start : start + CHUNK]
            table = _products(items, catalog.leaf[items], item_ids[items], np.random.default_rng(own))
            table.write_csv(file, include_header=False, separator="\x01", quote_style="never")
            watch("products written", start + len(items), len(listed))


def _products(items: Integers, leaf: Integers, ids: Integers, rng: np.random.Generator) -> pl.DataFrame:
    """Return the columns of the publisher: item_id, title, pict_url, category, brand_id, seller_id."""
    frame = pl.DataFrame(
        {
            "item": ids,
            "parent": leaf // LEAVES + 1,
            "leaf": leaf + 1,
            "brand": leaf * BRANDS + np.minimum(rng.geometric(0.5, len(items)), BRANDS),
            "seller": leaf * SELLERS + rng.integers(1, SELLERS + 1, len(items)),
            "title": _titles(leaf, rng),
        }
    )
    return frame.select(
        "item",
        _partly(pl.col("title"), NO_TITLE, rng, len(items)),
        pl.format("http://pictures.invalid/bao/uploaded/i1/{}.jpg", "item").alias("pict_url"),
        pl.format("{}-{}", "parent", "leaf").alias("category"),
        _partly(pl.format("b{}", "brand"), NO_BRAND, rng, len(items)).alias("brand"),
        _partly(pl.format("s{}", "seller"), NO_SELLER, rng, len(items)).alias("seller"),
    )


def _partly(value: pl.Expr, missing: float, rng: np.random.Generator, size: int) -> pl.Expr:
    """Return a field that is empty in half of the missing share, and `null` in the other half."""
    drawn = pl.lit(pl.Series(rng.random(size)))
    gap = pl.when(drawn < missing / 2).then(pl.lit("")).otherwise(pl.lit("null"))
    return pl.when(drawn < missing).then(gap).otherwise(value)


def _titles(leaf: Integers, rng: np.random.Generator) -> pl.Series:
    """Return one title per item: words of its parent, of its leaf and without meaning, some left out."""
    parents, leaves = int(leaf.max()) // LEAVES + 1, int(leaf.max()) + 1
    of_parent, of_leaf, of_all = VOCABULARY
    first_of_leaves = of_all + parents * of_parent
    begins = (of_all + leaf // LEAVES * of_parent, first_of_leaves + leaf * of_leaf, np.zeros_like(leaf))
    vocabulary = _words(first_of_leaves + leaves * of_leaf)
    columns: dict[str, pl.Series] = {}
    for begin, size, count in zip(begins, VOCABULARY, TITLE, strict=True):
        for _ in range(count):
            word = vocabulary.gather(begin + rng.integers(size, size=len(leaf)))
            left_out = pl.Series(rng.random(len(leaf)) < WORD_MISSING)
            columns[str(len(columns))] = word.set(left_out, None)
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=" ", ignore_nulls=True)).to_series()


def _words(count: int) -> pl.Series:
    """Return distinct words of two ideographs, as the publisher's segmented titles are."""
    first, second = np.divmod(np.arange(count), IDEOGRAPHS)
    pairs = np.stack([FIRST_IDEOGRAPH + second, FIRST_IDEOGRAPH + (second * 7 + first) % IDEOGRAPHS], axis=1)
    return pl.Series([chr(a) + chr(b) for a, b in pairs.tolist()])
