"""The distributions of a data set in one figure: history lengths, popularity of items, events over time."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.report.figures import WIDTH, save
from bench.report.panels import COLORS, GREY, STYLE


def data_set(
    name: str,
    simulated: bool,
    lengths: Mapping[str, Mapping[int, int]],
    popularity: Mapping[str, NDArray[np.int64]],
    times: NDArray[np.float64],
    over_time: Mapping[str, NDArray[np.int64]],
    folder: Path,
) -> list[Path]:
    """Draw three panels, one line per behavior.

    Args:
        name: of the data set.
        simulated: said in the title.
        lengths: behavior -> events of a user -> users that have as many.
        popularity: behavior -> events of each item, descending.
        times: (T + 1,) edges over the time span.
        over_time: behavior -> (T,) events between two edges.
        folder: where `dataset_<name>.{png,pdf}` goes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        histories, items, time = figure.subplots(1, 3)
        for color, behavior in zip(COLORS, lengths, strict=False):
            _lengths(histories, lengths[behavior], color)
            ranks = np.arange(1, len(popularity[behavior]) + 1)
            items.plot(ranks, popularity[behavior], color=color)
            time.stairs(over_time[behavior], _share(times), color=color, linewidth=1.2)
        _label(histories, "Events of a user", "events kept", "users with as many or more", log=True)
        _label(items, "Popularity of items", "rank of the item", "events", log=True)
        _label(time, "Events over time", "share of the time span", "events kept", log=False)
        time.set_ylim(bottom=0)
        handles = [(behavior, color) for color, behavior in zip(COLORS, lengths, strict=False)]
        for row, (behavior, color) in enumerate(handles):
            histories.text(0.04, 0.06 + 0.1 * (len(handles) - 1 - row), behavior, color=color,
                           transform=histories.transAxes, fontsize=8)  # fmt: skip
        title = f"{name} (SIMULATED DATA)" if simulated else name
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        return save(figure, folder, f"dataset_{name}")


def _lengths(panel: Axes, users: Mapping[int, int], color: str) -> None:
    """Draw how many users have as many events or more."""
    values = np.array(sorted(users))
    more = np.cumsum([users[value] for value in values.tolist()][::-1])[::-1]
    panel.step(values, more, color=color, where="pre")


def _share(times: NDArray[np.float64]) -> NDArray[np.float64]:
    return (times - times[0]) / max(float(times[-1] - times[0]), 1.0)


def _label(panel: Axes, title: str, x: str, y: str, log: bool) -> None:
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(color=GREY, alpha=0.15, linewidth=0.5)
    if log:
        panel.set_xscale("log")
        panel.set_yscale("log")
