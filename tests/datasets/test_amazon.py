import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from bench.data.library import prepare_named
from bench.data.schema import EventStream, RawData
from bench.data.storage import load
from bench.datasets.amazon import Options, read
from bench.datasets.amazon.products import _price
from bench.errors import UserError

SECOND = 1_252_800_000
EVENTS = [
    ("A1", "0001713353", "click", SECOND), ("A1", "0001713353", "favor", SECOND),
    ("A2", "B01", "click", SECOND + 86_400),
]  # fmt: skip
TITLE = "Red &amp; blue\n shoe"


def review_2018(
    user: object = "A1", item: str = "0001713353", stars: object = 5.0, time: object = SECOND
) -> str:
    more = {"verified": True, "style": {"Size:": " 1"}, "reviewText": "Fine.", "reviewTime": "09 13, 2009"}
    return json.dumps({"overall": stars, "reviewerID": user, "asin": item, "unixReviewTime": time, **more})


def review_2023(
    user: object = "A1", item: str = "0001713353", stars: object = 5.0, time: object = SECOND
) -> str:
    if isinstance(time, int):
        time *= 1000
    more = {"title": "Good", "text": "Fine.", "images": [], "asin": "VARIANT", "verified_purchase": True}
    return json.dumps({"rating": stars, **more, "parent_asin": item, "user_id": user, "timestamp": time})


def write(path: Path, *lines: str | bytes) -> Path:
    text = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def folder_2018(folder: Path, *more: str | bytes) -> Path:
    write(folder / "Books.json.gz", review_2018(), review_2018("A2", "B01", 3.0, SECOND + 86_400), *more)
    return folder


def folder_2023(folder: Path, *more: str | bytes) -> Path:
    write(folder / "Books.jsonl.gz", review_2023(), review_2023("A2", "B01", 3, SECOND + 86_400), *more)
    return folder


def events_of(data: RawData) -> pl.DataFrame:
    assert isinstance(data.events, EventStream)
    return pl.concat([part.events for part in data.events.parts()])


def items_of(data: RawData, *ids: str) -> dict[str, dict]:
    assert callable(data.items)
    table = data.items(pl.Series(sorted(ids)))
    return {row.pop("item"): row for row in table.rows(named=True)}


