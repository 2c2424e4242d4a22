"""`bench new dataset`, `bench test dataset` and a data set of an installed package, as a user meets them."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UserError
from bench.terminal import complete_readers

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "home"


def command(*words: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `path` goes in front of its import path."""
    entries = os.pathsep.join(filter(None, [path, str(ROOT)]))
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": entries},
    )  # fmt: skip


def called(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def refused(*words: str | Path) -> str:
    with pytest.raises(UserError) as error:
        called(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_new_data_set_is_tested_prepared_and_run_by_the_printed_commands(tmp_path: Path) -> None:
    folder = tmp_path / "with blank"
    written = called("new", "dataset", "my-set", "--out", folder)
    path, raw = folder / "my_set.py", folder / "my_set_raw"
    assert written.exit_code == 0 and sorted(p.name for p in raw.iterdir()) == [
        "SIMULATED.json", "events.csv", "items.csv",
    ]  # fmt: skip
    assert len(path.read_text().splitlines()) < 80 and 'name="my-set"' in path.read_text()
    commands = [line.partition(" by: ")[2] for line in written.stdout.splitlines() if " by: " in line]
    test, prepare, run = (shlex.split(line) for line in commands)
    assert test == ["bench", "test", "dataset", str(path), "--raw", str(raw)]
    assert prepare == ["bench", "data", "prepare", str(path), "--raw", str(raw)]
    for words in (test, prepare):
        assert called(*words[1:]).exit_code == 0, words
    done = called(*run[1:], "--jobs", "2")
    assert done.exit_code == 0, (run, done.stdout, done.stderr)
    assert "SIMULATED" in done.stdout and "SASRec" in done.stdout and "Popularity" in done.stdout
    assert (tmp_path / "results" / "tables" / "table_my-set_uniform99.csv").is_file()
    taken = refused("new", "dataset", "my-set", "--out", tmp_path)
    assert "a prepared data set of this name lies in" in taken


@pytest.mark.parametrize(
    ("name", "message"),
    [("My Set", "expected lower-case"), ("taobao", "is there already"), ("class", "a word of Python")],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, message: str) -> None:
    assert message in refused("new", "dataset", name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["mine.py", "mine_raw"])
def test_what_is_there_is_not_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("x = 1")
    assert f"{there}: is there already" in refused("new", "dataset", "mine", "--out", tmp_path)
    assert (tmp_path / there).read_text() == "x = 1" and len(list(tmp_path.iterdir())) == 1


def test_a_fault_is_a_line_of_the_table_and_exit_code_1(tmp_path: Path) -> None:
    called("new", "dataset", "mine", "--out", tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("on_bad_row=options.on_bad_row", 'on_bad_row="skip"'))
    done = called("test", "dataset", path, "--raw", tmp_path / "mine_raw")
    assert done.exit_code == 1 and done.stdout.count("mine ") > 15
    words = " ".join(done.stdout.split())
    assert "a malformed row is refused" in words and "saw no word of it" in words


def test_raw_files_are_simulated_where_they_can_be(tmp_path: Path) -> None:
    done = called("test", "dataset", "rec_tmall")
    assert done.exit_code == 0 and "events and touched items; SIMULATED" in done.stdout
    assert "tianchi_2014002_rec_tmall_log_parta.txt" in done.stdout


def test_options_of_the_reader_are_taken(tmp_path: Path) -> None:
    rows = [f"{u},{n},{('see', 'buy')[n % 2]},{1_600_000_000 + n}" for u in range(9) for n in range(8)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,behavior,timestamp", *rows]) + "\n")
    done = called("test", "dataset", "table", "--raw", tmp_path / "events.csv", "--set", "behaviors=see,buy")
    assert done.exit_code == 0 and "see -> buy" in done.stdout
    assert "an empty folder alone" in done.stdout


def test_what_cannot_be_tested_is_one_line(tmp_path: Path) -> None:
    said = refused("test", "dataset", "taobao")
    assert "UserBehavior.csv" in said and "bench test dataset taobao --raw DIR" in said
    assert "nothing there; expected: UserBehavior.csv" in refused("test", "dataset", "taobao", "--raw", "/no")
    assert "did you mean 'taobao'" in refused("test", "dataset", "taobo")
    assert "no such file; expected a .py file with a Data" in refused("test", "dataset", "mine.py")
    (tmp_path / "UserBehavior.csv").write_text("1,2,3\n")
    assert "row 1: 3 columns in '1,2,3'" in refused("test", "dataset", "taobao", "--raw", tmp_path)
    assert "no option 'favor'" in refused("test", "dataset", "ml-100k", "--set", "favor=3")


def test_a_mistake_in_the_code_of_a_reader_is_the_outcome_of_the_first_check(tmp_path: Path) -> None:
    called("new", "dataset", "mine", "--out", tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("    names = ", "    options.colour\n    names = "))
    done = called("test", "dataset", path, "--raw", tmp_path / "mine_raw")
    words = " ".join(done.stdout.split())
    assert done.exit_code == 1 and "line 51: AttributeError" in words and words.count("mine ") == 1


def test_a_model_is_still_the_first_word(tmp_path: Path) -> None:
    done = called("test", "popularity")
    assert done.exit_code == 0 and "holds" in done.stdout and "popularity" in done.stdout
    for words in (("test", "popularty"), ("test", "model", "popularty")):
        assert "no such model or family; did you mean 'popularity'?" in refused(*words)
    (tmp_path / "dataset.py").write_text("x = 1")
    assert "holds no Card" in refused("test", tmp_path / "dataset.py")


def test_the_help_of_each_form_has_an_example() -> None:
    assert "bench test sasrec" in called("test", "--help").stdout
    assert "bench test dataset path/to/reader.py" in called("test", "--help").stdout
    assert "bench test path/to/model.py" in called("test", "sasrec", "--help").stdout
    assert "bench test dataset my_set.py" in called("test", "dataset", "--help").stdout
    assert "bench new dataset my-set" in called("new", "dataset", "--help").stdout


def test_readers_are_completed() -> None:
    assert complete_readers("tao") == ["taobao"]


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "shop-logs"
version = "1.0"

[project.entry-points."m3bench.datasets"]
shop = "shop_logs"

[tool.setuptools]
py-modules = ["shop_logs"]
"""


def test_a_data_set_of_an_installed_package_is_listed_and_tested(tmp_path: Path) -> None:
    called("new", "dataset", "shop", "--out", tmp_path / "source")
    package, site = tmp_path / "source", tmp_path / "site"
    (package / "shop.py").rename(package / "shop_logs.py")
    (package / "pyproject.toml").write_text(PROJECT)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    done = subprocess.run(
        [*install, "--target", str(site), str(package)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(command("data", "list", "--json", path=str(site)).stdout)
    assert [row["title"][:6] for row in listed if row["name"] == "shop"] == ["Shop: "]
    tested = command("test", "dataset", "shop", "--raw", package / "shop_raw", path=str(site))
    assert tested.returncode == 0 and "holds: 900 rows" in tested.stdout, tested.stdout + tested.stderr
    assert "no data set of this name" in refused("test", "dataset", "shop")
