import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import Dataset
from bench.data.storage import load
from bench.datasets import rec_tmall
from bench.datasets.rec_tmall import Options
from bench.datasets.rec_tmall import simulation as rec_tmall_simulation
from bench.datasets.rec_tmall.planted import CLICKS, FAVORS, ITEMS, PAIRS, USERS, long_visits, plant_catalog
from bench.datasets.rec_tmall.simulation import LOGS, PRODUCTS, simulate, write_log
from bench.errors import UserError

SCALE = 0.05  # 3,603 users
LOG = ("item", "user", "action", "time")
PRODUCT = ("item", "title", "url", "category", "brand", "seller")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "rec_tmall"
    simulate(folder, SCALE)
    return folder


@pytest.fixture(scope="module")
def dataset(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("home") / "x"
    encoders = EncoderOptions(text="none")
    return load(prepare(rec_tmall.read(raw, Options()), "x", folder, PrepareOptions(), encoders, {}))


def table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    rows = [line.split("\x01") for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(len(row) == len(columns) for row in rows)
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def log(raw: Path) -> pl.DataFrame:
    parts = [table(raw / name, LOG).with_columns(part=pl.lit(name)) for name in LOGS]
    return pl.concat(parts).with_columns(time=pl.col("time").str.to_datetime("%Y-%m-%d %H:%M:%S"))


def complaint(out: Path, scale: float) -> str:
    with pytest.raises(UserError) as error:
        simulate(out, scale)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_default_preparation_keeps_what_the_papers_table_says(dataset: Dataset) -> None:
    events = dataset.interactions
    users = events.num_users
    assert users == round(USERS * SCALE)
    assert dataset.num_items == pytest.approx(ITEMS * SCALE, rel=0.03)
    assert len(dataset.touched.item) == pytest.approx(PAIRS * SCALE, rel=0.03)
    assert (events.behavior == 1).sum() / users == pytest.approx(CLICKS, rel=0.02)
    assert (events.behavior == 2).sum() / users == pytest.approx(FAVORS, rel=0.02)
    assert np.diff(events.offsets).min() == 5 and dataset.metadata["simulated"] is True


def test_at_scale_one_the_law_gives_the_papers_users_items_and_pairs_within_a_hundredth() -> None:
    rng = np.random.default_rng(1)
    visits = long_visits(plant_catalog(1.0, rng), USERS, rng)
    item, user = visits.item[visits.real], np.repeat(np.arange(USERS), visits.lengths)
    assert len(np.unique(item)) == pytest.approx(93_466, rel=0.01)
    assert len(np.unique(user * 2**32 + item)) == pytest.approx(328_387, rel=0.01)
    assert visits.favor[visits.real].sum() / USERS == pytest.approx(1.73, rel=0.01)
    assert (~visits.favor[visits.real]).sum() / USERS == pytest.approx(4.16, rel=0.01)


def test_the_files_have_the_publishers_names_columns_and_forms(raw: Path) -> None:
    assert sorted(path.name for path in raw.iterdir()) == sorted([*LOGS, PRODUCTS, "SIMULATED.json"])
    assert json.loads((raw / "SIMULATED.json").read_text()) == {
        "data_set": "rec_tmall", "scale": SCALE, "seed": 0,
    }  # fmt: skip
    rows, products = log(raw), table(raw / PRODUCTS, PRODUCT)
    assert rows["user"].str.contains(r"^u[1-9]\d*$").all() and rows["item"].str.contains(r"^[1-9]\d*$").all()
    assert set(rows["action"]) == {"click", "collect", "cart", "alipay"}
    assert rows["time"].dt.to_string("%Y-%m").unique().sort().to_list()[0] == "2014-09"
    assert products["category"].str.contains(r"^\d+-\d+$").all()
    assert products["brand"].str.contains(r"^(b\d+|null|)$").all()
    assert products["seller"].str.contains(r"^(s\d+|null|)$").all()
    ids = products["item"].cast(pl.Int64)
    assert ids.is_sorted() and ids.n_unique() == len(ids)


def test_rows_stand_together_by_item_in_one_part_and_in_no_order_of_time(raw: Path) -> None:
    rows = log(raw)
    runs = rows.select(pl.col("item").rle_id().max() + 1).item()
    assert runs == rows["item"].n_unique() == rows.select("item", "part").n_unique()
    assert 0.3 < (rows["time"].diff().dt.total_seconds() < 0).mean() < 0.7
    assert (rows.group_by("user").agg(pl.col("part").n_unique())["part"] > 1).mean() > 0.5


def test_no_two_clicks_or_favors_of_a_user_share_a_time(raw: Path) -> None:
    events = log(raw).filter(pl.col("action").is_in(["click", "collect"]))
    assert not events.select("user", "time").is_duplicated().any()


def test_popularity_has_a_long_tail(dataset: Dataset) -> None:
    counts = np.sort(np.bincount(dataset.interactions.item)[1:])[::-1]
    assert counts[: len(counts) // 100].sum() > 0.15 * counts.sum()
    assert np.median(counts) <= 2


def test_some_titles_brands_sellers_and_products_are_missing(raw: Path) -> None:
    products = table(raw / PRODUCTS, PRODUCT)
    for column, share in (("title", 0.03), ("brand", 0.15), ("seller", 0.01)):
        missing = products[column].is_in(["", "null"])
        assert missing.mean() == pytest.approx(share, rel=0.35)
        assert set(products[column].filter(missing)) == {"", "null"}
    items = set(log(raw)["item"])
    assert 0 < len(items - set(products["item"])) < 0.02 * len(items)


def test_users_return_to_their_leaf_and_favors_tell_of_it(raw: Path) -> None:
    leaf = table(raw / PRODUCTS, PRODUCT).select("item", "category")
    rows = log(raw).join(leaf, on="item").filter(pl.len().over("user") >= 5)
    clicks = rows.filter(pl.col("action") == "click")
    pairs = clicks.join(clicks, on="user").filter(pl.col("item") != pl.col("item_right"))
    alike = (pairs["category"] == pairs["category_right"]).mean()
    chance = (clicks["category"].value_counts()["count"] / len(clicks)).pow(2).sum()
    assert alike > 0.25 and alike > 5 * chance
    favors = rows.filter(pl.col("action") == "collect")
    pairs = favors.join(favors, on="user").filter(pl.col("item") != pl.col("item_right"))
    assert (pairs["category"] == pairs["category_right"]).mean() > 1.1 * alike


def test_words_of_a_title_tell_its_leaf(raw: Path) -> None:
    products = table(raw / PRODUCTS, PRODUCT).filter(~pl.col("title").is_in(["", "null"]))
    words = products.select("category", pl.col("title").str.split(" ").alias("word")).explode("word")
    leaves = words.group_by("word").agg(pl.col("category").n_unique(), pl.len())
    telling = leaves.filter(pl.col("category") == 1)["len"].sum() / leaves["len"].sum()
    assert telling == pytest.approx(3 / 7, abs=0.05)  # 3 of 7 words are of the leaf alone


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        simulate(tmp_path / name, 0.005, seed)
    for file in (*LOGS, PRODUCTS):
        one, two, three = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "three"))
        assert one == two != three


def test_blocks_of_users_bound_the_memory_and_keep_the_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rec_tmall_simulation, "BLOCK", 100)
    told: list[tuple[str, int, int]] = []
    simulate(tmp_path / "raw", 0.005, 0, lambda *step: told.append(step))
    assert [done for stage, done, of in told if stage == "users simulated"] == [100, 200, 300, 360]
    rows = log(tmp_path / "raw")
    kept = rows.filter(pl.col("action").is_in(["click", "collect"])).group_by("user").len()
    assert (kept["len"] >= 5).sum() == 360 and (kept["len"] < 5).sum() == 360


