"""The code that a result depends on, as one hash: a cell is found again only where none of it has changed.

Three things count: the modules that measure a model (`MEASURE` and what they import), the model's own file
with what it imports inside the project, and helper modules of its own wherever they lie. Read are statements:
comments, docstrings, lone strings and cards change nothing (the cell holds the card's options beside the
hash). Imports are read from the source, those inside functions too; nothing is imported.
"""

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import bench

MEASURE = ("bench.experiments.run",)
"""What trains and tests a cell: loop, batches, split, candidates, ranks, pairs."""
NO_INFLUENCE = (
    "bench", "bench.cards", "bench.code_hash", "bench.errors", "bench.files", "bench.import_file",
    "bench.registry",
    "bench.experiments.kept", "bench.experiments.record", "bench.experiments.store",
    "bench.training.checkpoint",
    "bench.training.watcher",
)  # fmt: skip
"""Modules of the project that cannot move a number: naming, storing, telling. Reports, the command line and
the progress display are imported by nothing that measures. Readers count by the fingerprint of their data."""


def code_hash(path: Path, model: str) -> str:
    """Return the SHA-256, hex, over the statements that can move a model's numbers.

    Args:
        path: the model's file; of a package its `__init__.py`.
        model: name of its class.
    """
    files = closure([path, *(file for name in MEASURE for file in _project(name))], _home(path))
    digest = hashlib.sha256(model.encode())
    for name, file in sorted((_name(file, path), file) for file in files):
        digest.update(f"\0{name}\0{statements(file)}".encode())
    return digest.hexdigest()


def reader_hash(path: Path) -> str:
    """Return the SHA-256, hex, over the statements of a data set's reader and of all that it imports of the
    project and of its own.

    Args:
        path: the reader's file; of a package its `__init__.py`.
    """
    digest = hashlib.sha256()
    for name, file in sorted((_name(file, path), file) for file in closure([path], _home(path))):
        digest.update(f"\0{name}\0{statements(file)}".encode())
    return digest.hexdigest()


def closure(files: Iterable[Path], home: Path) -> set[Path]:
    """Return the files and all that they import of the project and of the model's own.

    Args:
        files: where to begin.
        home: folder in which the model's own modules are looked for first.
    """
    ignored = {file for name in NO_INFLUENCE for file in _project(name)}
    seen: set[Path] = set()
    waiting = [file.resolve() for file in files]
    while waiting:
        file = waiting.pop()
        if file in seen or file in ignored:
            continue
        seen.add(file)
        waiting += _imported(file, home, file.stat().st_mtime_ns)
    return seen


def helpers(path: Path) -> dict[str, Path]:
    """Return name -> file of the helper modules that a model's file imports from outside the project."""
    home = _home(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tops = {name.partition(".")[0] for name in _names(tree, path) if name.partition(".")[0] != "bench"}
    return {top: files[0] for top in sorted(tops) if (files := _own(top, home))}


def statements(file: Path) -> str:
    """Return the source without comments, docstrings, lone strings and the contents of cards."""
    return _read(file, file.stat().st_mtime_ns)[0]


@cache
def _read(file: Path, changed: int) -> tuple[str, tuple[str, ...]]:
    """Return the statements of a file, and the dotted names that it imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    names = tuple(_names(tree, file))
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(tree))), names


class _Bare(ast.NodeTransformer):
    """Removes what says something and does nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # noqa: N802 - the name that ast calls
        """Drop a lone string: a docstring, or the line under a field."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        """Empty a card."""
        if isinstance(node.func, ast.Name) and node.func.id in ("Card", "DatasetCard"):
            return ast.Call(node.func, [], [])
        return self.generic_visit(node)


@cache
def _imported(file: Path, home: Path, changed: int) -> tuple[Path, ...]:
    """Return the files of the project and of the model's own that a file imports."""
    files: list[Path] = []
    for name in _read(file, changed)[1]:
        top = name.partition(".")[0]
        files += _project(name) if top == "bench" else _own(name, home)
    return tuple(path.resolve() for path in dict.fromkeys(files))


def _names(tree: ast.AST, file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports; `from a import b` gives `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: from the package that the file lies in
                package = _package(file)
                base = ".".join(filter(None, [*package[: len(package) - node.level + 1], base]))
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _package(file: Path) -> list[str]:
    """Return the names of the packages that a file lies in, outermost first."""
    names: list[str] = []
    folder = file.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return names


def _home(path: Path) -> Path:
    """Return the folder from which a model's own modules are named: above its outermost package."""
    folder = path.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _project(name: str) -> list[Path]:
    """Return the files that importing `bench.x.y` runs: of each package on the way, and of the module."""
    parts = name.split(".")[1:]
    if not parts:
        return [Path(bench.__file__).resolve()]
    for root in map(Path, bench.__path__):
        if files := _files(root, parts):
            return files
    return []


def _own(name: str, home: Path) -> list[Path]:
    """Return the files that importing a name runs, where it is no installed library."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return []
    for root in (home, *_own_roots()):
        if files := _files(root, name.split(".")):
            return files
    return []


def _own_roots() -> list[Path]:
    """Return the folders of the import path that hold no installed libraries."""
    installed = [Path(folder).resolve() for folder in sysconfig.get_paths().values()]
    roots = [Path(entry or ".").resolve() for entry in sys.path]
    return [root for root in roots if root.is_dir() and not any(root.is_relative_to(i) for i in installed)]


def _files(root: Path, parts: list[str]) -> list[Path]:
    """Return the `__init__.py` files and the module that a dotted name leads to below a folder; the last part
    may be a name inside a module.
    """
    files: list[Path] = []
    folder = root
    for number, part in enumerate(parts):
        folder = folder / part
        module = folder.with_name(f"{part}.py")
        if (folder / "__init__.py").is_file():
            files.append(folder / "__init__.py")
        elif module.is_file():
            return [*files, module]
        elif not folder.is_dir() or number == len(parts) - 1:
            break
    return files


def _name(file: Path, path: Path) -> str:
    """Return a name of a file that is the same on every machine."""
    for root in map(Path, bench.__path__):
        if file.is_relative_to(root.resolve()):
            return file.relative_to(root.resolve()).as_posix()
    return Path(os.path.relpath(file, path.resolve().parent)).as_posix()
