"""`bench data`: which data sets there are, how they are prepared, whether they are sound, what is in them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.errors import UserError, hint
from bench.terminal import Json, Pairs, expanded, print_json, print_rows, progress

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Data sets: list, prepare, check, stats, export, simulate.",
)

Place = Annotated[str, typer.Argument(metavar="DIR|NAME", help="A prepared folder, or a data set's name.")]
COLUMNS = ("name", "prepared", "real", "title", "size", "licence", "published")


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Show all that is known of this one.")] = None,
    as_json: Json = False,
) -> None:
    """List the data sets, prepared or not, or show the card of one: source, terms, mapping, known faults.

    Example: bench data list taobao
    """
    from bench.data import library

    if name is not None:
        _print_card(name, as_json)
        return
    rows = _rows()
    if as_json:
        print_json(rows)
        return
    heads = ("name", "prepared", "real", "what it is", "size", "licence", "published")
    brief = [{**row, "published": row["published"].partition(" (")[0]} for row in rows]
    print_rows(heads, [[_word(row[key]) for key in COLUMNS] for row in brief])
    print(f"prepared data lie in {library.home()} (set BENCH_DATA to change it)")


def _rows() -> list[dict[str, Any]]:
    """Return what is known of every reader's data set, and of prepared folders of another name."""
    from bench.data import library
    from bench.data.storage import read_metadata

    prepared, readers = library.prepared(), library.readers()
    rows: list[dict[str, Any]] = []
    for name, card in readers.items():
        simulated = name in prepared and read_metadata(prepared[name]).get("simulated", False)
        row = {"name": name, "prepared": name in prepared, "real": card.real and not simulated}
        rows.append({**row, **{key: getattr(card, key) for key in COLUMNS[3:]}})
    for name in sorted(prepared.keys() - readers.keys()):
        metadata = read_metadata(prepared[name])
        variant = readers.get(metadata.get("reader", ""))
        row = {"name": name, "prepared": True, "real": not metadata.get("simulated", False)}
        title = f"variant of {variant.name}" if variant else ""
        licence = variant.licence if variant else ""
        rows.append({**row, "title": title, "size": "", "licence": licence, "published": ""})
    return rows


def _print_card(name: str, as_json: bool) -> None:
    from dataclasses import asdict

    from bench.data import library

    readers = library.readers()
    if name not in readers:
        raise UserError(f"{name}: no data set of this name can be prepared; {hint(name, readers)}")
    card = asdict(readers[name])
    if as_json:
        print_json(card)
        return
    print_rows(
        (name, ""), [(key, _word(value)) for key, value in card.items() if value != "" and value != {}]
    )


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@app.command()
def prepare(
    reader: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `bench data list`.")],
    raw: Annotated[
        Path | None, typer.Option(callback=expanded, help="Folder of the publisher's files.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the result, for a variant beside the usual one.")
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(help="Malformed rows: `error` names them and stops, `skip` counts them.")
    ] = "error",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Of pictures: efficientnet; of titles: tfidf-svd; of both: a model of open_clip, with its "
            "weights in --set clip_weights=FILE. A comma joins two. --set image=none, text=none: none."
        ),
    ] = None,
    set_: Pairs = None,
    as_json: Json = False,
) -> None:
    """Prepare a data set from its publisher's files.

    Pictures and titles are encoded once and kept; an interrupted command goes on where it stopped.

    Example: bench data prepare table --raw my-logs --name mine --set behaviors=view,cart,buy

    Example: bench data prepare movielens --raw ml --name films --encoder efficientnet,tfidf-svd

    Example: bench data prepare movielens --raw ml --encoder ViT-B-32 --set clip_weights=ViT-B-32.pt
    """
    from bench.config import parse_settings
    from bench.data import library
    from bench.data.preparation.coverage import cautions
    from bench.data.preparation.encoders import chosen_encoders

    settings = parse_settings([pair.removeprefix("data.") for pair in set_ or []])
    chosen = chosen_encoders(encoder) if encoder else {}
    with progress() as watch:
        folder = library.prepare_named(
            reader,
            raw=raw,
            name=name,
            overrides=chosen | settings.shared,
            on_bad_row=on_bad_row,
            watch=watch,
        )
    for line in cautions(folder):
        print(line, file=sys.stderr)
    _print_statistics(folder, as_json)


