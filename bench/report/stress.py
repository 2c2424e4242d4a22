"""The stress table: what models lose when items show other content, in all forms.

A row is a model, a column a condition; each cell is tested against `everything` of its row by a paired
sign-flip test over users, seeds averaged, Holm-corrected over the row.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from bench.errors import UserError
from bench.evaluation.metrics import per_user
from bench.evaluation.significance import PairedTest, holm, paired_test
from bench.experiments.record import Record
from bench.report.grid import print_grid
from bench.report.notes import notes as table_notes
from bench.report.rows import Table, build
from bench.report.tables import latex_text, protocol_name, write_files

Ranks = NDArray[np.int32]
LEVEL = 0.05


@dataclass(frozen=True)
class StressCell:
    """A model under one condition."""

    mean: float
    """Mean of the metric over seeds."""
    std: float | None
    """Sample deviation over seeds; None for one."""
    test: PairedTest | None
    """This condition less the first one, over users; None for the first."""
    p: float | None
    """Its p-value, Holm over the row."""


@dataclass(frozen=True)
class StressTable:
    """Models under conditions."""

    table: Table
    """The models as they rank with everything: notes, data, protocol."""
    metric: str
    conditions: tuple[str, ...]
    """The unchanged one first."""
    rows: Mapping[str, Mapping[str, StressCell]]
    """Label -> condition -> cell."""
    seeds: int
    """Fewest seeds of a row."""
    retrained: bool
    """Models were trained anew under each condition; else the weights are the same."""

    @property
    def name(self) -> str:
        """File name without its ending."""
        form = "retrained" if self.retrained else "trained-once"
        return f"stress_{self.table.dataset}_{protocol_name(self.table)}_{form}"


def build_stress(
    records: Sequence[Record],
    ranks: Mapping[str, Mapping[str, Sequence[Ranks]]],
    conditions: tuple[str, ...],
    metric: str,
    retrained: bool,
) -> StressTable:
    """Make the table of the models that finished under every condition.

    Args:
        records: the models with everything.
        ranks: model -> condition -> per seed (S,) test ranks.
        conditions: the unchanged one first.
        metric: `NDCG@K`, `HR@K`, `MRR`.
        retrained: as `StressTable` has it.

    Raises:
        UserError: no model finished.
        ValueError: an unknown metric.
    """
    whole = [name for name in ranks if set(conditions) <= set(ranks[name])]
    if not whole:
        raise UserError("no model finished under every condition; the lines above say why")
    table = build([record for record in records if record.cell.model in whole])
    seeds = min(len(group) for name in whole for group in ranks[name].values())
    rows = {
        row.named: build_row({one: ranks[row.model][one][:seeds] for one in conditions}, metric)
        for row in table.rows
    }
    return StressTable(table, metric, conditions, rows, seeds, retrained)


def build_row(ranks: Mapping[str, Sequence[Ranks]], metric: str) -> dict[str, StressCell]:
    """Return the cells of a row.

    Args:
        ranks: condition -> per seed (S,) ranks of the same users; the unchanged condition first.
        metric: `NDCG@K`, `HR@K`, `MRR`.

    Raises:
        ValueError: an unknown metric, or users that differ.
    """
    gains = {name: np.stack([per_user(metric, one) for one in group]) for name, group in ranks.items()}
    first = next(iter(gains))
    tests = {
        name: paired_test(values.mean(0), gains[first].mean(0))
        for name, values in gains.items()
        if name != first
    }
    p = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    cells = {}
    for name, values in gains.items():
        means = values.mean(1)
        std = float(means.std(ddof=1)) if len(means) > 1 else None
        cells[name] = StressCell(float(means.mean()), std, tests.get(name), p.get(name))
    return cells


def notes(stress: StressTable) -> list[str]:
    """Return the lines under the table."""
    first = stress.conditions[0]
    how = (
        "each model trained anew on the changed content: a permuted vector is still a signature of its item"
        if stress.retrained
        else "the same trained weights, tested with what items show changed"
    )
    lines = [f"{stress.metric}; {how}"]
    if not stress.retrained:
        lines.append(
            "no ...: no item has it; ... permuted: each item shows that of another; ids permuted: each item "
            "keeps its image and text and takes the id of another"
        )
    lines.append(
        f"In brackets: difference from '{first}'; * where p < {LEVEL:g} in a paired sign-flip test over "
        "users, seeds averaged, Holm-corrected over the row"
    )
    shown = ("Data:", "Behaviors:", "Modalities:", "Protocol:", "Seeds:", "Limit:", "Training ended", "†")
    return lines + [line for line in table_notes(stress.table) if line.startswith(shown)]


def to_markdown(stress: StressTable) -> str:
    """Return a Markdown table with its notes."""
    lines = ["| " + " | ".join(["Model", *stress.conditions]) + " |",
             "|---|" + "---:|" * len(stress.conditions)]  # fmt: skip
    for label, cells in stress.rows.items():
        shown = [shown_cell(cells[name]) for name in stress.conditions]
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in (label, *shown)) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(stress))]) + "\n"


def to_latex(stress: StressTable) -> str:
    """Return a `booktabs` table with its notes."""
    caption = latex_text(f"{stress.metric} on {stress.table.dataset} under changed content.")
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(stress.conditions)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, ["Model", *stress.conditions])) + r" \\", r"\midrule"]
    for label, cells in stress.rows.items():
        shown = [shown_cell(cells[name]) for name in stress.conditions]
        lines.append(" & ".join(map(latex_text, [label, *shown])) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize"]
    lines += [latex_text(note) + r"\\" for note in notes(stress)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(stress: StressTable) -> str:
    """Return a CSV file: one line per model and condition, every value in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["label", "condition", "metric", "mean", "std", "difference", "low", "high", "p", "p_holm", "seeds",
         "retrained", "dataset", "protocol", "candidates_hash"]
    )  # fmt: skip
    ground = [stress.seeds, stress.retrained, stress.table.dataset, protocol_name(stress.table)]
    for label, cells in stress.rows.items():
        for name, cell in cells.items():
            test = cell.test
            tested = [test.difference, test.low, test.high, test.p] if test else [None] * 4
            values = [label, name, stress.metric, cell.mean, cell.std, *tested, cell.p]
            writer.writerow([*values, *ground, stress.table.candidates_hash])
    return out.getvalue()


