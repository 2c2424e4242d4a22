"""Sweeps: what an objective may see, trials found again, pruning, workers, killed ones, presets."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data.protocol.blind import without_test
from bench.errors import UserError
from bench.experiments import sweep
from bench.experiments.grid import open_plan
from bench.experiments.plan import Plan, make_plan
from bench.experiments.presets import presets, write_preset
from bench.experiments.store import Store
from bench.experiments.study import FINISHED, Tuning, open_study, without_password
from bench.experiments.sweep import finished_trials, space_of, tune, validation_of
from bench.registry import select
from tests.processes import Command

SMALL = ["data.users=120", "data.items=200", "data.events_per_user=10"]
WORDS = [part for pair in SMALL for part in ("--set", pair)]


def plan_of(model: str = "nmtr", *settings: str, **limits: object) -> Plan:
    return make_plan(
        "synthetic", select(model), settings=[*SMALL, *settings], seeds=1, **{"epochs": 1, **limits}
    )


def silent(text: str) -> None:
    pass


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))


def test_without_its_test_part_a_task_ends_at_the_validation_events() -> None:
    whole = open_plan(plan_of())
    task = without_test(whole)
    events, left = whole.interactions, task.interactions
    assert not len(task.split.test) and not len(task.test.negatives)
    assert np.array_equal(task.dataset.interactions.item, left.item)
    for user in range(events.num_users):
        own = slice(events.offsets[user], events.offsets[user + 1])
        kept = slice(left.offsets[user], left.offsets[user + 1])
        held = whole.split.validation[whole.held_users(whole.split.validation) == user]
        stop = held[0] + 1 if len(held) else whole.split.train_end[user]
        assert np.array_equal(left.item[kept], events.item[own.start : stop])
        assert left.offsets[user] + whole.split.train_end[user] - own.start == task.split.train_end[user]
    assert np.array_equal(left.item[task.split.validation], events.item[whole.split.validation])
    assert np.array_equal(left.timestamp[task.split.validation], events.timestamp[whole.split.validation])
    assert task.candidates_hash == whole.candidates_hash


def test_no_test_event_is_reachable_from_an_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test event in anything that a trial is given, or a test rank in what it leaves, would be found."""
    plan, seen = plan_of(), []
    whole = open_plan(plan)
    original = sweep.run_cell

    def watched(cell, entry, task, training, store, watcher):  # type: ignore[no-untyped-def]
        seen.append(task)
        return original(cell, entry, task, training, store, watcher)

    monkeypatch.setattr(sweep, "run_cell", watched)
    tuned = tune(plan, plan.models[0], Store(tmp_path), Tuning(2), silent)
    assert seen and tuned.trials == 2
    for task in seen:
        for log in (task.interactions, task.dataset.interactions):
            users = whole.held_users(whole.split.test)
            for user, test in zip(users, whole.split.test, strict=True):
                left = log.offsets[user + 1] - log.offsets[user]
                assert left <= test - whole.interactions.offsets[user]
        assert not len(task.split.test)
    for path in (tmp_path / "sweeps").glob("*/cells/*/*/ranks.npz"):
        with np.load(path) as arrays:
            assert not len(arrays["test_rank"]) and len(arrays["validation_rank"])


def test_the_space_is_the_card_s_with_the_default_among_it_less_what_the_user_set() -> None:
    plan = plan_of()
    entry = plan.models[0]
    space, default = space_of(entry, plan)
    assert set(space) == set(entry.card.search) and all(default[name] in space[name] for name in space)
    name = next(iter(space))
    assert (
        name not in space_of(entry, plan_of("nmtr", f"{name}={default[name]}"))[0]
    )  # also where it is usual
    with pytest.raises(UserError, match="its card declares none"):
        space_of(select("popularity")[0], plan)
    everything = (f"nmtr.{name}={values[0]}" for name, values in space.items())
    with pytest.raises(UserError, match="all of it is set by --set"):
        space_of(entry, plan_of("nmtr", *everything))


def test_trials_are_kept_counted_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store, ran = plan_of(), Store(tmp_path), []
    original = sweep.run_cell

    def counted(*given):  # type: ignore[no-untyped-def]
        ran.append(given[0].key)
        return original(*given)

    monkeypatch.setattr(sweep, "run_cell", counted)
    lines: list[str] = []
    assert finished_trials(plan, plan.models[0], store, Tuning(2)) == 0 and not (tmp_path / "sweeps").exists()
    first = tune(plan, plan.models[0], store, Tuning(2), lines.append)
    assert finished_trials(plan, plan.models[0], store, Tuning(9)) == 2
    assert len(ran) == 2 and len(lines) == 2 and lines[1].startswith("[2/2]")
    more = tune(plan, plan.models[0], store, Tuning(3), lines.append)
    assert len(lines) == 3 and more.trials == 3 and more.value >= first.value
    assert tune(plan, plan.models[0], store, Tuning(3), lines.append) == more and len(lines) == 3
    before = len(ran)
    for database in tmp_path.glob("sweeps/*/*.db"):  # the trials are forgotten, their cells are not
        database.unlink()
    again = tune(plan, plan.models[0], store, Tuning(2), silent)
    assert len(ran) == before and again.options == first.options and again.value == first.value


