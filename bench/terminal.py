"""What the commands share: options of one spelling, and plain tables on stdout."""

import codecs
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

WIDTH = 120
PLAIN = {"±": "+-", "†": "+", "…": "...", "–": "-", "—": "-", "─": "-", "→": "->", "×": "x", "≥": ">="}
"""Signs for consoles whose encoding lacks a letter."""
QUIET = 20.0  # seconds between two lines of progress where stderr is no terminal


class TaskName(StrEnum):
    """What is measured."""

    rank = "rank"
    ctr = "ctr"


def expanded(path: Path | None) -> Path | None:
    """Return a path with `~` replaced: the shell leaves it in a variable and behind `--results=`."""
    return None if path is None else path.expanduser()


def complete_models(typed: str) -> list[str]:
    """Return what a comma list of models can go on with."""
    from bench.registry import FAMILIES, entries

    before, comma, part = typed.rpartition(",")
    names = ["all", *FAMILIES, *entries()]
    return [f"{before}{comma}{name}" for name in names if name.startswith(part)]


def complete_datasets(typed: str) -> list[str]:
    """Return the data sets that are prepared or prepare themselves."""
    from bench.data import library

    alone = [name for name, card in library.readers().items() if not card.needs_raw]
    return sorted(name for name in {*library.prepared(), *alone} if name.startswith(typed))


def complete_readers(typed: str) -> list[str]:
    """Return the data sets that can be prepared."""
    from bench.data import library

    return [name for name in library.readers() if name.startswith(typed)]


DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="A prepared data set; ml-100k and synthetic need no download.",
        autocompletion=complete_datasets,
    ),
]
Results = Annotated[
    Path, typer.Option(envvar="BENCH_RESULTS", callback=expanded, help="Folder of records and tables.")
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable output alone on stdout.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change an option; may be given several times. A list is a,b; a part with a comma stands in "
        "double quotes.",
    ),
]
TaskOption = Annotated[
    TaskName,
    typer.Option(
        "--task",
        help="rank the held-out item among its candidates (HR, NDCG), or ctr: tell it from a negative "
        "(AUC, GAUC, LogLoss).",
    ),
]


Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds: 3 runs seeds 0, 1, 2.")]
Candidates = Annotated[str | None, typer.Option(help="uniform99 (default), popular99 or full.")]
Epochs = Annotated[int | None, typer.Option(help="Most epochs of each training stage.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Minutes after which a training stops.")]
TotalMinutes = Annotated[
    float | None,
    typer.Option(help="Minutes for all trainings together, shared; what one leaves goes to the others."),
]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1, mps.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Cells side by side, each in a process; default: one per core, at most 4."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show which cells are found and missing, and run nothing.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Run finished cells again.")]


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the speed, steps per second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a progress callback (stage, done, total); it draws one bar per stage on stderr.

    Where stderr is no terminal it prints a line now and then.
    """
    screen = Console(stderr=True, highlight=False)
    name, count = TextColumn("{task.description}"), MofNCompleteColumn()
    columns = (name, BarColumn(), count, _Speed(), TimeRemainingColumn())
    bars = Progress(*columns, console=screen, disable=not screen.is_terminal)
    stages: dict[str, TaskID] = {}
    last_line = time.monotonic()

    def watch(stage: str, done: int, of: int) -> None:
        nonlocal last_line
        if stage not in stages:
            stages[stage] = bars.add_task(stage, total=of)
        bars.update(stages[stage], completed=done, total=of)
        if not screen.is_terminal and time.monotonic() - last_line > QUIET:
            last_line = time.monotonic()
            screen.print(f"{stage}: {done:,} of {of:,}")

    with bars:
        yield watch


def use_plain_signs() -> None:
    """Let stdout and stderr write any letter: what their encoding lacks becomes a plain sign or an escape."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace letters that an encoding lacks; what has no plain sign becomes an escape that JSON reads."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(letter) or _escape(letter) for letter in letters), error.end


def _escape(letter: str) -> str:
    pairs = letter.encode("utf-16-be")
    return "".join(f"\\u{pairs[i]:02x}{pairs[i + 1]:02x}" for i in range(0, len(pairs), 2))


def console() -> Console:
    """Return a console on stdout, as wide as the terminal, `WIDTH` where the output is a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def print_json(value: Any) -> None:
    """Print a value as JSON, letters of any language as they are."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def show_work(rows: Sequence[Sequence[str]], lines: Sequence[str]) -> None:
    """Print what a command would run."""
    print_rows(("model", "seed", "options", "cell"), rows)
    print("\n".join(lines or ["nothing to run"]))


def warn(lines: Sequence[str]) -> None:
    """Print lines on stderr: a reader must know them, a program that parses stdout must not meet them."""
    for line in lines:
        print(line, file=sys.stderr)


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a head; the first column is never broken."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(head):
        grid.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        grid.add_row(*map(escape, row))
    console().print(grid)
