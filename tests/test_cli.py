import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from bench import cli
from bench.contract import CHECKS
from bench.data import library
from bench.errors import UserError
from bench.experiments import grid
from bench.experiments.store import Store

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "tests" / "files" / "newest_item.py"
HEAVY = {"torch", "pandas", "sklearn", "matplotlib", "optuna", "scipy"}


def call(*words: str):
    return CliRunner().invoke(cli.app, list(words), catch_exceptions=False)


def run_main(monkeypatch, *words: str):
    """Run `main` as the installed command does; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def fresh_python(code: str, *words: str) -> tuple[str, float]:
    """Run code in a new interpreter; return its stdout and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


WATCHED = """
import sys
from bench.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("MODULES", *sys.modules)
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["models"], ["models", "--json"]])
def test_help_and_listings_import_nothing_heavy_and_answer_at_once(words):
    text, seconds = fresh_python(WATCHED, *words)
    assert not HEAVY & set(text.partition("MODULES ")[2].split())
    assert seconds < 2  # half a second on a machine of one's own


def test_run_prints_writes_and_stores_a_table(place):
    done = call(
        "run", "--models", f"popularity,{EXAMPLE}", "--dataset", "small", "--seeds", "2", "--epochs", "3"
    )
    assert done.exit_code == 0, done.output
    assert "NewestItem" in done.stdout and "SIMULATED" in done.stdout and "at most 3 epochs" in done.stdout
    assert len(Store(place / "results").records(status="done")) == 4
    written = sorted(path.name for path in (place / "results" / "tables").iterdir())
    assert written == [f"table_small_uniform99.{ending}" for ending in ("csv", "json", "md", "tex")]


def test_the_smallest_example_of_the_docs_learns_and_beats_the_chance_level(place):
    done = call(
        "run", "--models", str(EXAMPLE), "--dataset", "small", "--set", "newest-item.hidden_size=64", "--json"
    )
    found = json.loads(done.stdout)
    (row,) = found["rows"]
    assert row["options"] == {"hidden_size": 64}
    assert row["metrics"]["HR@10"]["mean"] > 3 * found["chance"]["HR@10"]


def test_the_examples_of_the_docs_are_the_tested_files():
    models = (ROOT / "docs" / "extending-models.md").read_text(encoding="utf-8")
    data_sets = (ROOT / "docs" / "extending-data-sets.md").read_text(encoding="utf-8")
    files = {"newest_item": models, "fpmc": models, "tiny_shop": data_sets}
    for name, page in files.items():
        assert (ROOT / "tests" / "files" / f"{name}.py").read_text(encoding="utf-8") in page


def test_a_finished_table_is_printed_without_torch_and_without_running_again(place, monkeypatch):
    words = ("run", "--models", "popularity,random", "--dataset", "small", "--seeds", "2", "--json")
    first = json.loads(call(*words).stdout)
    text, seconds = fresh_python(WATCHED, *words)
    table, _, modules = text.partition("MODULES ")
    assert json.loads(table) == first
    assert not HEAVY & set(modules.split())
    assert seconds < 3


def test_fresh_runs_again(place):
    words = ("run", "--models", "popularity", "--dataset", "small", "--seeds", "1")
    call(*words)
    (before,) = Store(place / "results").records()
    call(*words)
    assert Store(place / "results").records()[0].finished_at == before.finished_at
    call(*words, "--fresh")
    assert Store(place / "results").records()[0].finished_at > before.finished_at


def test_a_failed_cell_is_a_row_and_exit_code_1_and_the_others_are_kept(place, tmp_path):
    broken = tmp_path / "broken.py"
    text = EXAMPLE.read_text().replace("newest-item", "broken").replace("    def loss", "    def lost")
    broken.write_text(text)
    done = call("run", "--models", f"popularity,{broken}", "--dataset", "small", "--json")
    assert done.exit_code == 1
    rows = {row["model"]: row for row in json.loads(done.stdout)["rows"]}
    assert (rows["popularity"]["status"], rows["broken"]["status"]) == ("done", "failed")
    assert "no loss" in rows["broken"]["reason"]


def test_protocol_and_training_options_reach_the_run(place, monkeypatch):
    seen = {}

    def record(plan, store, **rest):
        seen.update(locals())
        raise UserError("enough seen")

    monkeypatch.setattr(grid, "run_grid", record)
    with pytest.raises(UserError, match="enough seen"):
        call(
            "run", "--dataset", "small", "--models", "heuristic", "--protocol", "full", "--max-minutes", "2",
            "--seeds", "3", "--jobs", "2", "--set", "protocol.history=target", "--set", "data.min_events=3",
            "--set", "training.evaluation_batch=8", "--device", "cpu",
        )  # fmt: skip
    plan = seen["plan"]
    assert (plan.protocol.candidates, plan.protocol.history) == ("full", "target")
    assert dataclasses.astuple(plan.training) == (None, 2.0, None, "cpu", 8, False)
    assert (plan.dataset, plan.data, plan.seeds) == ("small", {"min_events": "3"}, (0, 1, 2))
    assert {entry.card.family for entry in plan.models} == {"heuristic"}
    assert seen["store"].root == place / "results" and seen["rest"] == {"jobs": 2, "fresh": False}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--dataset", "small", "--models", "sasrek"], "did you mean 'sasrec'"),
        (
            ["run", "--dataset", "small", "--protocol", "uniform"],
            "expected one of uniform99, popular99, full",
        ),
        (
            ["run", "--dataset", "small", "--max-minutes", "0"],
            "max_minutes = 0.0: expected a number or null, above 0",
        ),
        (["run", "--dataset", "small", "--set", "epochs"], "expected key=value"),
        (["run", "--dataset", "small", "--set", "training.epoch=1"], "did you mean 'epochs'"),
        (["models", "sasrek"], "did you mean 'sasrec'"),
        (["table", "--dataset", "small"], "holds no cell of small"),
        (["data", "check", "smal"], "did you mean 'small'"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(place, monkeypatch, capsys, words, message):
    assert run_main(monkeypatch, *words) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("words", [["--debug", "models", "sasrek"], ["models", "sasrek", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(UserError, match="no model 'sasrek'"):
        cli.main()


def test_an_unknown_option_or_command_is_exit_code_2(monkeypatch, capsys):
    assert run_main(monkeypatch, "run", "--modls", "all") == 2
    assert run_main(monkeypatch, "rum") == 2
    assert "No such option" in capsys.readouterr().err


def test_an_interruption_is_one_line_and_exit_code_130(place, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "run_grid", interrupt)
    assert run_main(monkeypatch, "run", "--dataset", "small", "--models", "random") == 130
    assert "finished cells are kept" in capsys.readouterr().err


def test_the_version_is_printed():
    assert call("--version").stdout.startswith("bench 0.")


def test_the_table_is_printed_from_the_store_in_every_form(place):
    call("run", "--models", "popularity,random", "--dataset", "small")
    assert "| Random" in call("table", "--format", "markdown").stdout
    assert r"\begin{tabular}" in call("table", "--format", "latex").stdout
    assert call("table", "--format", "csv", "--dataset", "small").stdout.startswith("model,label,")
    assert "Popularity" in call("table").stdout
    found = json.loads(call("table", "--json", "--metrics", "hr@5,MRR", "--models", "random").stdout)
    assert [row["model"] for row in found["rows"]] == ["random"]
    assert set(found["rows"][0]["metrics"]) == {"HR@5", "MRR"}


def test_the_store_refuses_what_it_does_not_hold(place):
    call("run", "--models", "popularity", "--dataset", "small")
    for words, message in (
        (["--protocol", "full"], "holds no cell of full"),
        (["--models", "sasrec"], "no such model or family in the store"),
        (["--metrics", "HR"], "expected HR@K, NDCG@K or MRR"),
    ):
        with pytest.raises(UserError, match=message):
            call("table", *words)


def test_a_table_never_mixes_candidates(place):
    call("run", "--models", "popularity,random", "--dataset", "small")
    call("run", "--models", "random", "--dataset", "small", "--set", "protocol.candidates_seed=1")
    rows = json.loads(call("table", "--json").stdout)["rows"]
    assert [row["model"] for row in rows] == ["random"]


def test_models_are_listed_with_their_papers():
    found = json.loads(call("models", "--json").stdout)
    sasrec = next(row for row in found if row["name"] == "sasrec")
    assert set(sasrec) == {"name", "label", "family", "paper", "year"} and sasrec["year"] == 2018


def test_a_card_shows_options_with_their_doc_lines():
    text = call("models", str(EXAMPLE)).stdout
    for part in (
        "NewestItem (newest-item), sequential",
        "Inputs: item ids",
        "Deviations: none known",
        "Of Adam.",
    ):
        assert part in text
    found = json.loads(call("models", str(EXAMPLE), "--json").stdout)
    assert found["options"]["hidden_size"] == {"value": 32, "doc": "D."}


def test_data_sets_are_listed_with_what_is_prepared(place):
    rows = {row["name"]: row for row in json.loads(call("data", "list", "--json").stdout)}
    assert rows["small"]["prepared"] and not rows["small"]["real"]
    assert rows["ml-100k"]["real"] and not rows["ml-100k"]["prepared"] and rows["ml-100k"]["licence"]
    assert "small" in call("data", "list").stdout


def test_statistics_are_those_of_the_data_set(place):
    by_name = json.loads(call("data", "stats", "small", "--json").stdout)
    assert (by_name["name"], by_name["users"]) == ("small", 30)
    assert json.loads(call("data", "stats", str(library.home() / "small"), "--json").stdout) == by_name
    assert "30" in call("data", "stats", "small").stdout


def test_check_is_silent_on_sound_data_and_exits_with_2_on_a_fault(place):
    assert call("data", "check", "small").exit_code == 0
    path = library.home() / "small" / "events.parquet"
    events = pl.read_parquet(path)
    events.with_columns(pl.lit(9999, pl.Int32).alias("item")).write_parquet(path)
    done = call("data", "check", "small")
    assert done.exit_code == 2 and "events.parquet" in done.stdout


def test_the_doctor_names_versions_extras_and_folders(place):
    text = call("doctor").stdout
    for part in ("torch", "numpy", "extra [clip]", "cpu", "BENCH_DATA", "BENCH_RESULTS", "GiB free"):
        assert part in text


def test_the_contract_tests_run_on_a_file_of_ones_own(tmp_path):
    done = call("test", str(EXAMPLE))
    assert (
        done.exit_code == 0 and done.stdout.count("newest-item") == len(CHECKS) and "Error" not in done.stdout
    )
    wrong = EXAMPLE.read_text(encoding="utf-8").replace("squeeze(2)", "squeeze(2).cumsum(1)")
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    done = call("test", str(tmp_path / "wrong.py"))
    assert done.exit_code == 1 and "order of candidates" in done.stdout and "AssertionError" in done.stdout


def test_a_tilde_in_the_results_folder_is_the_home_folder(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    for words in (["--results", "~/mine"], []):
        monkeypatch.setenv("BENCH_RESULTS", "~/told")
        call("run", "--models", "popularity", "--dataset", "small", "--seeds", "1", *words)
    assert (place / "mine" / "cells").is_dir() and (place / "told" / "cells").is_dir()


def test_a_folder_that_cannot_be_written_is_one_line(place, monkeypatch, capsys):
    (place / "results").write_text("a file")
    assert run_main(monkeypatch, "run", "--models", "popularity", "--dataset", "small") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_notes_of_a_model_are_printed_on_request(place, monkeypatch, capsys):
    assert "What was measured of M3BSR" in call("models", "m3bsr", "--notes").output
    assert "Measured: bench models m3bsr --notes" in call("models", "m3bsr").output
    assert run_main(monkeypatch, "models", "popularity", "--notes") == 2
    assert "popularity: no notes lie beside" in capsys.readouterr().err


def test_a_dry_run_shows_what_is_found_and_missing_and_runs_nothing(place):
    words = ["run", "--dataset", "small", "--models", "heuristic", "--seeds", "1", "--jobs", "1"]
    first = call(*words, "--dry-run", "--max-minutes", "2")
    assert first.exit_code == 0 and first.stdout.count("missing") == 4
    assert "4 cells to run, 1 at a time: at most 8 minutes" in first.stdout
    assert not Store(place / "results").records()
    assert call(*words).exit_code == 0
    again = call(*words, "--dry-run")
    assert again.stdout.count("found") == 5 and "4 of 4 cells found" in again.stdout  # four rows and the line
    assert call(*words, "--dry-run", "--fresh").stdout.count("missing") == 4
