import csv
import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from bench.data.readers.log import LogFiles
from bench.data.schema import TOUCHED, RawData
from bench.datasets import rec_tmall
from bench.datasets.rec_tmall import Options
from bench.errors import UserError
from tests.datasets.conftest import events_of

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "rec-tmall-log-sample"
ALL = ("click", "collect", "cart", "alipay")
PART = "tianchi_2014002_rec_tmall_log_part{}.txt"
PRODUCTS = "tianchi_2014001_rec_tmall_product.txt"
LOG = (
    "161|u2625|click|2014-09-18 15:03:00\n"
    "161|u2626|collect|2014-09-18 15:03:01\n"
    "7|u2625|cart|2014-09-19 00:00:00\n"
    "8133507|u9774184|alipay|2014-09-30 23:59:59\n"
    "7|u2625|collect|2014-09-01 00:00:00\n"
)
FIRST_ROW = 1411052580  # 2014-09-18 15:03:00, counted as if it were UTC
PRODUCT_LINES = (
    "7|红色 连衣裙|http://a.invalid/7.jpg|21-6|b89366|s86799\n"
    "161|null|http://a.invalid/161.jpg|21-7||null\n"
    "9||http://a.invalid/9.jpg|22-1|b1|s1\n"
    "7|a second line of item 7|http://a.invalid/7.jpg|1-1|b2|s2\n"
)


def full(text: str) -> bytes:
    return text.replace("|", "\x01").encode()


def folder_with(folder: Path, log: str | bytes = LOG, products: bytes | None = None) -> Path:
    (folder / PART.format("a")).write_bytes(full(log) if isinstance(log, str) else log)
    if products is not None:
        (folder / PRODUCTS).write_bytes(products)
    return folder


def sample_with(folder: Path, text: str) -> Path:
    (folder / "(sample)sam_tianchi_2014002_rec_tmall_log.csv").write_bytes(text.encode())
    return folder


def read(raw: Path | None, **options) -> RawData:
    return events_of(rec_tmall.read(raw, Options(**options)).collected())


def complaint(raw: Path | None, **options) -> str:
    with pytest.raises(UserError) as error:
        read(raw, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_clicks_and_collects_are_read_in_file_order(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path))
    assert data.events.select("user", "item", "behavior", "timestamp").rows() == [
        (2625, 161, "click", FIRST_ROW),
        (2626, 161, "favor", FIRST_ROW + 1),
        (2625, 7, "favor", 1409529600),
    ]
    assert data.behaviors == ("click", "favor") and not data.simulated
    assert data.mapping.startswith("click -> click, collect -> favor, cart dropped, alipay dropped; read fr")


def test_all_four_behaviors_may_be_taken(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path), behaviors=ALL)
    assert data.behaviors == ALL
    assert data.events["behavior"].to_list() == ["click", "collect", "cart", "alipay", "collect"]


def test_two_raw_behaviors_may_become_one(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path), behaviors=("click=click", "collect=favor", "cart=favor"))
    assert data.behaviors == ("click", "favor")
    assert data.events["behavior"].to_list() == ["click", "favor", "favor", "favor"]


def test_the_parts_are_read_in_the_order_of_their_names_from_where_they_were_unpacked(tmp_path: Path) -> None:
    for part, item in (("c", 3), ("a", 1)):
        (tmp_path / PART.format(part)).write_bytes(full(f"{item}|u1|click|2014-09-18 15:03:00\n"))
    unpacked = tmp_path / PART.format("b").removesuffix(".txt")
    unpacked.mkdir()
    packed = gzip.compress(full("2|u1|click|2014-09-18 15:03:00\n"))
    (unpacked / f"{PART.format('b')}.gz").write_bytes(packed)
    data = read(tmp_path)
    assert data.events["item"].to_list() == [1, 2, 3]
    assert [data.mapping.index(f"part{part}") for part in "abc"] == sorted(
        data.mapping.index(f"part{part}") for part in "abc"
    )


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path)
    (tmp_path / f"{PART.format('a')}.gz").write_bytes(gzip.compress(full(LOG)))
    assert "the same file as" in complaint(tmp_path)


