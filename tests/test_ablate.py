"""`bench ablate` and `bench figure` end to end, on a model of two parts of which one carries everything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_cli import HEAVY, WATCHED, call, fresh_python

from bench.data import library
from bench.data.storage import save
from bench.diagnostic import Diagnostic
from bench.errors import UserError
from bench.experiments.ablation import fitting, members
from bench.experiments.diagnostics import average
from bench.experiments.store import Store
from tests.conftest import small_dataset

TWO_PARTS = Path(__file__).parent / "files" / "two_parts.py"
COMMAND = (
    "ablate", str(TWO_PARTS), "--dataset", "small", "--seeds", "2", "--epochs", "6", "--jobs", "1",
    "--set", "learning_rate=0.05", "--set", "two-parts.bias=true", "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The ablation, run once: its folder and what was printed."""
    place = tmp_path_factory.mktemp("ablation")
    patch = pytest.MonkeyPatch()
    patch.setenv("BENCH_DATA", str(place / "data"))
    patch.setenv("BENCH_RESULTS", str(place / "results"))
    save(small_dataset(120), library.home() / "small")
    threads = torch.get_num_threads()
    done = call(*COMMAND)
    assert done.exit_code == 0, done.output
    torch.set_num_threads(threads)
    yield place / "results", json.loads(done.stdout)
    patch.undo()


def test_a_variant_without_the_part_that_matters_is_significantly_worse(ran):
    full, without_move, without_bias = ran[1]["rows"]
    assert [row["label"] for row in ran[1]["rows"]] == ["TwoParts", "TwoParts w/o Move", "TwoParts w/o Bias"]
    assert full["difference"] == {} and full["p"] is None and ran[1]["full"] == "two-parts"
    assert without_move["difference"]["NDCG@10"] < -0.5 and without_move["p"] < 0.01
    assert abs(without_bias["difference"]["NDCG@10"]) < 0.1
    assert {row["seeds"] for row in ran[1]["rows"]} == {2}


def test_differences_are_those_of_the_means(ran):
    full, *variants = ran[1]["rows"]
    for row in variants:
        for name, change in row["difference"].items():
            assert change == pytest.approx(row["metrics"][name]["mean"] - full["metrics"][name]["mean"])


def test_the_json_has_the_keys_of_a_run(ran):
    assert {"dataset", "protocol", "candidates_hash", "simulated", "rows", "notes"} <= ran[1].keys()
    wanted = {"model", "label", "status", "seeds", "metrics", "parameters", "train_seconds", "epochs",
              "score_users_per_second", "peak_memory_mb", "reason"}  # fmt: skip
    assert all(wanted <= row.keys() for row in ran[1]["rows"])


def test_options_of_the_model_reach_its_variants_but_not_what_makes_them(ran):
    options = {row["model"]: row["options"] for row in ran[1]["rows"]}
    assert options == {
        "two-parts": {"learning_rate": 0.05},
        "two-parts:no_move": {"learning_rate": 0.05, "move.enabled": False},
        "two-parts:no_bias": {"learning_rate": 0.05, "bias": False},  # bias=true was given for the model
    }


def test_tables_and_figures_are_written(ran):
    tables = sorted(path.name for path in (ran[0] / "tables").iterdir())
    assert tables == [f"ablation_two-parts_small_uniform99.{end}" for end in ("csv", "json", "md", "tex")]
    assert json.loads((ran[0] / "tables" / tables[1]).read_text()) == ran[1]
    figures = {path.suffix: path.read_bytes() for path in (ran[0] / "figures").glob("ablation_*")}
    assert figures[".png"].startswith(b"\x89PNG") and figures[".pdf"].startswith(b"%PDF")


def test_a_second_run_is_read_from_the_store(ran):
    (before, *_) = (record.finished_at for record in Store(ran[0]).records())
    done = call(*COMMAND, "--variants", "no_bias,no_move")
    assert json.loads(done.stdout) == ran[1]
    assert Store(ran[0]).records()[0].finished_at == before


def test_variants_stand_in_a_table_only_when_they_are_named(ran):
    def shown(*words: str) -> list[str]:
        return [row["model"] for row in json.loads(call("table", "--json", *words).stdout)["rows"]]

    assert shown() == shown("--models", "sequential") == ["two-parts"]
    both = shown("--models", "two-parts:no_bias,two-parts")
    assert both == ["two-parts", "two-parts:no_bias"]
    with pytest.raises(UserError, match="did you mean 'two-parts:no_bias'"):
        shown("--models", "two-parts:no_bais")


def test_the_figure_of_an_ablation_is_drawn_again_with_other_metrics(ran, tmp_path):
    done = call("figure", "ablation", str(TWO_PARTS), "--dataset", "small", "--metrics", "hr@5,MRR,NDCG@10",
                "--out", str(tmp_path))  # fmt: skip
    assert done.exit_code == 0 and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UserError, match="no figure of HR: "):
        call("figure", "ablation", str(TWO_PARTS), "--dataset", "small", "--metrics", "HR")
    with pytest.raises(UserError, match="first: bench ablate .*two_parts.py"):
        call("figure", "ablation", str(TWO_PARTS), "--dataset", "other")