def test_an_interrupted_simulation_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, done: int, of: int) -> None:
        if stage == "products written":
            (left,) = tmp_path.iterdir()
            with pytest.raises(UserError, match="interrupted simulation"):
                rec_tmall.read(left, Options())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "raw", 0.005, 0, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_scale_and_a_folder_with_files_are_refused(tmp_path: Path) -> None:
    for scale in (0.0, 0.0001, float("nan"), float("inf")):
        assert "--scale" in complaint(tmp_path / "raw", scale)
    (tmp_path / "mine.txt").write_text("")
    assert "not empty" in complaint(tmp_path, 0.005)
    assert "cannot be written" in complaint(tmp_path / "mine.txt" / "below", 0.005)


def test_a_long_log_has_the_rows_users_and_items_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rec_tmall_simulation, "CHUNK", 7000)
    path = tmp_path / LOGS[0]
    write_log(path, 20_000, users=150, items=400, seed=2)
    options = Options(behaviors=("click", "collect", "cart", "alipay"))
    events = rec_tmall.read(path, options).collected().events
    assert len(events) == 20_000
    assert 140 < events["user"].n_unique() <= 150 and 350 < events["item"].n_unique() <= 400
    lengths = events.group_by("user").len()["len"]
    assert lengths.max() > 5 * lengths.median() and lengths.min() < lengths.median() / 5
    again = tmp_path / "again.txt"
    write_log(again, 20_000, users=150, items=400, seed=2)
    assert again.read_bytes() == path.read_bytes()
