import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.config import ProtocolOptions
from bench.data import library
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.protocol.shuffle import changes_of, permutation, shuffled, take_shuffle
from bench.data.protocol.task import open_task
from bench.data.schema import Dataset, RawData, RawFeatures
from bench.data.storage import load
from bench.errors import UserError


@pytest.fixture
def films(tmp_path, monkeypatch) -> Dataset:
    """Prepare `films`: 150 items, every third without a picture, vectors that tell the item."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    rng = np.random.default_rng(1)
    events = pl.DataFrame(
        {
            "user": np.repeat(np.arange(40), 30),
            "item": np.concatenate([np.arange(150), rng.integers(0, 150, 1050)]),
            "behavior": rng.choice(["click", "favor"], 1200),
            "timestamp": np.arange(1200),
        }
    )
    pictured = [item for item in range(150) if item % 3]
    features = {
        "image": RawFeatures(pictured, np.array([[item + 1, -item] for item in pictured], np.float32)),
        "text": RawFeatures(list(range(150)), np.array([[item, 1, 0] for item in range(150)], np.float16)),
    }
    raw = RawData(events, ("click", "favor"), "", features=features)
    return load(prepare(raw, "films", tmp_path / "films", PrepareOptions(), EncoderOptions(), {}))


def test_the_option_is_taken_out_of_the_others():
    assert take_shuffle({"shuffle_modality": "text, image", "min_events": "3"}) == (
        {"min_events": "3"},
        ("image", "text"),
    )
    assert take_shuffle({"shuffle_modality": ("image",)}) == ({}, ("image",))
    for nothing in ("", "none", "null", None, ()):
        assert take_shuffle({"shuffle_modality": nothing}) == ({}, ())
    assert take_shuffle({"x": 1}) == ({"x": 1}, ())


def test_vectors_are_permuted_over_the_items_that_have_one_and_nowhere_else(films):
    control = shuffled(films, ("image",))
    before, after = films.content.features["image"], control.content.features["image"]
    present = films.content.present["image"]
    assert present.sum() == 100
    assert (control.content.present["image"] == present).all()
    assert not after[~present].any()
    assert sorted(after[present].tolist()) == sorted(before[present].tolist())  # each vector once
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    kept = (after[present] == before[present]).all(axis=1).sum()
    assert kept < 10  # of a random permutation one is expected
    assert (control.content.features["text"] == films.content.features["text"]).all()


def test_the_permutation_is_the_same_each_time_and_another_for_each_modality():
    present = np.arange(200) % 2 == 1
    first = permutation(present, "image")
    assert (first == permutation(present, "image")).all()
    assert (first != permutation(present, "text")).any()
    assert sorted(first.tolist()) == list(range(200))
    assert (first[~present] == np.flatnonzero(~present)).all()


def test_everything_else_stays_and_the_true_data_set_is_not_touched(films):
    true = np.array(films.content.features["image"])
    control = library.open_dataset("films", {"shuffle_modality": "image"})
    assert (films.content.features["image"] == true).all()
    assert (library.open_dataset("films", {}).content.features["image"] == true).all()
    for name in ("item", "behavior", "timestamp", "offsets"):
        assert (getattr(control.interactions, name) == getattr(films.interactions, name)).all()
    one, other = (open_task(dataset, ProtocolOptions()) for dataset in (films, control))
    assert one.candidates_hash == other.candidates_hash
    assert (one.test.negatives == other.test.negatives).all()
    assert (one.split.test == other.split.test).all()


def test_name_fingerprint_and_encoder_tell_a_control_from_the_true_data_set(films):
    controls = [shuffled(films, which) for which in (("image",), ("text",), ("image", "text"))]
    assert len({dataset.fingerprint for dataset in [films, *controls]}) == 4
    assert [dataset.name for dataset in controls] == [
        "films@shuffled-image", "films@shuffled-text", "films@shuffled-image-text",
    ]  # fmt: skip
    told = controls[0].metadata["encoders"]
    assert told["image"]["name"] == "ready-made, SHUFFLED over the items (control)"
    assert told["image"]["hash"] != films.metadata["encoders"]["image"]["hash"]
    assert told["text"] == films.metadata["encoders"]["text"]
    json.dumps(controls[0].metadata)


def test_nothing_to_shuffle_gives_the_data_set_itself(films):
    assert shuffled(films, ()) is films


def test_a_modality_is_taken_away_from_all_items(films):
    made = (
        shuffled(films, ("-image", "text"))
        if "text" in films.content.features
        else shuffled(films, ("-image",))
    )
    assert "image" not in made.content.features and "image" not in made.content.present
    assert "image" in films.content.features and made.fingerprint != films.fingerprint
    assert "@without-image" in made.name and "image" not in made.metadata["encoders"]
    assert changes_of(made.name) == (films.name, made.metadata["shuffled"])
    assert take_shuffle({"drop_modality": "image", "shuffle_modality": "text"})[1] == ("-image", "text")


@pytest.mark.parametrize("names", ["imag", "audio"])
def test_a_modality_without_vectors_is_refused(films, names):
    message = r"films: has no .* vectors to be shuffled; .*'?image.*leave data.shuffle_modality and .* out"
    with pytest.raises(UserError, match=message):
        library.open_dataset("films", {"shuffle_modality": names})


def test_it_works_for_data_that_have_to_be_brought_and_not_in_a_preparation(films: Any):
    with pytest.raises(UserError, match=r"bench run --set data.shuffle_modality=image"):
        library.prepare_named("synthetic", raw=None, name="x", overrides={"shuffle_modality": "image"})
    (films.folder).rename(films.folder.with_name("movielens"))
    assert library.open_dataset("movielens", {"shuffle_modality": "image"}).name == "films@shuffled-image"
