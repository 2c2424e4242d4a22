import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.storage import load
from bench.datasets.kuaishou import Options, read
from bench.datasets.kuaishou import simulation as kuaishou_simulation
from bench.datasets.kuaishou.simulation import simulate
from bench.datasets.kuaishou.simulation_plan import Plan, apportion, match, plan, repeated, sizes
from bench.errors import UserError
from bench.files import MACHINE

SCALE = 0.005  # 114 users, 3,093 photos
COLUMNS = ("user", "photo", "click", "like", "follow", "time", "playing", "duration")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "kuaishou"
    simulate(folder, SCALE)
    return folder


@pytest.fixture(scope="module")
def rows(raw: Path) -> pl.DataFrame:
    return pl.read_csv(
        raw / "train_interaction.txt", separator="\t", has_header=False, new_columns=list(COLUMNS)
    )


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(sizes(0.05), np.random.default_rng(0))


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def complaint(out: Path, scale: float) -> str:
    with pytest.raises(UserError) as error:
        simulate(out, scale)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_at_scale_one_the_sizes_are_those_of_the_papers_table():
    size = sizes(1.0)
    assert (size.users, size.photos, size.pairs) == (22_793, 618_529, 5_852_725)
    assert size.clicks / size.users == pytest.approx(255.02, abs=1e-4)
    assert size.favors / size.users == pytest.approx(40.96, abs=1e-4)
    assert size.clicks / size.rows == pytest.approx(0.2024, abs=1e-4)


def test_clicks_favors_and_exposures_of_the_log_have_the_published_averages(rows):
    users = rows["user"].n_unique()
    touched = rows.filter((pl.col("click") == 1) | (pl.col("like") == 1))
    assert users == round(22_793 * SCALE)
    assert touched["photo"].n_unique() == round(618_529 * SCALE)
    assert rows["click"].sum() / users == pytest.approx(255.02, rel=0.005)
    assert rows["like"].sum() / users == pytest.approx(40.96, rel=0.005)
    assert (
        touched.select("user", "photo").n_unique()
        == len(touched)
        == pytest.approx(5_852_725 / 22_793 * users, rel=0.005)
    )
    assert rows["click"].mean() == pytest.approx(0.2024, rel=0.005)
    assert rows["follow"].mean() == pytest.approx(0.00099, rel=0.4)  # 142 rows expected, deviation 12


