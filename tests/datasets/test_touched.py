"""Rows of a behavior that the mapping leaves out are no events, but what they touch is no negative."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.config import ProtocolOptions
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.preparation.raw_check import check_raw_files
from bench.data.preparation.runs import OUTSIDE
from bench.data.protocol.task import open_task
from bench.data.schema import RawData
from bench.data.storage import load, read_metadata
from bench.datasets import kuairand, kuaishou, rec_tmall, retailrocket, table, taobao, tmall

SIGNALS = "user_id,video_id,date,hourmin,time_ms," + ",".join(kuairand.SIGNALS)


def shown(user: int, video: int, **given: int) -> str:
    return f"{user},{video},20220421,1300,1650517204000," + ",".join(
        str(given.get(signal, 0)) for signal in kuairand.SIGNALS
    )


CASES = {
    "taobao": (
        taobao, {}, {"UserBehavior.csv": "1,10,5,pv,1511600000\n1,11,5,cart,1511600001\n"
                     "1,12,5,buy,1511600002\n2,10,5,fav,1511600003\n"}, [(1, 11), (1, 12)],
    ),
    "tmall": (
        tmall, {}, {"user_log_format1.csv":
                    "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
                    "1,10,1,1,1,1101,0\n1,11,1,1,1,1102,2\n2,10,1,1,1,1103,3\n2,12,1,1,1,1104,1\n"},
        [(1, 11), (2, 12)],
    ),
    "rec_tmall": (
        rec_tmall, {}, {"tianchi_2014002_rec_tmall_log_parta.txt": (
            "i10|u1|click|2014-09-18 15:03:00\ni11|u1|cart|2014-09-18 15:03:01\n"
            "i12|u1|alipay|2014-09-18 15:03:02\ni10|u2|collect|2014-09-18 15:03:03\n").replace("|", "\x01")},
        [(1, 11), (1, 12)],
    ),
    "retailrocket": (
        retailrocket, {}, {"events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
                           "1433221332117,1,view,10,\n1433221332118,1,transaction,11,7\n"
                           "1433221332119,2,addtocart,10,\n"}, [(1, 11)],
    ),
    "table": (
        table, {"behaviors": ("view", "buy"), "unlisted": "drop"},
        {"events.csv": "user,item,behavior,timestamp\n1,10,view,5\n1,11,cart,6\n2,10,buy,7\n2,12,cart,8\n"},
        [(1, 11), (2, 12)],
    ),
    "kuairand": (
        kuairand, {}, {name.format("pure"): SIGNALS + "\n" + "\n".join(rows) + "\n" for name, rows in {
            "log_standard_4_08_to_4_21_{}.csv": [shown(1, 10, is_click=1), shown(1, 11, is_follow=1),
                                                 shown(1, 12), shown(1, 13, is_click=1, is_follow=1)],
            "log_standard_4_22_to_5_08_{}.csv": [shown(2, 10, is_like=1), shown(2, 14, long_view=1)],
        }.items()}, [(1, 11), (2, 14)],
    ),
    "kuaishou": (
        kuaishou, {}, {"train_interaction.txt": "".join("\t".join(map(str, row)) + "\n" for row in [
            (1, 10, 1, 0, 0, 600, 5, 9), (1, 11, 0, 0, 1, 601, 0, 9), (2, 10, 1, 1, 0, 602, 5, 9),
            (2, 12, 0, 0, 0, 603, 0, 9)])}, [(1, 11)],
    ),
}  # fmt: skip


def read_case(name: str, folder: Path) -> tuple[RawData, list[tuple[int, int]]]:
    reader, options, files, touched = CASES[name]
    for file, text in files.items():
        (folder / file).write_text(text)
    return reader.read(folder, reader.Options(**options)), touched


@pytest.mark.parametrize("name", CASES)
def test_a_reader_gives_rows_outside_the_mapping_as_touched(name, tmp_path, touched_pairs):
    data, touched = read_case(name, tmp_path)
    assert touched_pairs(data) == touched


@pytest.mark.parametrize("name", CASES)
def test_the_check_of_raw_files_counts_them_apart(name, tmp_path):
    data, touched = read_case(name, tmp_path)
    tally, _ = check_raw_files(data, lambda *_: None)
    assert tally.dropped[OUTSIDE] == len(touched)


def taobao_log(folder: Path, carts: bool) -> Path:
    """Thirty users see and like items of their own; each also buys the next user's items, if `carts`."""
    folder.mkdir()
    lines = []
    for user in range(30):
        for step in range(8):
            item, time = 8 * user + step, 1511600000 + 60 * step
            lines.append(f"{user},{item},5,{'fav' if step % 4 == 3 else 'pv'},{time}")
            if carts:
                lines.append(f"{user},{(item + 8) % 240},5,{('cart', 'buy')[step % 2]},{time + 1}")
                lines.append(f"{user},{9000 + item},5,buy,{time + 2}")  # nobody sees these items
    (folder / "UserBehavior.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(folder: Path, raw: Path, **options):
    data = taobao.read(raw, taobao.Options())
    filters = PrepareOptions(**options)
    return load(prepare(data, "taobao", folder, filters, EncoderOptions(), {"name": "taobao"}))


@pytest.mark.parametrize("options", [{}, {"keep_last": 3}, {"drop_duplicates": True}, {"min_item_events": 1}])
def test_they_change_what_is_touched_and_nothing_else(tmp_path, options):
    plain = prepared(tmp_path / "a", taobao_log(tmp_path / "raw_a", carts=False), **options)
    bought = prepared(tmp_path / "b", taobao_log(tmp_path / "raw_b", carts=True), **options)
    assert plain.users.equals(bought.users) and plain.items.equals(bought.items)
    for name in ("offsets", "item", "behavior", "timestamp"):
        assert np.array_equal(getattr(plain.interactions, name), getattr(bought.interactions, name)), name
    assert np.diff(plain.touched.offsets).tolist() == [8] * 30
    assert np.diff(bought.touched.offsets).tolist() == [16] * 30
    raw = bought.items["item"].to_numpy()
    for user in range(30):
        part = bought.touched.item[bought.touched.offsets[user] : bought.touched.offsets[user + 1]]
        own = {8 * user + step for step in range(8)}
        assert set(raw[part - 1]) == own | {(item + 8) % 240 for item in own}
    assert plain.fingerprint != bought.fingerprint
    assert read_metadata(tmp_path / "b")["dropped"][OUTSIDE] == 2 * 240


def test_no_negative_was_bought(tmp_path):
    dataset = prepared(tmp_path / "b", taobao_log(tmp_path / "raw", carts=True))
    raw = dataset.items["item"].to_numpy()
    task = open_task(dataset, ProtocolOptions())
    users = task.interactions.user_of(task.split.test)
    for user, negatives in zip(users, task.test.negatives, strict=True):
        bought = {(8 * user + step + 8) % 240 for step in range(8)}
        assert not bought & set(raw[negatives[negatives > 0] - 1])


def test_rows_outside_the_mapping_keep_no_user_and_no_rare_item(tmp_path):
    log = pl.DataFrame(
        {
            "user": [1] * 5 + [2] * 9, "item": [1, 2, 3, 1, 2] + [1, 2, 3, 4, 5, 6, 7, 8, 9],
            "behavior": ["click"] * 4 + ["favor"] + ["click"] + ["(outside the mapping)"] * 8,
            "timestamp": list(range(14)),
        }
    )  # fmt: skip
    raw = RawData(log, ("click", "favor"), "by hand")
    dataset = load(prepare(raw, "x", tmp_path / "x", PrepareOptions(), EncoderOptions(), {"name": "x"}))
    assert dataset.users.to_list() == [1] and dataset.items["item"].to_list() == [1, 2, 3]
