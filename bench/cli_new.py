"""`bench new`: a file to start from, for a model of one's own."""

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

import bench
from bench.errors import UserError
from bench.files import replacing
from bench.terminal import expanded

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Begin a model of your own.")


@app.command()
def model(
    name: Annotated[
        str, typer.Argument(help="Its name in tables and commands: lower-case, such as my-model.")
    ],
    out: Annotated[Path, typer.Option(callback=expanded, help="Folder for the file.")] = Path(),
) -> None:
    """Write a commented file with a model that trains at once.

    Example: bench new model my-model
    """
    from bench.registry import entries

    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UserError(f"{name}: expected lower-case letters, digits and '-', such as my-model")
    if name in entries():
        raise UserError(f"{name}: a model of this name is there already; choose another name")
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise UserError(f"{name}: a word of Python cannot be the name of a file; choose another name")
    path = out / f"{module}.py"
    if path.exists():
        raise UserError(f"{path}: is there already; choose another name or folder")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(_named(name), encoding="utf-8")
    print(f"{path}: written")
    print(f"test it by: bench test {path}")
    print(f"run it by: bench run --models popularity,{path} --dataset ml-100k --seeds 1 --max-minutes 1")


def _named(name: str) -> str:
    """Return the template with its names replaced."""
    text = (Path(bench.__path__[0]) / "templates" / "new_model.py").read_text(encoding="utf-8")
    label = "".join(part.capitalize() for part in re.split("[-_]", name))
    return text.replace("NewModel", label).replace("new-model", name)
