"""The harness from Python."""

import subprocess
import sys
from pathlib import Path

import pandas
import pytest

import bench
from bench.data import library
from bench.data.protocol import task as tasks
from bench.errors import UserError
from bench.experiments import grid
from bench.experiments.plan import make_plan
from bench.registry import select

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """A prepared data set called `tiny`."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    sizes = {"users": 120, "items": 220, "events_per_user": 12}
    library.prepare_named("synthetic", raw=None, name="tiny", overrides=sizes)


def quick(models: str, results: Path, **given):
    """Run one seed in this process."""
    usual = {"seeds": 1, "jobs": 1, "progress": False, "results": results}
    return bench.run("tiny", models, **{**usual, **given})


def test_run_and_table_return_the_same_table_and_a_frame(tmp_path):
    found = quick("popularity,gru4rec", tmp_path / "r", epochs=1)
    again = bench.table("tiny", results=tmp_path / "r")
    assert [row.model for row in found.rows] == [row.model for row in again.rows] == ["popularity", "gru4rec"]
    frame = found.to_pandas()
    assert list(frame["model"]) == ["popularity", "gru4rec"]
    assert frame["NDCG@10"][1] == found.rows[1].metrics["NDCG@10"].mean
    assert frame["epochs"].tolist() == [0, 1] and frame["targets_seen"][1] > 0


def test_options_reach_models_protocol_and_training(tmp_path):
    options = {"gru4rec.hidden_size": 8, "batch_size": 16, "protocol.candidates_seed": 3}
    found = quick("gru4rec", tmp_path, options={**options, "training.epochs": 1})
    (row,) = found.rows
    assert row.options == {"hidden_size": 8, "batch_size": 16} and row.epochs == 1
    assert found.protocol["candidates_seed"] == 3


def test_a_mistake_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such model"):
        bench.run("tiny", "sasrek", results=tmp_path)
    with pytest.raises(UserError, match="holds no cell"):
        bench.table("tiny", results=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        getattr(bench, "runn")  # noqa: B009 - the attribute does not exist


def test_load_dataset_opens_a_prepared_set():
    dataset = bench.load_dataset("tiny")
    assert (dataset.name, dataset.interactions.num_users) == ("tiny", 120)


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, bench; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "pandas", "polars", "numpy", "typer"} & set(done.stdout.split())


def test_a_process_opens_a_task_once_for_all_its_cells(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(grid, "open_task", lambda *given: opened.append(given) or tasks.open_task(*given))
    quick("popularity,random,item-knn", tmp_path, seeds=2)
    assert len(opened) == 1
    quick("popularity", tmp_path, protocol="full")
    assert len(opened) == 2


def test_a_data_set_that_is_prepared_again_is_opened_again(tmp_path, monkeypatch):
    first = quick("popularity", tmp_path)
    library.prepare_named("synthetic", raw=None, name="tiny", overrides={"users": 130, "items": 220})
    second = quick("popularity", tmp_path)
    assert (first.facts.users, second.facts.users) == (120, 130)


def test_a_plan_says_all_that_is_run():
    settings = ["sasrec.hidden_size=8"]
    plan = make_plan("tiny", select("sasrec,popularity"), settings=settings, seeds=2, epochs=3)
    assert (plan.num_cells, plan.seeds, plan.training.epochs) == (4, (0, 1), 3)
    assert plan.overrides == {"popularity": {}, "sasrec": {"hidden_size": 8}}
    with pytest.raises(AttributeError):
        plan.seeds = (1,)
    plan = make_plan("tiny", select("popularity"), settings=["training.epochs=5"], epochs=3)
    assert plan.training.epochs == 5


def test_ranks_and_curves_are_frames(tmp_path):
    found = quick("popularity,gru4rec", tmp_path, epochs=2, seeds=2)
    ranks = found.ranks()
    assert set(ranks["model"]) == {"popularity", "gru4rec"} and set(ranks["seed"]) == {0, 1}
    (row,) = [row for row in found.rows if row.model == "gru4rec"]
    mean = (ranks[ranks["model"] == "gru4rec"]["rank"] <= 10).mean()
    assert mean == pytest.approx(row.metrics["HR@10"].mean)
    curves = found.curves()
    assert set(curves["model"]) == {"gru4rec"} and curves["epoch"].tolist() == [1, 2, 1, 2]
    assert curves["NDCG@10"].between(0, 1).all()
    again, order = bench.table("tiny", results=tmp_path).ranks(), ["model", "seed", "user"]
    frames = [frame.sort_values(order, ignore_index=True) for frame in (again, ranks)]
    pandas.testing.assert_frame_equal(*frames, check_dtype=False)
    assert len(found.ranks("validation")) == 2 * 2 * found.facts.validation_users


def test_ablate_compares_a_model_with_its_variants(tmp_path):
    found = bench.ablate(
        "mmmlp", "tiny", "prefix", seeds=1, epochs=1, jobs=1, progress=False, results=tmp_path,
        options={"hidden_size": 8, "num_layers": 1},
    )  # fmt: skip
    frame = found.to_pandas()
    assert frame["model"].tolist() == ["mmmlp", "mmmlp:prefix"]
    gap = frame["NDCG@10"][1] - frame["NDCG@10"][0]
    assert frame["NDCG@10 difference"][1] == pytest.approx(gap) and 0 <= frame["p against full"][1] <= 1
