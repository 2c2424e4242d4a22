"""Tables and quoted text in Markdown."""

from collections.abc import Iterable, Sequence
from html import escape


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; cells are Markdown already, without line breaks."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plain(text: object) -> str:
    """Return text of a card or a doc line as Markdown for one cell: its backticks stay, nothing else acts."""
    parts = " ".join(str(text).split()).split("`")
    for number in range(0, len(parts), 2):  # what stands between backticks needs no escape but for `|`
        parts[number] = escape(parts[number], quote=False).replace("*", r"\*").replace("[", r"\[")
    return "`".join(parts).replace("|", r"\|")


def code(value: object) -> str:
    """Return a value as inline code for one cell."""
    text = str(value).replace("|", r"\|")
    return f"`{text}`" if text else "(empty)"


def options_table(values: dict[str, object], docs: dict[str, str], head: str = "Option") -> str:
    """Return the table of options with their defaults and doc lines.

    Args:
        values: dotted option name -> default.
        docs: dotted option name -> doc line.
        head: title of the first column.
    """
    rows = [(code(name), code(value), plain(docs.get(name, ""))) for name, value in values.items()]
    return table((head, "Default", "What it is"), rows)
