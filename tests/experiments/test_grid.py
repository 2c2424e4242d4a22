"""Cells end to end, on a small generated data set."""

import dataclasses
import multiprocessing
import multiprocessing.util
import tempfile

import numpy as np
import pytest

from bench import registry
from bench.config import ProtocolOptions, TrainingOptions, option_names
from bench.data import library
from bench.errors import UserError
from bench.evaluation.metrics import chance, hit_rate, ndcg
from bench.experiments import grid, processes, run
from bench.experiments.plan import Plan
from bench.experiments.processes import context as own_context
from bench.experiments.progress import Display, Note, Teller
from bench.experiments.store import Store
from bench.report.tables import build, notes, to_csv, to_json, to_latex, to_markdown

pytestmark = pytest.mark.usefixtures("data_home")

CONSTANT = '''
"""A scorer that knows nothing."""
import torch
from dataclasses import dataclass
from bench.interface import Card, Recommender

CARD = Card(
    name="constant", label="Constant", model="Constant", family="heuristic", paper="none", year=0, inputs="-"
)

@dataclass(frozen=True)
class Options:
    """No options."""

class Constant(Recommender):
    """Gives every item the same score."""
    Config = Options

    def score(self, batch, candidates):
        return torch.zeros(candidates.shape)
'''


def cells(tmp_path, models, seeds=1, jobs=1, fresh=False, options=None, epochs=2, quiet=True, **protocol):
    plan = Plan(
        "tiny",
        tuple(registry.select(models)),
        overrides=options or {},
        protocol=ProtocolOptions(**protocol),
        training=TrainingOptions(epochs=epochs),
        seeds=tuple(range(seeds)),
    )
    return grid.run_grid(plan, Store(tmp_path), jobs=jobs, fresh=fresh, quiet=quiet)


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_every_model_runs_under_full_ranking(name, tmp_path):
    (entry,) = registry.select(name)
    known = option_names(entry.load().Config)
    short = {key: value for key, value in (("max_history", 8), ("max_targets_per_user", 1)) if key in known}
    (record,) = cells(tmp_path, name, candidates="full", epochs=1, options={name: short})
    assert record.status == "done", record.reason
    ranks, sizes = record.outcome.arrays["test_rank"], record.outcome.arrays["test_size"]
    assert len(ranks) > 100 and ranks.min() >= 1 and (ranks <= sizes).all()
    assert sizes.min() > 150  # the catalog less what the user touched


@pytest.mark.parametrize("kind", ["uniform99", "popular99", "full"])
def test_a_constant_scorer_gets_the_chance_level(kind, tmp_path):
    (tmp_path / "constant.py").write_text(CONSTANT, encoding="utf-8")
    (record,) = cells(tmp_path, str(tmp_path / "constant.py"), candidates=kind)
    ranks, level = record.outcome.arrays["test_rank"], chance(record.outcome.arrays["test_size"], 10)
    spread = 2 / len(ranks) if kind != "full" else 0.02  # sizes differ a little between users under `full`
    assert hit_rate(ranks, 10).mean() == pytest.approx(level["HR@10"], abs=spread)
    assert ndcg(ranks, 10).mean() == pytest.approx(level["NDCG@10"], abs=spread)


def test_a_finished_cell_is_not_run_again_and_fresh_repeats_it_digit_for_digit(tmp_path):
    (first,) = cells(tmp_path, "sasrec-ce")
    (again,) = cells(tmp_path, "sasrec-ce")
    assert again.finished_at == first.finished_at
    (fresh,) = cells(tmp_path, "sasrec-ce", fresh=True)
    assert fresh.finished_at > first.finished_at
    np.testing.assert_array_equal(fresh.outcome.arrays["test_rank"], first.outcome.arrays["test_rank"])
    assert [c["loss"] for c in fresh.outcome.curves] == [c["loss"] for c in first.outcome.curves]


def test_a_model_that_fails_is_a_record_and_the_others_are_kept(tmp_path):
    broken = CONSTANT.replace('"constant"', '"broken"').replace("torch.zeros", "torch.nothing")
    (tmp_path / "broken.py").write_text(broken, encoding="utf-8")
    good, bad = cells(tmp_path, f"popularity,{tmp_path / 'broken.py'}", jobs=2)
    assert (good.status, bad.status) == ("done", "failed")
    assert "AttributeError" in bad.reason and "nothing" in bad.result.traceback


