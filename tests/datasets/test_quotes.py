"""A quote that does not close in its line swallows no other line, in any reader of delimited text."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from bench.data.readers.quoted import fields_of
from bench.data.schema import EventStream, RawData
from bench.datasets import atomic, rec_tmall, retailrocket, table
from bench.datasets.movielens import releases
from bench.errors import UserError

HEADER = "user\titem\tbehavior\ttimestamp\ttitle\n"
TSV = (
    HEADER
    + '1\t10\tview\t1700000001\t"red shoes\n1\t11\tview\t1700000002\tlamp\n2\t10\tview\t1700000003\tred\n'
    + '2\t12\tview\t1700000004\ttv 27"\n3\t12\tview\t1700000005\t\n'
)


def rows_of(data: RawData) -> list[tuple]:
    return data.collected().events.rows()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a,b,", ["a", "b", ""]),
        ('"a, b",c', ["a, b", "c"]),
        ('"say ""hi""","",x', ['say "hi"', "", "x"]),
        ('the "best" shoe,b', ['the "best" shoe', "b"]),
        ('"""a""",b', ['"a"', "b"]),
        ('"red shoes,b', None),
        ('a,tv 27"', None),
        ('27" tv, and 5" pipe', None),
        ('"a"b,c', None),
        ('"a""', None),
        ('"', None),
    ],
)
def test_fields_are_split_as_they_are_quoted(line: str, fields: list[str] | None) -> None:
    assert fields_of(line, ",") == fields
    assert fields_of(line.replace(",", "\t"), "\t") == (fields and [f.replace(",", "\t") for f in fields])


@pytest.mark.parametrize("name", ["events.tsv", "events.txt", "events.tsv.gz"])
def test_a_quote_is_a_letter_where_tabs_separate(tmp_path: Path, name: str) -> None:
    text = TSV.encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert [row[:2] for row in rows_of(table.read(tmp_path, table.Options()))] == [
        (1, 10), (1, 11), (2, 10), (2, 12), (3, 12)
    ]  # fmt: skip


def test_quotes_of_a_tab_separated_item_table_are_letters_unless_told(tmp_path: Path) -> None:
    (tmp_path / "events.tsv").write_text(TSV)
    (tmp_path / "items.tsv").write_text('item\ttitle\n10\t"red shoes\n11\t"a\tb"\n12\ttv 27"\n')
    with pytest.raises(UserError, match="items.tsv: row 3: 3 columns, expected 2 as in the header"):
        table.read(tmp_path, table.Options(items="items.tsv"))
    with pytest.raises(UserError, match="items.tsv: row 2: a quote does not close .*also bad: row 4"):
        (tmp_path / "events.tsv").write_text(TSV.replace('"', ""))
        table.read(tmp_path, table.Options(items="items.tsv", quotes="always"))
    options = table.Options(items="items.tsv", quotes="always", on_bad_row="skip")
    items = table.read(tmp_path, options).items
    assert isinstance(items, pl.DataFrame) and items.rows() == [(11, "a\tb")]


def test_a_tab_separated_file_with_quoted_names_says_how_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "events.tsv").write_text('"user"\t"item"\t"behavior"\t"timestamp"\n"a"\t"b"\t"buy"\t5\n')
    with pytest.raises(UserError, match="no column 'user'; found .*; set quotes=always or set user=COLUMN"):
        table.read(tmp_path, table.Options())
    assert rows_of(table.read(tmp_path, table.Options(quotes="always"))) == [("a", "b", "buy", 5)]


@pytest.mark.parametrize("packed", [False, True])
def test_an_open_quote_in_a_csv_is_a_malformed_row_that_can_be_skipped(tmp_path: Path, packed: bool) -> None:
    text = (TSV + '3\t13\tview\t1700000006\t"a, ""b"""\n').replace("\t", ",").replace("\n", "\r\n").encode()
    path = tmp_path / ("events.csv.gz" if packed else "events.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(UserError) as error:
        table.read(tmp_path, table.Options())
    told = str(error.value)
    assert (
        f"{path.name}: row 2: a quote does not close in its line, '1,10,view,1700000001,\"red shoes'" in told
    )
    assert "(also bad: row 5)" in told and "quotes=never" in told and "--on-bad-row skip" in told
    data = table.read(tmp_path, table.Options(on_bad_row="skip"))
    assert isinstance(data.events, EventStream)
    (part,) = data.events.parts()
    assert part.events["item"].to_list() == [11, 10, 12, 13] and part.dropped == {"malformed rows": 2}
    assert [place.split(": ")[1] for place in part.bad_rows] == ["row 2", "row 5"]
    assert len(rows_of(table.read(tmp_path, table.Options(quotes="never", on_bad_row="skip")))) == 5


def test_an_open_quote_in_the_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text('user,"item,behavior,timestamp\n1,1,buy,1\n')
    with pytest.raises(UserError, match="row 1: a quote does not close in its line"):
        table.read(tmp_path, table.Options(on_bad_row="skip"))


def test_an_open_quote_in_movies_swallows_no_movie(tmp_path: Path) -> None:
    ratings = "".join(f"1,{movie},5,{1000000000 + movie}\n" for movie in (1, 2, 3, 4))
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    movies = '1,"Heat,Drama\n2,"Cats, ""the"" movie",Drama\n3,Tv 27",Drama\n4,Ran,Drama\n'
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + movies)
    with pytest.raises(UserError, match="row 2: a quote does not close in its line.*also bad: row 4"):
        releases.read(tmp_path, releases.Options())
    items = releases.read(tmp_path, releases.Options(on_bad_row="skip")).items
    assert isinstance(items, pl.DataFrame)
    assert items.rows() == [(2, 'Cats, "the" movie Drama'), (4, "Ran Drama")]


def test_an_open_quote_in_the_sample_of_products_swallows_no_product(tmp_path: Path) -> None:
    log = "item_id,user_id,action,vtime\ni7,u1,collect,2014/9/18 15:03\n"
    (tmp_path / "(sample)sam_tianchi_2014002_rec_tmall_log.csv").write_text(log)
    head = "item_id,title,pict_url,category,brand_id,seller_id\n"
    rows = 'i6,"red shoes,u,1-1,b1,s1\ni7,lamp,u,1-1,b1,s1\ni8,tv 27",u,1-1,b1,s1\n'
    (tmp_path / "(sample)sam_tianchi_2014001_rec_tmall_product.csv").write_text(head + rows)
    ids = pl.Series("item", [6, 7, 8])
    strict = rec_tmall.read(tmp_path, rec_tmall.Options()).items
    assert callable(strict)
    with pytest.raises(UserError, match="row 2: a quote does not close in its line.*also bad: row 4"):
        strict(ids)
    lenient = rec_tmall.read(tmp_path, rec_tmall.Options(on_bad_row="skip")).items
    assert callable(lenient) and lenient(ids)["item"].to_list() == [7]


def test_quotes_are_letters_in_the_files_without_quoting(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + '1\t"x\t5\t1\n1\ty\t5\t2\n2\tz"\t5\t3\n')
    events = atomic.read(tmp_path, atomic.Options(rule="disjoint")).collected().events
    assert events["item"].to_list() == ['"x', "y", 'z"']
    shop = tmp_path / "shop"
    shop.mkdir()
    lines = '1433221332117,1,view,5,"\n1433221332118,2,addtocart,6,\n1433221332119,3,view,7,"\n'
    (shop / "events.csv").write_text("timestamp,visitorid,event,itemid,transactionid\n" + lines)
    assert len(rows_of(retailrocket.read(shop, retailrocket.Options()))) == 3
