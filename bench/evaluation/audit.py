"""Tables to be audited: the numbers of the M3BSR paper, and any CSV or Markdown table of HR@K and NDCG@K.

What the numbers must obey stands in `bench.evaluation.consistency`.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.evaluation.consistency import Violation, check_consistency

PAPER = Path(__file__).parent / "paper_results.json"
"""Facts of arXiv:2508.05352: the figures of its tables as printed."""
METRIC = re.compile(r"(HR|NDCG)@(\d+)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")
MARKS = re.compile(r"\*|†|‡|<u>|</u>|\\textbf|\\underline|[{}$]")
NAMES = ("model", "method", "label", "row", "name")


@dataclass(frozen=True)
class Audited:
    """Rows and what is wrong with them."""

    source: str
    rows: Mapping[str, Mapping[str, float]]
    """Name -> metric -> fraction."""
    violations: tuple[Violation, ...]


def audit_paper() -> Audited:
    """Audit Table 2 and Table 3 of the M3BSR paper, 1 + 99 candidates."""
    rows: dict[str, dict[str, float]] = {}
    for record in json.loads(PAPER.read_text(encoding="utf-8"))["records"]:
        if record["table"] in ("table2", "table3"):
            name = f"{record['table'].replace('table', 'Table ')}, {record['dataset']}, {record['method']}"
            rows.setdefault(name, {})[record["metric"]] = record["value"]
    return Audited("M3BSR, arXiv:2508.05352", rows, tuple(check_consistency(rows)))


def audit_file(path: Path, candidates: int | None, percent: bool = False) -> Audited:
    """Audit a CSV or Markdown table.

    Args:
        path: a file with a head that names metrics (`HR@10`); other columns are passed over. The first column
            names the rows, or those called model, method, label or dataset.
        candidates: items ranked for each user; None leaves the chance level out.
        percent: the values are percentages.

    Raises:
        UserError: the file is no such table, or a value is no fraction.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a CSV or Markdown table, or nothing for the paper's")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    table = list(_markdown(lines)) if path.suffix.lower() in (".md", ".markdown") else list(_csv(lines))
    head = next(
        (number for number, (_, cells) in enumerate(table) if any(map(METRIC.fullmatch, cells))), None
    )
    if head is None:
        raise UserError(f"{path}: no head with HR@K or NDCG@K; name the columns so, such as HR@10")
    columns = {n: cell.upper() for n, cell in enumerate(table[head][1]) if METRIC.fullmatch(cell)}
    titles = [n for n, cell in enumerate(table[head][1]) if cell.lower() in (*NAMES, "dataset")] or [0]
    rows: dict[str, dict[str, float]] = {}
    violations: list[Violation] = []
    for line, cells in table[head + 1 :]:
        values, decimals = _values(path, line, cells, columns, percent)
        if not values:
            continue
        name = ", ".join(cells[n] for n in titles if n < len(cells)) or f"line {line}"
        name = name if name not in rows else f"{name} (line {line})"
        rows[name] = values
        rounding = 0.5 * 10.0 ** -(decimals + (2 if percent else 0))
        violations += check_consistency({name: values}, candidates, rounding)
    if not rows:
        raise UserError(f"{path}: no row with a number under {', '.join(columns.values())}")
    return Audited(str(path), rows, tuple(violations))


def _csv(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line, from 1, and the cells of each row."""
    for number, cells in enumerate(csv.reader(lines), start=1):
        yield number, [_plain(cell) for cell in cells]


def _markdown(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("|") and not re.fullmatch(r"[|:\- ]+", text):
            yield number, [_plain(cell) for cell in re.split(r"(?<!\\)\|", text.strip("|"))]


def _plain(cell: str) -> str:
    return MARKS.sub("", cell).strip()


def _values(
    path: Path, line: int, cells: list[str], columns: Mapping[int, str], percent: bool
) -> tuple[dict[str, float], int]:
    """Return the metrics of a row and the fewest decimals that one of them has."""
    values: dict[str, float] = {}
    decimals = []
    for column, metric in columns.items():
        text = re.split(r"±|\\pm|\+/-", cells[column])[0].strip() if column < len(cells) else ""
        if not NUMBER.fullmatch(text):
            continue  # an empty cell, or a word such as "failed"
        value = float(text) / (100 if percent else 1)
        if not 0 <= value <= 1:
            fix = "expected a fraction from 0 to 1; of percentages give --percent"
            raise UserError(f"{path}: line {line}, {metric} {text}: {fix}")
        values[metric] = value
        decimals.append(len(text.partition(".")[2]) if "e" not in text.lower() else 12)
    return values, min(decimals, default=4)


def explained(violation: Violation) -> str:
    """Return what is wrong in words."""
    low, high = violation.allowed
    value = violation.value
    what = {
        "gain": f"gains {value:+.4f} from the cut-off before; its new hits are worth {low:.4f} to {high:.4f}",
        "falls": f"is {value:.4f}, below {low:.4f} at the smaller cut-off",
        "bound": f"is {value:.4f}; its HR allows {low:.4f} to {high:.4f}",
        "chance": f"is {value:.4f}, below a random ranker's {low:.4f}",
    }
    return f"{violation.metric} {what[violation.rule]}"