def test_the_first_trial_is_the_default_and_the_best_is_the_best_of_validation(tmp_path: Path) -> None:
    plan = plan_of()
    tuned = tune(plan, plan.models[0], Store(tmp_path), Tuning(3, sampler="random"), silent)
    records = Store(tmp_path / "sweeps" / tuned.dataset).records()
    values = {
        json.dumps(record.cell.as_dict()["options"], sort_keys=True): validation_of(record)
        for record in records
    }
    assert tuned.value == pytest.approx(max(values.values()))
    _, default = space_of(plan.models[0], plan)
    own = json.dumps({**plan.models[0].card.options, **default}, sort_keys=True)
    assert tuned.default == pytest.approx(values[own])


def test_a_pruned_training_ends_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    plan = plan_of(epochs=6)
    task = without_test(open_plan(plan))
    store = Store(tmp_path)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=2.0))
    cell = sweep.make_cell(task, plan.models[0], {}, plan.training, 0)
    with pytest.raises(optuna.TrialPruned):
        sweep.value_of(cell, plan.models[0], task, plan, store, study.ask())
    (record,) = store.records()
    assert record.status == "failed" and "pruned after 1 epochs" in record.reason
    assert not list(tmp_path.glob("checkpoints/*"))


def test_other_data_and_limits_are_other_studies(tmp_path: Path) -> None:
    one = tune(plan_of(), plan_of().models[0], Store(tmp_path), Tuning(1), silent)
    other = tune(plan_of(epochs=2), plan_of().models[0], Store(tmp_path), Tuning(1), silent)
    assert one.study != other.study


def test_a_storage_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--storage nonsense.* expected an Optuna URL"):
        open_study("nonsense://x", "study", Tuning(1), {"a": (1, 2)})
    assert without_password("postgresql://user:secret@host/name") == "postgresql://...@host/name"


def test_grid_and_halving_work(tmp_path: Path) -> None:
    others = list(select("nmtr")[0].card.search.items())[1:]
    plan = plan_of("nmtr", *(f"nmtr.{name}={values[0]}" for name, values in others))
    tuning = Tuning(2, sampler="grid", pruner="halving")
    tuned = tune(plan, plan.models[0], Store(tmp_path), tuning, silent)
    assert tuned.trials == 2 and list(tuned.options) == [next(iter(plan.models[0].card.search))]


def test_options_given_by_the_user_win_over_a_preset() -> None:
    usual = space_of(plan_of().models[0], plan_of())[1]["learning_rate"]
    for text in ("0.0003", str(usual)):
        plan = plan_of("nmtr", f"nmtr.learning_rate={text}")
        made = plan.with_presets({"nmtr": {"learning_rate": 0.5, "embedding_size": 16}})
        expected = {} if float(text) == usual else {"learning_rate": float(text)}
        assert made.overrides["nmtr"] == {"embedding_size": 16, **expected}


def test_presets_are_written_and_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    plan = plan_of()
    tuned = tune(plan, plan.models[0], Store(tmp_path), Tuning(1), silent)
    path = write_preset(tmp_path, tuned)
    assert str(tmp_path) not in path.read_text()  # no folder of this machine
    found = presets(tmp_path, tuned.dataset, select("nmtr,popularity"))
    assert list(found) == ["nmtr"] and found["nmtr"].options == tuned.options
    assert "1 trials" in found["nmtr"].words()
    path.write_text("{")
    with pytest.raises(UserError, match="damaged preset"):
        presets(tmp_path, tuned.dataset, select("nmtr"))
    with pytest.raises(UserError, match="holds no preset of these models; first: bench sweep sasrec"):
        presets(tmp_path, tuned.dataset, select("sasrec"))


def test_the_command_and_a_tuned_run(tmp_path: Path) -> None:
    out = tmp_path / "results"
    words = ["--dataset", "synthetic", "--epochs", "1", "--results", str(out), *WORDS]
    shown = CliRunner().invoke(app, ["sweep", "nmtr", "--trials", "5", *words], catch_exceptions=False)
    assert shown.exit_code == 0 and "nmtr" in shown.stdout and "5 (" in shown.stdout
    pictures = {path.name for path in out.glob("figures/*.png")}
    assert any(name.endswith("_history.png") for name in pictures) and len(pictures) == 3
    tuned = ["run", "--models", "nmtr", "--seeds", "1", "--tuned", *words]
    assert "Tuned on validation: nmtr (" in CliRunner().invoke(app, tuned, catch_exceptions=False).stdout
    with pytest.raises(UserError, match="no card of these declares a search space"):
        CliRunner().invoke(app, ["sweep", "popularity", *words], catch_exceptions=False)


