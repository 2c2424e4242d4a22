import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "baselines", "datasets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folders() -> dict[str, str]:
    """Return package name -> folder of every folder that holds Python files."""
    paths = {
        path.parent.relative_to(ROOT) for top in ("bench", *ROOMS) for path in (ROOT / top).rglob("*.py")
    }
    names = {path: ".".join(path.parts) for path in paths}
    return {
        name if name.startswith("bench") else f"bench.{name}": path.as_posix() for path, name in names.items()
    }


def test_every_folder_with_python_files_is_packaged():
    assert set(folders()) - set(SETUPTOOLS["packages"]) == set()


def test_every_folder_outside_the_package_is_mapped():
    mapped = {name: path for name, path in folders().items() if path.partition("/")[0] in ROOMS}
    assert mapped.items() <= SETUPTOOLS["package-dir"].items()


def test_the_rooms_hold_no_init_file():
    assert [room for room in ROOMS if (ROOT / room / "__init__.py").exists()] == []


def test_every_folder_of_the_harness_and_every_model_package_has_an_init_file():
    inner = [path for path in folders().values() if path not in ROOMS]
    assert [path for path in inner if not (ROOT / path / "__init__.py").is_file()] == []


def test_every_dependency_of_the_core_and_the_docs_has_a_tried_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {
        line.split("==")[0].split("<")[0].strip().lower()
        for line in lines
        if line and not line.startswith("#")
    }
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["docs"]]
    names = [entry.split(">")[0].strip().lower() for entry in wanted]
    assert set(names) - pinned == set()


def test_the_command_leads_to_the_command_line():
    module, _, function = PROJECT["project"]["scripts"]["bench"].partition(":")
    assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
