import dataclasses

import pytest

from bench import registry
from bench.config import ProtocolOptions, TrainingOptions
from bench.errors import UserError
from bench.experiments import grid
from bench.experiments.plan import Plan
from bench.experiments.store import Store
from bench.report.tables import build, notes
from tests.experiments.test_grid import cells

pytestmark = pytest.mark.usefixtures("data_home")


@pytest.mark.parametrize(
    ("cells_", "jobs", "minutes", "text"),
    [
        (13, 2, 2.0, "13 cells to run, 2 at a time: at most 14 minutes of training, then their tests"),
        (1, 4, 0.5, "1 cells to run, 1 at a time: at most 0.5 minutes of training, then their tests"),
        (
            3,
            1,
            None,
            "3 cells to run, 1 at a time; training has no limit in time (--max-minutes, --total-minutes)",
        ),
    ],
)
def test_a_line_before_the_start_says_how_long_it_takes_at_most(cells_, jobs, minutes, text):
    assert grid._duration(cells_, jobs, TrainingOptions(max_minutes=minutes)) == text


def test_the_line_stands_on_stderr_and_only_where_something_is_run(tmp_path, capsys):
    cells(tmp_path, "popularity", quiet=False)
    assert "1 cells to run, 1 at a time; training has no limit" in capsys.readouterr().err
    cells(tmp_path, "popularity", quiet=False)
    assert "to run" not in capsys.readouterr().err


def test_total_minutes_are_shared_and_what_a_cell_leaves_goes_to_the_others(tmp_path, monkeypatch):
    limits = TrainingOptions(epochs=1, total_minutes=6.0)
    assert grid.shared(limits, cells=6, jobs=2).max_minutes == 2.0  # three rounds of two
    with pytest.raises(UserError, match="give one of them"):
        grid.shared(TrainingOptions(max_minutes=1.0, total_minutes=2.0), 2, 1)
    clock = [0.0]
    monkeypatch.setattr(grid.time, "monotonic", lambda: clock[0])
    order = grid.Order(None, None, limits, tmp_path, tmp_path, (), 1)
    share = grid.Share([order] * 4, jobs=1)
    assert share.take(order).minutes == pytest.approx(1.5)  # a quarter of six
    clock[0] = 30.0
    assert share.take(order).minutes == pytest.approx(5.5 / 3)  # it took half a minute
    clock[0] = 10_000.0
    assert 0 < share.take(order).minutes < 0.02  # all is spent: a moment for each


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_with_total_minutes_ends_in_time_is_found_again_and_tells_what_each_had(tmp_path, jobs, capsys):
    plan = Plan(
        "tiny", tuple(registry.select("popularity,gru4rec,sasrec")), protocol=ProtocolOptions(),
        training=TrainingOptions(total_minutes=0.03),
    )  # fmt: skip
    records = grid.run_grid(plan, Store(tmp_path), jobs=jobs)
    assert "at most 0.03 minutes of training, shared" in capsys.readouterr().err
    assert [record.status for record in records] == ["done"] * 3
    trained = [record.outcome.train_seconds for record in records]
    assert sum(trained) / jobs < 1.8 + 6  # a process begins with imports, an epoch may end a little later
    lines = notes(build(records))
    assert any(line.startswith("Minutes of training that each had: GRU4Rec") for line in lines)
    assert "Limit: 0.03 min for all trainings of the command for all models" in lines
    again = grid.run_grid(plan, Store(tmp_path), jobs=jobs, quiet=True)
    assert [record.finished_at for record in again] == [record.finished_at for record in records]
    other = dataclasses.replace(records[1].cell, total_minutes=None, max_minutes=None)
    assert "total_minutes" not in other.as_dict() and other.key != records[1].key