def test_only_cells_run_on_equal_terms_stand_in_one_ablation(ran):
    entries = members(str(TWO_PARTS))
    records = Store(ran[0]).records()
    assert fitting(records, entries)[1] == []
    for record in records:
        if record.cell.model == "two-parts:no_bias":
            record.cell = replace(record.cell, options={**record.cell.options, "learning_rate": 0.1})
    kept, missing = fitting(records, entries)
    assert missing == ["two-parts:no_bias"] and len(kept) == 4
    for record in records:
        if record.cell.model == "two-parts":
            record.cell = replace(record.cell, epochs=7)
    with pytest.raises(UserError, match="no variant was run with the code, limits and options"):
        fitting(records, entries)


def test_a_training_is_found_by_a_prefix_of_its_key_or_of_its_folder(ran, tmp_path):
    (record,) = Store(ran[0]).records(model="two-parts", seed=1)
    for run in (record.key, record.key[:8], "two-parts-seed1"):
        done = call("figure", "diagnostics", "--run", run, "--out", str(tmp_path))
        assert done.exit_code == 0 and f"diagnostics_two-parts-seed1-{record.key[:12]}.png" in done.stdout
    with pytest.raises(UserError, match="--run two-parts_no: 4 cells begin so; give more of the key"):
        call("figure", "diagnostics", "--run", "two-parts_no")
    wrong = record.key[:11] + ("0" if record.key[11] != "0" else "1")
    with pytest.raises(UserError, match=f"no finished cell of this key .* did you mean '{record.key[:12]}'"):
        call("figure", "diagnostics", "--run", wrong)


def test_the_record_holds_what_the_model_shows_of_the_validation_users(ran):
    (record,) = Store(ran[0]).records(model="two-parts", seed=0)
    shown = record.outcome.extra["diagnostics"]
    # of 12 events, a favor each third, 8 stand before the last favor but one: six clicks, two favors
    assert shown["gates"]["values"] == [[0.75, 0.25], [0.25, 0.75]]
    assert shown["length"]["values"] == [[None], [8.0]]
    assert shown["gates"]["rows"] == ["click", "favor"] and shown["length"]["unit"] == "events"


def test_batches_count_by_their_users_and_nan_does_not_count():
    def shown(*values: float) -> Diagnostic:
        return Diagnostic("t", torch.tensor([values]), ("row",), ("a", "b"))

    nan = float("nan")
    found = average([(3, "x", shown(1.0, nan)), (1, "x", shown(5.0, 7.0))])
    assert found["x"]["values"] == [[2.0, 7.0]]
    assert average([(3, "x", shown(nan, 1.0))])["x"]["values"] == [[None, 1.0]]
    with pytest.raises(ValueError, match="diagnostic 'x': a value is infinite"):
        average([(1, "x", shown(float("inf"), 0.0))])
    with pytest.raises(ValueError, match="labels differ between batches"):
        average([(1, "x", shown(1.0, 2.0)), (1, "x", Diagnostic("t", torch.ones(1, 2), ("r",), ("a", "b")))])
    with pytest.raises(ValueError, match="labels"):
        Diagnostic("t", torch.ones(2, 1), ("row",), ("a", "b"))


def test_a_fault_in_the_diagnostics_costs_the_figure_and_not_the_cell(ran, tmp_path):
    text = TWO_PARTS.read_text().replace("two-parts", "faulty").replace("seen = batch.", "seen = batch.un")
    (tmp_path / "faulty.py").write_text(text)
    done = call("run", "--models", str(tmp_path / "faulty.py"), "--dataset", "small", "--seeds", "1",
                "--epochs", "1", "--results", str(tmp_path / "results"))  # fmt: skip
    (record,) = Store(tmp_path / "results").records()
    assert done.exit_code == 0 and record.status == "done"
    extra = record.outcome.extra
    assert "AttributeError" in extra["diagnostics_error"] and "diagnostics" not in extra


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["popularity"], "popularity: its card declares no variants"),
        (["heuristic"], "heuristic: an ablation takes one model; choose one of"),
        (["sasrek"], "did you mean 'sasrec'"),
        ([f"{TWO_PARTS}:no_bias"], "a variant; give its model: .*two_parts.py --variants no_bias"),
        ([str(TWO_PARTS), "--variants", "no_bais"], "no such variant of two-parts; did you mean 'no_bias'"),
        ([str(TWO_PARTS), "--variants", ","], "no variant chosen; known: no_bias, no_move"),
    ],
)
def test_a_wrong_model_or_variant_is_one_line(words, message):
    with pytest.raises(UserError, match=message) as error:
        call("ablate", *words, "--dataset", "small")
    assert "\n" not in str(error.value)


def test_some_variants_can_be_picked():
    assert [entry.card.name for entry in members(str(TWO_PARTS), "no_bias")] == [
        "two-parts",
        "two-parts:no_bias",
    ]


def test_the_help_is_light():
    for words in (["ablate", "--help"], ["figure", "--help"], ["figure", "diagnostics", "--help"]):
        text, _ = fresh_python(WATCHED, *words)
        assert not HEAVY & set(text.partition("MODULES ")[2].split())
