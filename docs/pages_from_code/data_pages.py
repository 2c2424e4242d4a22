"""The cards of the data sets, from the readers."""

from collections.abc import Iterator

from markdown_tables import options_table, plain, table

from bench.cards import DatasetCard
from bench.config import build_options, flatten, option_names
from bench.data import library
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions
from bench.data.sources import find

INTRODUCTION = """\
# Data-set cards

One card per reader, made from its file in `datasets/`. `bench data list` prints the same in short, with
what is prepared on this machine, and `bench data list taobao` prints one card in full.

"""
FACTS = {
    "Licence": "licence",
    "Published": "published",
    "Files for `--raw`": "files",
    "Behaviors": "behaviors",
    "Item content": "modalities",
    "Size": "size",
    "Known faults": "dirt",
}
"""Row of a card -> field of `DatasetCard`."""


def pages() -> Iterator[tuple[str, str]]:
    """Yield the page of the data sets."""
    cards = library.readers()
    rows = [
        (
            f"[`{name}`](#card-{name.replace('_', '-')})",
            "real" if card.real else "generated",
            plain(card.title),
        )
        for name, card in cards.items()
    ]
    own = [
        f"## {card.name} {{ #card-{card.name.replace('_', '-')} }}\n\n{_card(card)}"
        for card in cards.values()
    ]
    yield (
        "data-sets.md",
        "\n".join([INTRODUCTION + table(("Name", "Data", "What it is"), rows), *own, _shared()]),
    )


def _card(card: DatasetCard) -> str:
    facts = [(head, plain(getattr(card, name))) for head, name in FACTS.items() if getattr(card, name)]
    if not card.needs_raw:
        facts.insert(2, ("Files to bring", "none: it is prepared on first use"))
    parts = [f"{plain(card.title)}.\n", table(("Card", ""), facts)]
    if card.paper:
        figures = [(plain(name), f"{value:,}") for name, value in card.paper.items()]
        parts.append("Table 1 of the M3BSR paper says of it:\n")
        parts.append(table(("Figure", "Value"), figures))
    module = find(card.name).load()
    names = set(flatten(module.Options()))
    changed = {name: value for name, value in card.options.items() if name in names}
    values = flatten(build_options(module.Options, changed, f"data set {card.name}"))
    if values:
        parts.append("Options of the reader, set by `--set`:\n")
        parts.append(options_table(values, option_names(module.Options)))
    return "\n".join(parts)


def _shared() -> str:
    """Return the options that every preparation takes."""
    parts = ["## Options of every preparation\n"]
    for title, kind in (("Filters", PrepareOptions), ("Encoders", EncoderOptions)):
        parts.append(f"### {title}\n")
        parts.append(options_table(flatten(kind()), option_names(kind)))
    return "\n".join(parts)
