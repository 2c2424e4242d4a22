"""Figures, as PNG and PDF, from records and tables alone: one public function a figure.

What is drawn on one pair of axes, and the style, stand in `panels`; no other file imports matplotlib.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from bench.errors import UserError
from bench.experiments.record import Failure, Outcome, Record
from bench.files import replacing
from bench.report.ablation import Ablation
from bench.report.embeddings import Embeddings
from bench.report.heatmap import HeatMap, sentences
from bench.report.panels import (
    COLORS,
    GREY,
    STYLE,
    bars,
    forest,
    groups,
    heatmap,
    lines,
    log_scale,
    option_map,
    scatter,
)  # fmt: skip
from bench.report.slices import SliceTable
from bench.report.stress import StressTable

WIDTH = 7.1
"""Width of a figure over two columns of a paper, inches."""
CURVE_KEYS = ("stage", "epoch", "seconds", "targets")
VALIDATION = "NDCG@10"
ORDER = ("gates", "cosines", "norms", "noise_error")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` (300 dpi) and `<name>.pdf`, each under another name first, then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, dates in (("png", {}), ("pdf", {"CreationDate": None})):
        path = folder / f"{name.replace('/', '_').replace(':', '_')}.{ending}"
        with replacing(path) as partial:
            figure.savefig(partial, format=ending, dpi=300, metadata=dates)
        written.append(path)
    return written


def ablation(comparison: Ablation, folder: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """Draw the bars of an ablation: one panel per metric, the full model above its variants.

    Args:
        comparison: the model and its variants.
        folder: where `ablation_<model>_<dataset>_<protocol>.{png,pdf}` goes.
        metrics: among those of the table; None takes its first two.

    Raises:
        UserError: no row has a finished cell, or the table has no such metric.
    """
    table, tested = comparison.table, comparison.table.kind.tested
    metrics = metrics or table.metrics[:2]
    rows = [row for row in table.rows if row.metrics]
    if missing := [name for name in metrics if name not in table.metrics]:
        raise UserError(f"no panel of {missing[0]}: the table has {', '.join(table.metrics)}")
    if not rows:
        raise UserError(f"ablation of {comparison.full}: no finished cell to draw")
    labels = [comparison.short(row) for row in rows]
    with matplotlib.rc_context(STYLE):
        columns, height = min(len(metrics), 2), -(-len(metrics) // 2)
        figure = Figure(figsize=(WIDTH, 0.3 + height * (0.75 + 0.27 * len(rows))), layout="constrained")
        panels = figure.subplots(height, columns, sharey=True, squeeze=False).ravel()
        for panel in panels[len(metrics) :]:
            panel.set_axis_off()
        for panel, name in zip(panels, metrics, strict=False):
            means = np.array([row.metrics[name].mean for row in rows])
            deviations = np.array([row.metrics[name].std or 0.0 for row in rows])
            changes = [comparison.differences.get(row.model, {}).get(name) for row in rows]
            p = [comparison.p.get(row.model) if name == tested else None for row in rows]
            bars(panel, means, deviations, list(map(_change, changes, p)))
            panel.set_title(name)
        panels[0].set_yticks(range(len(rows)), labels)
        panels[0].invert_yaxis()
        seeds = max(len(row.seeds) for row in rows)
        spread = f"mean and sample deviation over {seeds} seeds" if seeds > 1 else "one seed"
        test = f"; p: paired test over users on {tested}, Holm" if comparison.p and tested in metrics else ""
        dashed = "dashed: full model"
        under = f"{_ground(table.dataset, table.simulated)}, {spread}; {dashed}{test}"
        figure.supxlabel(under, fontsize=7, color=GREY)
        return save(figure, folder, comparison.name)


def _change(difference: float | None, p: float | None) -> str:
    if difference is None:
        return ""
    p_value = "" if p is None else ", p<0.001" if p < 0.001 else f", p={p:.3f}"
    return f"{difference:+.4f}".replace("-", "\N{MINUS SIGN}") + p_value


def stress(table: StressTable, folder: Path) -> list[Path]:
    """Draw what models lose: a panel per changed condition, a row per model, differences with 95 % intervals.

    Args:
        table: of one stress run.
        folder: where `stress_<dataset>_<protocol>_<form>.{png,pdf}` goes.
    """
    labels, changed = list(table.rows), table.conditions[1:]
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, 0.9 + 0.24 * len(labels))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(changed), sharex=True, sharey=True, squeeze=False)[0]
        for panel, name in zip(panels, changed, strict=True):
            cells = [row[name] for row in table.rows.values()]
            forest(panel, [cell.test for cell in cells], [cell.p for cell in cells])
            panel.set_title(name)
        panels[0].set_yticks(range(len(labels)), labels)
        panels[0].set_ylim(len(labels) - 0.4, -0.6)
        form = "trained anew" if table.retrained else "same weights"
        seeds = f"{table.seeds} seeds" if table.seeds > 1 else "one seed"
        ground = _ground(table.table.dataset, table.table.simulated)
        what = f"{table.metric} less that with everything, 95 % interval over users, {form}, {seeds}"
        under = fill(f"{ground}: {what}; filled: p < 0.05, Holm over the row", 120)
        figure.supxlabel(under, fontsize=7, color=GREY)
        return save(figure, folder, table.name)


def embeddings(made: Embeddings, folder: Path, name: str) -> list[Path]:
    """Draw the views of the items: one panel each, colored kinds, `other` in grey behind them.

    Args:
        made: the views.
        folder: where `<name>.{png,pdf}` goes.
        name: of the files.
    """
    columns = min(len(made.panels), 3)
    height = -(-len(made.panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.35 * height + 0.9), layout="constrained")
        panels = figure.subplots(height, columns, squeeze=False).ravel()
        for panel in panels[len(made.panels) :]:
            panel.set_axis_off()
        for panel, view in zip(panels, made.panels, strict=False):
            scatter(panel, view.flat, view.kinds, made.names)
            panel.set_title(
                f"{fill(view.name, 30)}\npurity {view.measured.purity:.3f}, chance {view.measured.chance:.3f}"
            )
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=7,
                      markerscale=1.6)  # fmt: skip
        return save(figure, folder, name)


def heat(chart: HeatMap, folder: Path) -> list[Path]:
    """Draw a heat map of two options, and below it what its tests say.

    Args:
        chart: the map.
        folder: where `heatmap_<model>_<dataset>_<protocol>_<option>_<option>.{png,pdf}` goes.
    """
    height, width = chart.means.shape
    with matplotlib.rc_context(STYLE):
        size = (min(max(0.85 * width + 1.6, 4.2), WIDTH), 0.5 * height + 1.7)
        figure = Figure(figsize=size, layout="constrained")
        panel = figure.subplots()
        rows, columns = (list(map(str, values)) for values in reversed(chart.values))
        option_map(panel, (chart.means, chart.errors), rows, columns, (chart.best, chart.default))
        panel.set_xlabel(chart.names[0])
        panel.set_ylabel(chart.names[1])
        panel.set_title(f"{chart.label}, {chart.metric} ({chart.part})")
        verdicts = [line for line in sentences(chart)[2:] if line.startswith(("The best", "Best and"))]
        ground = _ground(chart.table.dataset, chart.table.simulated)
        text = f"{ground}. Framed: best; dashed: default. {'. '.join(verdicts)}".split(" The best of many")[0]
        figure.supxlabel(fill(text, int(size[0] * 17)), fontsize=6.5, color=GREY)
        return save(figure, folder, chart.name)


def slices(table: SliceTable, folder: Path, most: int = 8) -> list[Path]:
    """Draw a metric against the slices of the test users: a line per model, the best `most` of the whole.

    Args:
        table: of one property.
        folder: where `slices_<property>_<dataset>_<protocol>.{png,pdf}` goes.
        most: lines drawn.

    Raises:
        UserError: no row has a finished cell.
    """
    first = table.tables[0]
    done = [row for row in first.rows if table.metric in row.metrics]
    if not done:
        raise UserError("no finished cell to draw")
    best = sorted(done, key=lambda row: -row.metrics[table.metric].mean)[:most]
    values = {}
    for row in [row for row in done if row in best]:
        cells = [table.row(number, row.model) for number in range(1, len(table.labels))]
        values[row.named] = np.array([cell.metrics[table.metric].mean if cell else np.nan for cell in cells])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 0.72, 3.1), layout="constrained")
        panel = figure.subplots()
        x = np.arange(len(table.labels) - 1)
        panel.set_xticks(x, [f"{name}\n({table.users(n + 1):,})" for n, name in enumerate(table.labels[1:])])
        panel.set_xlim(-0.3, max(len(x) - 0.7, 0.3))
        lines(panel, x, values, bottom=0.0)
        panel.set_ylabel(table.metric)
        panel.set_xlabel(f"{table.by} (test users)")
        left = f"; best {most} of {len(done)} models" if len(done) > most else ""
        figure.supxlabel(f"{_ground(first.dataset, first.simulated)}{left}", fontsize=7, color=GREY)
        return save(figure, folder, table.name)


def diagnostics(record: Record, folder: Path) -> list[Path]:
    """Draw what a record tells of one training: loss terms, validation, and what the model shows of itself.

    Args:
        record: a finished cell.
        folder: where `diagnostics_<model>-seed<seed>-<key>.{png,pdf}` goes.

    Raises:
        UserError: it failed, or nothing was trained and the model shows nothing.
    """
    cell = record.cell
    which = f"{cell.model} seed {cell.seed}"
    if isinstance(record.result, Failure):
        raise UserError(f"{which}: it failed ({record.reason}); there is nothing to draw")
    panels = _panels(record.result)
    if not panels:
        raise UserError(f"{which}: nothing was trained and the model shows nothing of its inside")
    with matplotlib.rc_context(STYLE):
        height = -(-len(panels) // 2)
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        figure = Figure(figsize=(WIDTH, 0.35 + 2.45 * height), layout=layout)
        parts = figure.subfigures(height, 2, squeeze=False).ravel()  # each panel has margins of its own
        for part, draw in zip(parts, panels, strict=False):
            panel = part.subplots()
            draw(panel)
            title = fill(panel.get_title(loc="left"), 56)
            panel.set_title("")
            part.suptitle(title, x=0.02, ha="left", fontsize=STYLE["axes.titlesize"])  # as wide as the part
        where = _ground(cell.dataset, record.dataset.simulated)
        figure.suptitle(f"{record.label}, seed {cell.seed}, {where}", fontsize=9, x=0.01, ha="left")
        return save(figure, folder, f"diagnostics_{cell.model}-seed{cell.seed}-{record.key[:12]}")


def _panels(outcome: Outcome) -> list[Callable[[Axes], None]]:
    panels: list[Callable[[Axes], None]] = []
    if outcome.curves:
        panels += [lambda panel: _losses(panel, outcome), lambda panel: _validation(panel, outcome)]
    diagnostics = outcome.extra.get("diagnostics", {})
    names = sorted(diagnostics, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return panels + [lambda panel, one=diagnostics[name]: _diagnostic(panel, one) for name in names]


def _losses(panel: Axes, outcome: Outcome) -> None:
    names = dict.fromkeys(name for entry in outcome.curves for name in entry)
    terms = {
        name: np.array([entry.get(name, np.nan) for entry in outcome.curves], float)
        for name in names
        if name not in (*CURVE_KEYS, VALIDATION)
    }
    panel.set_title("Training loss, mean of each term over the epoch")
    known = np.concatenate([values[np.isfinite(values)] for values in terms.values()])
    if known.min() > 0 and known.max() > 8 * known.min():
        log_scale(panel, known.min(), known.max())
    lines(panel, np.arange(1, len(outcome.curves) + 1), terms)
    _epochs(panel, outcome)


def _validation(panel: Axes, outcome: Outcome) -> None:
    values = np.array([entry[VALIDATION] for entry in outcome.curves], float)
    epochs = np.arange(1, len(values) + 1)
    if np.isnan(values).all():
        panel.set_title(f"Validation {VALIDATION}: no validation event, the last epoch is kept")
        panel.set_ylim(0, 1)
        _epochs(panel, outcome)
        return
    panel.plot(epochs, values, color=COLORS[0], marker="o", markevery=-(-len(values) // 15))
    last = outcome.curves[-1]["stage"]
    best = sum(entry["stage"] != last for entry in outcome.curves) + outcome.best_epoch
    which = ""
    if outcome.best_epoch:
        panel.plot(best, values[best - 1], "o", color=COLORS[1], markersize=6, markerfacecolor="none")
        which = f" (kept: epoch {best}, {values[best - 1]:.4f})"
    panel.set_title(f"Validation {VALIDATION}{which}")
    _epochs(panel, outcome)


def _epochs(panel: Axes, outcome: Outcome) -> None:
    """Label the epochs of all stages on one axis, with a line where a stage begins."""
    panel.set_xlabel("epoch")
    panel.set_xlim(0.4, len(outcome.curves) + 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    stages = [entry["stage"] for entry in outcome.curves]
    begun = [epoch for epoch, stage in enumerate(stages) if epoch == 0 or stage != stages[epoch - 1]]
    for epoch in begun if len(begun) > 1 else []:
        if epoch:
            panel.axvline(epoch + 0.5, color=GREY, linewidth=0.6, linestyle=":")
        panel.text(epoch + 0.5, 1, f" {stages[epoch]}", transform=panel.get_xaxis_transform(), va="top",
                   fontsize=7, color=GREY)  # fmt: skip


def _diagnostic(panel: Axes, diagnostic: Mapping[str, Any]) -> None:
    """Draw one stored `Diagnostic` in its form."""
    values = np.array(diagnostic["values"], float)  # None becomes NaN
    rows, columns, (down, across), unit = (
        diagnostic["rows"],
        diagnostic["columns"],
        diagnostic["axes"],
        diagnostic["unit"],
    )
    title = f"{diagnostic['title'][:1].upper()}{diagnostic['title'][1:]}"
    panel.set_title(title)
    if diagnostic["form"] == "lines":
        lines(panel, np.arange(len(columns)), dict(zip(rows, values, strict=True)))
        step = -(-len(columns) // 10)
        panel.set_xticks(range(0, len(columns), step), columns[::step])
        panel.set(xlabel=across, ylabel=unit)
    elif diagnostic["form"] == "bars":
        groups(panel, values, rows, columns)
        panel.set(xlabel=unit, ylabel=down)
    else:
        heatmap(panel, values, rows, columns)
        panel.set(xlabel=across, ylabel=down)
        if unit and unit.lower() not in title.lower():
            panel.set_title(f"{title} ({unit})")


def _ground(dataset: str, simulated: bool) -> str:
    return f"{dataset} (SIMULATED DATA)" if simulated else dataset
