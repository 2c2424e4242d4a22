"""A table in the forms that people and programs read: terminal, Markdown, CSV, LaTeX, JSON."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench.config import ProtocolOptions, flatten
from bench.files import replacing
from bench.report.grid import print_grid
from bench.report.notes import LEVEL, notes
from bench.report.rows import Row, Table, Value, build, comparable, left_out

__all__ = [
    "Row", "Table", "Value", "build", "comparable", "latex_text", "left_out", "notes", "protocol_name",
    "show", "to_csv", "to_json", "to_latex", "to_markdown", "write_files", "write_tables",
]  # fmt: skip

COLUMNS = ("Seeds", "Weights", "Train s", "Epochs", "Targets", "Targets/s", "Users/s", "MiB")
NARROW = {"Weights": "Weights", "Train s": "Train s", "Epochs": "Epochs", "Targets": "Targets",
          "Targets/s": "per s", "MiB": "MiB"}  # fmt: skip
"""Columns that a terminal of 120 characters has room for, and their headings there."""


def to_markdown(table: Table) -> str:
    """Return a Markdown table with its notes; best value bold, second underlined."""
    head = ["Model", *_headings(table), *COLUMNS, "Remark"]
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 2), "---"]) + "|",
    ]
    for row in table.rows:
        values = [_marked(table, row, name, "**{}**", "<u>{}</u>") for name in table.metrics]
        remark = row.reason if row.status == "done" else f"{row.status}: {row.reason}"
        cells = [row.label + _marks(row), *values, *_costs(row), remark]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if table.chance:
        chance = [f"{table.chance[name]:.4f}" for name in table.metrics]
        lines.append("| " + " | ".join(["*chance*", *chance, *[""] * (len(COLUMNS) + 1)]) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(table))]) + "\n"


def to_latex(table: Table) -> str:
    """Return a `booktabs` table with its notes; best value bold, second underlined."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{Results on {latex_text(table.dataset)}.}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}", r"\toprule"]
    lines += [" & ".join(["Model", *map(_latex_note, _headings(table))]) + r" \\", r"\midrule"]
    marks = {"†": r"$^{\dagger}$", "*": "$^{*}$"}
    for row in table.rows:
        values = [_marked(table, row, name, r"\textbf{{{}}}", r"\underline{{{}}}") for name in table.metrics]
        cells = [value.replace("±", r"$\pm$") for value in values]
        label = latex_text(row.label) + "".join(marks[mark] for mark in _marks(row))
        lines.append(" & ".join([label, *cells]) + r" \\")
    if table.chance:
        chance = [f"{table.chance[name]:.4f}" for name in table.metrics]
        lines += [r"\midrule", " & ".join(["chance", *chance]) + r" \\"]
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize"]
    lines += [_latex_note(note) + r"\\" for note in notes(table)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(table: Table) -> str:
    """Return a CSV file: one line per model and one for the chance level, every value in full precision."""
    costs = (
        "parameters", "train_seconds", "epochs", "targets_seen", "targets_per_second",
        "score_users_per_second", "peak_memory_mb",
    )  # fmt: skip
    columns = [f"{name}{part}" for name in table.metrics for part in ("", " std")]
    ground = [table.dataset, protocol_name(table), table.candidates_hash, table.simulated]
    ground.append(table.measured.get("least_candidates", ""))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model", "label", "status", "seeds", *columns, *costs, "p", "reason", "dataset", "protocol",
         "candidates_hash", "simulated", "least_candidates"]
    )  # fmt: skip
    for row in table.rows:
        values = [row.metrics.get(name) for name in table.metrics]
        pairs = [part for value in values for part in ((value.mean, value.std) if value else (None, None))]
        spent = [getattr(row, name) for name in costs]
        writer.writerow(
            [row.model, row.label, row.status, len(row.seeds), *pairs, *spent, row.p, row.reason, *ground]
        )
    if table.chance:
        pairs = [part for name in table.metrics for part in (table.chance[name], None)]
        writer.writerow(["chance", "chance", "done", "", *pairs, *[""] * (len(costs) + 2), *ground])
    return out.getvalue()


def to_json(table: Table) -> str:
    """Return the stable JSON form; keys may be added, never taken away."""
    facts = {name: value for name, value in vars(table.facts).items() if name not in ("name", "simulated")}
    return json.dumps(
        {
            "dataset": table.dataset,
            "task": table.task,
            "protocol": table.protocol["candidates"],
            "candidates_hash": table.candidates_hash,
            "simulated": table.simulated,
            "rows": [_json_row(row) for row in table.rows],
            "chance": dict(table.chance),
            "best": table.best,
            "measured": dict(table.measured),
            "saturated_metrics": list(table.saturated),
            "fingerprint": table.fingerprint,
            "protocol_options": dict(table.protocol),
            "data": facts,
            "notes": notes(table),
        },
        indent=1,
        ensure_ascii=False,
    )


