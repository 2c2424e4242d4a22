from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.cards import DatasetCard, read_cards
from bench.data.schema import RawData
from bench.datasets.synthetic import Options, behavior_weights, read, split_factors, visible_factors
from bench.errors import UserError

SMALL = Options(users=400, items=600, clusters=20)


@pytest.fixture(scope="module")
def small() -> RawData:
    return read(None, SMALL)


def probe(data: RawData, modality: str, factors: int = 16) -> float:
    """Return the share of variance of the shown factors that a linear map reads off held-out vectors."""
    vectors = data.features[modality].vectors.astype(np.float64)
    inputs = np.column_stack([vectors, np.ones(len(vectors))])
    targets = data.truth["item_factors"][:, visible_factors(factors)[modality]].astype(np.float64)
    half = len(vectors) // 2
    map_, *_ = np.linalg.lstsq(inputs[:half], targets[:half], rcond=None)
    error = ((inputs[half:] @ map_ - targets[half:]) ** 2).mean()
    return float(1 - error / targets[half:].var(0).mean())


def factors_of(data: RawData, behavior: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the users and item factors of the events of one behavior that were no accident."""
    chosen = (data.events["behavior"] == behavior).to_numpy() & ~data.truth["accidental"]
    events = data.events.filter(pl.Series(chosen))
    return events["user"].to_numpy(), data.truth["item_factors"][events["item"].to_numpy() - 1]


def agreement(data: RawData, behavior: str, part: slice) -> float:
    """Return the mean product of two events of a user, a coordinate, around the mean of all events."""
    users, factors = factors_of(data, behavior)
    factors = factors[:, part] - factors[:, part].mean(0)
    counts = np.bincount(users)
    sums = np.stack([np.bincount(users, column) for column in factors.T], axis=1)
    squares = np.bincount(users, (factors**2).sum(1))
    enough = counts > 1
    # Products of different events alone: no bias by the number of events.
    pairs = ((sums**2).sum(1) - squares)[enough] / (counts * (counts - 1))[enough]
    return float(pairs.mean() / (part.stop - part.start))


def test_one_seed_gives_one_data_set_and_another_seed_another(small: RawData) -> None:
    again, other = read(None, SMALL), read(None, replace(SMALL, seed=1))
    assert again.events.equals(small.events) and not other.events.equals(small.events)
    assert again.items is not None and again.items.equals(small.items)
    for modality in ("image", "text"):
        assert np.array_equal(again.features[modality].vectors, small.features[modality].vectors)
    for name, array in small.truth.items():
        assert np.array_equal(again.truth[name], array)


def test_the_counts_are_those_asked_for(small: RawData) -> None:
    events = small.events
    lengths = events.group_by("user").len()["len"]
    assert events["user"].n_unique() == 400 and small.items is not None and len(small.items) == 600
    assert lengths.min() >= 5 and lengths.max() <= 150 and lengths.std() > 10
    assert abs(lengths.mean() - 40) < 3  # 400 users, standard deviation 25: standard error 1.2
    assert {name: array.vectors.shape for name, array in small.features.items()} == {
        "image": (600, 64), "text": (600, 64)
    }  # fmt: skip
    assert small.truth["item_factors"].shape == (600, 16) and len(small.truth["accidental"]) == len(events)
    assert small.simulated and small.behaviors == ("click", "favor")


def test_behaviors_and_accidents_have_their_shares(small: RawData) -> None:
    favor = (small.events["behavior"] == "favor").to_numpy()
    accidental = small.truth["accidental"]
    assert abs(favor.mean() - 0.25) < 0.02  # 16,000 events: standard error 0.0034
    assert not accidental[favor].any()
    assert abs(accidental[~favor].mean() - 0.2) < 0.02
    assert not read(None, replace(SMALL, accidental_clicks=0)).truth["accidental"].any()


def test_times_are_distinct_and_items_unrepeated_inside_a_user(small: RawData) -> None:
    keys = small.events.select("user", "timestamp"), small.events.select("user", "item")
    assert all(key.is_unique().all() for key in keys)
    assert small.events.equals(small.events.sort("user", "timestamp", maintain_order=True))


def test_accidents_follow_popularity_and_the_rest_follows_taste(small: RawData) -> None:
    options = replace(SMALL, drift=0, behavior_preference=0)
    data = read(None, options)
    whole = slice(0, 16)
    by_taste = agreement(data, "click", whole)
    accidental = data.truth["accidental"]
    swapped = replace(data, truth={**data.truth, "accidental": ~accidental})
    assert by_taste > 0.15 and abs(agreement(swapped, "click", whole)) < 0.03
    items = data.events["item"].to_numpy()[accidental] - 1
    popular = np.argsort(-data.truth["item_popularity"])[:60]
    expected = data.truth["item_popularity"][popular].sum()
    assert abs(np.isin(items, popular).mean() - expected) < 0.06  # no item twice: a little below


def test_popularity_has_a_long_tail(small: RawData) -> None:
    counts = np.sort(np.bincount(small.events["item"].to_numpy() - 1, minlength=600))[::-1]
    assert counts[:60].sum() > 0.25 * counts.sum() and counts[300:].sum() < 0.3 * counts.sum()
    flat = read(None, replace(SMALL, popularity_skew=0))
    even = np.sort(np.bincount(flat.events["item"].to_numpy() - 1, minlength=600))[::-1]
    assert even[:60].sum() < 0.2 * even.sum()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_noise_hides_the_factors_that_a_modality_shows(modality: str) -> None:
    options = replace(SMALL, users=100, items=2000)
    values = [probe(read(None, replace(options, **{f"{modality}_noise": n})), modality) for n in (0, 1, 3)]
    assert values[0] > 0.999 and values[0] > values[1] + 0.05 and values[1] > values[2] + 0.1
    # d factors through D coordinates of noise n: about 1 / (1 + n * n * d / D) of the variance is left.
    assert abs(values[1] - 1 / (1 + 10 / 64)) < 0.05


@pytest.mark.parametrize("modality", ["image", "text"])
def test_without_content_strength_the_vectors_tell_nothing(modality: str) -> None:
    options = replace(SMALL, users=100, items=2000, content_strength=0)
    assert probe(read(None, options), modality) < 0.02
    half = probe(read(None, replace(options, content_strength=0.5)), modality)
    assert 0.3 < half < 0.6


def test_content_options_leave_the_events_as_they_are(small: RawData) -> None:
    changed = replace(SMALL, content_strength=0.3, image_noise=2, text_noise=0, missing_image=0.5)
    assert read(None, replace(changed, image_size=8, text_form="titles")).events.equals(small.events)


def test_clicks_follow_the_image_and_favors_the_text() -> None:
    data = read(None, replace(SMALL, behavior_preference=1, drift=0, users=800))
    _, visual, textual = split_factors(16)
    # The other view is not free of taste: parts of z go together inside a cluster.
    assert agreement(data, "click", visual) > 3 * agreement(data, "click", textual)
    assert agreement(data, "favor", textual) > 3 * agreement(data, "favor", visual)
    same = read(None, replace(SMALL, behavior_preference=0, drift=0, users=800))
    assert abs(agreement(same, "click", visual) - agreement(same, "favor", visual)) < 0.05


def test_the_behavior_weights_are_those_of_the_text() -> None:
    click, favor = behavior_weights(Options(factors=8, behavior_preference=1)) ** 2
    assert np.allclose(click, [0.2] * 5 + [0] * 3) and np.allclose(favor, [0.2, 0.2, 0, 0, 0, 0.2, 0.2, 0.2])
    assert np.allclose(behavior_weights(Options(factors=8, behavior_preference=0)) ** 2, 1 / 8)


def next_cluster_information(data: RawData, shuffle: bool) -> float:
    """Return the hit rate on half of the users when the next cluster is guessed from the one before."""
    cluster = data.truth["item_cluster"][data.events["item"].to_numpy() - 1].copy()
    user = data.events["user"].to_numpy()
    if shuffle:
        rng = np.random.default_rng(0)
        cluster = cluster[np.lexsort((rng.random(len(user)), user))]
    same = user[1:] == user[:-1]
    before, after, learn = cluster[:-1][same], cluster[1:][same], (user[1:] % 2 == 0)[same]
    table = np.zeros((cluster.max() + 1, cluster.max() + 1))
    np.add.at(table, (before[learn], after[learn]), 1)
    return float((table.argmax(1)[before[~learn]] == after[~learn]).mean())


def test_the_order_of_events_tells_of_the_next_one_only_with_drift() -> None:
    moving, still = (read(None, replace(SMALL, drift=drift)) for drift in (0.8, 0))
    assert next_cluster_information(moving, False) > 1.5 * next_cluster_information(moving, True)
    assert abs(next_cluster_information(still, False) - next_cluster_information(still, True)) < 0.03


def test_missing_shares_are_met_in_vectors_and_titles() -> None:
    data = read(None, replace(SMALL, missing_image=0.25, missing_text=0.5))
    assert data.items is not None
    assert (len(data.features["image"].items), len(data.features["text"].items)) == (450, 300)
    titled = data.items.filter(pl.col("title").is_not_null())["item"].to_list()
    assert titled == data.features["text"].items
    whole = read(None, SMALL).features["image"]
    kept = np.array(data.features["image"].items) - 1
    assert np.array_equal(whole.vectors[kept], data.features["image"].vectors)


def test_brands_tell_the_cluster_of_their_share_of_the_items(small: RawData) -> None:
    data = read(None, replace(SMALL, items=6000, brand_share=0.7))
    assert data.attributes == ("brand",) and small.attributes == () and data.items is not None
    told = data.items["brand"].str.slice(6).cast(pl.Int64).to_numpy() == data.truth["item_cluster"]
    assert abs(told.mean() - (0.7 + 0.3 / SMALL.clusters)) < 0.03
    branded = read(None, replace(SMALL, brand_share=0.7))
    assert branded.events.equals(small.events)
    assert np.array_equal(branded.features["image"].vectors, small.features["image"].vectors)


def test_cold_items_are_met_as_a_last_favor_alone_and_by_taste() -> None:
    plain, data = read(None, SMALL), read(None, replace(SMALL, cold_items=0.2))
    cold = data.truth["cold"]
    assert cold.sum() == 120 and not plain.truth["cold"].any()
    events = data.events.with_columns(cold=pl.Series(cold[data.events["item"].to_numpy() - 1]))
    last = pl.col("timestamp") == pl.col("timestamp").filter(pl.col("behavior") == "favor").max().over("user")
    met = events.filter("cold")
    assert met.equals(events.filter(pl.col("cold") & last & (pl.col("behavior") == "favor")))
    assert 0.4 < len(met) / 400 < 0.6
    # of 120 cold items the one taken lies higher in its user's preference than one at random would
    other = read(None, replace(SMALL, cold_items=0.2, preference_strength=0.0))
    own = {}
    for name, made in (("taste", data), ("none", other)):
        users, factors = factors_of(made, "favor")
        taken = cold[
            made.events.filter(pl.Series((made.events["behavior"] == "favor").to_numpy()))["item"] - 1
        ]
        mean = np.stack([np.bincount(users[~taken], column[~taken], 400) for column in factors.T], 1)
        own[name] = (mean[users[taken]] * factors[taken]).sum(1).mean()
    assert own["taste"] > own["none"] + 3


def test_titles_tell_of_the_textual_factors() -> None:
    data = read(None, replace(SMALL, items=1500, text_form="titles", text_noise=0))
    assert data.items is not None and list(data.features) == ["image"]
    words = [set(title.split()) for title in data.items["title"]]
    assert {len(title) for title in words} == {6}
    shown = data.truth["item_factors"][:, visible_factors(16)["text"]]
    near = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    cosine = near[:300] @ near.T
    np.fill_diagonal(cosine, -1)
    alike = np.mean([len(words[i] & words[j]) for i, j in enumerate(cosine.argmax(1))])
    anybody = np.mean([len(words[i] & words[(i + 700) % 1500]) for i in range(300)])
    assert alike > 1 and anybody < 0.3


def test_pictures_are_written_and_tell_of_the_visual_factors(tmp_path: Path) -> None:
    from PIL import Image

    options = replace(SMALL, image_form="files", image_folder=str(tmp_path / "pictures"), missing_image=0.5)
    data = read(None, options)
    assert data.items is not None and list(data.features) == ["text"]
    there = data.items.filter(pl.col("image").is_not_null())
    assert len(there) == 300 == len(list((tmp_path / "pictures").glob("*.png")))
    pixels = np.stack([np.asarray(Image.open(path), np.float64).ravel() for path in there["image"]])
    assert pixels.shape == (300, 32 * 32 * 3)
    targets = data.truth["item_factors"][there["item"].to_numpy() - 1][:, visible_factors(16)["image"]]
    inputs = np.log((pixels + 1) / (256 - pixels))  # undoes the squashing of brightness
    inputs -= inputs.mean(0)
    left, scale, _ = np.linalg.svd(inputs, full_matrices=False)
    coordinates = (left * scale)[:, :10]
    map_, *_ = np.linalg.lstsq(coordinates[:200], targets[:200] - targets[:200].mean(0), rcond=None)
    error = targets[200:] - targets[:200].mean(0) - coordinates[200:] @ map_
    assert (error**2).mean() < 0.15 * targets[200:].var(0).mean()


def test_a_picture_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = replace(SMALL, users=100, image_form="files", image_folder=str(tmp_path / "file"))
    with pytest.raises(UserError, match="image_folder=.*cannot be written"):
        read(None, options)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"users": 99}, "users must be 100 or more"),
        ({"drift": 1.5}, "drift must be from 0 to 1"),
        ({"image_noise": -1}, "image_noise must be 0 or more"),
        ({"image_form": "files"}, "image_folder"),
    ],
)
def test_options_out_of_range_are_refused(changes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Options(**changes)


@pytest.mark.parametrize("changes", [{"events_per_user": 5}, {"drift": 1}, {"preference_strength": 30.0}])
def test_a_hundred_users_and_extreme_options_work(changes) -> None:
    data = read(None, Options(users=100, items=200, **changes))
    assert data.events["user"].n_unique() == 100
    assert data.events.select("user", "item").is_unique().all()


def test_the_true_preference_ranks_far_above_popularity() -> None:
    data = read(None, replace(SMALL, drift=0, accidental_clicks=0))
    users, factors = factors_of(data, "favor")
    rng = np.random.default_rng(0)
    weights = behavior_weights(SMALL)[1]
    taste = np.stack([np.bincount(users, column, minlength=400) for column in factors.T], axis=1) * weights
    held = data.truth["item_factors"] * weights
    items = data.events.filter(pl.col("behavior") == "favor")["item"].to_numpy() - 1
    own = ((taste[users] - factors * weights) * held[items]).sum(1)  # the event itself left out
    other = (taste[users] * held[rng.integers(600, size=len(users))]).sum(1)
    popularity = data.truth["item_popularity"]
    by_popularity = (popularity[items] > popularity[rng.integers(600, size=len(users))]).mean()
    assert (own > other).mean() > 0.8 > by_popularity + 0.05


def test_the_card_can_be_read_without_importing_the_file() -> None:
    folder = Path(__file__).parents[2] / "datasets"
    cards = [card for path in sorted(folder.rglob("*.py")) for card in read_cards(path, DatasetCard)]
    real = {card.name: (card.real, card.needs_raw) for card in cards}
    assert real["synthetic"] == (False, False) and real["ml-100k"] == (True, False)
    assert real["table"] == (True, True)