def complaint(raw: Path, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        events_of(read(raw, options or Options()))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_reviews_of_2018_are_clicks_in_seconds_and_high_ones_favors_right_after(tmp_path: Path) -> None:
    data = read(folder_2018(tmp_path), Options())
    assert events_of(data).rows() == EVENTS
    assert (data.behaviors, data.items, data.attributes) == (("click", "favor"), None, ())
    assert "rating >= 4 -> favor as well" in data.mapping


def test_reviews_of_2023_are_of_the_parent_product_in_milliseconds(tmp_path: Path) -> None:
    data = read(folder_2023(tmp_path), Options())
    assert events_of(data).rows() == [(*event, time * 1000) for *event, time in EVENTS]


def test_the_ratings_of_2023_as_csv_give_the_same_events(tmp_path: Path) -> None:
    expected = events_of(read(folder_2023(tmp_path), Options()))
    folder = tmp_path / "csv"
    folder.mkdir()
    rows = [f"A1,0001713353,5.0,{SECOND}000", f"A2,B01,3.0,{SECOND + 86_400}000"]
    write(folder / "Books.csv.gz", "user_id,parent_asin,rating,timestamp", *rows)
    assert events_of(read(folder, Options())).equals(expected)
    write(folder / "Toys.csv", "user_id,parent_asin,rating,timestamp,history", rows[0] + ",B1 B2")
    assert "Toys.csv: row 1: expected the header of Books.csv.gz" in complaint(folder)
    assert len(events_of(read(folder / "Toys.csv", Options()))) == 2
    assert "no column 'user_id'" in complaint(write(tmp_path / "All.csv", "B01,A1,5.0,1252800000"))


def test_the_disjoint_rule_and_another_threshold(tmp_path: Path) -> None:
    data = read(folder_2018(tmp_path), Options(rule="disjoint", favor_rating=3))
    assert events_of(data)["behavior"].to_list() == ["favor", "favor"]
    assert "favor_rating = 6: expected stars from 1 to 5" in complaint(tmp_path, Options(favor_rating=6))


def test_several_categories_are_one_log_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(folder_2018(tmp_path) / "Appliances.json", review_2018("A0"))
    assert events_of(read(tmp_path, Options()))["user"].to_list() == ["A0", "A0", "A1", "A1", "A2"]
    chosen = read(tmp_path, Options(files=("Books.json.gz", "Appliances.json")))
    assert events_of(chosen)["user"].to_list() == ["A1", "A1", "A2", "A0", "A0"]
    assert events_of(read(tmp_path / "Appliances.json", Options()))["user"].to_list() == ["A0", "A0"]


def with_meta(folder: Path, name: str, *products: dict) -> Path:
    write(folder / name, *map(json.dumps, products))
    return folder


def test_products_of_2018_have_title_brand_and_the_second_level_of_their_categories(tmp_path: Path) -> None:
    with_meta(
        folder_2018(tmp_path), "meta_Books.json.gz",
        {"asin": "unrated", "title": "Unrated"},
        {"asin": "B01", "title": "var start = new Date().getTime();", "brand": "", "category": ["Books"]},
        {"asin": "0001713353", "title": TITLE, "brand": "Acme", "category": ["Books", "Crime", "Old"],
         "price": "$1,299.50"},
        {"asin": "0001713353", "title": "Second row", "brand": "Other", "category": []},
    )  # fmt: skip
    data = read(tmp_path, Options())
    assert data.attributes == ("brand", "category") and data.numbers == ("price",)
    assert items_of(data, "0001713353", "B01", "B99") == {
        "0001713353": {"title": "Red & blue shoe", "brand": "Acme", "category": "Crime", "price": 1299.5},
        "B01": {"title": None, "brand": None, "category": "Books", "price": None},
    }
    third = items_of(read(tmp_path, Options(category_level=3)), "0001713353")
    assert third["0001713353"]["category"] == "Old"


def test_prices_that_are_ranges_or_words_are_unknown() -> None:
    given = ["$12.99", "3", " $ 4 ", "$5.00 - $9.99", "from 3.00", "None", "", None, "—"]
    found = pl.DataFrame({"price": given}, schema={"price": pl.String}).select(_price(pl.col("price")))
    assert found["price"].to_list() == [12.99, 3.0, 4.0, None, None, None, None, None, None]


def test_products_of_2023_have_the_store_as_brand_and_the_main_category_without_a_list(
    tmp_path: Path,
) -> None:
    with_meta(
        folder_2023(tmp_path), "meta_Books.jsonl",
        {"parent_asin": "B01", "title": None, "store": None, "categories": [], "main_category": "Books"},
        {"parent_asin": "0001713353", "title": "é", "store": "S", "categories": ["a", "b"], "price": 7.5},
    )  # fmt: skip
    assert items_of(read(tmp_path, Options()), "0001713353", "B01") == {
        "0001713353": {"title": "é", "brand": "S", "category": "b", "price": 7.5},
        "B01": {"title": None, "brand": None, "category": "Books", "price": None},
    }


def test_metadata_of_the_categories_read_are_taken_or_else_all(tmp_path: Path) -> None:
    with_meta(folder_2018(tmp_path), "meta_Books.json", {"asin": "B01", "title": "Book"})
    with_meta(tmp_path, "meta_Toys.json", {"asin": "B01", "title": "Toy"}, {"asin": "B02", "title": "Doll"})
    assert list(items_of(read(tmp_path, Options()), "B01", "B02")) == ["B01"]
    write(tmp_path / "All_5.json", review_2018("A1", "B02"))
    titles = items_of(read(tmp_path / "All_5.json", Options()), "B01", "B02")
    assert {item: row["title"] for item, row in titles.items()} == {"B01": "Book", "B02": "Doll"}


def test_pictures_come_from_a_folder_by_the_product_id(tmp_path: Path) -> None:
    with_meta(
        folder_2018(tmp_path), "meta_Books.json", {"asin": "B01", "title": "Book", "imageURL": ["http://x"]}
    )
    assert "image" not in items_of(read(tmp_path, Options()), "B01")["B01"]
    pictures = tmp_path / "images"
    pictures.mkdir()
    for name in ("0001713353.jpeg", "B01.PNG", "B77.jpg", "B77.png", "B02.txt", "._B02.jpg"):
        (pictures / name).write_bytes(b"")
    found = items_of(read(tmp_path, Options()), "0001713353", "B01", "B02")
    assert {item: row["image"] for item, row in found.items()} == {
        "0001713353": f"{pictures}/0001713353.jpeg", "B01": f"{pictures}/B01.PNG"
    }  # fmt: skip
    with pytest.raises(UserError, match="item B77 has two pictures, B77.jpg and B77.png; remove one"):
        items_of(read(tmp_path, Options()), "B01", "B77")
    assert found["0001713353"]["title"] is None
    (tmp_path / "meta_Books.json").unlink()
    data = read(tmp_path, Options())
    assert data.attributes == () and list(items_of(data, "B01")["B01"]) == ["image"]
    assert "covers: no such folder" in complaint(tmp_path, Options(images="covers"))


@pytest.mark.parametrize("make", [folder_2018, folder_2023])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stars": "good"}, ["'good'", "a number of stars from 1 to 5"]),
        ({"stars": 0.5}, ["'0.5'", "a number of stars from 1 to 5"]),
        ({"stars": 6}, ["'6'", "a number of stars from 1 to 5"]),
        ({"stars": None}, ["no ", "a number of stars from 1 to 5"]),
        (
            {"time": SECOND * 1000},
            ["000', expected", "seconds since 1970", "2018 has seconds, 2023 milliseconds"],
        ),
        ({"time": SECOND // 1000}, ["seconds since 1970"]),
        ({"time": "yesterday"}, ["'yesterday'", "seconds since 1970"]),
        ({"user": None}, ["no ", "an id of letters and digits"]),
        ({"item": "B 01"}, ["asin 'B 01'", "an id of letters and digits"]),
        ({"item": ""}, ["asin ''", "an id of letters and digits"]),
    ],
)
def test_a_malformed_review_is_named_or_skipped_and_counted(tmp_path: Path, make, changes, told) -> None:
    line = {folder_2018: review_2018, folder_2023: review_2023}[make](**changes)
    message = complaint(make(tmp_path, line))
    assert [part for part in ["Books.json", ": row 3: ", *told] if part not in message] == [], message
    data = read(tmp_path, Options(on_bad_row="skip"))
    assert isinstance(data.events, EventStream)
    (part,) = data.events.parts()
    assert (part.events.height, part.rows, sum(part.dropped.values())) == (3, 3, 1)


def test_times_of_the_other_edition_are_refused(tmp_path: Path) -> None:
    seconds = json.dumps({**json.loads(review_2023()), "timestamp": SECOND})
    assert f"timestamp '{SECOND}', expected milliseconds" in complaint(write(tmp_path / "a.jsonl", seconds))


def test_files_that_cannot_be_one_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--raw"):
        read(None, Options())
    assert "expected reviews such as Books.jsonl.gz there" in complaint(tmp_path)
    write(folder_2018(tmp_path) / "Books_5.json", review_2018())
    assert "Books.json.gz and Books_5.json hold the same reviews" in complaint(tmp_path)
    (tmp_path / "Books_5.json").rename(tmp_path / "Toys.jsonl")
    write(tmp_path / "Toys.jsonl", review_2023())
    assert "Toys.jsonl: is of edition 2023, Books.json.gz of 2018" in complaint(tmp_path)
    (tmp_path / "Toys.jsonl").rename(tmp_path / "Toys.csv")
    assert "expected JSON lines or CSV, found both: Books.json.gz, Toys.csv" in complaint(tmp_path)
    assert "did you mean 'Books.json.gz'" in complaint(tmp_path, Options(files=("Book.json.gz",)))
    assert "category_level = 0" in complaint(tmp_path, Options(category_level=0))


def test_a_first_line_of_neither_edition_is_refused_unless_the_edition_is_given(tmp_path: Path) -> None:
    for line in ('{"user": "A1", "item": "B01"}', "hello", "[1]", "7"):
        path = write(tmp_path / "log.json", line, review_2018())
        assert f"log.json: row 1: '{line}...', expected JSON with reviewerID (2018)" in complaint(path)
        kept = read(path, Options(edition="2018", on_bad_row="skip"))
        assert events_of(kept)["item"].to_list() == ["0001713353"] * 2


def test_a_broken_line_of_the_metadata_is_named_or_skipped(tmp_path: Path) -> None:
    good = json.dumps({"asin": "B01", "title": "Book"})
    write(folder_2018(tmp_path) / "meta_Books.json.gz", "{'asin': 'B02'}", good)
    with pytest.raises(UserError, match=r"meta_Books.json.gz: row 1: '{'asin': 'B02'}' cannot be parsed"):
        items_of(read(tmp_path, Options()), "B01")
    assert items_of(read(tmp_path, Options(on_bad_row="skip")), "B01")["B01"]["title"] == "Book"


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    path = folder_2018(tmp_path, *(review_2018(f"A{row}") for row in range(999))) / "Books.json.gz"
    path.write_bytes(path.read_bytes()[:-50])
    assert "Books.json.gz: after row" in complaint(path) and "damaged or cut off" in complaint(path)


def test_reviews_titles_and_brands_reach_a_prepared_data_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    raw.mkdir()
    reviews = (review_2018(f"A{row % 3}", f"B{row % 7}", 1 + row % 5, SECOND + row) for row in range(60))
    write(raw / "Books.json.gz", *reviews, "broken")
    with_meta(
        raw,
        "meta_Books.json",
        *({"asin": f"B{n}", "title": f"Book {n}", "brand": f"b{n % 2}"} for n in range(9)),
    )
    overrides = {"on_bad_row": "skip", "text": "none"}
    data = load(prepare_named("amazon", raw=raw, name="books", overrides=overrides))
    # 60 ratings are 60 clicks; 24 of them, with 4 or 5 stars, are favors too
    assert data.metadata["raw_behaviors"] == {"click": 60, "favor": 24}
    assert sum(data.metadata["dropped"].values()) == 1
    assert (data.interactions.num_users, data.num_items) == (3, 7)
    assert data.items["title"].to_list() == [f"Book {n}" for n in range(7)]
    assert data.content.attributes["brand"].tolist() == [0, 1, 2, 1, 2, 1, 2, 1]
