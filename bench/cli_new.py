"""`bench new`: a file to start from, for a model or a data set of one's own."""

import keyword
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

import bench
from bench.errors import UserError
from bench.files import replacing
from bench.terminal import expanded

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Begin a model or a data set of your own.\n\n"
    "Example: bench new model my-model\n\n"
    "Example: bench new dataset my-set",
)

Name = Annotated[str, typer.Argument(help="Its name in tables and commands: lower-case, such as my-own.")]
Folder = Annotated[Path, typer.Option(callback=expanded, help="Folder for the file.")]


@app.command()
def model(name: Name, out: Folder = Path()) -> None:
    """Write a commented file with a model that trains at once.

    Example: bench new model my-model
    """
    from bench.registry import entries

    module = _module_of(name)
    if name in entries():
        raise UserError(f"{name}: a model of this name is there already; choose another name")
    path = _write("new_model.py", "NewModel", name, _free(out / f"{module}.py"))
    print(f"{path}: written")
    print(f"test it by: bench test {shlex.quote(str(path))}")
    spec = shlex.quote(f"popularity,{path}")
    print(f"run it by: bench run --models {spec} --dataset ml-100k --seeds 1 --max-minutes 1")


@app.command()
def dataset(name: Name, out: Folder = Path()) -> None:
    """Write a commented file with a data set's reader, and a small made-up log that it reads at once.

    Example: bench new dataset my-set
    """
    from bench.data import library
    from bench.data.example_log import write_example

    module = _module_of(name)
    if name in library.readers():
        raise UserError(f"{name}: a data set of this name is there already; choose another name")
    if name in library.prepared():
        taken = library.prepared()[name]
        raise UserError(f"{name}: a prepared data set of this name lies in {taken}; choose another name")
    path, raw = _free(out / f"{module}.py"), _free(out / f"{module}_raw")
    _write("new_dataset.py", "NewDataset", name, path)
    with replacing(raw) as partial:
        write_example(partial)
    file, folder = shlex.quote(str(path)), shlex.quote(str(raw))
    print(f"{path}: written; {raw}: a small made-up log in its form, to begin with")
    print(f"test it by: bench test dataset {file} --raw {folder}")
    print(f"prepare it by: bench data prepare {file} --raw {folder}")
    print(f"run it by: bench run --models popularity,sasrec --dataset {name} --seeds 1 --epochs 20 --jobs 1")


def _module_of(name: str) -> str:
    """Return the name of the file for a model or data set.

    Raises:
        UserError: the name is none that can be.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UserError(f"{name}: expected lower-case letters, digits and '-', such as my-model")
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise UserError(f"{name}: a word of Python cannot be the name of a file; choose another name")
    return module


def _free(path: Path) -> Path:
    """Return a path where nothing is yet, or raise a UserError."""
    if path.exists():
        raise UserError(f"{path}: is there already; choose another name or folder")
    return path


def _write(template: str, label: str, name: str, path: Path) -> Path:
    """Write a template with its names replaced, and return its path."""
    text = (Path(bench.__path__[0]) / "templates" / template).read_text(encoding="utf-8")
    own = "".join(part.capitalize() for part in re.split("[-_]", name))
    spelled = re.sub("(?<!^)(?=[A-Z])", "-", label).lower()  # NewModel -> new-model
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text.replace(label, own).replace(spelled, name), encoding="utf-8")
    return path
