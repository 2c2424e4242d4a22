"""`bench test`: the contract checks, on a model or on a data set's reader."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bench import cli_models
from bench.errors import UserError
from bench.terminal import Pairs, complete_readers, expanded, print_rows, progress

if TYPE_CHECKING:
    from bench.data.sources import Reader

SCALE = 0.005
"""Size of simulated files, relative to the paper's: the least that every simulator takes."""


class _ModelFirst(TyperGroup):
    """`bench test NAME` stands for `bench test model NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take the first word for a model where it is no command."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["model", *args])


app = typer.Typer(
    cls=_ModelFirst,
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="MODEL | dataset SET",
    help="Run the contract tests on a model, or on the reader of a data set. Exit code 1 if one fails.\n\n"
    "Example: bench test sasrec\n\n"
    "Example: bench test path/to/model.py\n\n"
    "Example: bench test dataset path/to/reader.py --raw my-logs",
)
app.command("model")(cli_models.test)


@app.command()
def dataset(
    reader: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.py", help="A data set, or path/to/reader.py.", autocompletion=complete_readers
        ),
    ],
    raw: Annotated[
        Path | None,
        typer.Option(callback=expanded, help="Folder of raw files: a part of them is enough."),
    ] = None,
    set_: Pairs = None,
) -> None:
    """Run the contract tests on a data set's reader: ids, behaviors, times, items, faulty files.

    Files are read again and again, altered copies of them too; nothing is written beside them. Where the raw
    files can be simulated, they are without --raw. Exit code 1 if a test fails.

    Example: bench test dataset my_set.py --raw my-logs

    Example: bench test dataset table --raw my-logs --set behaviors=view,cart,buy
    """
    from bench.config import parse_settings
    from bench.data import library
    from bench.data.contract import CHECKS, run_checks
    from bench.data.contract.subject import Subject
    from bench.data.sources import ReaderError, find

    source = find(reader)
    overrides = parse_settings([pair.removeprefix("data.") for pair in set_ or []]).shared
    library.options_of(source, overrides)  # a wrong one is said before anything is read
    with _raw_files(source, raw) as files, progress() as watch:
        subject, outcomes = Subject(source, files, overrides), []
        with suppress(ReaderError):  # of which the first check tells; other faults are those of the files
            _ = subject.first
        for number, outcome in enumerate(run_checks(subject), start=1):
            outcomes.append(outcome)
            watch("checks", number, len(CHECKS))
    print_rows(
        ("data set", "check", "outcome"),
        [(source.card.name, outcome.check, outcome.words) for outcome in outcomes],
    )
    if any(outcome.fault for outcome in outcomes):
        raise typer.Exit(1)


@contextmanager
def _raw_files(source: "Reader", raw: Path | None) -> Iterator[Path | None]:
    """Give the raw files to check a reader on: those brought, simulated ones, or none where none are needed.

    Raises:
        UserError: files are needed, and there are none.
    """
    from bench.data import library

    name, files = source.card.name, source.card.files
    if raw is not None and not raw.exists():
        raise UserError(f"--raw {raw}: nothing there; expected: {files}")
    if raw is not None or not source.card.needs_raw:
        yield raw
        return
    if source.by_path or name not in library.simulators():
        fix = f"give a folder with some of them: bench test dataset {source.spec} --raw DIR"
        raise UserError(f"{name}: is checked on its raw files: {files}; {fix}")
    with TemporaryDirectory(prefix="bench-test-", ignore_cleanup_errors=True) as folder:
        library.simulate(name, Path(folder), SCALE, 0, lambda stage, done, total: None)
        yield Path(folder)
