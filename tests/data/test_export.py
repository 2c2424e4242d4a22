"""Atomic files hold a data set: what is written and read again is equal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.config import build_options
from bench.data.export import write_atomic
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import Dataset, RawData
from bench.data.storage import load
from bench.datasets import atomic
from bench.errors import UserError


def prepared(raw: RawData, folder: Path) -> Dataset:
    return load(prepare(raw, "shop", folder, PrepareOptions(keep_last=None), EncoderOptions(), {}))


def shop(users: list, items: list, titles: list) -> RawData:
    rng = np.random.default_rng(3)
    events = pl.DataFrame(
        {
            "user": [users[i % len(users)] for i in range(120)],
            "item": [items[i] for i in rng.integers(0, len(items), 120)],
            "behavior": rng.choice(["view", "cart", "buy"], 120),
            "timestamp": rng.integers(10**9, 10**9 + 50, 120),  # many at one moment
        }
    )
    table = pl.DataFrame(
        {
            "item": items,
            "title": titles,
            "brand": ["acme", None, *["other"] * (len(items) - 2)],
            "price": [1.5, None, *[2.0] * (len(items) - 2)],
        }
    )
    return RawData(
        events, ("view", "cart", "buy"), "", items=table, attributes=("brand",), numbers=("price",)
    )


@pytest.mark.parametrize(
    ("users", "items"),
    [([1, 2, 30], list(range(7, 27))), (["u 1", "007", "ü"], [f"i{n}\u00a0x" for n in range(20)])],
)
def test_what_is_written_is_read_again(tmp_path: Path, users: list, items: list) -> None:
    first = prepared(shop(users, items, [f"a {n} \u4e2d" for n in range(20)]), tmp_path / "first")
    files = write_atomic(first, tmp_path / "files")
    assert [path.name for path in files] == ["shop.inter", "shop.item"]
    given = {"behavior": "behavior", "behaviors": "view,cart,buy", "attributes": "brand"}
    raw = atomic.read(tmp_path / "files", build_options(atomic.Options, given, "atomic"))
    second = prepared(raw, tmp_path / "second")
    for name in ("offsets", "item", "behavior", "timestamp"):
        assert np.array_equal(getattr(first.interactions, name), getattr(second.interactions, name))
    assert first.users.to_list() == second.users.to_list()
    assert first.items["item"].to_list() == second.items["item"].to_list()
    assert first.items["title"].to_list() == second.items["title"].to_list()
    assert np.array_equal(first.content.attributes["brand"], second.content.attributes["brand"])
    assert np.array_equal(first.content.features["text"], second.content.features["text"])


def test_numbers_are_columns_of_type_float(tmp_path: Path) -> None:
    data = prepared(shop([1, 2], list(range(20)), ["t"] * 20), tmp_path / "data")
    write_atomic(data, tmp_path)
    header, first, second, *_ = (tmp_path / "shop.item").read_text().splitlines()
    assert header.split("\t") == ["item_id:token", "title:token_seq", "brand:token", "price:float"]
    assert first.split("\t")[2:] == ["acme", "1.5"] and second.split("\t")[2:] == ["", ""]


def test_an_id_that_would_break_the_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    data = prepared(shop([1, 2], list(range(20)), ["t"] * 20), tmp_path / "data")
    bad = replace(data, users=pl.Series(["a\tb", "c"]))
    with pytest.raises(UserError, match=r"user_id 'a\\tb' holds a tab or a line break"):
        write_atomic(bad, tmp_path / "files")
    assert list((tmp_path / "files").iterdir()) == []
