"""Models under changed content: what is exchanged, under which ids, with which weights, and the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app
from bench.config import build_options
from bench.contract import Subject
from bench.data.schema import ItemContent, Touched
from bench.errors import UserError
from bench.evaluation.ranks import Held
from bench.example import ITEMS, example_batch, example_info
from bench.experiments.grid import open_plan, run_grid
from bench.experiments.kept import load_trained, save_weights
from bench.experiments.plan import Plan, make_plan
from bench.experiments.store import Store
from bench.experiments.stress import EVERYTHING, IDS, conditions, relabelled, stressed
from bench.experiments.stress_grid import retrained, under_stress
from bench.registry import entries, select
from bench.report.stress import build_row, build_stress, to_csv, to_latex, to_markdown
from bench.training.data import training_data

MODELS = entries()
READERS = (
    "missrec",
    "mmsbr",
    "mmmlp",
    "m3srec",
    "cmclrec",
    "cmclrec-backbone",
    "m3bsr",
    "m3bsr-printed",
    "diff_msin",
)
SMALL = ["data.users=150", "data.items=200", "data.events_per_user=12"]


def plan_of(models: str, *settings: str, **limits: object) -> Plan:
    given = {"seeds": 1, "epochs": 1, **limits}
    return make_plan(
        "synthetic", select(models), settings=[*SMALL, *settings, "training.keep_model=true"], **given
    )


def silent(stage: str, done: int, of: int) -> None:
    pass


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    torch.set_num_threads(1)


def test_conditions_move_vectors_among_the_items_that_have_them() -> None:
    content = example_info().content
    made = conditions(content)
    assert list(made) == [EVERYTHING, "no image", "no text", "images permuted", "texts permuted", IDS]
    assert not made["no image"].owner["image"].any()
    owner, has = made["images permuted"].owner["image"], content.present["image"]
    assert sorted(owner[has]) == sorted(np.flatnonzero(has)) and (owner[~has] == np.flatnonzero(~has)).all()
    assert (owner[has] != np.flatnonzero(has)).mean() > 0.8
    ids = made[IDS]
    assert sorted(ids.label) == list(range(ITEMS + 1)) and ids.label[0] == 0
    for item in range(1, ITEMS + 1):  # an item shows its own content under the id that it takes
        assert ids.owner["image"][ids.label[item]] == item


@pytest.mark.parametrize("name", READERS)
def test_a_model_with_exchanged_content_scores_as_one_that_was_built_so(name: str) -> None:
    """Two items that swap ids and content alike, the id weights too, leave every score where it was."""
    entry = MODELS[name]
    kind = entry.load()
    model = Subject(kind, build_options(kind.Config, entry.card.options, name)).build().eval()
    batch = example_batch()
    candidates = torch.arange(1, ITEMS + 1).repeat(len(batch), 1)
    with torch.no_grad():
        before = model.score(batch, candidates)
        same = torch.arange(ITEMS + 1)
        model.exchange_content({"image": same, "text": same})
        assert torch.equal(model.score(batch, candidates), before)
        model.exchange_content({"image": torch.zeros_like(same)})
        without = model.score(batch, candidates)
        assert torch.isfinite(without).all() and not torch.allclose(without, before, atol=1e-6), (
            "image not read"
        )
        model.exchange_content({"text": same.roll(-1, 0) * (same > 0)})
        assert not torch.allclose(model.score(batch, candidates), without, atol=1e-6), "text not read"


def test_held_out_items_keep_their_users_and_order_under_other_ids() -> None:
    label = np.array([0, 3, 1, 2, 4])
    touched = Touched(np.array([0, 2, 3]), np.array([1, 2, 4], np.int32))
    held = Held(np.array([0, 1]), np.array([2, 4]), np.array([[3, 0], [1, 2]], np.int32), touched, 0)
    moved = relabelled(held, label)
    assert moved.items.tolist() == [1, 4] and moved.negatives.tolist() == [[2, 0], [3, 1]]
    assert moved.touched.item.tolist() == [1, 3, 4] and relabelled(held, None) is held


def test_permuted_ids_leave_a_scorer_by_content_alone_where_it_was(tmp_path: Path) -> None:
    """A model without ids cannot see that ids moved; one with ids alone sees nothing of content."""
    plan = plan_of("m3srec,sasrec", "m3srec.use_id=false")
    store, watch = Store(tmp_path), silent
    made = under_stress(plan, store, watch)
    content, ids = made.ranks["m3srec"], made.ranks["sasrec"]
    assert np.array_equal(content[IDS][0], content[EVERYTHING][0])
    assert not np.array_equal(content["texts permuted"][0], content[EVERYTHING][0])
    assert not np.array_equal(ids[IDS][0], ids[EVERYTHING][0])
    for name in ("no image", "no text", "images permuted", "texts permuted"):
        assert np.array_equal(ids[name][0], ids[EVERYTHING][0])


def test_weights_are_kept_and_found_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    plan, store = plan_of("sasrec"), Store(tmp_path)
    (record,) = run_grid(plan, store, quiet=True)
    path = store.weights_path(record.cell)
    assert path.is_file()
    task, entry = open_plan(plan), plan.models[0]
    first = stressed(record.cell, entry, task, store, "cpu", 64)
    assert np.array_equal(first[EVERYTHING], record.outcome.arrays["test_rank"])
    path.write_bytes(path.read_bytes()[:500])
    assert np.array_equal(
        stressed(record.cell, entry, task, store, "cpu", 64)[IDS], first[IDS]
    )  # from the store
    for stored in path.parent.glob("stress-*.npz"):
        stored.unlink()
    with pytest.raises(UserError, match=r"weights.safetensors: weights that cannot be read .*again"):
        stressed(record.cell, entry, task, store, "cpu", 64)
    path.unlink()
    (again,) = run_grid(plan, store, quiet=True)  # trained again, since its weights are gone
    assert again.finished_at != record.finished_at and path.is_file()
    (found,) = run_grid(plan, store, quiet=True)
    assert found.finished_at == again.finished_at


def test_weights_of_another_cell_are_refused(tmp_path: Path) -> None:
    plan = plan_of("sasrec")
    (record,) = run_grid(plan, Store(tmp_path), quiet=True)
    task = open_plan(plan)
    data = training_data(task)
    model = load_trained(
        record.cell, plan.models[0], data, Store(tmp_path).weights_path(record.cell), torch.device("cpu")
    )
    save_weights(model, tmp_path / "other.pt", "another key")
    with pytest.raises(UserError, match="belongs to another cell"):
        load_trained(record.cell, plan.models[0], data, tmp_path / "other.pt", torch.device("cpu"))


def test_without_content_there_is_nothing_to_stress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("sasrec")
    task = open_plan(plan)
    bare = replace(task, dataset=replace(task.dataset, content=ItemContent(task.dataset.num_items)))
    monkeypatch.setattr("bench.experiments.stress_grid.open_plan", lambda plan: bare)
    for form in (under_stress, retrained):
        with pytest.raises(UserError, match="no item has image or text vectors"):
            form(plan, Store(tmp_path), silent)


def test_a_row_by_hand() -> None:
    ranks = np.array([1, 2, 3, 50] * 10, np.int32)
    row = build_row(
        {"everything": [ranks, ranks], "gone": [ranks + 3, ranks + 3], "same": [ranks, ranks]}, "HR@3"
    )
    assert row["everything"].mean == 0.75 and row["everything"].test is None and row["everything"].std == 0
    assert row["gone"].mean == 0 and row["gone"].test.difference == -0.75 and row["gone"].p < 0.01
    assert row["same"].p == 1
    with pytest.raises(ValueError):
        build_row({"everything": [ranks]}, "HITS@3")


def test_the_retrained_form_trains_on_permuted_data(tmp_path: Path) -> None:
    made = retrained(plan_of("mmsbr,popularity"), Store(tmp_path), silent)
    assert made.conditions == (
        "everything", "images permuted", "texts permuted", "both permuted", "without both",
    )  # fmt: skip
    assert np.array_equal(
        made.ranks["popularity"]["both permuted"][0], made.ranks["popularity"]["everything"][0]
    )
    assert not np.array_equal(made.ranks["mmsbr"]["images permuted"][0], made.ranks["mmsbr"]["everything"][0])
    table = build_stress(made.records, made.ranks, made.conditions, "NDCG@10", True)
    assert [*table.rows] == ["Popularity", "MMSBR"] and "trained anew" in to_markdown(table)


def test_the_command_prints_and_writes_every_form(tmp_path: Path) -> None:
    out = tmp_path / "results"
    words = ["stress", "--models", "cmclrec,mmmlp", "--dataset", "synthetic", "--epochs", "1", "--seeds", "1"]
    words += [part for pair in SMALL for part in ("--set", pair)] + ["--jobs", "1", "--results", str(out)]
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "CMCLRec" in shown.stdout and "the same trained weights" in shown.stdout
    written = sorted(path.name for path in out.glob("*/stress_*"))
    assert {Path(name).suffix for name in written} == {".pdf", ".png", ".csv", ".json", ".md", ".tex"}
    again = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert again.exit_code == 0 and '"conditions"' in again.stdout
    with pytest.raises(UserError, match="--metric HITS"):
        CliRunner().invoke(app, [*words, "--metric", "HITS"], catch_exceptions=False)


def test_the_forms_hold_every_cell(tmp_path: Path) -> None:
    made = under_stress(plan_of("m3srec"), Store(tmp_path), silent)
    table = build_stress(made.records, made.ranks, made.conditions, "NDCG@10", False)
    for text in (to_markdown(table), to_latex(table), to_csv(table)):
        assert "M3SRec" in text
        assert all(name in text for name in made.conditions)
    assert len(to_csv(table).splitlines()) == 1 + len(made.conditions)
