"""Heat maps: their axes, the cells they run, what they say of noise, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cards import Card
from bench.cli import app
from bench.config import ProtocolOptions
from bench.errors import UserError
from bench.experiments.heatmap import axes_of, run_map
from bench.experiments.plan import Plan, make_plan
from bench.experiments.record import Cell, Record
from bench.experiments.store import Store
from bench.registry import entries, select
from bench.report.heatmap import build_map, sentences, to_csv
from tests import records

SMALL = ["data.users=120", "data.items=200", "data.events_per_user=10"]
VALUES = ((1, 2), (0.1, 0.2))


def plan_of(model: str, *settings: str, **limits: object) -> Plan:
    return make_plan(
        "synthetic", select(model), settings=[*SMALL, *settings], **{"seeds": 1, "epochs": 1, **limits}
    )


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))


def test_the_panels_of_the_paper_are_those_of_figure_4() -> None:
    plan = plan_of("m3bsr")
    for panel, stage in (("behavior", "cdmd_b"), ("modality", "cdmd_m")):
        axes = axes_of(plan.models[0], plan, panel, [])
        assert (axes.x, axes.x_values) == (f"{stage}.diffusion_steps", (5, 10, 15, 20, 25))
        assert (axes.y, axes.y_values) == (f"{stage}.loss_weight", (0.01, 0.02, 0.05, 0.1, 0.15))
        assert axes.default == (10, 0.02)
    axes = axes_of(plan.models[0], plan, "contrast", [])
    assert axes.x == "disent.temperature" and axes.x_values == (0.01, 0.1, 0.3, 0.5)


def test_every_panel_of_every_card_names_options_of_its_model() -> None:
    for entry in entries().values():
        for panel in entry.card.panels:
            axes_of(entry, plan_of("m3bsr"), panel, [])
    with pytest.raises(ValueError, match="expected two options"):
        Card("a", "A", "A", "sequential", "", 2020, "", panels={"x": {"a": (1, 2)}})


@pytest.mark.parametrize(
    ("pairs", "panel", "told"),
    [
        (["hidden_size=8,16"], None, "expected two options with their values, got 1"),
        (["hidden_size", "dropout=0.1,0.2"], None, "expected option=value"),
        (["hidden_size=8,x", "dropout=0.1,0.2"], None, "hidden_size=x: expected a whole number"),
        (["hidden_size=8,16", "dropout=0.1,nan"], None, "dropout=nan: expected a number"),
        (["hidden_size=8,16", "drop_out=0.1,0.2"], None, "no option 'drop_out'; did you mean 'dropout'"),
        (["hidden_size=8,8", "dropout=0.1,0.2"], None, "two values or more"),
        (["max_history=8,16", "dropout=0.1,0.2"], None, "stands on an axis and in --set"),
        ([], "behavior", "no such panel of sasrec"),
        (["hidden_size=8,16", "dropout=0.1,0.2"], "behavior", "not both"),
    ],
)
def test_faulty_axes_are_refused(pairs: list[str], panel: str | None, told: str) -> None:
    plan = plan_of("sasrec", "sasrec.max_history=20")
    with pytest.raises(UserError, match=told):
        axes_of(plan.models[0], plan, panel, pairs)


def test_cells_are_run_once_and_those_of_the_default_are_the_usual_ones(tmp_path: Path) -> None:
    plan, store = plan_of("nmtr", seeds=2), Store(tmp_path)
    axes = axes_of(plan.models[0], plan, None, ["embedding_size=8,16", "learning_rate=0.001,0.01"])
    cells = run_map(plan, axes, store)
    assert set(cells) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for (row, column), group in cells.items():
        assert [record.cell.seed for record in group] == [0, 1]
        options = {
            "embedding_size": axes.default[0],
            "learning_rate": axes.default[1],
            **group[0].cell.options,
        }
        assert options["embedding_size"] == axes.x_values[column]
        assert options["learning_rate"] == axes.y_values[row]
    again = run_map(plan, axes, store)
    assert [r.finished_at for g in again.values() for r in g] == [
        r.finished_at for g in cells.values() for r in g
    ]


def test_a_value_that_the_model_refuses_is_named_before_anything_runs(tmp_path: Path) -> None:
    plan = plan_of("sasrec")
    axes = axes_of(plan.models[0], plan, None, ["hidden_size=8,9", "num_heads=1,2"])
    with pytest.raises(UserError, match="num_heads=2 does not divide hidden_size=9"):
        run_map(plan, axes, Store(tmp_path))
    assert not list(tmp_path.glob("cells/*/*"))


def cell_of(ranks: np.ndarray, seed: int = 0) -> Record:
    cell = Cell("tiny", "f", ProtocolOptions(), "h", "a", {}, "c", None, None, seed)
    arrays = {"test_user": np.arange(len(ranks)), "test_rank": ranks, "validation_rank": ranks + 1}
    arrays["test_size"] = np.full(len(ranks), 100)
    return records.done(cell, arrays)


def test_means_errors_and_tests_by_hand() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.integers(1, 12, 200), rng.integers(5, 60, 200)
    cells = {(0, 0): [cell_of(bad)], (0, 1): [cell_of(good)], (1, 0): [cell_of(bad)], (1, 1): []}
    chart = build_map(cells, ("x", "y"), VALUES, (1, 0.1), "HR@10", "test")
    assert chart.best == (0, 1) and chart.default == (0, 0) and np.isnan(chart.means[1, 1])
    hits = good <= 10
    assert chart.means[0, 1] == pytest.approx(hits.mean())
    assert chart.errors[0, 1] == pytest.approx(hits.std(ddof=1) / 200**0.5)
    text = "\n".join(sentences(chart))
    assert "The best differs from the default" in text and "picture of noise" not in text
    assert build_map(cells, ("x", "y"), VALUES, (7, 0.1), "HR@10", "test").default is None
    shifted = build_map(cells, ("x", "y"), VALUES, (1, 0.1), "HR@10", "validation")
    assert shifted.means[0, 1] == pytest.approx((good + 1 <= 10).mean())


def test_a_map_of_noise_is_called_one() -> None:
    rng = np.random.default_rng(1)
    cells = {place: [cell_of(rng.integers(1, 100, 150))] for place in ((0, 0), (0, 1), (1, 0), (1, 1))}
    text = "\n".join(sentences(build_map(cells, ("x", "y"), VALUES, (1, 0.1), "NDCG@10", "test")))
    assert "this is a picture of noise" in text and "does not differ from the worst" in text


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "r"
    words = ["heatmap", "nmtr", "embedding_size=8,16", "learning_rate=0.001,0.01", "--dataset", "synthetic"]
    words += ["--epochs", "1", "--jobs", "1", "--results", str(out)]
    words += [part for pair in SMALL for part in ("--set", pair)]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (
        shown.exit_code == 0 and "NDCG@10 of NMTR" in shown.stdout and "Best: embedding_size=" in shown.stdout
    )
    assert {path.suffix for path in out.glob("*/heatmap_nmtr_*")} == {".png", ".pdf", ".csv", ".json"}
    (table,) = out.glob("tables/heatmap_*.csv")
    assert len(table.read_text().splitlines()) == 5
    machine = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(machine.stdout)["part"] == "validation"
    with pytest.raises(UserError, match="a heat map is of one model"):
        CliRunner().invoke(app, ["heatmap", "sequential", "--dataset", "synthetic"], catch_exceptions=False)


def test_the_csv_has_a_line_per_cell() -> None:
    rng = np.random.default_rng(1)
    cells = {place: [cell_of(rng.integers(1, 100, 50))] for place in ((0, 0), (0, 1), (1, 0), (1, 1))}
    lines = to_csv(build_map(cells, ("x", "y"), VALUES, (1, 0.1), "NDCG@10", "test")).splitlines()
    assert lines[0] == "x,y,NDCG@10,standard_error,seeds,part,best,default" and len(lines) == 5
    assert sum(line.endswith("True") for line in lines) == 1
