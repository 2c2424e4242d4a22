"""`bench data`: which data sets there are, how they are prepared, whether they are sound, what is in them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli_check import Place, check, folder_of
from bench.errors import UserError
from bench.terminal import Json, Pairs, complete_readers, expanded, print_json, print_rows, progress

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Data sets: list, prepare, check, stats, export, simulate.",
)

COLUMNS = ("name", "prepared", "real", "title", "size", "licence", "published")


@app.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE.py]",
            help="Show all that is known of this one.",
            autocompletion=complete_readers,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the data sets, prepared or not, or show the card of one: source, terms, mapping, known faults.

    Example: bench data list taobao

    A reader of your own: bench data list my_set.py
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
        own = metadata.get("reader_file", "")
        title = f"variant of {variant.name}" if variant and not own else own and f"read by {own}"
        licence = variant.licence if variant else ""
        rows.append({**row, "title": title, "size": "", "licence": licence, "published": ""})
    return rows


def _print_card(name: str, as_json: bool) -> None:
    from dataclasses import asdict

    from bench.data.sources import find

    card = asdict(find(name).card)
    if as_json:
        print_json(card)
        return
    print_rows(
        (card["name"], ""),
        [(key, _word(value)) for key, value in card.items() if value != "" and value != {}],
    )


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


ReaderArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE.py",
        help="A data set of `bench data list`, or a file with a reader of your own.",
        autocompletion=complete_readers,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Of pictures: efficientnet; of titles: tfidf-svd; of both: a model of open_clip, with its "
        "weights in --set clip_weights=FILE. A comma joins two. --set image=none, text=none: none."
    ),
]


@app.command()
def prepare(
    reader: ReaderArgument,
    raw: Annotated[
        Path | None, typer.Option(callback=expanded, help="Folder of the publisher's files.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the result, for a variant beside the usual one; default: the card's."),
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(help="Malformed rows: `error` names them and stops, `skip` counts them.")
    ] = "error",
    encoder: Encoder = None,
    set_: Pairs = None,
    as_json: Json = False,
) -> None:
    """Prepare a data set from its publisher's files.

    Pictures and titles are encoded once and kept; an interrupted command goes on where it stopped.

    Example: bench data prepare table --raw my-logs --name mine --set behaviors=view,cart,buy

    A reader of your own: bench data prepare my_set.py --raw my-logs

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


app.command()(check)


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
    folder = folder_of(name_or_path)
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
    dataset = load(folder_of(name_or_path))
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
