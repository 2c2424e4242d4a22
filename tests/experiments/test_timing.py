"""`bench time`: what is counted, that nothing is trained to its end, and the table."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app
from bench.experiments import timing
from bench.experiments.grid import open_plan
from bench.experiments.plan import make_plan
from bench.experiments.timing import as_dict, time_models
from bench.registry import select
from bench.report.timing import HEAD, to_csv, to_latex, to_markdown
from bench.training.data import training_data

SMALL = ["data.users=150", "data.items=200", "data.events_per_user=12"]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    torch.set_num_threads(1)


def test_an_epoch_is_the_median_step_times_the_steps_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan("synthetic", select("popularity,sasrec,m3srec"), settings=SMALL, seeds=1, device="cpu")
    made = {one.model: one for one in time_models(plan, 16, repeats=3)}
    data = training_data(open_plan(plan))
    for name in ("sasrec", "m3srec"):
        entry = next(entry for entry in plan.models if entry.card.name == name)
        kind = entry.load()
        view = kind(kind.Config(), data.info).stages()[-1].view
        batches = data.batches(view, 0)
        one = made[name]
        assert one.batch_size == 16 and one.steps == batches.num_batches(16) > 1
        assert one.targets == batches.num_targets
        low, middle, high = one.step_seconds
        assert 0 < low <= middle <= high and one.epoch_seconds == pytest.approx(middle * one.steps)
        assert one.targets_per_second == pytest.approx(one.targets / one.epoch_seconds)
        assert one.step_gflop > 0 and one.peak_mib > 0 and one.parameters > 0 and one.users_per_second > 0
    assert made["popularity"].epoch_seconds == 0 and made["popularity"].targets_per_second == 0
    assert made["m3srec"].step_gflop > made["sasrec"].step_gflop
    monkeypatch.setattr(timing, "_memory", lambda plan, batch_size: {"sasrec": 1.0})  # a process of its own
    own = time_models(make_plan("synthetic", select("sasrec"), settings=SMALL, seeds=1), None, repeats=3)
    assert own[0].batch_size == 128


def test_the_work_of_a_step_is_that_of_its_products() -> None:
    """The counter against a count by hand, for one linear map."""
    layer = torch.nn.Linear(30, 20)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        layer(torch.randn(7, 30)).sum().backward()
    assert counter.get_total_flops() == 2 * 7 * 30 * 20 * 2  # forward, and the weight's gradient


def test_the_command_writes_every_form(tmp_path: Path) -> None:
    words = ["time", "--models", "popularity,gru4rec", "--dataset", "synthetic", "--repeats", "3"]
    words += ["--batch-size", "32", "--results", str(tmp_path)]
    words += [part for pair in SMALL for part in ("--set", pair)]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert shown.exit_code == 0 and "GRU4Rec" in shown.stdout and "quartiles" in shown.stdout
    assert {path.suffix for path in tmp_path.glob("tables/time_synthetic_32.*")} == {
        ".md",
        ".csv",
        ".tex",
        ".json",
    }
    content = json.loads((tmp_path / "tables" / "time_synthetic_32.json").read_text())
    assert [one["label"] for one in content["models"]] == ["Popularity", "GRU4Rec"]
    assert not (tmp_path / "cells").exists()


def test_the_forms_have_a_row_per_model() -> None:
    plan = make_plan("synthetic", select("popularity"), settings=SMALL, seeds=1, device="cpu")
    timed = [as_dict(one) for one in time_models(plan, None, repeats=3)]
    assert to_markdown(timed, "x").splitlines()[0].count("|") == len(HEAD) + 1
    assert "Popularity" in to_latex(timed, "x") and len(to_csv(timed).splitlines()) == 2