@app.command()
def check(
    name_or_path: Place,
    reader: Annotated[
        str | None, typer.Option(help="Check the raw files in DIR as those of this data set.")
    ] = None,
    set_: Pairs = None,
) -> None:
    """Look for faults in a prepared data set, or in raw files before they are prepared.

    Prints one line per fault; exit code 2 where there are any. Content that most items lack is a warning.

    Example: bench data check ml-100k

    Example: bench data check downloads/taobao --reader taobao
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
    from bench.data.preparation.check_prepared import check_prepared
    from bench.data.preparation.coverage import cautions
    from bench.data.preparation.times import prepared_times

    faults = []
    for finding in check_prepared(_folder(name_or_path)):
        row = "" if finding.row is None else f", row {finding.row}"
        faults.append(f"{finding.file}{row}: expected {finding.rule}; found {finding.value}; {finding.fix}")
    return faults or [*cautions(_folder(name_or_path)), *prepared_times(_folder(name_or_path))]


def _raw_faults(reader: str, folder: Path, settings: list[str]) -> list[str]:
    from bench.config import parse_settings
    from bench.data import library
    from bench.data.preparation.raw_check import check_raw_files

    overrides = parse_settings([pair.removeprefix("data.") for pair in settings]).shared
    try:
        raw, *_ = library.read_raw(reader, folder, overrides, "skip")
    except UserError as error:
        if "--on-bad-row" not in str(error):
            raise
        raw, *_ = library.read_raw(reader, folder, overrides)
    with progress() as watch:
        tally, faults = check_raw_files(raw, watch)
    left_out = "".join(f"; {count:,} {why}" for why, count in tally.dropped.items())
    print(f"{folder}: {tally.rows:,} rows, {tally.events:,} events{left_out}")
    return faults


@app.command()
def stats(
    name_or_path: Place,
    figure: Annotated[
        Path | None,
        typer.Option(callback=expanded, help="Folder for a picture of the distributions, PNG and PDF."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the size and contents of a data set, beside the paper's figures where it has them.

    Example: bench data stats ml-100k --figure results/figures
    """
    from bench.data import library

    folder = Path(name_or_path).expanduser()
    folder = folder if folder.is_dir() else library.resolve(name_or_path, {})
    _print_statistics(folder, as_json)
    if figure is not None:
        _draw(folder, figure)


@app.command()
def export(
    name_or_path: Place,
    to: Annotated[Path, typer.Option(callback=expanded, help="Folder for the files; made where it is not.")],
    form: Annotated[
        str, typer.Option("--format", help="atomic: RecBole's NAME.inter and NAME.item.")
    ] = "atomic",
) -> None:
    """Write a prepared data set in another tool's files.

    Example: bench data export ml-100k --format atomic --to ml-100k-atomic
    """
    from bench.data.export import write_atomic
    from bench.data.storage import load

    if form != "atomic":
        raise UserError(f"--format {form}: expected atomic")
    dataset = load(_folder(name_or_path))
    for path in write_atomic(dataset, to):
        print(f"{path}: written")
    names = ",".join(dataset.behaviors)
    options = f"--set behavior=behavior --set behaviors={names} --set keep_last=none"
    print(f"read it back by: bench data prepare atomic --raw {to} {options}")


@app.command()
def simulate(
    reader: Annotated[str, typer.Argument(metavar="NAME", help="kuaishou or rec_tmall.")],
    out: Annotated[Path, typer.Option(callback=expanded, help="New folder for the raw files.")],
    scale: Annotated[float, typer.Option(help="1 is the size that the paper keeps.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Write raw files in a publisher's layout with its published sizes and shapes, to try the whole path.

    What is prepared from them is marked as simulated, and every table says so.

    Example: bench data simulate kuaishou --out fake-kuaishou --scale 0.01
    """
    from bench.data import library

    with progress() as watch:
        library.simulate(reader, out, scale, seed, watch)
    print(f"{out}: written; prepare it by: bench data prepare {reader} --raw {out}")


def _draw(folder: Path, pictures: Path) -> None:
    from bench.data.stats import distributions
    from bench.report.data_figure import data_set

    for path in data_set(**vars(distributions(folder)), folder=pictures):
        print(path, file=sys.stderr)


def _folder(name_or_path: str) -> Path:
    """Return a folder given as such, or that of a prepared data set."""
    from bench.data import library

    folder = Path(name_or_path).expanduser()
    if folder.is_dir() and not (folder / "dataset.json").is_file():
        fix = f"raw files are checked by: bench data check {name_or_path} --reader NAME"
        raise UserError(
            f"{name_or_path}: no dataset.json there, so this is not a complete prepared data set; {fix}"
        )
    if folder.is_dir():
        return folder
    prepared = library.prepared()
    if name_or_path not in prepared:
        raise UserError(
            f"{name_or_path}: no such folder or prepared data set; {hint(name_or_path, prepared)}"
        )
    return prepared[name_or_path]


def _print_statistics(folder: Path, as_json: bool) -> None:
    from bench.data import library
    from bench.data.stats import statistics, text_report
    from bench.data.storage import read_metadata

    card = library.readers().get(read_metadata(folder).get("reader", ""))
    figures = {**statistics(folder), "paper": dict(card.paper) if card else {}}
    if as_json:
        print_json(figures)
    else:
        print_rows((figures["name"], ""), text_report(figures))
