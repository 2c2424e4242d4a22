"""The table of times, in the forms that people and programs read."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.tables import latex_text, write_files

HEAD = (
    "Model", "Batch", "Steps", "s/epoch", "ms/step", "Targets/s", "ms/batch scored", "Users/s", "Items ms",
    "MiB", "Weights", "GFLOP/step",
)  # fmt: skip
Values = dict[str, Any]


def rows(timed: Sequence[Values]) -> list[list[str]]:
    """Return the cells of each model under `HEAD`."""
    made = []
    for one in timed:
        low, middle, high = (1e3 * part for part in one["step_seconds"])
        trained = one["steps"] > 0
        made.append(
            [
                one["label"],
                f"{one['batch_size']:,}" if trained else "",
                f"{one['steps']:,}" if trained else "",
                f"{one['epoch_seconds']:.1f}" if trained else "0",
                f"{middle:.1f} [{low:.1f}, {high:.1f}]" if trained else "",
                f"{one['targets_per_second']:,.0f}" if trained else "",
                f"{1e3 * one['score_seconds']:.1f}",
                f"{one['users_per_second']:,.0f}",
                f"{1e3 * one['items_seconds']:.1f}",
                f"{one['peak_mib']:,.0f}",
                f"{one['parameters']:,}",
                f"{one['step_gflop']:.2f}" if trained else "",
            ]
        )
    return made


def notes(timed: Sequence[Values], dataset: str) -> list[str]:
    """Return the lines under the table."""
    first = timed[0]
    marked = ["† reconstruction"] if any("†" in one["label"] for one in timed) else []
    return [
        *marked,
        f"Data: {dataset}; device: {first['device']}, {first['threads']} threads",
        "Steps of all models take turns, the first two left out; quartiles in brackets; an epoch is the "
        "median step times its steps; of several stages the last one is timed",
        f"Scoring: {first['score_batch']} users with 100 candidates; 'Items ms' is spent once an evaluation",
        "MiB: above what the process held before the model; GFLOP: products of forward and backward pass, "
        "attention on a CPU is not counted",
    ]


def to_markdown(timed: Sequence[Values], dataset: str) -> str:
    """Return a Markdown table with its notes."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows(timed)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(timed, dataset))]) + "\n"


def to_latex(timed: Sequence[Values], dataset: str) -> str:
    """Return a `booktabs` table with its notes."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{Cost of the models on {latex_text(dataset)}.}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, HEAD)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(latex_text, cells)) + r" \\" for cells in rows(timed)]
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\footnotesize"]
    lines += [latex_text(note) + r"\\" for note in notes(timed, dataset)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(timed: Sequence[Values]) -> str:
    """Return a CSV file, every value in full precision, seconds and MiB."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in timed[0] if name != "step_seconds"]
    writer.writerow([*names, "step_seconds_q25", "step_seconds", "step_seconds_q75"])
    for one in timed:
        writer.writerow([*(one[name] for name in names), *one["step_seconds"]])
    return out.getvalue()


def write(timed: Sequence[Values], dataset: str, name: str, folder: Path) -> list[Path]:
    """Write the table as .md, .csv, .tex and .json."""
    forms = {
        "md": to_markdown(timed, dataset),
        "csv": to_csv(timed),
        "tex": to_latex(timed, dataset),
        "json": json.dumps({"dataset": dataset, "models": timed, "notes": notes(timed, dataset)}, indent=1),
    }
    return write_files(folder, name, forms)
