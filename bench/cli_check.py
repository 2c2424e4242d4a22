"""`bench data check`: faults of a prepared data set, or of raw files before they are prepared."""

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError
from bench.terminal import Pairs, complete_readers, progress

Place = Annotated[str, typer.Argument(metavar="DIR|NAME", help="A prepared folder, or a data set's name.")]


def check(
    name_or_path: Place,
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py",
            help="Check the raw files in DIR as those of this data set, or by this reader of your own.",
            autocompletion=complete_readers,
        ),
    ] = None,
    set_: Pairs = None,
) -> None:
    """Look for faults in a prepared data set, or in raw files before they are prepared.

    Prints one line per fault; exit code 2 where there are any. Content that most items lack is a warning.

    Example: bench data check ml-100k

    Example: bench data check downloads/taobao --reader taobao

    A reader of your own: bench data check my-logs --reader my_set.py
    """
    faults = (
        _raw_faults(reader, Path(name_or_path).expanduser(), set_ or [])
        if reader
        else _prepared_faults(name_or_path)
    )
    for fault in faults:
        print(fault)
    if any(not fault.startswith("warning") for fault in faults):
        raise typer.Exit(2)
    print(f"{name_or_path}: no fault found")


def _prepared_faults(name_or_path: str) -> list[str]:
    from bench.data import library
    from bench.data.preparation.check_prepared import check_prepared
    from bench.data.preparation.coverage import cautions
    from bench.data.preparation.times import prepared_times

    folder, faults = folder_of(name_or_path), []
    for finding in check_prepared(folder):
        row = "" if finding.row is None else f", row {finding.row}"
        faults.append(f"{finding.file}{row}: expected {finding.rule}; found {finding.value}; {finding.fix}")
    return faults or [*cautions(folder), *prepared_times(folder), *library.edited(folder)]


def _raw_faults(reader: str, folder: Path, settings: list[str]) -> list[str]:
    from bench.config import parse_settings
    from bench.data import library
    from bench.data.preparation.raw_check import check_raw_files
    from bench.data.sources import find

    overrides = parse_settings([pair.removeprefix("data.") for pair in settings]).shared
    source = find(reader)
    try:
        raw, *_ = library.read_raw(source, folder, overrides, "skip")
    except UserError as error:
        if "--on-bad-row" not in str(error):
            raise
        raw, *_ = library.read_raw(source, folder, overrides)
    with progress() as watch, source.blamed():
        tally, faults = check_raw_files(raw, watch)
    left_out = "".join(f"; {count:,} {why}" for why, count in tally.dropped.items())
    print(f"{folder}: {tally.rows:,} rows, {tally.events:,} events{left_out}")
    return faults


def folder_of(name_or_path: str) -> Path:
    """Return a prepared folder, given as such or by its data set; one that needs no files is prepared first.

    A folder of raw files does not hide the prepared data set of its name.
    """
    from bench.data import library

    folder = Path(name_or_path).expanduser()
    if (folder / "dataset.json").is_file():
        return folder
    if folder.is_dir() and name_or_path not in library.prepared():
        fix = f"raw files are checked by: bench data check {name_or_path} --reader NAME"
        raise UserError(
            f"{name_or_path}: no dataset.json there, so this is not a complete prepared data set; {fix}"
        )
    return library.resolve(name_or_path, {})
