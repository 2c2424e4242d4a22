"""An edit re-keys the cells whose numbers it can move, and no others."""

import shutil
import sys
import types
from pathlib import Path

import pytest

import bench
from bench import code_hash, registry
from bench.errors import UserError

ROOT = Path(__file__).parent.parent
WATCHED = ("popularity", "sasrec", "sasrec-ce", "gru4rec", "bert4rec", "m3bsr", "diff_msin")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project's sources: one for all tests, as a file that stays is parsed once."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("bench", "baselines", "models"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def project(copied, monkeypatch):
    """Take the copy for the project itself."""
    monkeypatch.setattr(bench, "__path__", [str(copied / "bench"), str(copied)])
    monkeypatch.setattr(bench, "__file__", str(copied / "bench" / "__init__.py"))
    return copied


def hashes() -> dict[str, str]:
    return {name: entry.code_hash() for name, entry in registry.entries().items() if name in WATCHED}


def edited(project: Path, file: str, old: str, new: str) -> set[str]:
    """Return the models whose hash an edit changes, and undo the edit."""
    path = project / file
    before, text = hashes(), path.read_text(encoding="utf-8")
    assert old in text, old
    try:
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        after = hashes()
    finally:
        path.write_text(text, encoding="utf-8")
    return {name for name in before if before[name] != after[name]}


ALL = set(WATCHED)


@pytest.mark.parametrize(
    ("file", "old", "new", "models"),
    [
        ("baselines/sasrec.py", "A causal transformer reads", "A transformer reads", set()),
        ("baselines/sasrec.py", '"""Set tables to N(0, 0.02)', '"""Set all tables to N(0, 0.02)', set()),
        ("baselines/sasrec.py", '"""D; `d` in the paper."""', '"""Width."""', set()),
        ("baselines/sasrec.py", "causal view\",", "causal view, \",", set()),  # a comma in a card
        ("baselines/sasrec.py", "return self.last_norm(x)", "return self.last_norm(x)  # why", set()),
        ("baselines/sasrec.py", "std=0.02", "std=0.03", {"sasrec", "sasrec-ce"}),
        ("baselines/sasrec.py", "hidden_size: int = 64", "hidden_size: int = 32", {"sasrec", "sasrec-ce"}),
        ("bench/nn/transformer.py", "if self.pre:", "if not self.pre:",
         {"sasrec", "sasrec-ce", "bert4rec", "diff_msin"}),
        ("bench/nn/scoring.py", "if bias is None", "if bias is not None", ALL - {"popularity", "diff_msin"}),
        ("models/m3bsr/schedule.py", "import torch", "import torch\n\nEXTRA = 1", {"m3bsr"}),
        ("bench/data/schema.py", "import numpy as np", "import numpy as np\n\nEXTRA = 1", ALL),
        ("bench/experiments/run.py", "import torch\n", "import torch\n\nEXTRA = 1\n", ALL),
        ("bench/training/loop.py", "import torch\n", "import torch\n\nEXTRA = 1\n", ALL),
        ("bench/evaluation/ranks.py", "import torch\n", "import torch\n\nEXTRA = 1\n", ALL),
        ("bench/data/batches/histories.py", "import numpy as np\n", "import numpy as np\n\nEXTRA = 1\n", ALL),
        ("bench/data/protocol/candidates.py", "import hashlib\n", "import hashlib\n\nEXTRA = 1\n", ALL),
        ("bench/report/tables.py", "import json\n", "import json\n\nEXTRA = 1\n", set()),
        ("bench/cli.py", "import sys\n", "import sys\n\nEXTRA = 1\n", set()),
        ("bench/experiments/progress.py", "import sys\n", "import sys\n\nEXTRA = 1\n", set()),
        ("bench/experiments/store.py", "import json\n", "import json\n\nEXTRA = 1\n", set()),
    ],
)  # fmt: skip
def test_an_edit_re_keys_exactly_what_it_can_move(project, file, old, new, models):
    assert edited(project, file, old, new) == models


def test_scores_of_one_file_share_their_hash_and_differ_by_the_options_of_their_cells(project):
    found = hashes()
    assert found["sasrec"] == found["sasrec-ce"]


