"""Slices of the test users: what each property says, that slices share the users out, and the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data.protocol.task import Task
from bench.errors import UserError
from bench.evaluation.metrics import ndcg
from bench.experiments import slices
from bench.experiments.grid import open_plan, run_grid
from bench.experiments.plan import make_plan
from bench.experiments.record import Record
from bench.experiments.run import data_facts
from bench.experiments.slices import NAMES, everybody, restricted, slices_by, task_of, values_of, where
from bench.experiments.store import Store
from bench.registry import select
from bench.report.rows import build

WORDS = ["data.users=150", "data.items=200", "data.events_per_user=12", "data.cold_items=0.2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, list[Record], Path]:
    root = tmp_path_factory.mktemp("slices")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(root / "data"))
        plan = make_plan("synthetic", select("popularity,item-knn"), settings=WORDS, seeds=1)
        records = run_grid(plan, Store(root / "results"), quiet=True)
        return open_plan(plan), records, root


@pytest.fixture(autouse=True)
def data_folder(made: tuple[Task, list[Record], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(made[2] / "data"))


def test_properties_are_those_of_a_loop_over_the_log(made: tuple[Task, list[Record], Path]) -> None:
    task = made[0]
    events, target = task.interactions, task.dataset.target_behavior
    values = {name: values_of(task, name) for name in NAMES}
    trained: dict[int, list[int]] = {}
    for user in range(events.num_users):
        for index in range(events.offsets[user], task.split.train_end[user]):
            trained.setdefault(int(events.item[index]), []).append(int(events.timestamp[index]))
    for row, test in enumerate(task.split.test):
        user = int(events.user_of(np.array([test]))[0])
        before, item = range(events.offsets[user], test), int(events.item[test])
        assert values["history"][row] == len(before)
        assert values["activity"][row] == sum(events.behavior[i] == target for i in before)
        times = trained.get(item, [])
        assert values["popularity"][row] == len(times)
        expected = max(int(events.timestamp[test]) - min(times), 0) if times else -1
        assert values["age"][row] == expected
        met = [int(events.behavior[i]) for i in before if events.item[i] == item]
        assert values["behavior"][row] == max(met, default=0)


@pytest.mark.parametrize("name", NAMES)
def test_slices_share_the_users_out(made: tuple[Task, list[Record], Path], name: str) -> None:
    parts = slices_by(made[0], name)
    total = np.stack([part.rows for part in parts]).sum(0)
    assert (total == 1).all() and all(part.rows.any() for part in parts)
    assert len({part.label for part in parts}) == len(parts)


def test_unseen_items_are_a_slice_of_their_own(made: tuple[Task, list[Record], Path]) -> None:
    task = made[0]
    first = slices_by(task, "popularity")[0]
    assert first.label == "0 (unseen)" and 0.3 < first.rows.mean() < 0.7
    assert np.array_equal(first.rows, slices_by(task, "age")[0].rows)
    assert np.array_equal(first.rows, where(task, "popularity=0").rows)


def test_conditions_join_and_faulty_ones_are_refused(made: tuple[Task, list[Record], Path]) -> None:
    task = made[0]
    both = where(task, "history<=10, popularity>0").rows
    assert np.array_equal(both, where(task, "history<=10").rows & where(task, "popularity>0").rows)
    for condition, told in (
        ("history", "expected NAME<=NUMBER"),
        ("histery<=3", "did you mean 'history'"),
        ("history<=few", "expected a number"),
        ("history<0", "none of the"),
    ):
        with pytest.raises(UserError, match=told):
            where(task, condition)
    assert not (where(task, "behavior=none").rows & (values_of(task, "behavior") > 0)).any()


def test_a_restricted_table_is_the_mean_over_its_users(made: tuple[Task, list[Record], Path]) -> None:
    task, records, _ = made
    part = where(task, "history>10")
    table = build(restricted(records, part))
    ranks = np.asarray(records[1].outcome.arrays["test_rank"])[part.rows]
    row = next(row for row in table.rows if row.model == "item-knn")
    assert row.metrics["NDCG@10"].mean == pytest.approx(ndcg(ranks, 10).mean())
    assert table.facts.test_users == part.rows.sum()
    whole = build(restricted(records, everybody(task)))
    assert whole.rows == build(records).rows


def altered(records: list[Record], encoders: dict[str, str], **changes: str) -> list[Record]:
    """Return records of cells with other fields, whose vectors encoders made."""
    return [
        replace(one, cell=replace(one.cell, **changes), dataset=replace(one.dataset, encoders=encoders))
        for one in records
    ]


def test_data_prepared_otherwise_are_refused(made: tuple[Task, list[Record], Path]) -> None:
    _, records, _ = made
    assert len(task_of(records).split.test) == len(everybody(made[0]).rows)
    for changes in ({"fingerprint": "0" * 64}, {"candidates_hash": "0" * 64}):
        with pytest.raises(UserError, match="not those that the records were made of"):
            task_of(altered(records, {}, **changes))


def test_vectors_of_another_processor_are_no_other_data(
    made: tuple[Task, list[Record], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = {"image": "one"}
    facts = lambda task: replace(data_facts(task), encoders=encoders)  # noqa: E731
    monkeypatch.setattr(slices, "data_facts", facts)
    other = altered(made[1], encoders, fingerprint="0" * 64)
    assert len(task_of(other).split.test) == len(everybody(made[0]).rows)
    for wrong in (altered(other, {"image": "two"}), altered(other, encoders, candidates_hash="0" * 64)):
        with pytest.raises(UserError, match="not those that the records were made of"):
            task_of(wrong)


def test_the_command_prints_slices_and_conditions(made: tuple[Task, list[Record], Path]) -> None:
    results = made[2] / "results"
    words = ["table", "--results", str(results)]

    def call(*more: str) -> str:
        shown = CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
        assert shown.exit_code == 0
        return shown.stdout

    text = call("--by", "popularity", "--metrics", "HR@10,NDCG@10")
    assert "HR@10 by popularity" in text and "0 (unseen)" in text and "Popularity" in text
    assert {path.suffix for path in results.glob("*/slices_popularity_*")} == {
        ".md", ".csv", ".tex", ".json", ".png", ".pdf",
    }  # fmt: skip
    assert "Test users where history>10 alone" in call("--where", "history>10")
    both = call("--by", "history", "--where", "popularity>0", "--format", "markdown")
    assert "Test users where popularity>0 alone" in both and both.startswith("| Model | all (")
    for form in ("csv", "latex", "json"):
        assert "history" in call("--by", "history", "--format", form)
    with pytest.raises(UserError, match="no property 'size'"):
        call("--by", "size")
