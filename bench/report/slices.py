"""One metric by slices of the test users: a row per model, a column per slice, tests inside each slice."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.report.grid import print_grid
from bench.report.notes import LEVEL
from bench.report.rows import Row, Table
from bench.report.tables import latex_text, protocol_name, write_files


@dataclass(frozen=True)
class SliceTable:
    """Models by slices."""

    by: str
    """Property of the test users."""
    metric: str
    labels: tuple[str, ...]
    """Slices, `all` first."""
    tables: tuple[Table, ...]
    """A table of each."""

    @property
    def name(self) -> str:
        """File name without its ending."""
        first = self.tables[0]
        return f"slices_{self.by}_{first.dataset}_{protocol_name(first)}"

    def users(self, number: int) -> int:
        """Return the test users of a slice."""
        return self.tables[number].facts.test_users

    def row(self, number: int, model: str) -> Row | None:
        """Return a model's row in a slice."""
        return next((row for row in self.tables[number].rows if row.model == model), None)


def notes(slices: SliceTable) -> list[str]:
    """Return the lines under the table."""
    table = slices.tables[0]
    lines = [
        f"{slices.metric} by {slices.by}; * the best of the column is not significantly better than this "
        f"row: p >= {LEVEL:g}, {table.kind.test} over the users of the slice on {table.kind.tested}, "
        "Holm-corrected"
    ]
    few = [f"{label} ({slices.users(n):,})" for n, label in enumerate(slices.labels) if slices.users(n) < 50]
    if few:
        lines.append(f"Fewer than 50 users: {', '.join(few)}")
    mark = " (SIMULATED, not real)" if table.simulated else ""
    if any(row.reconstruction for row in table.rows):
        lines.append(
            "† reconstruction: no official code was found and the paper alone does not fix the model"
        )
    if table.where:
        lines.append(f"Test users where {table.where} alone")
    return [*lines, f"Data: {table.dataset}{mark}, {slices.users(0):,} test users"]


def cells(slices: SliceTable, model: str, bold: str = "{}") -> list[str]:
    """Return the cells of a model: mean, deviation, mark; `bold` is put around the best of a column."""
    out = []
    for number, table in enumerate(slices.tables):
        row = slices.row(number, model)
        value = row.metrics.get(slices.metric) if row else None
        if row is None or value is None:
            out.append("" if row is None else row.status)
            continue
        text = f"{value.mean:.4f}" + ("" if value.std is None else f"±{value.std:.4f}")
        best = table.ranking(slices.metric)[0] == value.mean
        mark = "*" if row.p is not None and row.p >= LEVEL else ""
        out.append((bold.format(text) if best else text) + mark)
    return out


def heads(slices: SliceTable) -> list[str]:
    """Return the headings of the columns, each with its number of users."""
    return [f"{label} ({slices.users(n):,})" for n, label in enumerate(slices.labels)]


def to_markdown(slices: SliceTable) -> str:
    """Return a Markdown table with its notes."""
    lines = ["| " + " | ".join(["Model", *heads(slices)]) + " |", "|---|" + "---:|" * len(slices.labels)]
    for row in slices.tables[0].rows:
        lines.append("| " + " | ".join([row.named, *cells(slices, row.model, "**{}**")]) + " |")
    chance = [f"{table.chance.get(slices.metric, 0):.4f}" for table in slices.tables]
    lines.append("| " + " | ".join(["*chance*", *chance]) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(slices))]) + "\n"


def to_latex(slices: SliceTable) -> str:
    """Return a `booktabs` table with its notes."""
    caption = latex_text(f"{slices.metric} by {slices.by} on {slices.tables[0].dataset}.")
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(slices.labels)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, ["Model", *heads(slices)])) + r" \\", r"\midrule"]
    for row in slices.tables[0].rows:
        lines.append(" & ".join(map(latex_text, [row.named, *cells(slices, row.model)])) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize"]
    lines += [latex_text(note) + r"\\" for note in notes(slices)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(slices: SliceTable) -> str:
    """Return a CSV file: one line per model and slice, every metric in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = slices.tables[0].metrics
    columns = [f"{name}{part}" for name in metrics for part in ("", " std")]
    writer.writerow(["by", "slice", "users", "model", "label", "seeds", *columns, "p"])
    for number, (label, table) in enumerate(zip(slices.labels, slices.tables, strict=True)):
        for row in table.rows:
            values = [row.metrics.get(name) for name in metrics]
            flat = [part for value in values for part in ((value.mean, value.std) if value else ("", ""))]
            head = [slices.by, label, slices.users(number), row.model, row.label, len(row.seeds)]
            writer.writerow([*head, *flat, row.p])
    return out.getvalue()


def to_json_text(slices: SliceTable) -> str:
    """Return the stable JSON form."""
    parts = [
        {
            "slice": label,
            "users": slices.users(number),
            "rows": [
                {
                    "model": row.model,
                    "label": row.label,
                    "p": row.p,
                    "metrics": {name: value.mean for name, value in row.metrics.items()},
                }
                for row in table.rows
            ],
        }
        for number, (label, table) in enumerate(zip(slices.labels, slices.tables, strict=True))
    ]
    content = {"by": slices.by, "metric": slices.metric, "slices": parts, "notes": notes(slices)}
    return json.dumps(content, indent=1, ensure_ascii=False)


FORMS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv, "json": to_json_text}


def write(slices: SliceTable, folder: Path) -> list[Path]:
    """Write the table as .md, .csv, .tex and .json."""
    forms = {"md": to_markdown(slices), "csv": to_csv(slices), "tex": to_latex(slices)}
    return write_files(folder, slices.name, {**forms, "json": to_json_text(slices)})


def show(slices: SliceTable, console: Console) -> None:
    """Print the table and its notes to a terminal."""
    table = slices.tables[0]
    mark = " - SIMULATED DATA" if table.simulated else ""
    title = f"{slices.metric} by {slices.by} - {table.dataset} - {protocol_name(table)}{mark}"
    rows = [[escape(row.named), *cells(slices, row.model, "[bold]{}[/bold]")] for row in table.rows]
    print_grid(console, title, ["Model", *heads(slices)], rows)
    for note in notes(slices):
        console.print(note, markup=False, highlight=False)


def make(by: str, metric: str, parts: Sequence[tuple[str, Table]]) -> SliceTable:
    """Return the table of named slices, the whole first."""
    return SliceTable(by, metric, tuple(label for label, _ in parts), tuple(table for _, table in parts))
