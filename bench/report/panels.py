"""What figures draw on one pair of axes, and how it looks.

Palette of Okabe and Ito (2008), told apart by people of every color vision; lines differ in marker too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from bench.evaluation.significance import PairedTest

Values = NDArray[np.float64]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#555555"
MARKERS = "os^Dv<>"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.parse_math": False,  # a `$` in a name is a letter
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # text stays text
}


def bars(panel: Axes, means: Values, deviations: Values, notes: Sequence[str]) -> None:
    """Draw horizontal bars, the first of them the reference, values at their ends, notes to the right.

    Args:
        panel: where.
        means: (R,) lengths.
        deviations: (R,) half whiskers; 0 draws none.
        notes: R texts.
    """
    y = np.arange(len(means))
    colors = [COLORS[0], *[COLORS[4]] * (len(means) - 1)]
    panel.barh(y, means, 0.68, color=colors)
    known = deviations > 0
    panel.errorbar(means[known], y[known], xerr=deviations[known], fmt="none", ecolor="#000000",
                   elinewidth=0.8, capsize=2)  # fmt: skip
    panel.axvline(means[0], color=COLORS[0], linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    longest = float((means + deviations).max()) or 1.0
    panel.set_xlim(0, longest * 1.3)
    panel.set_xticks([tick for tick in MaxNLocator(4).tick_values(0, longest) if tick <= longest])
    panel.tick_params(axis="y", length=0)
    for height, mean, deviation, note in zip(y.tolist(), means, deviations, notes, strict=True):
        panel.annotate(
            f"{mean:.4f}", (mean + deviation, height), (4, 0), textcoords="offset points", va="center",
            fontsize=7.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
        panel.text(
            1.02, height, note, transform=panel.get_yaxis_transform(), va="center", fontsize=7, color=GREY
        )


def forest(panel: Axes, tests: Sequence[PairedTest | None], p: Sequence[float | None]) -> None:
    """Draw differences with their intervals, one row each around a line at 0; filled where p < 0.05."""
    panel.axvline(0, color=GREY, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    for row, (test, value) in enumerate(zip(tests, p, strict=True)):
        if test is None:
            continue
        color = COLORS[0] if test.difference >= 0 else COLORS[1]
        panel.plot([test.low, test.high], [row, row], color=color, linewidth=1.3)
        filled = value is not None and value < 0.05
        panel.plot(test.difference, row, "o", color=color, markersize=4,
                   markerfacecolor=color if filled else "white")  # fmt: skip
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_locator(MaxNLocator(2))


def log_scale(panel: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic, its ticks plain numbers."""
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())


