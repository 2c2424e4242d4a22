"""Every command of README and docs is run: on small data, for one epoch, each in a folder of its own."""

import os
import shutil
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench import cli
from tests.docs import world
from tests.docs.documented import commands, mentions, python_blocks, words_of

PARSED_ALONE = {
    "bench --install-completion": "it changes the start-up file of the shell",
    "bench data prepare movielens --raw ml-latest-small --name films --encoder ViT-B-32 "
    "--set clip_weights=ViT-B-32.pt": "it needs a checkpoint that the reader brings",
}
"""Commands that are not run, with the reason."""
RECBOLE = (
    "popularity,item-knn,gru4rec,sasrec,bert4rec,m3bsr,recbole:BPR,recbole:EASE,recbole:ItemKNN,"
    "recbole:NeuMF,recbole:SimpleX,recbole:FPMC,recbole:TransRec,recbole:FOSSIL,recbole:STAMP,recbole:HGN"
)
"""Models of the table beside RecBole's."""
FIRST = "bench run --models all --dataset ml-100k --max-minutes 2 --seeds 1"
"""The first command of the README."""
EXITS = {"bench audit": {1}, "bench audit results/tables/table_ml-100k_uniform99.csv": {0, 1}}
"""Commands that tell of faults by their exit code: the paper's tables have some, and a model that was trained
for one epoch on 40 users may be below chance."""
FEWER = {
    "all": "popularity,gru4rec,nmtr,m3bsr",
    "multimodal,m3bsr": "missrec,m3bsr",
    RECBOLE: "popularity,recbole:EASE,recbole:FPMC",
}
"""Models of a command -> those that are trained for the test; that `all` can be chosen a dry run shows."""
LIMITS = ("--seeds", "--epochs", "--max-minutes", "--total-minutes", "--jobs", "--trials", "--scale", "--out")
"""Options that are replaced by smaller ones."""
SMALL = ("--set", "data.users=100", "--set", "data.items=200", "--set", "data.events_per_user=10")
"""Added where generated data are used."""
ADDED = {
    "run": ("--seeds", "1", "--epochs", "1", "--jobs", "1"),
    "ablate": ("--seeds", "1", "--epochs", "1", "--jobs", "1"),
    "stress": ("--seeds", "1", "--epochs", "1", "--jobs", "1"),
    "heatmap": ("--epochs", "1", "--jobs", "1"),
    "sweep": ("--trials", "1", "--epochs", "1"),
    "time": ("--repeats", "3"),
    "figure embeddings": ("--items", "60", "--seeds", "1"),
    "data simulate": ("--out", "new", "--scale", "0.005"),
    "new model": ("--out", "new"),
    "new dataset": ("--out", "new"),
}
"""Command -> what is put in the place of its limits."""

TRAINS = ("run", "ablate", "stress", "heatmap", "sweep", "time")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of the small files, with prepared data and finished cells."""
    folder = tmp_path_factory.mktemp("documented")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(folder / "data"))
        patch.setenv("HOME", str(folder))
        patch.delenv("BENCH_RESULTS", raising=False)
        patch.chdir(folder)
        world.build(folder)
        world.train()
        yield folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A folder of one's own with the same files; data and results are copied by hard links."""
    for path in place.iterdir():
        if path.name in ("results", "data"):
            shutil.copytree(path, tmp_path / path.name, copy_function=os.link)
        else:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return tmp_path


root = cache(lambda: typer.main.get_command(cli.app))


def name_of(words: list[str]) -> tuple[str, typer.core.TyperCommand, list[str]]:
    """Return the words that name a command, the command, and the words behind."""
    command, used = root(), 0
    while hasattr(command, "commands") and used < len(words) and words[used] in command.commands:
        command = command.commands[words[used]]
        used += 1
    return " ".join(words[:used]), command, words[used:]


def cut(command: str) -> list[str]:
    """Return the words of a command with smaller limits."""
    name, _, rest = name_of(words_of(command))
    if name == "test dataset" and "synthetic" in rest:
        return [*words_of(command), *(word.replace("data.", "") for word in SMALL)]
    if name not in ADDED or "--dry-run" in rest:
        return words_of(command)
    if "--panel" in rest:  # 25 trainings of the largest model; another heat map is run
        return [*words_of(command), "--dry-run"]
    kept = [word for before, word in zip(["", *rest], rest, strict=False) if not {before, word} & set(LIMITS)]
    kept = [FEWER.get(word, word) for word in kept]
    if name == "time":  # each model has a process of its own
        kept = ["sasrec" if word == "sasrec,m3bsr" else word for word in kept]
    generated = SMALL if "synthetic" in kept else ()
    large = world.SMALL_M3BSR if any("m3bsr" in word for word in kept) and "--set" not in kept else ()
    if name == "ablate" and "--variants" not in kept and "m3bsr" in kept:
        kept += ["--variants", "no_meie,mlp"]
    return [*name.split(), *kept, *ADDED[name], *generated, *(large if name in TRAINS else ())]


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_documented_command_has_only_options_that_exist(command):
    name, found, rest = name_of(words_of(command))
    if not name:  # an option of bench itself
        assert rest[0] in CliRunner().invoke(cli.app, ["--help"]).output
        return
    found.make_context(name, rest)  # raises where an option is unknown or a needed one is missing


@pytest.mark.parametrize("command", [one for one in commands() if one not in PARSED_ALONE], ids=str)
def test_a_documented_command_runs(here, command, monkeypatch):
    if "results/reference" in command and "--by" in command:  # the data of the records are whole
        monkeypatch.setenv("BENCH_DATA", str(here / "whole"))
    if command.startswith("bench new dataset"):  # a set of this name is prepared for other commands
        monkeypatch.setenv("BENCH_DATA", str(here / "empty"))
    if ("efficientnet" in command or "=image" in command) and not world.can_encode_pictures():
        pytest.skip("the part [offline-image] is not installed")
    code, output = world.call(*cut(command))
    assert code in EXITS.get(command, {0}), output


def test_commands_that_are_not_run_are_documented():
    assert set(PARSED_ALONE) <= set(commands())
    assert FIRST in commands()


@pytest.mark.parametrize("text", mentions())
def test_a_command_named_in_prose_exists(text):
    name, command, rest = name_of(words_of(text.replace("...", "")))
    assert name or rest[0] == "--install-completion", f"`{text}`: no such command"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"} <= known


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value.split("\n")[0][:40])
def test_a_documented_block_of_python_is_python(where, code):
    compile(code, where, "exec")


def test_the_documented_script_runs(here, capsys):
    (code,) = {code for _, code in python_blocks() if "from bench import load_dataset, run" in code}
    script = Path("script.py")
    script.write_text(code.replace("epochs=2", "epochs=1, jobs=1, progress=False"))
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    assert "('click', 'favor')" in capsys.readouterr().out
