"""Files as they arrive: compressed under another name, beside what archives leave, with odd line ends."""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from bench.data.schema import RawData
from bench.datasets import amazon, atomic, kuairand, kuaishou, rec_tmall, retailrocket, table, taobao, tmall
from bench.datasets.kuaishou.visual import WIDTH
from bench.datasets.movielens import ml_100k, releases
from bench.errors import UserError

Reader = Callable[[Path], RawData]
RANDOM = "user_id,video_id,time_ms,is_click,is_like,tab\n1,2,1650000000000,1,1,0\n"
REVIEW = json.dumps({"reviewerID": "A1", "asin": "B1", "overall": 5, "unixReviewTime": 1_400_000_000}) + "\n"
FILES: dict[str, tuple[Reader, dict[str, str]]] = {
    "table": (
        lambda raw: table.read(raw, table.Options()),
        {"events.csv": "user,item,behavior,timestamp\n1,2,buy,3\n"},
    ),
    "taobao": (
        lambda raw: taobao.read(raw, taobao.Options()),
        {"UserBehavior.csv": "1,2,3,fav,1511600000\n"},
    ),
    "tmall": (
        lambda raw: tmall.read(raw, tmall.Options()),
        {
            "user_log_format1.csv": "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
            "1,2,3,4,5,829,3\n"
        },
    ),
    "retailrocket": (
        lambda raw: retailrocket.read(raw, retailrocket.Options()),
        {"events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,1,addtocart,5,\n"},
    ),
    "kuairand": (
        lambda raw: kuairand.read(raw, kuairand.Options()),
        {f"log_standard_{period}_pure.csv": RANDOM for period in kuairand.PERIODS},
    ),
    "atomic": (
        lambda raw: atomic.read(raw, atomic.Options()),
        {"a.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t3\n"},
    ),
    "amazon": (lambda raw: amazon.read(raw, amazon.Options()), {"Books.json": REVIEW}),
    "amazon ratings": (
        lambda raw: amazon.read(raw, amazon.Options()),
        {"Books.csv": "user_id,parent_asin,rating,timestamp\nA1,B1,5,1400000000000\n"},
    ),
    "movielens": (
        lambda raw: releases.read(raw, releases.Options()),
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,2,5,1000000000\n",
            "movies.csv": "movieId,title,genres\n2,Heat,Drama\n",
        },
    ),
    "ml-100k": (
        lambda raw: ml_100k.read(raw, ml_100k.Options()),
        {
            "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t3\n",
            "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "2\tHeat\t1995\tDrama\n",
        },
    ),
    "kuaishou": (
        lambda raw: kuaishou.read(raw, kuaishou.Options()),
        {"train_interaction.txt": "1\t2\t1\t1\t0\t761000000000\t3\t4\n", "train_text.txt": "2\t7\n"},
    ),
    "rec_tmall": (
        lambda raw: rec_tmall.read(raw, rec_tmall.Options()),
        {
            "tianchi_2014002_rec_tmall_log_parta.txt": "7\x01u1\x01collect\x012014-09-18 15:03:00\n",
            "tianchi_2014001_rec_tmall_product.txt": "7\x01lamp\x01url\x011-1\x01b1\x01s1\n",
        },
    ),
    "rec_tmall sample": (
        lambda raw: rec_tmall.read(raw, rec_tmall.Options()),
        {
            "sam_tianchi_2014002_rec_tmall_log.csv": "item_id,user_id,action,vtime\n"
            "i7,u1,collect,2014/9/18 15:03\n",
            "sam_tianchi_2014001_rec_tmall_product.csv": "item_id,title,pict_url,category,brand_id,"
            "seller_id\ni7,lamp,url,1-1,b1,s1\n",
        },
    ),
}


@pytest.fixture(params=list(FILES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Reader, Path]:
    read, files = FILES[request.param]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return read, tmp_path


def events_of(data: RawData) -> list[tuple]:
    whole = data.collected()
    items = [] if whole.items is None else whole.items.rows()
    return [*whole.events.rows(), *items]


def test_gzip_is_seen_by_its_bytes_whatever_the_name(case: tuple[Reader, Path]) -> None:
    read, folder = case
    expected = events_of(read(folder))
    for path in list(folder.iterdir()):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert events_of(read(folder)) == expected


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (bz2.compress(b"x"), "bzip2-compressed"),
        (lzma.compress(b"x"), "xz-compressed"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "zstd-compressed"),
        (b"PK\x03\x04 and more", "a zip archive"),
        ("user,item".encode("utf-16"), "UTF-16 text"),
    ],
)
def test_another_compression_is_named_with_what_to_do(
    case: tuple[Reader, Path], begin: bytes, kind: str
) -> None:
    read, folder = case
    for path in folder.iterdir():
        path.write_bytes(begin)
    with pytest.raises(UserError) as error:
        events_of(read(folder))
    told = str(error.value)
    assert f"cannot be read: it is {kind}, expected UTF-8 text, plain or gzip" in told and "\n" not in told


@pytest.mark.parametrize("name", ["table", "movielens", "amazon", "taobao"])
def test_a_gz_that_is_no_gzip_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    read, files = FILES[name]
    for file, text in files.items():
        (tmp_path / f"{file}.gz").write_text(text)
    with pytest.raises(
        UserError, match=r"\.gz: cannot be read: named .gz, it is no gzip file .* without .gz"
    ):
        events_of(read(tmp_path))


