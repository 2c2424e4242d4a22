"""A Python file given by its path, imported under a name that is the same in all processes."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from bench.code_hash import helpers
from bench.errors import UserError


def module_name(prefix: str, path: Path) -> str:
    """Return the name under which a file is imported.

    Args:
        prefix: tells models from readers.
        path: of the file; its resolved form counts.
    """
    return prefix + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def import_file(path: Path, name: str) -> ModuleType:
    """Import a file, once in a process; its folder joins the import path, so that it finds modules beside it.

    Raises:
        UserError: a module beside it is loaded already from another folder.
        Exception: whatever the file raises.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    _refuse_foreign_helpers(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up by name
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)  # for imports inside functions
    return module


def _refuse_foreign_helpers(path: Path) -> None:
    """Check that no module beside a file is loaded already from another folder under the same name.

    Raises:
        UserError: one is; the file would silently run with the other's code.
    """
    for name, file in helpers(path).items():
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded and Path(loaded).resolve() != file.resolve():
            raise UserError(f"{path}: imports '{name}' ({file}), but {loaded} is loaded under it; rename one")
