import gzip
import importlib.util
from pathlib import Path

import polars as pl
import pytest

from bench.data.preparation.check import check_raw
from bench.data.readers import blocks as raw_blocks
from bench.data.schema import EventStream, RawData
from bench.datasets.atomic import Options, read
from bench.errors import UserError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
RATINGS = "1\t10\t3\t100\n2\t10\t4\t90.0\n1\t12\t5\t8.8E2\n"
ITEM = "item_id:token\tmovie_title:token_seq\tyear:token\tclass:token_seq\n"
MOVIES = '10\t"Misérables, Les\t1995\tDrama Musical\n12\t\t1996\t\n'
CART = "buyer:token\titem_id:token\twhat:token\ttimestamp:float\n"
CART += "a\t10\tcart\t1\na\t10\tbuy\t2\nb\t12\tfav\t3\n"
MAPPED = Options(user="buyer", behavior="what", behaviors=("cart=click", "fav=click", "buy=favor"))


def folder_with(folder: Path, inter: str = INTER + RATINGS, item: str | None = ITEM + MOVIES) -> Path:
    (folder / "tiny.inter").write_bytes(inter.encode())
    if item is not None:
        (folder / "tiny.item").write_bytes(item.encode())
    return folder


def events_of(data: RawData) -> pl.DataFrame:
    assert isinstance(data.events, EventStream)
    return pl.concat([part.events for part in data.events.parts()])


def complaint(folder: Path, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        events_of(read(folder, options or Options()))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_ratings_become_a_click_and_high_ones_a_favor_after_it(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path), Options())
    assert events_of(data).rows() == [
        (1, 10, "click", 100), (2, 10, "click", 90), (2, 10, "favor", 90),
        (1, 12, "click", 880), (1, 12, "favor", 880),
    ]  # fmt: skip
    assert events_of(data).columns == ["user", "item", "behavior", "timestamp"]
    assert events_of(data)["timestamp"].dtype == pl.Int64
    assert data.behaviors == ("click", "favor")


def test_the_disjoint_rule_gives_one_event_a_rating(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path), Options(rule="disjoint", favor_rating=5))
    assert events_of(data)["behavior"].to_list() == ["click", "click", "favor"]
    assert "5" in data.mapping


def test_text_is_that_of_the_sequence_columns_and_quotes_mean_nothing(tmp_path: Path) -> None:
    items = read(folder_with(tmp_path), Options()).items
    assert items is not None
    assert items.rows() == [(10, '"Misérables, Les Drama Musical'), (12, None)]


def test_chosen_text_and_attribute_columns_are_taken(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path), Options(text_columns=("year",), attributes=("class",)))
    assert data.items is not None
    assert data.items.rows(named=True) == [
        {"item": 10, "title": "1995", "class": "Drama Musical"}, {"item": 12, "title": "1996", "class": None}
    ]  # fmt: skip
    assert data.attributes == ("class",)
    check_raw(data)


def test_a_behavior_column_is_mapped_in_file_order_without_an_item_file(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, CART, None), MAPPED)
    assert events_of(data).rows() == [("a", 10, "click", 1), ("a", 10, "favor", 2), ("b", 12, "click", 3)]
    assert (data.items, data.behaviors) == (None, ("click", "favor"))
    assert data.mapping == "cart -> click, fav -> click, buy -> favor"


def test_plain_behavior_names_keep_their_order(tmp_path: Path) -> None:
    options = Options(user="buyer", behavior="what", behaviors=("fav", "cart", "buy"))
    assert read(folder_with(tmp_path, CART, None), options).behaviors == ("fav", "cart", "buy")


def test_ids_are_text_in_both_files_where_one_has_text(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, item=ITEM + MOVIES + "B00\tx\t1\ty\n"), Options())
    assert data.items is not None
    assert data.items["item"].to_list() == ["10", "12", "B00"]
    assert events_of(data)["item"].unique().sort().to_list() == ["10", "12"]
    data = read(folder_with(tmp_path, INTER + "1\t010\t5\t1\n", None), Options())
    assert events_of(data)["item"].to_list() == ["010", "010"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1\t10\t3\n", ["row 3", "3 columns", "expected 4"]),
        ("1\t10\t3\t4\t5\n", ["row 3", "5 columns", "expected 4"]),
        ("\n1\t10\t3\n", ["row 4", "3 columns"]),
        ("1\t10\tgood\t5\n", ["row 3", "rating 'good'", "expected a number"]),
        ("1\t10\t3\t5.5\n", ["row 3", "timestamp '5.5'", "whole number"]),
        ("1\t10\t3\t1.5e0\n", ["row 3", "timestamp '1.5e0'", "whole number"]),
        ("1\t10\t3\t9e99\n", ["row 3", "timestamp '9e99'", "whole number"]),
        ("1\t\t3\t5\n", ["row 3", "item_id ''", "a value"]),
    ],
)
def test_a_malformed_line_is_named_with_row_and_value(tmp_path: Path, line: str, told: list[str]) -> None:
    message = complaint(folder_with(tmp_path, INTER + "1\t10\t5\t100\n" + line))
    assert [part for part in ["tiny.inter", *told] if part not in message] == []
    data = read(tmp_path, Options(on_bad_row="skip"))
    assert isinstance(data.events, EventStream)
    (part,) = data.events.parts()
    assert (part.events.rows()[0], len(part.events)) == ((1, 10, "click", 100), 2)
    assert (part.rows, sum(part.dropped.values())) == (2, 1)


