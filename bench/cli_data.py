"""`bench data`: which data sets there are, how they are prepared, whether they are sound, what is in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import UserError, hint
from bench.terminal import Json, Pairs, print_json, print_rows

if TYPE_CHECKING:
    from bench.data.schema import Dataset

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: list, prepare, check, stats.")

Place = Annotated[str, typer.Argument(metavar="DIR|NAME", help="A prepared folder, or a data set's name.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the data sets, prepared or not.

    Example: bench data list
    """
    from bench.data import library
    from bench.data.schema import read_metadata

    prepared, readers = library.prepared(), library.readers()
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "prepared": name in prepared,
            "real": card.real,
            "licence": card.licence,
            "title": card.title,
        }
        for name, card in readers.items()
    ]
    for name in sorted(prepared.keys() - readers.keys()):
        metadata = read_metadata(prepared[name])
        card = readers.get(metadata.get("reader", ""))
        title, licence = (f"variant of {card.name}", card.licence) if card else ("", "")
        real = not metadata.get("simulated", False)
        rows.append({"name": name, "prepared": True, "real": real, "licence": licence, "title": title})
    if as_json:
        print_json(rows)
        return
    shown = [[_word(row[key]) for key in ("name", "prepared", "real", "title", "licence")] for row in rows]
    print_rows(("name", "prepared", "real", "what it is", "licence"), shown)
    print(f"prepared data lie in {library.home()} (set BENCH_DATA to change it)")


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@app.command()
def prepare(
    reader: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `bench data list`.")],
    raw: Annotated[Path | None, typer.Option(help="Folder of the publisher's files.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the result, for a variant beside the usual one.")
    ] = None,
    set_: Pairs = None,
    as_json: Json = False,
) -> None:
    """Prepare a data set from its publisher's files.

    Example: bench data prepare table --raw my-logs --name mine --set behaviors=view,cart,buy
    """
    from bench.config import parse_settings
    from bench.data import library

    settings = parse_settings([pair.removeprefix("data.") for pair in set_ or []])
    _print_statistics(library.prepare_named(reader, raw=raw, name=name, overrides=settings.shared), as_json)


@app.command()
def check(place: Place) -> None:
    """Look for faults in a prepared data set.

    Prints a line a fault; exit code 2 where there are any.

    Example: bench data check ml-100k
    """
    from bench.data.check import check_prepared

    findings = check_prepared(_folder(place))
    for finding in findings:
        row = "" if finding.row is None else f", row {finding.row}"
        print(f"{finding.file}{row}: expected {finding.rule}; found {finding.value}; {finding.fix}")
    if findings:
        raise typer.Exit(2)
    print(f"{place}: no fault found")


@app.command()
def stats(place: Place, as_json: Json = False) -> None:
    """Show the size and contents of a data set.

    Example: bench data stats ml-100k
    """
    from bench.data import library, schema

    folder = Path(place)
    _print_statistics(schema.load(folder) if folder.is_dir() else library.open_dataset(place, {}), as_json)


def _folder(place: str) -> Path:
    """Return a folder given as such, or that of a prepared data set."""
    from bench.data import library

    folder = Path(place)
    if folder.is_dir():
        return folder
    prepared = library.prepared()
    if place not in prepared:
        raise UserError(f"{place}: no such folder or prepared data set; {hint(place, prepared)}")
    return prepared[place]


def _print_statistics(dataset: "Dataset", as_json: bool) -> None:
    from bench.data.stats import statistics, text_report

    found = statistics(dataset)
    if as_json:
        print_json(found)
    else:
        print_rows((dataset.name, ""), text_report(found))