def _json_row(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "label": row.label,
        "family": row.family,
        "status": row.status,
        "seeds": len(row.seeds),
        "seed_list": list(row.seeds),
        "metrics": {name: {"mean": value.mean, "std": value.std} for name, value in row.metrics.items()},
        "parameters": row.parameters,
        "train_seconds": row.train_seconds,
        "epochs": row.epochs,
        "targets_seen": row.targets_seen,
        "targets_per_second": row.targets_per_second,
        "score_users_per_second": row.score_users_per_second,
        "peak_memory_mb": row.peak_memory_mb,
        "p": row.p,
        "options": dict(row.options),
        "limits": row.limits,
        "reconstruction": row.reconstruction,
        "reason": row.reason,
    }


def show(table: Table, console: Console) -> None:
    """Print a table and its notes to a terminal; 4 metrics with deviations fit 120 columns."""
    title = f"{table.dataset} - {protocol_name(table)}" + (" - SIMULATED DATA" if table.simulated else "")
    rows = []
    for row in table.rows:
        values = [
            _marked(table, row, name, "[bold]{}[/bold]", "[underline]{}[/underline]")
            for name in table.metrics
        ]
        costs = dict(zip(COLUMNS, _costs(row), strict=True))
        rows.append([escape(row.label) + _marks(row), *values, *(costs[name] for name in NARROW)])
    levels = [f"{table.chance[name]:.4f}" for name in table.metrics] if table.chance else []
    chance = ["chance", *levels, *[""] * len(NARROW)] if levels else None
    head = ["Model", *_headings(table), *NARROW.values()]
    print_grid(console, title, head, rows, chance, len(NARROW))
    for row in table.rows:
        if row.status != "done":
            console.print(
                f"{row.label} {row.status}: {row.reason}", style="red", markup=False, highlight=False
            )
    for note in notes(table):
        console.print(note, markup=False, highlight=False)


def write_tables(table: Table, folder: Path) -> list[Path]:
    """Write `table_<dataset>_<protocol>` as .md, .csv, .tex and .json; each file is replaced whole."""
    forms = {"md": to_markdown(table), "csv": to_csv(table), "tex": to_latex(table), "json": to_json(table)}
    return write_files(folder, f"table_{table.dataset}_{protocol_name(table)}", forms)


def write_files(folder: Path, name: str, forms: Mapping[str, str]) -> list[Path]:
    """Write `<name>.<ending>` for each ending -> text; each file is replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in forms.items():
        path = folder / f"{name.replace('/', '_')}.{ending}"
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def protocol_name(table: Table) -> str:
    """Return the candidates' name and whatever else differs from the default protocol: `full-global-time`."""
    usual = flatten(ProtocolOptions())
    other = [
        value if isinstance(value, str) else f"{name}{value}"
        for name, value in table.protocol.items()
        if name != "candidates" and value != usual.get(name)
    ]
    return "-".join([table.protocol["candidates"], *other])


def _headings(table: Table) -> list[str]:
    """Return the metrics, marked where some users have too few candidates to miss."""
    return [name + "‡" * (name in table.saturated) for name in table.metrics]


def _latex_note(note: str) -> str:
    text = latex_text(note).replace("†", r"$^{\dagger}$")
    return text.replace("‡", r"$^{\ddagger}$")


def _marked(table: Table, row: Row, metric: str, best: str, second: str) -> str:
    value = row.metrics.get(metric)
    if value is None:
        return row.status if metric == table.metrics[0] else ""
    text = f"{value.mean:.4f}" + ("" if value.std is None else f"±{value.std:.4f}")
    top = table.ranking(metric)
    rank = top.index(value.mean)
    return (best, second, "{}")[min(rank, 2)].format(text)


def _marks(row: Row) -> str:
    return ("†" if row.reconstruction else "") + ("*" if row.p is not None and row.p >= LEVEL else "")


def _costs(row: Row) -> list[str]:
    if not row.metrics:
        return [""] * len(COLUMNS)
    counts = (row.targets_seen, row.targets_per_second, row.score_users_per_second)
    seconds, memory = f"{row.train_seconds:,.0f}", f"{row.peak_memory_mb:,.0f}"
    return [
        str(len(row.seeds)),
        _short(row.parameters),
        seconds,
        str(row.epochs),
        *(_short(round(number)) for number in counts),
        memory,
    ]


def _short(number: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return str(number)


def latex_text(text: str) -> str:
    """Return text with the letters that LaTeX reads as commands escaped."""
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$"}
    special |= {letter: f"\\{letter}" for letter in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\^{}"}
    return "".join(special.get(letter, letter) for letter in text)
