"""The help of every command, and the options of `--set` that belong to no model or data set."""

from collections.abc import Iterator
from typing import Any

import typer
from markdown_tables import options_table
from typer.testing import CliRunner

from bench import cli
from bench.config import ProtocolOptions, TrainingOptions, flatten, option_names

HELP = """\
# Every command's help

What `--help` prints, made from the code.

"""
OPTIONS = """\
# Options of `--set`

`--set KEY=VALUE` changes one option and may be given several times. A key is

- `MODEL.X`: option X of one model (its [card](models/index.md) lists them), or `MODEL:VARIANT.X` of a
  variant;
- `X`: option X of every chosen model that has it;
- `data.X`: of the preparation (the [data-set cards](data-sets.md) list them);
- `protocol.X` and `training.X`: the two tables below.

Unknown keys and wrong values are refused with the nearest match. A list is written `a,b`.

"""


def pages() -> Iterator[tuple[str, str]]:
    """Yield the page of the help texts and that of the options."""
    yield "command-help.md", HELP + "\n".join(map(_help, sorted(_names(typer.main.get_command(cli.app)))))
    parts = [OPTIONS]
    for head, kind in (("protocol", ProtocolOptions), ("training", TrainingOptions)):
        values = {f"{head}.{name}": value for name, value in flatten(kind()).items()}
        docs = {f"{head}.{name}": text for name, text in option_names(kind).items()}
        parts.append(f"## {head.capitalize()}\n\n{options_table(values, docs, 'Key')}")
    yield "options.md", "\n".join(parts)


def _names(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that is no group."""
    inner = getattr(command, "commands", {})
    for name, one in inner.items():
        yield from _names(one, (*path, name))
    if not inner:
        yield path


def _help(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(cli.app, [*words, "--help"], prog_name="bench", terminal_width=100)
    if done.exit_code:
        raise RuntimeError(f"bench {' '.join(words)} --help: {done.output}")
    return f"## bench {' '.join(words)}\n\n```text\n{done.output.rstrip()}\n```\n"
