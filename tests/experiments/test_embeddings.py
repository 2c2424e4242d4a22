"""Items at the stages of a model: the views, the kinds, the numbers beside the picture, the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app
from bench.config import build_options
from bench.contract import Subject
from bench.errors import UserError
from bench.example import example_batch
from bench.experiments.embeddings import View, kinds_of, sample, spread, together, views_of
from bench.experiments.grid import open_plan, run_grid
from bench.experiments.plan import make_plan
from bench.experiments.store import Store
from bench.registry import entries, select

SMALL = ["data.users=120", "data.items=200", "data.events_per_user=10", "data.clusters=5"]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    torch.set_num_threads(1)


def test_m3bsr_shows_its_streams_before_and_after_denoising() -> None:
    entry = entries()["m3bsr"]
    kind, batch = entry.load(), example_batch()
    for options, after in (
        ({}, "CDMD-M"),
        ({"cdmd_m.replace": "mlp"}, "the MLP"),
        ({"cdmd_m.replace": "identity"}, ""),
    ):
        config = build_options(kind.Config, {**entry.card.options, **options}, "m3bsr")
        model = Subject(kind, config).build().eval()
        with torch.no_grad():
            shown = model.item_views(batch)
        names = {f"{modality}, raw" for modality in ("image", "text")}
        names |= {f"{modality}, after {after}" for modality in ("image", "text")} if after else set()
        assert set(shown) == names
        for items, vectors in shown.values():
            assert len(items) == len(vectors) == int(batch.mask.sum()) and (items > 0).all()
        raw = shown["image, raw"]
        same = raw[0] == raw[0][0]
        assert torch.allclose(raw[1][same], raw[1][same][0], atol=1e-6)  # of one item, whatever the event
        if after:
            assert not torch.allclose(shown[f"image, after {after}"][1], raw[1], atol=1e-4)


def test_kinds_are_attributes_planted_clusters_or_words_of_titles() -> None:
    plan = make_plan("synthetic", select("popularity"), settings=[*SMALL, "data.brand_share=0.9"], seeds=1)
    dataset = open_plan(plan).dataset
    kinds, names = kinds_of(dataset, "cluster")
    with np.load(dataset.folder / "truth.npz") as truth:
        for item in (1, 50, 150):
            assert names[kinds[item]] == f"cluster {truth['item_cluster'][item]}"
    assert names[-2:] == ("other", "unknown") and kinds[0] == len(names) - 1
    brands, brand_names = kinds_of(dataset, "brand")
    assert len(brand_names) <= 12 and len(brands) == dataset.num_items + 1
    titled = replace(
        dataset,
        items=dataset.items.with_columns(title=np.resize(["Heat Crime", "Big Comedy"], dataset.num_items)),
    )
    words, word_names = kinds_of(titled, "comedy,Crime")
    assert {word_names[words[1]], word_names[words[2]]} == {"Crime", "comedy"}
    with pytest.raises(UserError, match="--color branding: .*did you mean 'brand'"):
        kinds_of(dataset, "branding")


def test_separate_kinds_are_pure_and_mixed_ones_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1], 100)
    apart = rng.standard_normal((200, 3)).astype(np.float32) + 20 * kinds[:, None]
    silhouette, purity = together(apart, kinds)
    assert silhouette > 0.8 and purity == 1
    _, mixed = together(rng.standard_normal((200, 3)).astype(np.float32), kinds)
    assert abs(mixed - 0.5) < 0.08
    with pytest.raises(UserError, match="fewer than two kinds"):
        together(apart, np.zeros(200, np.int64))


def test_other_and_unknown_items_are_not_counted_and_drawn_last() -> None:
    rng = np.random.default_rng(0)
    items = np.arange(1, 41)
    kinds = np.concatenate([[3], np.repeat([0, 1, 2, 3], 10)])  # 2 is `other`, 3 `unknown`
    vectors = rng.standard_normal((40, 2)).astype(np.float32) + 50 * kinds[1:, None]
    view = View("v", items, vectors)
    measured = spread(view, kinds, 2, [vectors, vectors])
    assert measured.purity == pytest.approx(9 / 10) and measured.chance == pytest.approx(0.5)
    assert len(measured.flat_purities) == 2
    part = sample(view, kinds, 25, 2)
    assert len(part.items) == 25 and (kinds[part.items] < 2).sum() == 20


def test_a_cell_without_weights_or_views_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = make_plan("synthetic", select("sasrec"), settings=SMALL, seeds=1, epochs=1)
    (record,) = run_grid(plan, store, quiet=True)
    with pytest.raises(UserError, match="its weights were not kept.*--keep-model"):
        views_of(record, plan.models[0], open_plan(plan), store)
    kept = make_plan(
        "synthetic", select("sasrec"), settings=[*SMALL, "training.keep_model=true"], seeds=1, epochs=1
    )
    (record,) = run_grid(kept, store, quiet=True)
    with pytest.raises(UserError, match="offers no views"):
        views_of(record, plan.models[0], open_plan(plan), store)


def test_the_command(tmp_path: Path) -> None:
    words = [part for pair in SMALL for part in ("--set", pair)]
    run = [
        "run",
        "--models",
        "m3bsr",
        "--dataset",
        "synthetic",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--keep-model",
    ]
    assert (
        CliRunner().invoke(app, [*run, *words, "--results", str(tmp_path)], catch_exceptions=False).exit_code
        == 0
    )
    draw = [
        "figure",
        "embeddings",
        "--run",
        "m3bsr-seed0",
        "--seeds",
        "2",
        "--items",
        "100",
        "--results",
        str(tmp_path),
    ]
    shown = CliRunner().invoke(app, draw, catch_exceptions=False)
    assert shown.exit_code == 0 and "image, after CDMD-M: silhouette" in shown.stdout
    assert {path.suffix for path in tmp_path.glob("*/embeddings_m3bsr_*")} == {".json", ".png", ".pdf"}
    (written,) = tmp_path.glob("tables/embeddings_*.json")
    content = json.loads(written.read_text())
    assert len(content["views"]) == 4 and len(content["views"]["text, raw"]["flat_purities"]) == 2