def test_a_short_line_and_a_repeated_item_of_the_item_file_are_named(tmp_path: Path) -> None:
    message = complaint(folder_with(tmp_path, item=ITEM + MOVIES + "13\tx\n"))
    assert "tiny.item: row 4: 2 columns" in message and "expected 4" in message
    message = complaint(folder_with(tmp_path, item=ITEM + MOVIES + "10\tx\t1\ty\n"))
    assert "tiny.item: row 4: item_id '10' again" in message
    folder_with(tmp_path, item=ITEM + MOVIES + "13\tx\n10\tx\t1\ty\n")
    data = read(tmp_path, Options(on_bad_row="skip"))
    assert isinstance(data.items, pl.DataFrame) and data.items["item"].to_list() == [10, 12]
    assert "2 malformed rows of tiny.item left out" in data.mapping


def test_bytes_that_are_not_utf_8_are_named_with_their_row(tmp_path: Path) -> None:
    folder_with(tmp_path)
    (tmp_path / "tiny.item").write_bytes(ITEM.encode() + b"10\tMis\xe9rables\t1995\tDrama\n")
    assert "tiny.item: row 2: byte 0xe9 is not UTF-8" in complaint(tmp_path)


def test_headers_without_types_or_needed_columns_are_refused(tmp_path: Path) -> None:
    assert "row 1: column 'user_id'" in complaint(folder_with(tmp_path, "user_id\titem_id\n1\t2\n"))
    assert "row 1: no column 'user_id'" in complaint(folder_with(tmp_path, CART))
    message = complaint(folder_with(tmp_path, CART), Options(user="buyer"))
    assert "no column 'rating'" in message and "behavior=COLUMN" in message
    assert "set attributes=COLUMN" in complaint(folder_with(tmp_path), Options(attributes=("brand",)))
    twice = INTER.replace("rating:float", "item_id:float")
    assert "names a column twice" in complaint(folder_with(tmp_path, twice))


def test_behaviors_that_are_not_listed_or_listed_twice_are_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, CART, None)
    message = complaint(tmp_path, Options(user="buyer", behavior="what", behaviors=("cart", "buy")))
    assert "row 4: what 'fav', expected one of cart, buy" in message
    assert "set behaviors=cart,buy,fav" in complaint(tmp_path, Options(user="buyer", behavior="what"))
    twice = Options(user="buyer", behavior="what", behaviors=("cart=click", "cart=favor"))
    assert "each value once" in complaint(tmp_path, twice)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--raw"):
        read(None, Options())
    assert "expected one NAME.inter there, found none" in complaint(tmp_path)
    folder_with(tmp_path, item=None)
    assert "tiny.item: no such file" in complaint(tmp_path, Options(attributes=("brand",)))
    assert "expected other.inter there, found tiny.inter" in complaint(tmp_path, Options(name="other"))
    assert "row 2: nothing there" in complaint(folder_with(tmp_path, INTER))
    assert "row 1" in complaint(folder_with(tmp_path, ""))


def test_one_of_several_data_sets_is_chosen_by_name_or_by_file(tmp_path: Path) -> None:
    folder_with(tmp_path)
    (tmp_path / "other.inter").write_text(INTER + "1\t10\t5\t1\n")
    assert "found other.inter, tiny.inter" in complaint(tmp_path)
    assert len(events_of(read(tmp_path, Options(name="other")))) == 2
    assert len(events_of(read(tmp_path / "tiny.inter", Options()))) == 5


def test_gzipped_files_give_the_same(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path), Options(attributes=("year",)))
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("tiny.inter", "tiny.item"):
        (packed / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    data = read(packed, Options(attributes=("year",)))
    assert events_of(data).equals(events_of(expected))
    assert isinstance(data.items, pl.DataFrame) and isinstance(expected.items, pl.DataFrame)
    assert data.items.equals(expected.items)
    assert len(events_of(read(packed / "tiny.inter.gz", Options()))) == 5


def test_ids_are_whole_numbers_only_if_they_are_so_in_all_blocks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(raw_blocks.blocks, "__defaults__", (20,))
    rows = [f"{user}\t1\t5\t1\n" for user in range(30)]
    assert events_of(read(folder_with(tmp_path, INTER + "".join(rows)), Options()))["user"].dtype == pl.Int64
    folder_with(tmp_path, INTER + "".join([*rows[:20], "x\t1\t3\t1\n", *rows[20:]]))
    data = read(tmp_path, Options())
    assert isinstance(data.events, EventStream)
    parts = list(data.events.parts())
    assert len(parts) > 5
    assert {part.events["user"].dtype for part in parts} == {pl.String()}


def test_a_threshold_that_no_rating_reaches_is_refused(tmp_path: Path) -> None:
    assert "favor_rating = 6" in complaint(folder_with(tmp_path), Options(favor_rating=6))


def test_windows_line_ends_a_mark_and_a_missing_last_end_change_nothing(tmp_path: Path) -> None:
    expected = read(folder_with(tmp_path), Options())
    for name in ("tiny.inter", "tiny.item"):
        data = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n")
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    data = read(tmp_path, Options())
    assert events_of(data).equals(events_of(expected))
    assert data.items is not None and expected.items is not None and data.items.equals(expected.items)


def test_the_atomic_files_of_ml_100k_have_the_published_counts() -> None:
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("recbole, whose wheel carries ml-100k, is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    data = read(folder, Options())
    counts = dict(events_of(data)["behavior"].value_counts().rows())
    assert counts == {"click": 100_000, "favor": 55_375}
    assert (events_of(data)["user"].n_unique(), events_of(data)["item"].n_unique()) == (943, 1_682)
    assert data.items is not None and len(data.items) == 1_682
    assert dict(data.items.rows())[1] == "Toy Story Animation Children's Comedy"
