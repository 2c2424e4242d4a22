"""An ablation: what a model loses without each of its parts, in the forms that people and programs read."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from bench.experiments.record import Record
from bench.report.grid import print_grid
from bench.report.notes import notes as table_notes
from bench.report.rows import Row, Table, arrays_by_model, build
from bench.report.tables import latex_text, protocol_name, to_json, write_files

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Ablation:
    """A model, its variants, and how each variant differs from it."""

    table: Table
    """Rows: the full model first."""
    full: str
    """Registry name of the full model."""
    differences: Mapping[str, Mapping[str, float]]
    """Variant -> metric -> its mean less that of the full model; empty where either has no finished cell."""
    p: Mapping[str, float]
    """Variant -> p-value of the paired test against the full model, Holm over the variants."""

    @property
    def name(self) -> str:
        """File name without its ending: `ablation_m3bsr_ml-100k_uniform99`."""
        return f"ablation_{self.full}_{self.table.dataset}_{protocol_name(self.table)}".replace("/", "_")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame: that of the table, with the difference from the full model and its p."""
        frame = self.table.to_pandas().drop(columns="p")
        for name in self.table.metrics:
            frame[f"{name} difference"] = [self.differences.get(m, {}).get(name) for m in frame["model"]]
        frame["p against full"] = [self.p.get(model) for model in frame["model"]]
        return frame

    def short(self, row: Row) -> str:
        """Return the label of a row without the model's: `w/o gate`; that of the full model as it is."""
        return row.label.removeprefix(f"{self.table.rows[0].label} ")


def compare(records: Sequence[Record], metrics: Sequence[str] | None = None) -> Ablation:
    """Compare variants with their model.

    Args:
        records: of one model and its variants on the same candidates, the full model first.
        metrics: as `bench.report.rows.build` takes them.

    Raises:
        ValueError: no record, records on different data, candidates or users, or an unknown metric.
    """
    table = build(records, metrics)
    full, *rest = table.rows
    differences = {
        row.model: {name: row.metrics[name].mean - full.metrics[name].mean for name in table.metrics}
        for row in rest
        if full.metrics and row.metrics
    }
    p = table.kind.compare(arrays_by_model(records), full.model)[1] if differences else {}
    return Ablation(table, full.model, differences, p)


def notes(comparison: Ablation) -> list[str]:
    """Return the lines under the table."""
    # tested against the full model instead
    rows = tuple(replace(row, p=None) for row in comparison.table.rows)
    label = rows[0].label
    lines = table_notes(replace(comparison.table, rows=rows))
    lower = [name for name in comparison.table.metrics if name in comparison.table.kind.lower_is_better]
    sign = f" (above 0: {', '.join(lower)})" if lower else ""
    lines += [f"Difference: mean of the variant less that of {label}; below 0{sign} the missing part helps"]
    if comparison.p:
        test = f"{comparison.table.kind.test} over users on {comparison.table.kind.tested}, seeds averaged"
        lines += [f"p: {test}, against {label}, Holm-corrected over {len(comparison.p)} variants"]
    return lines


def show(comparison: Ablation, console: Console) -> None:
    """Print an ablation and its notes to a terminal; 4 metrics fit 120 columns."""
    table = comparison.table
    mark = " - SIMULATED DATA" if table.simulated else ""
    title = f"Ablation of {table.rows[0].label} on {table.dataset} - {protocol_name(table)}{mark}"
    columns = [part for name in table.metrics for part in (name, "diff.")]
    rows = [
        [escape(comparison.short(row)), *_values(comparison, row), _p(comparison, row), str(len(row.seeds))]
        for row in table.rows
    ]
    print_grid(console, title, ["Model", *columns, "p", "Seeds"], rows)
    for row in table.rows:
        if row.status != "done":
            line = f"{row.label} {row.status}: {row.reason}"
            console.print(line, style="red", markup=False, highlight=False)
    for note in notes(comparison):
        console.print(note, markup=False, highlight=False)