def test_most_photos_are_clicked_a_few_times_and_few_photos_often(planned):
    counts = np.bincount(planned.photo)
    assert counts.min() == 1 and np.median(counts) <= 4 < counts.mean()
    assert (counts == 1).mean() > 0.25
    assert np.sort(counts)[-len(counts) // 10 :].sum() > 0.4 * counts.sum()


def test_the_log_has_the_publishers_form(raw, rows):
    log = lines(raw / "train_interaction.txt")
    assert all(len(line) == 8 and all(map(str.isdigit, line)) for line in log)
    assert rows["time"].is_between(761_000_000_000, 761_100_000_000).all() and rows["time"].is_sorted()
    assert rows["duration"].is_between(0, 3100).all() and (rows["duration"] == 0).any()
    assert (rows.filter(pl.col("click") == 0)["playing"] == 0).all()
    assert (rows.filter(pl.col("follow") == 1)["click"] == 1).all()


def test_texts_and_faces_have_the_publishers_form_and_shares(raw, rows):
    texts, faces = (lines(raw / f"train_{kind}.txt") for kind in ("text", "face"))
    photos = [int(photo) for photo, _ in texts]
    assert photos == sorted(set(photos)) and set(rows["photo"]) <= set(photos)
    assert len(photos) == round(618_529 * SCALE) + round(618_529 * SCALE * 0.05)
    assert all(word.isdigit() and word != "0" for _, text in texts if text != "0" for word in text.split(","))
    assert np.mean([text == "0" for _, text in texts]) == pytest.approx(0.3, abs=0.03)
    assert len(faces) / len(photos) == pytest.approx(0.38, abs=0.03)
    assert {int(photo) for photo, _ in faces} < set(photos)
    for _, found in faces:
        for share, gender, age, looks in json.loads(found):
            assert 0 <= share <= 1 and gender in (0, 1) and 0 < age < 100 and 0 < looks <= 100


def test_visual_features_are_one_array_a_photo_stored_in_a_zip(raw):
    with zipfile.ZipFile(raw / "final_visual_train.zip") as archive:
        names = archive.namelist()
        assert {name.removeprefix("final_visual_train/") for name in names} == {
            photo for photo, _ in lines(raw / "train_text.txt")
        }
        vector = np.load(io.BytesIO(archive.read(names[0])), allow_pickle=False)
    assert vector.shape == (1, 2048) and vector.dtype == np.float32
    assert (vector >= 0).all() and 0.3 < (vector > 0).mean() < 0.7


def test_a_seed_fixes_every_byte_and_another_changes_them(raw, tmp_path):
    simulate(tmp_path / "again", SCALE)
    simulate(tmp_path / "other", SCALE, seed=1)
    for path in raw.iterdir():
        digest = hashlib.sha256(path.read_bytes()).digest()
        assert hashlib.sha256((tmp_path / "again" / path.name).read_bytes()).digest() == digest
        assert hashlib.sha256((tmp_path / "other" / path.name).read_bytes()).digest() != digest


def test_prepared_users_items_and_raw_events_are_those_of_the_paper_at_this_scale(raw, tmp_path):
    data = read(raw, Options())
    folder = prepare(data, "k", tmp_path / "k", PrepareOptions(), EncoderOptions(text="none"), {})
    dataset = load(folder)
    users = round(22_793 * SCALE)
    assert dataset.interactions.num_users == users
    assert dataset.num_items == round(618_529 * SCALE)
    assert dataset.metadata["simulated"] is True
    assert dataset.content.coverage()["image"] == 1
    assert len(dataset.interactions) > 49 * users  # nearly all have 50 events
    events = dataset.metadata["raw_behaviors"]
    assert events["click"] == pytest.approx(255.02 * users, rel=0.005)
    assert events["favor"] == pytest.approx(40.96 * users, rel=0.005)


@pytest.mark.parametrize("favor", ["like_or_follow", "watch"])
def test_other_definitions_of_a_favor_find_some_too(raw, favor):
    events = pl.concat([part.events for part in read(raw, Options(favor=favor)).events.parts()])
    assert 20 < (events["behavior"] == "favor").sum() / (22_793 * SCALE) < 100


def test_users_click_on_their_topics_and_favor_the_first_of_them_more(planned):
    size = planned.sizes
    topic = planned.topic[planned.photo]
    clicks, favors = np.zeros((2, size.users, size.topics))
    np.add.at(clicks, (planned.user, topic), 1)
    np.add.at(favors, (planned.user, topic), planned.favored)
    best = np.argsort(-clicks, axis=1)
    ranked = np.take_along_axis(clicks, best, axis=1).sum(axis=0) / clicks.sum()
    liked = np.take_along_axis(favors, best, axis=1).sum(axis=0) / favors.sum()
    assert ranked[:4].sum() > 0.7 > 2 * 4 / size.topics  # four interests have 0.8, and a share of the rest
    assert liked[0] > 1.2 * ranked[0]


def test_words_and_visual_features_tell_topics_apart(raw):
    texts = dict(lines(raw / "train_text.txt"))
    with zipfile.ZipFile(raw / "final_visual_train.zip") as archive:
        photos = [name.partition("/")[2] for name in archive.namelist()[:400]]
        vectors = [
            np.load(io.BytesIO(archive.read(f"final_visual_train/{photo}")), allow_pickle=False)
            for photo in photos
        ]
    table = np.concatenate(vectors)
    alike = np.corrcoef(table)
    np.fill_diagonal(alike, np.nan)
    same = alike > 0.15  # of one topic; others are uncorrelated up to 1 / sqrt(2048)
    assert 0.08 < np.nanmean(same) < 0.2  # 8 topics
    words = [set(texts[photo].split(",")) - {"0"} for photo in photos]
    shared = np.array([[bool(one & other) for other in words] for one in words])
    off = ~np.eye(len(photos), dtype=bool)
    assert shared[same & off].mean() > 1.3 * shared[~same & off].mean()


def test_numbers_apportioned_keep_their_sum_and_bounds():
    assert apportion(np.array([1.0, 2.0, 5.0]), 16, 0, 100).tolist() == [2, 4, 10]
    assert apportion(np.array([1.0, 2.0, 5.0]), 16, 1, 7).sum() == 16
    assert apportion(np.array([1.0, 2.0, 5.0]), 16, 1, 7).tolist() == [3, 6, 7]
    assert apportion(np.array([0.0, 1.0]), 9, 4, 5).tolist() == [4, 5]


def test_matching_gives_no_user_a_photo_twice_and_keeps_topics_where_it_can():
    owner = np.repeat(np.arange(20), 5)
    topic = np.repeat(np.arange(2), 50)  # users 0..9 wish topic 0, the others topic 1
    photo = np.repeat(np.arange(20), 5)
    wish, keep = match(owner, topic, photo, photo // 10, np.random.default_rng(0))
    assert keep.all() and sorted(wish) == list(range(100))
    assert len(repeated(owner[wish], photo)) == 0
    assert (topic[wish] == photo // 10).all()


def test_pairs_that_cannot_be_made_distinct_are_left_out():
    two = np.zeros(2, np.int64)
    _, keep = match(two, two, two, two, np.random.default_rng(0))
    assert keep.sum() == 1
    assert repeated(np.array([1, 1, 2, 1]), np.array([5, 6, 5, 5])).tolist() == [3]


@pytest.mark.parametrize("scale", [0, -1.0, 0.0049, float("nan"), float("inf")])
def test_a_scale_without_sense_is_refused(tmp_path, scale):
    assert f"--scale {scale}" in complaint(tmp_path / "out", scale)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    assert "not empty" in complaint(tmp_path, SCALE)
    assert "not empty" in complaint(tmp_path / "mine", SCALE)
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10**7))
    text = complaint(tmp_path / "out", SCALE)
    assert "0.04 GB needed, 0.01 GB free" in text and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_simulation_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch, fault):
    def broken(*arguments):
        (partial,) = tmp_path.iterdir()
        assert partial.name.endswith("-out") and partial.name.startswith(".partial-")
        raise fault

    monkeypatch.setattr(kuaishou_simulation, "_write_faces", broken)
    with pytest.raises(UserError if isinstance(fault, OSError) else KeyboardInterrupt):
        simulate(tmp_path / "out", SCALE)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_killed_simulation_are_refused_and_written_anew(raw, tmp_path):
    left = tmp_path / f".partial-{MACHINE}-999999999-{0:08x}-out"  # no process has this number
    left.mkdir()
    for name in ("train_interaction.txt", "train_text.txt"):
        shutil.copy(raw / name, left / name)
    (left / "SIMULATING.json").write_text("{}")
    with pytest.raises(UserError, match="interrupted"):
        read(left, Options())
    simulate(tmp_path / "out", SCALE)
    assert not left.exists() and (tmp_path / "out" / "SIMULATED.json").is_file()


def test_the_marker_names_data_set_scale_and_seed_and_progress_reaches_its_end(tmp_path):
    told: dict[str, tuple[int, int]] = {}
    simulate(tmp_path / "out", SCALE, 7, lambda what, done, of: told.update({what: (done, of)}))
    marker = json.loads((tmp_path / "out" / "SIMULATED.json").read_text())
    assert marker == {"data_set": "kuaishou", "scale": SCALE, "seed": 7}
    stages = ["clicks drawn", "rows written", "texts written", "faces written", "visual features written"]
    assert list(told) == stages
    assert all(done == of > 0 for done, of in told.values())
