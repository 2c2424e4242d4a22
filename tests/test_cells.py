"""`bench ls`, `bench rm`, `bench env`, `bench new` and completion, as a user meets them."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bench
from bench.cli import app
from bench.data import library
from bench.experiments.store import Store
from bench.registry import select
from bench.terminal import complete_datasets, complete_models
from tests.processes import Command


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells of two models on a small data set."""
    folder = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(folder / "data"))
        sizes = {"users": 120, "items": 220, "events_per_user": 12}
        library.prepare_named("synthetic", raw=None, name="tiny", overrides=sizes)
        bench.run("tiny", "popularity,random", seeds=2, jobs=1, progress=False, results=folder / "results")
    return folder / "results"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        return Command(words, Path(folder)).finish()


def test_cells_are_listed_with_filters(results: Path) -> None:
    rows = json.loads(command("ls", "--results", str(results), "--json").stdout)
    assert [(row["model"], row["seed"], row["status"]) for row in rows] == [
        ("popularity", 0, "done"), ("popularity", 1, "done"), ("random", 0, "done"), ("random", 1, "done"),
    ]  # fmt: skip
    assert all(row["dataset"] == "tiny" and len(row["key"]) == 12 for row in rows)
    some = command("ls", "--results", str(results), "--models", "pop*", "--status", "done").stdout
    assert "cells: 2" in some and "random" not in some
    assert "cells: 0" in command("ls", "--results", str(results), "--status", "failed").stdout
    wrong = command("ls", "--results", str(results), "--status", "broken")
    assert wrong.returncode == 2 and "expected done or failed" in wrong.stderr


def test_cells_are_removed_after_a_question_or_with_yes(results: Path) -> None:
    cell = Store(results).records(dataset="tiny", model="random")[0]
    where = ("--results", str(results), "--key", cell.key[:12])
    asked = command("rm", *where)
    assert asked.returncode == 2 and "give --yes" in asked.stderr and "random  seed 0" in asked.stdout
    assert len(Store(results).records()) == 4
    checkpoint = Store(results).checkpoint_path(cell.key)
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"state")
    done = command("rm", *where, "--yes")
    assert done.returncode == 0 and "cells removed: 1" in done.stdout
    left = [(record.cell.model, record.cell.seed) for record in Store(results).records()]
    assert left == [("popularity", 0), ("popularity", 1), ("random", 1)] and not checkpoint.exists()
    assert "nothing to remove" in command("rm", *where, "--yes").stdout
    bare = command("rm", "--results", str(results))
    assert bare.returncode == 2 and "which cells?" in bare.stderr


def test_env_names_versions_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = command("env").stdout
    assert text.startswith("```") and "torch: " in text and "commit: " in text
    assert str(Path.home()) not in text and "BENCH_DATA" not in text


def test_a_new_model_passes_the_contract_and_stands_in_a_table(tmp_path: Path) -> None:
    written = command("new", "model", "my-model", "--out", str(tmp_path))
    path = tmp_path / "my_model.py"
    assert written.returncode == 0 and f"bench test {path}" in written.stdout
    assert len(path.read_text().splitlines()) < 80
    assert CliRunner().invoke(app, ["test", str(path)]).exit_code == 0
    (entry,) = select(str(path))
    assert (entry.card.name, entry.card.label) == ("my-model", "MyModel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(tmp_path / "data"))
        sizes = {"users": 120, "items": 220, "events_per_user": 12}
        library.prepare_named("synthetic", raw=None, name="tiny", overrides=sizes)
        given = {"seeds": 1, "epochs": 2, "jobs": 1, "progress": False, "results": tmp_path / "results"}
        found = bench.run("tiny", f"popularity,{path}", **given)
    assert [row.status for row in found.rows] == ["done", "done"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("My Model", "expected lower-case"), ("sasrec", "is there already"), ("class", "a word of Python"),
     ("a--b", "expected lower-case")],
)  # fmt: skip
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, message: str) -> None:
    done = command("new", "model", name, "--out", str(tmp_path))
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1")
    done = command("new", "model", "mine", "--out", str(tmp_path))
    assert done.returncode == 2 and "is there already" in done.stderr
    assert (tmp_path / "mine.py").read_text() == "x = 1"


def test_models_and_data_sets_are_completed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert "gru4rec,sasrec" in complete_models("gru4rec,sas") and "multimodal" in complete_models("multi")
    assert complete_datasets("syn") == ["synthetic"] and "kuaishou" not in complete_datasets("")