def test_what_archives_and_systems_leave_behind_is_passed_over(case: tuple[Reader, Path]) -> None:
    read, folder = case
    expected = events_of(read(folder))
    inside = folder / "__MACOSX"
    inside.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file():
            (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00Mac OS X")
            (inside / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00Mac OS X")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\x00\x01")
    assert events_of(read(folder)) == expected


def test_a_lone_table_is_found_beside_what_macos_leaves(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("user,item,behavior,timestamp\n1,2,buy,3\n")
    (tmp_path / "._my.csv").write_bytes(b"\x00\x05\x16\x07")
    assert len(events_of(table.read(tmp_path, table.Options()))) == 1


def test_a_zip_of_vectors_from_a_mac_gives_the_photos_alone(tmp_path: Path) -> None:
    import io

    import numpy as np

    (tmp_path / "train_interaction.txt").write_text("1\t2\t1\t1\t0\t761000000000\t3\t4\n")
    vector = io.BytesIO()
    np.save(vector, np.ones((1, WIDTH), np.float32))
    with zipfile.ZipFile(tmp_path / "final_visual_train.zip", "w") as archive:
        archive.writestr("final_visual_train/2", vector.getvalue())
        archive.writestr("__MACOSX/final_visual_train/._2", b"\x00\x05\x16\x07")
        archive.writestr("__MACOSX/final_visual_train/2", b"\x00\x05\x16\x07")
    features = kuaishou.read(tmp_path, kuaishou.Options()).features["image"]
    blocks = features.blocks(pl.Series("item", [2]))  # type: ignore[union-attr]
    assert [rows.tolist() for rows, _ in blocks] == [[0]]


@pytest.mark.parametrize(
    "name",
    [
        "table", "tmall", "retailrocket", "kuairand", "atomic", "amazon ratings", "movielens", "ml-100k",
        "rec_tmall sample",
    ],
)  # fmt: skip
def test_two_columns_of_one_name_are_refused_with_both_places(tmp_path: Path, name: str) -> None:
    read, files = FILES[name]
    for twice, whole in files.items():
        for file, text in files.items():
            (tmp_path / file).write_text(text)
        header, rows = whole.split("\n", 1)
        mark = "\t" if "\t" in header else ","
        first, *others = header.split(mark)
        (tmp_path / twice).write_text(f"{header}{mark}{first}\n{rows}")
        column = f"'{first.partition(':')[0]}' is column 1 and column {len(others) + 2}"
        with pytest.raises(UserError, match=f"{twice}: row 1: the header names a column twice: {column}"):
            events_of(read(tmp_path))


@pytest.mark.parametrize("name", ["table", "tmall", "atomic", "movielens", "rec_tmall sample"])
def test_lines_that_carriage_returns_alone_end_are_refused(tmp_path: Path, name: str) -> None:
    read, files = FILES[name]
    for broken in files:
        for file, text in files.items():
            (tmp_path / file).write_bytes(text.replace("\n", "\r" if file == broken else "\n").encode())
        with pytest.raises(UserError, match=f"{broken}: row 1: carriage returns alone end its lines"):
            events_of(read(tmp_path))


def test_two_columns_of_one_name_in_an_item_table_and_unnamed_ones(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item,behavior,timestamp,,\n1,2,buy,3,,\n")
    assert len(events_of(table.read(tmp_path, table.Options()))) == 1
    (tmp_path / "items.csv").write_text('item,title,"title"\n2,a,b\n')
    with pytest.raises(UserError, match="items.csv: row 1: .*'title' is column 2 and column 3"):
        table.read(tmp_path, table.Options(items="items.csv"))


ODD = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h"


def test_only_a_line_feed_ends_a_line_of_movies_dat(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::5::1000000000\n1::3::5::1000000001\n")
    title = "a\x85b\x1cc"
    (tmp_path / "movies.dat").write_bytes(f"2::{title} (1995)::Drama\r\n3::Été::Drama\n".encode("latin-1"))
    items = releases.read(tmp_path, releases.Options()).items
    assert isinstance(items, pl.DataFrame) and items["item"].to_list() == [2, 3]
    assert items["title"][1] == "Été Drama"


def test_no_other_separator_of_unicode_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,5,1000000000\n")
    (tmp_path / "movies.csv").write_text(f"movieId,title,genres\n2,{ODD},x\n3,b,x\n", encoding="utf-8")
    assert len(releases.read(tmp_path, releases.Options()).items) == 2  # type: ignore[arg-type]
    text = f"user,item,behavior,timestamp\n1,{ODD},buy,3\r\n1,b,buy,4\r\n"
    (tmp_path / "events.csv").write_bytes(text.encode())
    assert events_of(table.read(tmp_path, table.Options()))[0][:2] == (1, ODD)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_bytes(f"{head}1\t{ODD}\t5\t3\n1\tb\t5\t4\n".encode())
    assert len(atomic.read(tmp_path, atomic.Options(rule="disjoint")).collected().events) == 2
    shop = tmp_path / "shop"
    shop.mkdir()
    read, files = FILES["rec_tmall"]
    for name, lines in files.items():
        (shop / name).write_bytes(lines.replace("lamp", ODD).encode())
    assert len(events_of(read(shop))) == 2


def test_a_lone_carriage_return_stays_inside_its_line(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(b"user,item,behavior,timestamp\n1,a\rb,buy,3\n1,c,buy\r,x\n")
    with pytest.raises(UserError, match="row 3: timestamp 'x'"):
        table.read(tmp_path, table.Options())