def lines(
    panel: Axes, x: NDArray[np.int64], values: Mapping[str, Values], bottom: float | None = None
) -> None:
    """Draw named lines, each name at the right end of its line beside a sample of it; set scales before.

    Args:
        panel: where.
        x: (n,) ascending.
        values: name -> (n,), NaN where there is none.
        bottom: lowest value of the y axis; None fits it to the lines.
    """
    styles: list[dict[str, Any]] = [
        {
            "color": COLORS[number % len(COLORS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": "--" if number >= len(COLORS) else "-",
        }
        for number in range(len(values))
    ]
    for style, line in zip(styles, values.values(), strict=True):
        panel.plot(x, line, markevery=-(-len(x) // 15), **style)
    panel.margins(y=0.08)
    panel.autoscale_view(scalex=panel.get_autoscalex_on())
    panel.set_ylim(bottom=bottom)
    ends = [line[np.isfinite(line)][-1] if np.isfinite(line).any() else np.nan for line in values.values()]
    heights = spread(_fractions(panel, np.array(ends)), gap=0.085)
    for style, name, height in zip(styles, values, heights, strict=True):
        sample = Line2D(
            [1.03, 1.1], [height] * 2, transform=panel.transAxes, clip_on=False, markevery=[1], **style
        )
        panel.add_line(sample)
        panel.text(
            1.13, height, name, transform=panel.transAxes, va="center", fontsize=7.5, color=style["color"]
        )


def _fractions(panel: Axes, y: Values) -> Values:
    """Return where values lie on the y axis, as fractions of its length; the middle for NaN."""
    points = np.stack([np.full(len(y), panel.get_xlim()[0]), y], 1)
    heights = panel.transAxes.inverted().transform(panel.transData.transform(points))[:, 1]
    return np.nan_to_num(heights, nan=0.5)


def spread(heights: Values, gap: float) -> Values:
    """Move labels apart to at least `gap` and keep their order, as near to their heights as the order allows.

    Args:
        heights: (R,) wanted heights, fractions of the axis.
        gap: smallest distance, fraction.
    """
    order = np.argsort(heights, kind="stable")
    placed = heights[order].copy()
    for _ in range(100):
        overlap = gap - np.diff(placed)
        if (overlap <= 1e-6).all():
            break
        push = np.maximum(overlap, 0) / 2
        placed[:-1] -= push
        placed[1:] += push
    result = np.empty_like(placed)
    result[order] = placed
    return result


def groups(panel: Axes, values: Values, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a group of horizontal bars per row, one color per column, with a legend above the axes."""
    height = 0.8 / len(columns)
    for number, name in enumerate(columns):
        y = np.arange(len(rows)) + (number - (len(columns) - 1) / 2) * height
        panel.barh(y, values[:, number], height * 0.92, color=COLORS[number % len(COLORS)], label=name)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    if len(columns) > 1:
        above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        panel.legend(frameon=False, fontsize=7.5, ncols=len(columns), **above)


def scatter(panel: Axes, flat: NDArray[np.float32], kinds: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw items (n, 2), a color and a marker per kind, the last two kinds in grey behind the others."""
    shown = len(names) - 2
    for kind in (*range(shown, len(names)), *range(shown)):
        own = flat[kinds == kind]
        grey = kind >= shown
        color = "#BBBBBB" if grey else COLORS[kind % len(COLORS)]
        marker = "." if grey else (MARKERS + "PX*")[kind % 10]
        panel.scatter(own[:, 0], own[:, 1], s=4 if grey else 9, color=color, marker=marker, linewidths=0,
                      label=names[kind] if len(own) else None)  # fmt: skip
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(True)


def option_map(
    panel: Axes,
    values: tuple[Values, Values],
    rows: Sequence[str],
    columns: Sequence[str],
    marks: tuple[tuple[int, int], tuple[int, int] | None],
) -> None:
    """Draw means and their errors over two options, the best framed, the usual values framed by dashes.

    Args:
        panel: where.
        values: means and errors, (rows, columns) each, NaN where there is none.
        rows: labels from top to bottom.
        columns: labels from left to right.
        marks: place of the best, and of the usual values or None.
    """
    means, errors = values
    known = means[np.isfinite(means)]
    low, high = float(known.min()), float(known.max())
    middle, reach = (low + high) / 2, max(high - low, 1e-9)
    panel.imshow(means, cmap="Blues", vmin=low - 0.15 * reach, vmax=high + 0.25 * reach, aspect="auto")
    for row, column in np.ndindex(means.shape):
        mean = float(means[row, column])
        color = "white" if mean > middle + 0.25 * reach else "black"
        text = f"{mean:.4f}\n({errors[row, column]:.4f})" if np.isfinite(mean) else "failed"
        panel.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    for place, style in zip(marks, ("-", (0, (3, 2))), strict=True):
        if place is not None:
            corner = (place[1] - 0.47, place[0] - 0.47)
            panel.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=COLORS[1], linestyle=style,
                                      linewidth=1.6))  # fmt: skip
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xticks(range(len(columns)), columns)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def heatmap(panel: Axes, values: Values, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a heat map with its values in the cells; blue to red around 0 where some are negative."""
    known = values[np.isfinite(values)]
    signed = bool(known.size and known.min() < 0)
    reach = float(np.abs(known).max()) if known.size else 1.0
    low, high = (-reach, reach) if signed else (0.0, reach)
    panel.imshow(values, cmap="RdBu_r" if signed else "Blues", vmin=low, vmax=high, aspect="auto")
    dark = np.abs(values) > 0.6 * reach
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        text = f"{round(value, 2) + 0.0:.2f}" if np.isfinite(value) else "none"  # + 0.0: no -0.00
        panel.text(column, row, text, ha="center", va="center", fontsize=7.5 if len(columns) < 7 else 6,
                   color="white" if dark[row, column] else "black")  # fmt: skip
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xticks(range(len(columns)), columns)
    if sum(map(len, columns)) > 34:  # upright, they would touch
        for label in panel.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