def test_cells_side_by_side_are_stored_like_cells_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "context", own_context)
    records = cells(tmp_path, "popularity,item-knn", seeds=2, jobs=2)
    assert [r.status for r in records] == ["done"] * 4
    alone = cells(tmp_path / "other", "popularity,item-knn", seeds=2)
    assert [r.key for r in records] == [r.key for r in alone]
    for a, b in zip(records, alone, strict=True):
        np.testing.assert_array_equal(a.outcome.arrays["test_rank"], b.outcome.arrays["test_rank"])


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    (whole,) = cells(tmp_path / "whole", "sasrec")
    epochs: list[int] = []

    class Killed(Teller):
        def epoch(self, stage, number, of, batches):
            epochs.append(number)
            if epochs == [0, 1]:
                raise KeyboardInterrupt
            super().epoch(stage, number, of, batches)

    monkeypatch.setattr(grid, "Teller", Killed)
    with pytest.raises(KeyboardInterrupt):
        cells(tmp_path, "sasrec")
    (resumed,) = cells(tmp_path, "sasrec")
    assert epochs == [0, 1, 1]  # the first epoch was not trained again
    np.testing.assert_array_equal(resumed.outcome.arrays["test_rank"], whole.outcome.arrays["test_rank"])
    assert not list((tmp_path / "checkpoints").glob("*"))


KILLED = CONSTANT.replace('"constant"', '"killed"').replace(
    "        return torch",
    "        import os, signal\n        os.kill(os.getpid(), signal.SIGKILL)\n        return torch",
)