def words_of(tmp_path: Path, trials: int, *more: str) -> list[str]:
    words = ["sweep", "nmtr", "--dataset", "synthetic", "--trials", str(trials), "--epochs", "12", *more]
    return [*words, "--pruner", "none", "--results", str(tmp_path / "r"), *WORDS]


def wait_for_a_trial(tmp_path: Path, command: Command, url: str = "") -> None:
    """Wait until a study has a finished trial, or its process has ended."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and command.process.is_alive():
        # a look into the storage is dear; a trial's record lies there before the trial is told
        if next((tmp_path / "r" / "sweeps").rglob("record.json"), None) and finished(tmp_path, url):
            return
        time.sleep(0.05)


def both_workers(tmp_path: Path, words: list[str], url: str = "") -> list[str]:
    """Run the command in another process and, once that has finished a trial, in this one too; return what
    each said on stderr.
    """
    other = Command(words, tmp_path)
    wait_for_a_trial(tmp_path, other, url)
    own = CliRunner().invoke(app, words, catch_exceptions=False)
    done = other.finish()
    said = [done.stderr, own.stderr]
    assert [done.returncode, own.exit_code] == [0, 0], said
    return said


def finished(tmp_path: Path, url: str = "") -> int:
    """Return how many trials the one study of a storage, or of a results folder, has finished."""
    databases = sorted((tmp_path / "r" / "sweeps").glob("*/*.db"))
    for storage in [url] if url else [f"sqlite:///{database}" for database in databases]:
        try:
            (name,) = optuna.get_all_study_names(storage)
            trials = optuna.load_study(study_name=name, storage=storage).trials
            return sum(trial.state in FINISHED for trial in trials)
        except Exception:  # the storage is there before its tables are
            return 0
    return 0


def test_a_sweep_that_is_killed_goes_on_with_what_it_had(tmp_path: Path) -> None:
    command = Command(words_of(tmp_path, 4), tmp_path)
    wait_for_a_trial(tmp_path, command)
    command.process.kill()
    assert command.finish().returncode == -signal.SIGKILL
    before = finished(tmp_path)
    assert before >= 1
    done = CliRunner().invoke(app, words_of(tmp_path, 4), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("validation NDCG@10") == 4 - before  # nothing that was finished ran again
    assert finished(tmp_path) == 4


def test_two_workers_share_the_trials(tmp_path: Path) -> None:
    open_plan(plan_of())  # prepared once: two processes need not do it side by side
    said = both_workers(tmp_path, words_of(tmp_path, 8))
    assert 8 <= finished(tmp_path) <= 9  # the other one may be in the middle of a trial at the end
    assert all("validation NDCG@10" in text for text in said), said


@pytest.fixture
def postgres() -> Iterator[str]:
    """Give the URL of an empty PostgreSQL database of its own, that runs for the test alone."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL; install the extra [postgres]")
    folders = [Path(found).parent for found in [shutil.which("initdb")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("no PostgreSQL server here; on Debian: apt install postgresql")
    binaries = folders[-1]
    root = Path(tempfile.mkdtemp(prefix="pg"))
    root.chmod(0o755)
    as_user = {}
    if os.getuid() == 0:  # the server refuses to run as root
        as_user = {"user": "nobody"}
        os.chown(root, pwd.getpwnam("nobody").pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": root, **as_user}
    made = [binaries / "initdb", "-D", root / "data", "-U", "tester", "-A", "trust", "--no-sync"]
    subprocess.run([str(part) for part in made], check=True, **quiet)
    words = ["-D", str(root / "data"), "-p", str(port), "-k", str(root), "-h", "127.0.0.1", "-F"]
    server = subprocess.Popen([str(binaries / "postgres"), *words], **quiet)
    url = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                optuna.get_all_study_names(url)
                break
            except Exception:
                time.sleep(0.2)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def test_two_workers_share_the_trials_on_postgresql(tmp_path: Path, postgres: str) -> None:
    open_plan(plan_of())
    said = both_workers(tmp_path, words_of(tmp_path, 8, "--storage", postgres), postgres)
    assert 8 <= finished(tmp_path, postgres) <= 9
    assert all("validation NDCG@10" in text for text in said), said
    preset = json.loads(next((tmp_path / "r" / "presets").glob("*/nmtr.json")).read_text())
    assert "tester" not in preset["storage"] and preset["storage"].endswith("/postgres")