MODEL = """
from bench.interface import Card, Recommender
import knobs
CARD = Card(name="turned", label="T", model="Turned", family="sequential", paper="-", year=1, inputs="-")

class Turned(Recommender):
    Config = knobs.Options

    def score(self, batch, candidates):
        from deep.inner import scale
        return candidates * scale(knobs.FACTOR)
"""


def by_path(folder: Path, factor: int = 1) -> registry.Entry:
    (folder / "deep").mkdir(parents=True)
    (folder / "turned.py").write_text(MODEL)
    (folder / "knobs.py").write_text(f"class Options: pass\nFACTOR = {factor}\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "inner.py").write_text("from . import other\n\ndef scale(x): return other.twice(x)\n")
    (folder / "deep" / "other.py").write_text("def twice(x): return 2 * x\n")
    (entry,) = registry.select(str(folder / "turned.py"))
    return entry


FILES = ["turned.py", "knobs.py", "deep/inner.py", "deep/other.py", "deep/__init__.py"]


@pytest.mark.parametrize("file", FILES)
def test_helper_modules_beside_a_model_given_by_path_count(tmp_path, file):
    entry = by_path(tmp_path)
    first = entry.code_hash()
    path = tmp_path / file
    text = path.read_text()
    path.write_text(text + "# said\n")
    assert entry.code_hash() == first
    path.write_text(text + "EXTRA = 1\n")
    assert entry.code_hash() != first


def test_a_file_that_no_model_imports_does_not_count(tmp_path):
    entry = by_path(tmp_path)
    first = entry.code_hash()
    (tmp_path / "unused.py").write_text("X = 1\n")
    assert entry.code_hash() == first


def test_the_hash_does_not_depend_on_where_the_files_lie(tmp_path):
    assert by_path(tmp_path / "a").code_hash() == by_path(tmp_path / "b").code_hash()


def test_a_package_of_an_entry_point_counts_with_its_modules(tmp_path):
    package = tmp_path / "shop_models"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("from shop_models.parts.core import Model\n")
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "core.py").write_text("from ..extra import K\nclass Model: pass\n")
    (package / "extra.py").write_text("K = 1\n")
    (package / "alone.py").write_text("K = 1\n")
    path = package / "__init__.py"
    first = code_hash.code_hash(path, "Model")
    (package / "alone.py").write_text("K = 2\n")
    assert code_hash.code_hash(path, "Model") == first
    (package / "extra.py").write_text("K = 2\n")
    assert code_hash.code_hash(path, "Model") != first


@pytest.fixture
def clean_imports(monkeypatch):
    """Forget what a test imports, and give the import path back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("knobs", "deep") or name.startswith(registry.BY_PATH):
            del sys.modules[name]


def test_a_model_given_by_path_finds_its_helpers_from_any_folder(tmp_path, monkeypatch, clean_imports):
    monkeypatch.chdir("/")
    kind = by_path(tmp_path / "one", factor=3).load()
    assert kind.score(types.SimpleNamespace(), None, 1) == 6


def test_two_models_with_helpers_of_one_name_are_refused_in_one_process(tmp_path, clean_imports):
    by_path(tmp_path / "one").load()
    second = by_path(tmp_path / "two")
    with pytest.raises(UserError, match=r"imports 'knobs' .*two/knobs.py.*one/knobs.py is loaded under it"):
        second.load()


def test_installed_libraries_are_not_read():
    assert code_hash._own("numpy.linalg", Path("/")) == [] and code_hash._own("json", Path("/")) == []


def test_everything_that_measures_is_in_the_closure():
    names = {code_hash._name(file, ROOT) for file in
             code_hash.closure(code_hash._project("bench.experiments.run"), ROOT)}  # fmt: skip
    wanted = {
        "training/loop.py", "training/data.py", "evaluation/ranks.py", "evaluation/pairs.py", "interface.py",
        "data/protocol/task.py", "data/protocol/split.py", "data/protocol/candidates.py", "data/schema.py",
        "data/batches/loader.py", "data/batches/sequence_views.py", "data/batches/target_views.py",
        "data/batches/untouched.py", "data/batches/training_log.py", "experiments/run.py", "config.py",
    }  # fmt: skip
    assert wanted <= names
    assert not {name for name in names if name.startswith(("report", "cli")) or "store" in name}
