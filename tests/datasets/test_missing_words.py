"""Words for a missing value: a malformed row where an id belongs, absent where an item is described."""

import json
from pathlib import Path

import polars as pl
import pytest

from bench.data.preparation.check import check_raw
from bench.data.preparation.content import item_table, write_content
from bench.data.preparation.encoders import EncoderOptions
from bench.data.readers.missing import is_missing, stands_for_nothing
from bench.data.schema import EventStream, RawData
from bench.datasets import amazon, atomic, kuaishou, rec_tmall, table, tmall
from bench.datasets.movielens import ml_100k, releases
from bench.errors import UserError

WORDS = ("nan", "NaN", "None", "NULL", "null", "<NA>", "NA", "n/a", r"\N", "NaT", " nan ")
NAMES = ("Nancy", "nano", "none-such", "NAS", "null0", "0")
HEADER = "user,item,behavior,timestamp\n"


@pytest.mark.parametrize("word", [*WORDS, "", "  "])
def test_words_for_nothing_are_known_in_any_case(word: str) -> None:
    assert stands_for_nothing(word)
    assert pl.select(is_missing(pl.lit(word))).item()


@pytest.mark.parametrize("name", NAMES)
def test_names_that_only_look_like_such_a_word_are_values(name: str) -> None:
    assert not stands_for_nothing(name)
    assert not pl.select(is_missing(pl.lit(name))).item()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("ids", [("1", "2"), ("anna", "bob")])
def test_a_missing_id_of_a_table_is_a_malformed_row(tmp_path: Path, word: str, ids: tuple[str, str]) -> None:
    rows = f"{ids[0]},5,buy,1\n{word},5,buy,2\n{ids[1]},{word},buy,3\n{ids[1]},6,{word},4\n{ids[1]},6,buy,5\n"
    (tmp_path / "events.csv").write_text(HEADER + rows)
    with pytest.raises(UserError) as error:
        table.read(tmp_path, table.Options())
    assert f"row 3: user '{word.strip()}'; expected an id; fill it in" in str(error.value)
    assert "(also bad: row 4, row 5)" in str(error.value)
    events = table.read(tmp_path, table.Options(on_bad_row="skip")).events
    assert isinstance(events, EventStream)
    (part,) = events.parts()
    assert part.events["user"].cast(pl.String).to_list() == list(ids)
    assert part.dropped == {"malformed rows": 3}


