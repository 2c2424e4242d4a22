"""A heat map of two options: means with standard errors, and whether its best differs from anything."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.evaluation.metrics import per_user
from bench.evaluation.significance import PairedTest, paired_test
from bench.experiments.record import Record
from bench.files import replacing
from bench.report.notes import notes as table_notes
from bench.report.rows import Table, build
from bench.report.tables import protocol_name

LEVEL = 0.05


@dataclass(frozen=True)
class HeatMap:
    """Means of a metric over two options."""

    model: str
    label: str
    table: Table
    """The cells' data and protocol; its rows are not shown."""
    metric: str
    part: str
    """`validation` or `test`."""
    names: tuple[str, str]
    """Option from left to right, option from top to bottom."""
    values: tuple[tuple[Any, ...], tuple[Any, ...]]
    means: NDArray[np.float64]
    """(rows, columns), NaN where no seed finished."""
    errors: NDArray[np.float64]
    """(rows, columns) standard error over users, seeds averaged."""
    best: tuple[int, int]
    default: tuple[int, int] | None
    """Place of the usual values, None where they are not on the map."""
    tests: Mapping[str, PairedTest]
    """`default`, `worst` -> the best less that one, over users."""
    seeds: int

    @property
    def name(self) -> str:
        """File name without its ending."""
        x, y = (name.replace(".", "-") for name in self.names)
        return f"heatmap_{self.model}_{self.table.dataset}_{protocol_name(self.table)}_{x}_{y}".replace(
            ":", "_"
        )

    def at(self, place: tuple[int, int]) -> str:
        """Return the values of both options at a place."""
        row, column = place
        return f"{self.names[0]}={self.values[0][column]}, {self.names[1]}={self.values[1][row]}"


def build_map(
    cells: Mapping[tuple[int, int], Sequence[Record]],
    names: tuple[str, str],
    values: tuple[tuple[Any, ...], tuple[Any, ...]],
    default: tuple[Any, Any],
    metric: str,
    part: str,
) -> HeatMap:
    """Make a heat map of cells.

    Args:
        cells: (row, column) -> records of its seeds.
        names: option from left to right, option from top to bottom.
        values: their values.
        default: their usual values.
        metric: `NDCG@K`, `HR@K`, `MRR`.
        part: `validation` or `test`.

    Raises:
        UserError: no cell finished.
        ValueError: an unknown metric.
    """
    gains, fewest_seeds = _gains(cells, metric, part)
    shape = (len(values[1]), len(values[0]))
    means, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    for cell, gain in gains.items():
        means[cell] = gain.mean()
        errors[cell] = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
    order = sorted(gains, key=lambda cell: -means[cell])
    usual = None
    if default[0] in values[0] and default[1] in values[1]:
        usual = (values[1].index(default[1]), values[0].index(default[0]))
    others = {"default": usual, "worst": order[-1]}
    tests = {
        name: paired_test(gains[order[0]], gains[cell])
        for name, cell in others.items()
        if cell is not None and cell in gains and cell != order[0]
    }
    first = next(record for records in cells.values() for record in records if record.status == "done")
    table = build([first])
    return HeatMap(
        first.cell.model, table.rows[0].named, table, metric, part, names, values, means, errors,
        order[0], usual, tests, fewest_seeds,
    )  # fmt: skip


def _gains(
    cells: Mapping[tuple[int, int], Sequence[Record]], metric: str, part: str
) -> tuple[dict[tuple[int, int], NDArray[np.float64]], int]:
    """Return (U,) values per user of each finished cell, averaged over seeds, and the fewest seeds.

    Raises:
        UserError: no cell finished, or there are no users.
    """
    gains, counts = {}, []
    for cell, records in cells.items():
        ranks = [
            np.asarray(record.outcome.arrays[f"{part}_rank"]) for record in records if record.status == "done"
        ]
        if ranks:
            gains[cell] = np.mean([per_user(metric, one) for one in ranks], axis=0)
            counts.append(len(ranks))
    if not gains:
        raise UserError("no cell of the heat map finished; the lines above say why")
    if not len(next(iter(gains.values()))):
        raise UserError(f"there is no {part} user; choose the other --part")
    return gains, min(counts)


def sentences(chart: HeatMap) -> list[str]:
    """Return what the map says, and whether that is more than noise."""
    best = chart.means[chart.best]
    seeds = f"{chart.seeds} seeds averaged" if chart.seeds > 1 else "one seed"
    lines = [
        f"{chart.metric} of {chart.label} on {chart.table.dataset}, {chart.part} users, {seeds}; "
        "in brackets the standard error over users",
        f"Best: {chart.at(chart.best)}: {best:.4f} ({chart.errors[chart.best]:.4f})",
    ]
    for name, test in chart.tests.items():
        verdict = "differs from" if test.p < LEVEL else "does not differ from"
        lines.append(
            f"The best {verdict} the {name}: {test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], p "
            f"{test.p:.4f}, paired sign-flip test over users"
        )
    if chart.default == chart.best:
        lines.append("The best is the default")
    elif chart.default is None:
        lines.append("The default is not on the map")
    worst = chart.tests.get("worst")
    if worst is not None and worst.p >= LEVEL:
        lines.append("Best and worst are not told apart: this is a picture of noise")
    lines.append(
        "The best of many cells is chosen by the figure it is shown by: its p-values are too small, the more "
        "so the larger the map"
    )
    return lines


def notes(chart: HeatMap) -> list[str]:
    """Return the lines under the map."""
    shown = ("Data:", "Protocol:", "Limit:")
    return sentences(chart) + [line for line in table_notes(chart.table) if line.startswith(shown)]


def to_csv(chart: HeatMap) -> str:
    """Return a CSV file: one line per cell, every value in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*chart.names, chart.metric, "standard_error", "seeds", "part", "best", "default"])
    for row, column in np.ndindex(chart.means.shape):
        values = [chart.values[0][column], chart.values[1][row]]
        figures = [float(chart.means[row, column]), float(chart.errors[row, column]), chart.seeds, chart.part]
        place = (row, column)
        writer.writerow([*values, *figures, place == chart.best, place == chart.default])
    return out.getvalue()


def to_json_text(chart: HeatMap) -> str:
    """Return the stable JSON form."""
    content = {
        "model": chart.model,
        "dataset": chart.table.dataset,
        "metric": chart.metric,
        "part": chart.part,
        "options": {name: list(values) for name, values in zip(chart.names, chart.values, strict=True)},
        "means": [[None if np.isnan(v) else float(v) for v in row] for row in chart.means],
        "standard_errors": [[None if np.isnan(v) else float(v) for v in row] for row in chart.errors],
        "best": list(chart.best),
        "default": chart.default and list(chart.default),
        "tests": {name: vars(test) for name, test in chart.tests.items()},
        "notes": notes(chart),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def write(chart: HeatMap, folder: Path) -> list[Path]:
    """Write the map as .csv and .json."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in (("csv", to_csv(chart)), ("json", to_json_text(chart))):
        path = folder / f"{chart.name}.{ending}"
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(path)
    return written
