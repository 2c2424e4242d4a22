"""Tables on a terminal: a figure is shown whole or not at all."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NAME = 12
"""Characters below which no name is broken."""


def print_grid(
    console: Console,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    last: Sequence[str] | None = None,
    spare: int = 0,
) -> None:
    """Print names and figures; a console too narrow for them breaks its lines, and no figure loses a digit.

    Args:
        console: where to.
        title: above the table.
        head: of the columns; names in the first, figures in the others.
        rows: a cell for each column, with markup; figures are broken at spaces, names anywhere.
        last: a row under a line of its own.
        spare: columns at the end that are left out, the last first, where the console is too narrow; a line
            under the table names them.
    """
    cells = [[Text.from_markup(cell) for cell in row] for row in [head, *rows, *([last] if last else [])]]
    whole = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    broken = [max(map(_longest_word, column)) for column in zip(*cells, strict=True)]
    count, name = len(head), min(whole[0], NAME)
    while spare and _total(name, broken[1:count]) > console.width:
        count, spare = count - 1, spare - 1
    figures = whole[1:count] if _total(name, whole[1:count]) <= console.width else broken[1:count]
    name = max(name, min(whole[0], console.width - _total(0, figures)))
    width = _total(name, figures)  # set: a table as wide as the console would cut figures
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, width=width)
    grid.add_column(head[0], overflow="fold", width=name)
    for heading, wide in zip(head[1:count], figures, strict=True):
        grid.add_column(heading, justify="right", width=wide)
    for row in rows:
        grid.add_row(*row[:count])
    if last:
        grid.add_section()
        grid.add_row(*last[:count])
    console.print(grid, crop=False)
    if count < len(head):
        names = ", ".join(head[count:])
        line = f"{names}: no room in {console.width} columns; the Markdown and CSV forms have all"
        console.print(line, markup=False, highlight=False)


def _total(name: int, figures: Sequence[int]) -> int:
    """Return the width of a table: its columns, what stands between them and the two edges."""
    return name + sum(1 + width for width in figures) + 2


def _longest_word(cell: Text) -> int:
    return max((Text(word).cell_len for word in cell.plain.split()), default=0)