def to_json_text(stress: StressTable) -> str:
    """Return the stable JSON form."""
    rows = [
        {
            "label": label,
            "conditions": {
                name: {
                    "mean": cell.mean,
                    "std": cell.std,
                    "difference": cell.test and cell.test.difference,
                    "interval": cell.test and [cell.test.low, cell.test.high],
                    "p": cell.p,
                }
                for name, cell in cells.items()
            },
        }
        for label, cells in stress.rows.items()
    ]
    head = {"dataset": stress.table.dataset, "protocol": protocol_name(stress.table), "metric": stress.metric}
    content = {
        **head,
        "retrained": stress.retrained,
        "seeds": stress.seeds,
        "rows": rows,
        "notes": notes(stress),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def write(stress: StressTable, folder: Path) -> list[Path]:
    """Write the table as .md, .csv, .tex and .json."""
    forms = {"md": to_markdown(stress), "csv": to_csv(stress), "tex": to_latex(stress)}
    return write_files(folder, stress.name, {**forms, "json": to_json_text(stress)})


def show(stress: StressTable, console: Console) -> None:
    """Print the table and its notes to a terminal."""
    mark = " - SIMULATED DATA" if stress.table.simulated else ""
    title = f"Stress on {stress.table.dataset} - {protocol_name(stress.table)}, {stress.metric}{mark}"
    rows = [
        [escape(label), *(shown_cell(cells[name]) for name in stress.conditions)]
        for label, cells in stress.rows.items()
    ]
    print_grid(console, title, ["Model", *stress.conditions], rows)
    for note in notes(stress):
        console.print(note, markup=False, highlight=False)


def shown_cell(cell: StressCell) -> str:
    """Return mean, difference and whether it is significant: `0.4312 (-0.0210*)`."""
    if cell.test is None:
        return f"{cell.mean:.4f}" + ("" if cell.std is None else f"±{cell.std:.4f}")
    mark = "*" if cell.p is not None and cell.p < LEVEL else ""
    return f"{cell.mean:.4f} ({cell.test.difference:+.4f}{mark})"
