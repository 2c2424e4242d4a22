"""`bench compare`: two models of the store."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.config import ProtocolOptions
from bench.errors import UserError
from bench.experiments.grid import run_grid
from bench.experiments.plan import make_plan
from bench.experiments.record import Cell
from bench.experiments.store import Store
from bench.registry import select
from bench.report.compare import compare_models
from tests import records

SMALL = ["data.users=120", "data.items=200", "data.events_per_user=10"]


def test_the_difference_is_that_of_the_means_of_both_models() -> None:
    rng = np.random.default_rng(0)
    protocol, made = ProtocolOptions(), []
    for model in ("a", "b"):
        for seed in range(2):
            cell = Cell("tiny", "f", protocol, "h", model, {}, "c", None, None, seed)
            arrays = {"test_user": np.arange(50), "test_rank": rng.integers(1, 100, 50)}
            made.append(records.done(cell, arrays, label=model))
    compared = compare_models(made, ("a", "b"), "HR@10", 0.01)
    first, second = (np.mean(means) for means in compared.result.seed_means)
    assert compared.result.sign_flip.difference == pytest.approx(first - second)
    assert compared.users == 50 and compared.result.wins + compared.result.losses + compared.result.ties == 50
    with pytest.raises(UserError, match="named twice"):
        compare_models(made, ("a", "a"), "HR@10", 0.01)
    with pytest.raises(UserError, match="c: no finished cell"):
        compare_models(made, ("a", "c"), "HR@10", 0.01)
    with pytest.raises(UserError, match="--metric HITS"):
        compare_models(made, ("a", "b"), "HITS", 0.01)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    plan = make_plan("synthetic", select("popularity,item-knn"), settings=SMALL, seeds=1)
    run_grid(plan, Store(tmp_path), quiet=True)
    words = ["compare", "popularity", "item-knn", "--results", str(tmp_path)]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert shown.exit_code == 0 and "Popularity less ItemKNN" in shown.stdout and "Wilcoxon" in shown.stdout
    machine = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(machine.stdout)["labels"] == ["Popularity", "ItemKNN"]


def test_the_commands_name_a_seed_that_a_later_run_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    run_grid(make_plan("synthetic", select("popularity,item-knn"), settings=SMALL, seeds=2), Store(tmp_path))
    later = make_plan("synthetic", select("item-knn"), settings=SMALL, seeds=1, epochs=1)
    run_grid(later, Store(tmp_path), quiet=True)
    told = "Left out, run with other code, options or limits than their row: ItemKNN seed 1"
    compared = CliRunner().invoke(app, ["compare", "popularity", "item-knn", "--results", str(tmp_path)])
    assert compared.exit_code == 0 and told in compared.stderr and told not in compared.stdout
    table = CliRunner().invoke(app, ["table", "--format", "markdown", "--results", str(tmp_path)])
    assert table.exit_code == 0 and told in table.stdout and "; 0 alone: ItemKNN" in table.stdout