def test_both_forms_of_ids_and_times_are_read(tmp_path: Path) -> None:
    header = "item_id,user_id,action,vtime\r\n"
    rows = (
        "i161,u2625,click,2014/9/18 15:03\r\n"
        "161,2625,collect,2014/09/08 05:03\r\n"
        "161,u2625,click,2014-09-18 15:03:07\r\n"
    )
    assert read(sample_with(tmp_path, header + rows)).events.rows() == [
        (2625, 161, "click", FIRST_ROW),
        (2625, 161, "favor", 1410152580),
        (2625, 161, "click", FIRST_ROW + 7),
    ]
    other = tmp_path / "full"
    other.mkdir()
    mixed = "i161|2625|click|2014-09-18 15:03:00\n161|u2625|collect|2014-09-18 15:03:00\n"
    assert read(folder_with(other, mixed)).events["user"].to_list() == [2625, 2625]


def test_products_are_read_for_the_items_kept_and_null_is_unknown(tmp_path: Path) -> None:
    data = rec_tmall.read(folder_with(tmp_path, products=full(PRODUCT_LINES)), Options())
    assert data.attributes == ("category", "brand", "seller") and callable(data.items)
    table = data.items(pl.Series("item", [7, 161, 200]))
    assert table.select("item", "title", "category", "brand", "seller").sort("item").rows() == [
        (7, "红色 连衣裙", "21-6", "b89366", "s86799"),
        (161, None, "21-7", None, None),
    ]


def test_titles_that_are_no_utf_8_lose_these_bytes_alone(tmp_path: Path) -> None:
    products = full("7|good ") + b"\xff\xfe" + full(" words|url|1-1|b1|s1\n")
    data = rec_tmall.read(folder_with(tmp_path, products=products), Options())
    assert callable(data.items)
    title = data.items(pl.Series("item", [7]))["title"].item()
    assert title.startswith("good ") and title.endswith(" words") and "\ufffd" in title


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_the_sample_of_products_is_read_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    text = 'item_id,title,pict_url,category,brand_id,seller_id\r\ni7,"红色, 连衣裙",http://x,21-6,b1,null\r\n'
    (tmp_path / "(sample)sam_tianchi_2014001_rec_tmall_product.csv").write_bytes(text.encode(encoding))
    data = rec_tmall.read(folder_with(tmp_path), Options())
    assert callable(data.items)
    assert data.items(pl.Series("item", [7])).rows() == [(7, "红色, 连衣裙", "21-6", "b1", None)]


def test_pictures_are_those_named_by_an_item_and_the_rest_is_absent(tmp_path: Path) -> None:
    images = folder_with(tmp_path, products=full(PRODUCT_LINES)) / "images"
    images.mkdir()
    for name in ("7.jpg", "8133507.png", "99.jpg", "cover.jpg", "7.txt"):
        (images / name).write_bytes(b"")
    data = rec_tmall.read(tmp_path, Options())
    assert callable(data.items)
    table = data.items(pl.Series("item", [7, 161, 8133507]))
    assert table.select("item", "image").sort("item").rows() == [
        (7, str(images / "7.jpg")), (161, None), (8133507, str(images / "8133507.png")),
    ]  # fmt: skip
    (tmp_path / PRODUCTS).unlink()
    alone = rec_tmall.read(tmp_path, Options())
    assert alone.attributes == () and callable(alone.items)
    assert alone.items(pl.Series("item", [7, 161])).rows() == [(7, str(images / "7.jpg"))]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("161|u2625|cli", "3 columns in '161,u2625,cli'"),
        ("161|u2625|click|2014-09-18 15:03:0", "vtime '2014-09-18 15:03:0'"),
        ("161|u2625|click", "3 columns"),
        ("161|u2625|click|2014-09-18 15:03:00|", "5 columns"),
        ("161|u2625|click|2014-09-18 15:03:00|x", "5 columns"),
        ("161.0|u2625|click|2014-09-18 15:03:00", "item_id '161.0'"),
        ("-1|u2625|click|2014-09-18 15:03:00", "item_id '-1'"),
        ("161|u|click|2014-09-18 15:03:00", "user_id 'u'"),
        ("161||click|2014-09-18 15:03:00", "user_id ''"),
        ("161|u99999999999999999999|click|2014-09-18 15:03:00", "user_id 'u9999"),
        ("161|u2625|klick|2014-09-18 15:03:00", "action 'klick', expected one of click, collect"),
        ("161|u2625|click|2014-02-30 15:03:00", "vtime '2014-02-30"),
        ("161|u2625|click|1970-01-01 00:00:00", "expected yyyy-mm-dd hh:mm:ss of the years 2008 to 2019"),
        ("161|u2625|click|1411052580", "vtime '1411052580'"),
        ("161|u2625|click|2014/9/18 15:03", "vtime '2014/9/18 15:03'"),
    ],
)
def test_a_malformed_line_is_named_or_left_out_and_counted(tmp_path: Path, line: str, told: str) -> None:
    folder_with(tmp_path, LOG + line + "\n" + LOG)
    text = complaint(tmp_path)
    assert "parta.txt: row 6: " in text and told in text and "--on-bad-row skip" in text
    stream = rec_tmall.read(tmp_path, Options(on_bad_row="skip")).events
    assert isinstance(stream, LogFiles)
    (part,) = stream.parts()
    assert (part.events["behavior"].cast(pl.String) != TOUCHED).sum() == 6
    assert part.rows == 11 and sum(part.dropped.values()) == 1


