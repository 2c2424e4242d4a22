"""Cells end to end, on a small generated data set."""

import multiprocessing

import numpy as np
import pytest
import torch

from bench import registry
from bench.config import ProtocolOptions, TrainingOptions, option_names
from bench.data import library
from bench.errors import UserError
from bench.evaluation.metrics import chance, hit_rate, ndcg
from bench.experiments import grid, run
from bench.experiments.progress import Display, Note, Teller
from bench.experiments.store import Store

SMALL = {"users": 120, "items": 220, "events_per_user": 12}
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


@pytest.fixture(scope="module", autouse=True)
def data_home(tmp_path_factory):
    """One prepared data set called `tiny` for all tests of this file."""
    patch = pytest.MonkeyPatch()
    patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
    library.prepare_named("synthetic", raw=None, name="tiny", overrides=SMALL)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)  # a cell takes its share of the cores
    patch.undo()


def cells(tmp_path, models, seeds=1, jobs=1, fresh=False, options=None, epochs=2, quiet=True, **protocol):
    return grid.run_grid(
        "tiny",
        {},
        registry.select(models),
        options or {},
        ProtocolOptions(**protocol),
        TrainingOptions(epochs=epochs),
        range(seeds),
        Store(tmp_path),
        jobs=jobs,
        fresh=fresh,
        quiet=quiet,
    )


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_every_model_runs_under_full_ranking(name, tmp_path):
    (entry,) = registry.select(name)
    known = option_names(entry.load().Config)
    short = {key: value for key, value in (("max_history", 8), ("max_targets_per_user", 1)) if key in known}
    (record,) = cells(tmp_path, name, candidates="full", epochs=1, options={name: short})
    assert record.status == "done", record.reason
    ranks, sizes = record.ranks["test_rank"], record.ranks["test_size"]
    assert len(ranks) > 100 and ranks.min() >= 1 and (ranks <= sizes).all()
    assert sizes.min() > 150  # the catalog less what the user touched


@pytest.mark.parametrize("kind", ["uniform99", "popular99", "full"])
def test_a_constant_scorer_gets_the_chance_level(kind, tmp_path):
    (tmp_path / "constant.py").write_text(CONSTANT, encoding="utf-8")
    (record,) = cells(tmp_path, str(tmp_path / "constant.py"), candidates=kind)
    ranks, level = record.ranks["test_rank"], chance(record.ranks["test_size"], 10)
    spread = 2 / len(ranks) if kind != "full" else 0.02  # sizes differ a little between users under `full`
    assert hit_rate(ranks, 10).mean() == pytest.approx(level["HR@10"], abs=spread)
    assert ndcg(ranks, 10).mean() == pytest.approx(level["NDCG@10"], abs=spread)


def test_a_finished_cell_is_not_run_again_and_fresh_repeats_it_digit_for_digit(tmp_path):
    (first,) = cells(tmp_path, "sasrec-ce")
    (again,) = cells(tmp_path, "sasrec-ce")
    assert again.finished_at == first.finished_at
    (fresh,) = cells(tmp_path, "sasrec-ce", fresh=True)
    assert fresh.finished_at > first.finished_at
    np.testing.assert_array_equal(fresh.ranks["test_rank"], first.ranks["test_rank"])
    assert [c["loss"] for c in fresh.curves] == [c["loss"] for c in first.curves]


def test_a_model_that_fails_is_a_record_and_the_others_are_kept(tmp_path):
    broken = CONSTANT.replace('"constant"', '"broken"').replace("torch.zeros", "torch.nothing")
    (tmp_path / "broken.py").write_text(broken, encoding="utf-8")
    good, bad = cells(tmp_path, f"popularity,{tmp_path / 'broken.py'}", jobs=2)
    assert (good.status, bad.status) == ("done", "failed")
    assert "AttributeError" in bad.reason and "nothing" in bad.extra["traceback"]


def test_cells_side_by_side_are_stored_like_cells_in_turn(tmp_path):
    records = cells(tmp_path, "popularity,item-knn", seeds=2, jobs=2)
    assert [r.status for r in records] == ["done"] * 4
    alone = cells(tmp_path / "other", "popularity,item-knn", seeds=2)
    assert [r.key for r in records] == [r.key for r in alone]
    for a, b in zip(records, alone, strict=True):
        np.testing.assert_array_equal(a.ranks["test_rank"], b.ranks["test_rank"])


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
    np.testing.assert_array_equal(resumed.ranks["test_rank"], whole.ranks["test_rank"])
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
    assert len({record.cell["candidates_hash"] for record in records}) == 1
    (other,) = cells(tmp_path, "popularity", candidates_seed=1)
    assert other.cell["candidates_hash"] != records[0].cell["candidates_hash"]


def test_target_history_ranks_the_same_candidates(tmp_path):
    (merged,) = cells(tmp_path, "popularity")
    (target,) = cells(tmp_path, "popularity", history="target")
    assert merged.cell["candidates_hash"] == target.cell["candidates_hash"]
    np.testing.assert_array_equal(merged.ranks["test_user"], target.ranks["test_user"])


def test_global_time_split_runs(tmp_path):
    (record,) = cells(tmp_path, "sasrec-ce", split="global-time")
    assert record.status == "done" and len(record.ranks["test_rank"]) > 10


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
