"""Pictures of a sweep, by Optuna."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import optuna.visualization.matplotlib as pictures

from bench.experiments.study import quiet
from bench.experiments.sweep import Tuned

TARGET = "validation NDCG@10"


def draw(tuned: Tuned, save: Callable[[Any, str], list[Path]]) -> list[Path]:
    """Draw the history of the trials, the importance of the options, and the two most important together.

    Args:
        tuned: a sweep.
        save: writes a figure under a name.
    """
    written: list[Path] = []

    def keep(axes: Any, part: str, title: str, legend: str | None = None) -> None:
        axes.set_title("", loc="left")  # where Optuna puts the one of the bars
        axes.set_title(f"{tuned.model} on {tuned.dataset}: {title}", fontsize="medium")
        if old := axes.get_legend():  # Optuna puts it outside, where it takes a third of the picture
            old.remove()
        if legend:
            axes.legend(loc=legend)
        axes.figure.tight_layout()
        written.extend(save(axes.figure, f"sweep_{tuned.model}_{tuned.dataset}_{part}"))

    with quiet():
        study = optuna.load_study(study_name=tuned.study, storage=tuned.url)
        history = pictures.plot_optimization_history(study, target_name=TARGET)
        keep(history, "history", "trials in their order", "best")
        values = [one.params for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        varied = [option for option in tuned.options if len({repr(v.get(option)) for v in values}) > 1]
        if len(values) < 4 or len(varied) < 2:
            print(f"{tuned.model}: too few trials to tell which options matter", file=sys.stderr)
            return written
        importance = optuna.importance.get_param_importances(study, params=varied)
        bars: Any = pictures.plot_param_importances(study, params=varied, target_name=TARGET)
        keep(bars, "importance", "importance of the options")
        two = list(importance)[:2]
        contour: Any = pictures.plot_contour(study, params=two, target_name=TARGET)
        keep(contour, "contour", "the two options that matter most")
    return written
