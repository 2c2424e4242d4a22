"""What the commands share: options of one spelling, and plain tables on stdout."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 120

Results = Annotated[Path, typer.Option(envvar="BENCH_RESULTS", help="Folder of records and tables.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable output alone on stdout.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change an option; may be given several times."),
]


def console() -> Console:
    """Return a console on stdout, as wide as the terminal, `WIDTH` where the output is a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def print_json(value: Any) -> None:
    """Print a value as JSON, letters of any language as they are."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a head; the first column is never broken."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(head):
        grid.add_column(name, no_wrap=place == 0, overflow="fold")
    for row in rows:
        grid.add_row(*map(escape, row))
    console().print(grid)