def test_a_killed_process_is_one_line_and_finished_cells_are_kept(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    cells(tmp_path, "popularity")
    with pytest.raises(UserError, match="process was killed.*finished cells are kept"):
        cells(tmp_path, str(tmp_path / "killed.py"), seeds=2, jobs=2)
    assert [r.status for r in Store(tmp_path).records()] == ["done"]


def test_an_interruption_ends_the_other_processes(tmp_path, monkeypatch):
    def interrupted(self, note):
        raise KeyboardInterrupt

    monkeypatch.setattr(Display, "show", interrupted)
    endless = {"sasrec": {"patience": 10**6}}
    with pytest.raises(KeyboardInterrupt):
        cells(tmp_path, "sasrec", seeds=3, jobs=2, options=endless, epochs=10**6, quiet=False)
    assert not multiprocessing.active_children()


def test_candidates_do_not_depend_on_model_or_seed(tmp_path):
    records = cells(tmp_path, "popularity,random", seeds=2)
    assert len({record.cell.candidates_hash for record in records}) == 1
    (other,) = cells(tmp_path, "popularity", candidates_seed=1)
    assert other.cell.candidates_hash != records[0].cell.candidates_hash


def test_target_history_ranks_the_same_candidates(tmp_path):
    (merged,) = cells(tmp_path, "popularity")
    (target,) = cells(tmp_path, "popularity", history="target")
    assert merged.cell.candidates_hash == target.cell.candidates_hash
    np.testing.assert_array_equal(merged.outcome.arrays["test_user"], target.outcome.arrays["test_user"])


def test_global_time_split_runs(tmp_path):
    (record,) = cells(tmp_path, "sasrec-ce", split="global-time")
    assert record.status == "done" and len(record.outcome.arrays["test_rank"]) > 10


def test_training_never_touches_the_test_part(tmp_path, monkeypatch):
    """The test part is built only after training has ended."""
    calls: list[str] = []
    fit, held_part = run.fit, run.held_part

    def trained(*args, **kwargs):
        result = fit(*args, **kwargs)
        calls.append("fit")
        return result

    def held(*args, **kwargs):
        calls.append("held")
        return held_part(*args, **kwargs)

    monkeypatch.setattr(run, "fit", trained)
    monkeypatch.setattr(run, "held_part", held)
    cells(tmp_path, "gru4rec")
    assert calls[0] == "fit" and "held" in calls[1:]


def test_notes_tell_speed_losses_and_time_left():
    notes: list[Note] = []
    teller = Teller("SASRec seed 0", notes.append)
    teller.epoch("train", 0, 5, 10)
    teller.step({"loss": 1.25}, 32, 60.0)
    assert notes[0].done == 1 and notes[0].of == 10
    assert "loss 1.250" in notes[0].text and "samples/s" in notes[0].text and "limit in 60 s" in notes[0].text


def one_buy_each(users=60):
    """Eight views and one buy of every user: nothing is left to validate on."""
    item = [[(user + step) % 120 for step in range(9)] for user in range(users)]
    rows = [(user, item[user][step], "view" if step < 8 else "buy", 10**9 + step)
            for user in range(users) for step in range(9)]  # fmt: skip
    return "user,item,behavior,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture(scope="module")
def blind_set(tmp_path_factory, data_home):
    """A prepared data set called `blind`, without a validation event."""
    raw = tmp_path_factory.mktemp("raw")
    (raw / "log.csv").write_text(one_buy_each())
    library.prepare_named("table", raw=raw, name="blind", overrides={"behaviors": "view,buy"})


def blind_records(tmp_path, models, epochs, **protocol):
    store = Store(tmp_path / "results")
    chosen, training = tuple(registry.select(models)), TrainingOptions(epochs=epochs)
    plan = Plan("blind", chosen, protocol=ProtocolOptions(**protocol), training=training)
    return grid.run_grid(plan, store, quiet=True)


def test_a_set_without_validation_events_is_trained_to_its_epochs_and_says_so(tmp_path, blind_set):
    record, count = blind_records(tmp_path, "gru4rec,popularity", epochs=13)
    record, count = sorted((record, count), key=lambda one: one.label)  # GRU4Rec, Popularity
    outcome = record.outcome
    assert (outcome.epochs, outcome.best_epoch, outcome.stopped) == (13, 13, "epochs")
    assert record.reason == "no validation: not stopped early" and count.reason == ""
    assert record.outcome.targets_seen > 0 and record.dataset.validation_users == 0
    table = build([record, count])
    assert "No validation: not stopped early, last weights kept: GRU4Rec" in notes(table)
    assert any("0 validation users" in note for note in notes(table))
    for form in (to_markdown(table), to_csv(table), to_json(table)):
        assert "no validation: not stopped early" in form
    assert "No validation: not stopped early" in to_latex(table)


def test_few_validation_users_are_warned_of(tmp_path):
    records = cells(tmp_path, "popularity")
    for number, warned in ((49, True), (50, False)):
        facts = dataclasses.replace(records[0].dataset, validation_users=number)
        table = build([dataclasses.replace(records[0], dataset=facts)])
        assert any(note.startswith(f"Warning: {number} validation users") for note in notes(table)) is warned


def test_a_second_run_that_fails_leaves_the_finished_record(tmp_path, monkeypatch):
    (before,) = cells(tmp_path, "gru4rec", epochs=1)

    def broken(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(run, "fit", broken)
    (again,) = cells(tmp_path, "gru4rec", epochs=1, fresh=True)
    assert again.status == "failed" and "no room" in again.reason
    (kept,) = Store(tmp_path).records()
    assert (kept.status, kept.finished_at) == ("done", before.finished_at)


def test_a_second_run_that_is_interrupted_leaves_the_finished_record(tmp_path, monkeypatch):
    cells(tmp_path, "gru4rec", epochs=1)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cells(tmp_path, "gru4rec", epochs=1, fresh=True)
    assert [one.status for one in Store(tmp_path).records()] == ["done"]


def test_a_failed_cell_of_a_first_run_is_kept_as_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_, **__: 1 / 0)
    cells(tmp_path, "gru4rec", epochs=1)
    assert [one.status for one in Store(tmp_path).records()] == ["failed"]


def test_a_results_folder_that_is_a_file_ends_before_training(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(UserError, match="is a file, expected a folder"):
        cells(tmp_path / "results", "popularity")
    assert (tmp_path / "results").read_text() == "mine"


def test_folders_with_brackets_in_their_names_work(tmp_path):
    store = Store(tmp_path / "my results [v2]*")
    for _ in range(2):
        found = grid.run_grid(Plan("tiny", tuple(registry.select("popularity"))), store, quiet=True)
    assert store.find(found[0].key) is not None and len(store.records(dataset="tiny")) == 1


def test_cells_side_by_side_leave_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "context", own_context)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made = []
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: made.append(1))
    cells(tmp_path / "results", "popularity,random", jobs=2)
    assert not made and not list(folder.glob("pymp-*"))