def test_a_last_line_without_its_end_is_refused(tmp_path: Path) -> None:
    assert "row 5: vtime '2014-09-01 00:0'" in complaint(folder_with(tmp_path, LOG[:-5]))


def test_bytes_that_are_no_utf_8_make_a_row_malformed(tmp_path: Path) -> None:
    folder_with(tmp_path, full(LOG) + full("161|u26") + b"\xff" + full("25|click|2014-09-18 15:03:00\n"))
    assert "row 6: user_id 'u26\ufffd25'" in complaint(tmp_path)
    assert len(read(tmp_path, on_bad_row="skip").events) == 3


def test_a_header_where_none_belongs_is_refused(tmp_path: Path) -> None:
    text = complaint(folder_with(tmp_path, "item_id|user_id|action|vtime\n" + LOG))
    assert "row 1" in text and "header" in text


def test_a_sample_without_its_header_is_refused(tmp_path: Path) -> None:
    assert "row 1: no column 'item_id'" in complaint(sample_with(tmp_path, "i1,u1,click,2014/9/18 15:03\r\n"))


@pytest.mark.parametrize("cut", ["2014/9/18 15:0", "2014/9/18 1", "2014/13/18 15:03"])
def test_a_sample_time_that_was_cut_off_is_refused(tmp_path: Path, cut: str) -> None:
    text = complaint(sample_with(tmp_path, f"item_id,user_id,action,vtime\r\ni1,u1,click,{cut}"))
    assert f"row 2: vtime '{cut}'" in text


def test_a_faulty_product_is_named(tmp_path: Path) -> None:
    data = rec_tmall.read(folder_with(tmp_path, products=full("7|title|url|1-1|b1\n")), Options())
    assert callable(data.items)
    with pytest.raises(UserError, match="product.txt: row 1: 5 columns"):
        data.items(pl.Series("item", [7]))


def test_nothing_given_and_a_folder_without_the_log_are_refused(tmp_path: Path) -> None:
    assert "--raw" in complaint(None)
    assert "expected tianchi_2014002_rec_tmall_log_parta.txt" in complaint(tmp_path)
    assert "nothing there" in complaint(folder_with(tmp_path, ""))


@pytest.mark.parametrize("given", [{"user_share": 0.0}, {"user_share": 1.1}, {"sample_seed": -1}])
def test_a_wrong_option_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Options(**given)  # type: ignore[arg-type]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of the log is not beside the repository")
def test_the_published_sample_has_the_counts_of_its_readme() -> None:
    (path,) = SAMPLE.glob("*.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4844
    events = read(SAMPLE, behaviors=ALL).events
    assert events["user"].n_unique() == 836 and events["item"].n_unique() == 554
    assert Counter(events["behavior"]) == {"click": 4474, "cart": 358, "alipay": 7, "collect": 5}
    times = [datetime.strptime(row["vtime"], "%Y/%m/%d %H:%M").replace(tzinfo=UTC) for row in rows]
    assert events.rows() == [
        (int(row["user_id"][1:]), int(row["item_id"][1:]), row["action"], int(time.timestamp()))
        for row, time in zip(rows, times, strict=True)
    ]
    assert len(read(path).events) == 4474 + 5