def to_markdown(comparison: Ablation) -> str:
    """Return a Markdown table with its notes."""
    columns = [part for name in comparison.table.metrics for part in (name, "diff.")]
    head = ["Model", *columns, "p", "Seeds", "Weights", "Train s", "Remark"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 2) + "---|"]
    for row in comparison.table.rows:
        costs = [f"{row.parameters:,}", f"{row.train_seconds:,.0f}"] if row.metrics else ["", ""]
        remark = row.reason if row.status == "done" else f"{row.status}: {row.reason}"
        cells = [
            row.label,
            *_values(comparison, row),
            _p(comparison, row),
            str(len(row.seeds)),
            *costs,
            remark,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(comparison))]) + "\n"


def to_latex(comparison: Ablation) -> str:
    """Return a `booktabs` table with its notes."""
    table = comparison.table
    head = " & ".join(["Model", *(f"{latex_text(name)} & diff." for name in table.metrics), "$p$"])
    caption = latex_text(f"Ablation of {table.rows[0].label} on {table.dataset}.")
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (2 * len(table.metrics) + 1)}}}", r"\toprule"]
    lines += [head + r" \\", r"\midrule"]
    for row in table.rows:
        cells = [comparison.short(row), *_values(comparison, row), _p(comparison, row)]
        lines.append(" & ".join(map(latex_text, cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize"]
    lines += [latex_text(note) + r"\\" for note in notes(comparison)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(comparison: Ablation) -> str:
    """Return a CSV file: one line per row, every value in full precision."""
    table, out = comparison.table, io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{name}{part}" for name in table.metrics for part in ("", " std", " difference")]
    writer.writerow(["model", "label", "status", "seeds", *columns, "p", "parameters", "train_seconds",
                     "reason", "dataset", "protocol", "candidates_hash", "simulated"])  # fmt: skip
    for row in table.rows:
        change, values = comparison.differences.get(row.model, {}), []
        for name in table.metrics:
            value = row.metrics.get(name)
            values += [value and value.mean, value and value.std, change.get(name)]
        ground = [table.dataset, protocol_name(table), table.candidates_hash, table.simulated]
        costs = [row.parameters, row.train_seconds, row.reason]
        p = comparison.p.get(row.model)
        writer.writerow([row.model, row.label, row.status, len(row.seeds), *values, p, *costs, *ground])
    return out.getvalue()


def to_json_text(comparison: Ablation) -> str:
    """Return the stable JSON form of a table, with `full`, and `difference` and `p` of each variant."""
    content = json.loads(to_json(comparison.table))
    for row in content["rows"]:
        row |= {
            "difference": dict(comparison.differences.get(row["model"], {})),
            "p": comparison.p.get(row["model"]),
        }
    content |= {"full": comparison.full, "notes": notes(comparison)}
    return json.dumps(content, indent=1, ensure_ascii=False)


def write(comparison: Ablation, folder: Path) -> list[Path]:
    """Write `ablation_<model>_<dataset>_<protocol>` as .md, .csv, .tex and .json."""
    forms = {"md": to_markdown(comparison), "csv": to_csv(comparison), "tex": to_latex(comparison)}
    return write_files(folder, comparison.name, {**forms, "json": to_json_text(comparison)})


def _values(comparison: Ablation, row: Row) -> list[str]:
    """Return mean with deviation and difference of each metric, or what became of the row."""
    cells, change = [], comparison.differences.get(row.model, {})
    for name in comparison.table.metrics:
        value = row.metrics.get(name)
        if value is None:
            cells += [row.status if name == comparison.table.metrics[0] else "", ""]
            continue
        spread = "" if value.std is None else f"±{value.std:.4f}"
        cells += [f"{value.mean:.4f}{spread}", f"{change[name]:+.4f}" if change else ""]
    return cells


def _p(comparison: Ablation, row: Row) -> str:
    p = comparison.p.get(row.model)
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