def test_a_row_of_such_words_alone_is_no_blank_line(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(HEADER + "1,5,buy,1\nnan,nan,nan,nan\n")
    with pytest.raises(UserError, match="row 3: user 'nan'; expected an id"):
        table.read(tmp_path, table.Options())


def test_a_missing_item_of_an_item_table_is_malformed_and_its_attributes_are_absent(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(HEADER + "1,a,buy,1\n1,b,buy,2\n")
    items = "item,title,notes,image,brand\na,None,red,nan,NULL\nnan,x,y,,z\nb,null,NA,b.png,<NA>\n"
    (tmp_path / "items.csv").write_text(items)
    names = {"items": "items.csv", "attributes": ("brand",), "text_columns": ("title", "notes")}
    with pytest.raises(UserError, match="items.csv: row 3: item 'nan'; expected an id"):
        table.read(tmp_path, table.Options(**names))  # type: ignore[arg-type]
    data = table.read(tmp_path, table.Options(**names, on_bad_row="skip"))  # type: ignore[arg-type]
    assert isinstance(data.items, pl.DataFrame)
    assert data.items.rows() == [("a", "red", None, None), ("b", None, f"{tmp_path}/b.png", None)]


def test_a_missing_id_of_an_atomic_file_is_a_malformed_row(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + "ann\tx\t5\t1\nnan\tx\t5\t2\nbob\tNULL\t5\t3\nbob\tx\t1\t4\n")
    head = "item_id:token\ttitle:token_seq\tmore:token_seq\tbrand:token\n"
    (tmp_path / "a.item").write_text(head + "x\tNone\tred\tnan\n")
    with pytest.raises(UserError, match="a.inter: row 3: user_id 'nan', expected a value"):
        atomic.read(tmp_path, atomic.Options())
    data = atomic.read(tmp_path, atomic.Options(on_bad_row="skip", attributes=("brand",))).collected()
    assert set(data.events["user"]) == {"ann", "bob"}
    assert data.items.rows(named=True) == [{"item": "x", "title": "red", "brand": None}]


def test_ids_of_a_float_column_of_an_atomic_file_are_whole_numbers(tmp_path: Path) -> None:
    head = "user_id:float\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + "1.0\tx\t5\t1\n2\tx\t5\t2\n")
    assert atomic.read(tmp_path, atomic.Options(rule="disjoint")).collected().events["user"].to_list() == [
        1,
        2,
    ]
    (tmp_path / "a.inter").write_text(head + "1.0\tx\t5\t1\n2.5\tx\t5\t2\n")
    with pytest.raises(UserError, match="row 3: user_id '2.5', expected a whole number"):
        atomic.read(tmp_path, atomic.Options())


def test_missing_ids_and_words_of_amazon(tmp_path: Path) -> None:
    def review(user: str, item: str) -> str:
        return json.dumps({"reviewerID": user, "asin": item, "overall": 5, "unixReviewTime": 1_400_000_000})

    lines = [review("A1", "B1"), review("NULL", "B1"), review("A2", "nan"), review("A2", "B2")]
    (tmp_path / "Books.json").write_text("\n".join(lines))
    products = [
        {
            "asin": "B1",
            "title": "None",
            "brand": "nan",
            "category": ["Books", "NULL"],
            "main_cat": "Books",
            "price": "None",
        },
        {"asin": "B2", "title": "Nancy", "brand": "Nano", "category": [], "main_cat": "N/A"},
    ]
    (tmp_path / "meta_Books.json").write_text("\n".join(map(json.dumps, products)))
    with pytest.raises(UserError, match="row 2: reviewerID 'NULL', expected an id"):
        amazon.read(tmp_path, amazon.Options()).collected()
    data = amazon.read(tmp_path, amazon.Options(on_bad_row="skip")).collected()
    assert set(data.events["user"]) == {"A1", "A2"} and set(data.events["item"]) == {"B1", "B2"}
    assert data.items.sort("item").rows() == [
        ("B1", None, None, "Books", None),
        ("B2", "Nancy", "Nano", None, None),
    ]


def test_titles_of_movies_that_are_such_a_word_are_absent(tmp_path: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\n1,1,5,1000000000\n1,2,5,1000000001\n"
    (tmp_path / "ratings.csv").write_text(ratings)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,NULL,Drama\n2,Nana (1934),nan\n")
    assert releases.read(tmp_path, releases.Options()).items.rows() == [(1, None), (2, "Nana 1934")]
    (tmp_path / "u.data").write_text("1\t1\t5\t1\n1\t2\t5\t2\n")
    flags = "|".join("0" * 18)
    (tmp_path / "u.item").write_text(f"1|nan|||x|0|{flags}\n2|Nana (1934)|||x|0|{flags}\n")
    assert ml_100k.read(tmp_path, ml_100k.Options()).items.rows() == [(1, None), (2, "Nana 1934")]


def test_missing_words_of_the_paper_s_two_sets_are_absent(tmp_path: Path) -> None:
    shop, videos = tmp_path / "shop", tmp_path / "videos"
    shop.mkdir()
    videos.mkdir()
    log = "7\x01u1\x01collect\x012014-09-18 15:03:00\n"
    (shop / "tianchi_2014002_rec_tmall_log_parta.txt").write_text(log)
    product = "7\x01NULL\x01url\x01None\x01<NA>\x01nan\n"
    (shop / "tianchi_2014001_rec_tmall_product.txt").write_text(product)
    data = rec_tmall.read(shop, rec_tmall.Options()).collected()
    assert data.items.rows() == [(7, None, None, None, None)]
    (videos / "train_interaction.txt").write_text("1\t2\t1\t1\t0\t761000000000\t3\t4\n")
    (videos / "train_text.txt").write_text("2\tNULL\n")
    (videos / "train_face.txt").write_text("2\tnan\n")
    data = kuaishou.read(videos, kuaishou.Options()).collected()
    assert data.items.rows(named=True) == [{"item": 2, "title": "", "faces": "0", "gender": None}]


def test_a_missing_brand_of_tmall_is_unknown(tmp_path: Path) -> None:
    head = "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
    (tmp_path / "user_log_format1.csv").write_text(head + "1,2,3,4,NULL,829,0\n1,3,3,4,5,829,3\n")
    assert tmall.read(tmp_path, tmall.Options()).collected().items["brand"].to_list() == [None, 5]


@pytest.mark.parametrize("word", ["nan", "NULL", "<NA>"])
def test_whatever_a_reader_lets_through_is_seen_before_the_preparation(tmp_path: Path, word: str) -> None:
    columns = {"user": ["a", word], "item": [1, 2], "behavior": ["buy", "buy"], "timestamp": [1, 2]}
    with pytest.raises(UserError, match=f"events, row 2: user is '{word}', expected an id"):
        check_raw(RawData(pl.DataFrame(columns), ("buy",), ""))
    items = pl.DataFrame({"item": [1, 2], "title": [word, "lamp"], "brand": [word, "b"]})
    events = pl.DataFrame({**columns, "user": ["a", "b"]})
    raw = RawData(events, ("buy",), "", items=items, attributes=("brand",))
    known = item_table(raw, pl.Series("item", [1, 2]))
    assert known["title"].to_list() == [None, "lamp"]
    content, *_ = write_content(raw, known, EncoderOptions(text_size=2), tmp_path, tmp_path)
    assert content.attributes["brand"].tolist() == [0, 0, 1]
    assert content.present["text"].tolist() == [False, False, True]
