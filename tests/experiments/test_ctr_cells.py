"""The task `ctr` end to end, on a small generated data set."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench import cli, registry
from bench.config import ProtocolOptions, TrainingOptions
from bench.data import library
from bench.data.protocol.leaks import find_leaks
from bench.data.protocol.task import open_task
from bench.data.storage import load
from bench.errors import UserError
from bench.evaluation.ctr import values
from bench.experiments import grid
from bench.experiments.plan import Plan
from bench.experiments.store import Store
from bench.interface import Impressions
from bench.training.data import held_part, training_data

SMALL = {"users": 120, "items": 220, "events_per_user": 12}
CONSTANT = '''
"""A scorer that knows nothing."""
import torch
from dataclasses import dataclass
from bench.interface import Card, Recommender

CARD = Card(
    name="even", label="Even", model="Even", family="heuristic", paper="none", year=0, inputs="-"
)

@dataclass(frozen=True)
class Options:
    """No options."""

class Even(Recommender):
    """Gives every item the same score."""
    Config = Options

    def score(self, batch, candidates):
        return torch.zeros(candidates.shape)
'''


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A prepared data set called `tiny` for all tests of this file."""
    patch = pytest.MonkeyPatch()
    patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
    library.prepare_named("synthetic", raw=None, name="tiny", overrides=SMALL)
    threads = torch.get_num_threads()
    yield library.home() / "tiny"
    torch.set_num_threads(threads)  # a cell takes its share of the cores
    patch.undo()


def cells(store, models, **protocol):
    plan = Plan(
        "tiny",
        tuple(registry.select(models)),
        protocol=ProtocolOptions(**protocol),
        training=TrainingOptions(epochs=2),
    )
    return grid.run_grid(plan, Store(store), quiet=True)


def test_run_prints_a_ctr_table_and_table_prints_it_again(tmp_path):
    words = ["--task", "ctr", "--models", "popularity,sasrec-ce", "--dataset", "tiny", "--json"]
    words += ["--results", str(tmp_path)]
    more = ["--seeds", "2", "--epochs", "2", "--jobs", "1"]
    done = CliRunner().invoke(cli.app, ["run", *words, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["model"] for row in found["rows"]] == ["popularity", "sasrec-ce"]
    assert (found["task"], found["protocol_options"]["ctr_negatives"]) == ("ctr", 1)
    for row in found["rows"]:
        assert row["status"] == "done" and row["metrics"].keys() == {"AUC", "GAUC", "LogLoss"}
        assert row["metrics"]["AUC"]["std"] is not None
    assert found["chance"] == pytest.approx({"AUC": 0.5, "GAUC": 0.5, "LogLoss": np.log(2)})
    again = CliRunner().invoke(cli.app, ["table", *words], catch_exceptions=False)
    assert json.loads(again.stdout) == found
    names = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert names == [f"table_tiny_uniform99-ctr.{ending}" for ending in ("csv", "json", "md", "tex")]
    with pytest.raises(UserError, match="no cell of tiny; first: bench run --dataset tiny"):
        CliRunner().invoke(cli.app, ["table", *words[2:]], catch_exceptions=False)


def test_cells_of_the_two_tasks_stand_beside_each_other_and_train_alike(tmp_path):
    (ranked,), (judged,) = cells(tmp_path, "sasrec-ce"), cells(tmp_path, "sasrec-ce", task="ctr")
    assert ranked.key != judged.key
    assert ranked.cell.candidates_hash == judged.cell.candidates_hash
    assert [c["loss"] for c in ranked.outcome.curves] == [c["loss"] for c in judged.outcome.curves]
    assert [c["NDCG@10"] for c in ranked.outcome.curves] == [c["NDCG@10"] for c in judged.outcome.curves]
    store = Store(tmp_path)
    assert [r.key for r in store.records()] == [ranked.key]
    assert [r.key for r in store.records("ctr")] == [judged.key]
    assert judged.finished_at == cells(tmp_path, "sasrec-ce", task="ctr")[0].finished_at


def test_scores_of_all_negatives_give_the_stored_ranks(tmp_path):
    (ranked,) = cells(tmp_path, "sasrec-ce")
    (judged,) = cells(tmp_path, "sasrec-ce", task="ctr", ctr_negatives=99)
    for part in ("test", "validation"):
        user, label, score = (judged.outcome.arrays[f"{part}_{name}"] for name in ("user", "label", "score"))
        np.testing.assert_array_equal(user[label == 1], ranked.outcome.arrays[f"{part}_user"])
        row = np.cumsum(label) - 1
        higher = np.bincount(row, score > score[label == 1][row])
        np.testing.assert_array_equal(1 + higher, ranked.outcome.arrays[f"{part}_rank"])


def test_a_constant_scorer_gets_exactly_one_half(tmp_path):
    (tmp_path / "even.py").write_text(CONSTANT, encoding="utf-8")
    (record,) = cells(tmp_path, str(tmp_path / "even.py"), task="ctr", ctr_negatives=3)
    found = values(record.outcome.arrays)
    assert (found["AUC"], found["GAUC"]) == (0.5, 0.5)
    assert found["LogLoss"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75), abs=1e-3)


@pytest.mark.parametrize("split", ["leave-last-out", "global-time"])
def test_no_test_pair_is_in_training_and_histories_end_before_the_event(folder, tmp_path, split):
    task = open_task(load(folder), ProtocolOptions(task="ctr", split=split, ctr_negatives=2))
    (record,) = cells(tmp_path, "popularity", task="ctr", split=split, ctr_negatives=2)
    events, test = task.interactions, task.split.test
    user, label = record.outcome.arrays["test_user"], record.outcome.arrays["test_label"]
    np.testing.assert_array_equal(user[label == 1], events.user_of(test))
    assert (np.bincount(user)[events.user_of(test)] == 3).all()

    data = training_data(task)
    for users in np.unique(events.user_of(test)):  # nothing at or after a test event is within reach
        reachable = np.diff(data.interactions.offsets)[users]
        assert events.offsets[users] + reachable <= test[events.user_of(test) == users]
    batches = list(data.batches(Impressions(max_targets_per_user=None), seed=0).epoch(0, 64))
    assert find_leaks(batches, events, task.split, "training") == []

    part = held_part(task, events, test, task.test)
    shown = [batch for _, batch in part.batches(50, 32)]
    assert find_leaks(shown, events, task.split, "test") == []
    touched = task.dataset.touched
    for row, one in enumerate(part.held.users):
        assert not np.isin(part.held.negatives[row, :2], touched.of(one)).any()


def test_a_ctr_model_and_a_target_only_history_run(tmp_path):
    (record,) = cells(tmp_path, "dnn", task="ctr", history="target")
    assert record.status == "done", record.reason
    assert 0 < values(record.outcome.arrays)["AUC"] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--task", "ctr", "--protocol", "full"], "the task ctr needs sampled negatives"),
        (["--task", "ctr", "--set", "protocol.ctr_negatives=0"], "ctr_negatives must be from 1 to 99"),
        (["--set", "protocol.ctr_negatives=4"], "read by the task ctr alone: --task ctr"),
        (["--task", "ctr", "--set", "protocol.split=random"], "expected one of leave-last-out, global-time"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    words = ["run", "--models", "popularity", "--dataset", "tiny", *settings]
    with pytest.raises(UserError, match=message) as error:
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert "\n" not in str(error.value)


def test_help_shows_the_task_with_an_example():
    text = CliRunner().invoke(cli.app, ["run", "--help"], catch_exceptions=False).stdout
    assert "--task" in text and "bench run --task ctr" in text
