"""The cards of the models, one page per family, from the registry."""

from collections.abc import Iterator

from markdown_tables import code, options_table, plain, table

from bench.config import build_options, flatten, option_names
from bench.errors import UserError
from bench.registry import Entry, catalog, entries, variants

TITLES = {
    "heuristic": "Heuristics and neighborhood",
    "sequential": "Sequential models",
    "multimodal": "Multi-modal models",
    "multibehavior": "Multi-behavior models",
    "ctr": "Click prediction",
    "proposed": "Proposed models",
}
"""Family -> title of its page, in the order of the tables."""
INTRODUCTION = """\
# Models

Each model is one row of the table. Its card is written in the file of the model and says which paper it
follows, what it reads, and every known difference from the paper or the authors' code with the reason. The
pages of the families show the cards with all options; they are made from the code, so they cannot fall behind
it. The same card is printed by `bench models sasrec`, and as JSON with `--json`.

A model marked with a dagger (†) is a **reconstruction**: no official code was found, and the paper alone does
not fix the model. Every table marks such rows.

"""
RECBOLE = """\
# RecBole's models

`--models recbole:NAME` puts a model of the installed RecBole 1.2.1 into the same table: RecBole's own class,
trained by this harness on the same split, histories, negatives and evaluator as every other model. The part
`[recbole]` brings RecBole; it needs Python 3.11.

```
bench models recbole:
bench run --models sasrec,recbole:NARM --dataset ml-100k --max-minutes 2
```

The outcome says whether a model can be chosen, and on which data.

"""


def pages() -> Iterator[tuple[str, str]]:
    """Yield the overview, a page per family, and the page of RecBole's models."""
    known = entries().values()
    families = {family: [e for e in known if e.card.family == family] for family in TITLES}
    unknown = {entry.card.family for entry in known} - set(TITLES)
    if unknown:
        raise ValueError(f"families without a page: {unknown}; add them to TITLES and to nav in mkdocs.yml")
    yield (
        "models/index.md",
        INTRODUCTION
        + "\n".join(
            f"## {TITLES[family]}\n\n{_overview(family, members)}" for family, members in families.items()
        ),
    )
    for family, members in families.items():
        yield f"models/{family}.md", f"# {TITLES[family]}\n\n" + "\n".join(map(_card, members))
    yield "models/recbole.md", RECBOLE + _library()


def _overview(family: str, members: list[Entry]) -> str:
    rows = [
        (
            f"[{_label(entry)}]({family}.md#{_anchor(entry)})",
            code(entry.card.name),
            str(entry.card.year or ""),
            plain(entry.card.inputs),
        )
        for entry in members
    ]
    return table(("Model", "Name", "Year", "What it reads"), rows)


def _label(entry: Entry) -> str:
    return plain(entry.card.label) + ("†" if entry.card.reconstruction else "")


def _anchor(entry: Entry) -> str:
    return "card-" + entry.card.name.replace("_", "-")


def _card(entry: Entry) -> str:
    """Return a model's card in Markdown."""
    card, kind = entry.card, entry.load().Config
    values = flatten(build_options(kind, card.options, f"card of {card.name}"))
    source = "/".join(entry.path.parts[-3:] if entry.path.name == "__init__.py" else entry.path.parts[-2:])
    parts = [f"## {_label(entry)} {{ #{_anchor(entry)} }}\n"]
    if card.reconstruction:
        parts.append(
            "**Reconstruction**: no official code was found and the paper alone does not fix the model.\n"
        )
    tasks = ", ".join(f"`--task {task}`" for task in card.tasks) or "none: it is run by its name alone"
    facts = [
        ("Name", code(card.name)),
        ("Paper", plain(card.paper)),
        ("Year", str(card.year or "none")),
        ("Reads", plain(card.inputs)),
        ("Part of `all`", tasks),
        ("Source", code(source)),
    ]
    parts.append(table(("Card", ""), facts))
    if card.deviations:
        parts.append(
            "**Deviations from the paper**\n\n" + "".join(f"- {plain(one)}\n" for one in card.deviations)
        )
    else:
        parts.append("**Deviations from the paper**: none known.\n")
    if card.notes:
        parts.append("**Notes**\n\n" + "\n\n".join(plain(line) for line in card.notes.splitlines()) + "\n")
    if card.variants:
        rows = [_variant(one) for one in variants(entry)]
        parts.append(f"**Variants**, run by `bench ablate {entry.spec}`\n\n")
        parts.append(table(("Variant", "Label", "Options changed"), rows))
    if card.search:
        rows = [(code(name), code(", ".join(map(str, tried)))) for name, tried in card.search.items()]
        parts.append(f"**Search space**, tried by `bench sweep {entry.spec}`\n\n")
        parts.append(table(("Option", "Values"), rows))
    if values:
        parts.append("**Options**\n\n" + options_table(values, option_names(kind)))
    return "\n".join(parts)


def _variant(entry: Entry) -> tuple[str, str, str]:
    changed = ", ".join(f"{name}={value}" for name, value in entry.changed.items())
    return code(entry.card.name), plain(entry.card.label), code(changed)


def _library() -> str:
    """Return the table of RecBole's models, or why there is none."""
    try:
        rows = catalog("recbole").listing()
    except UserError as error:
        return f"There is no list here: {plain(error)}.\n"
    return table(
        ("Model", "Kind", "Outcome"), [(code(name), kind, plain(outcome)) for name, kind, outcome in rows]
    )
