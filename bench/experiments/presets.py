"""Tuned configurations: what `bench sweep` writes and `bench run --tuned` reads. Imports no Optuna."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.files import replacing
from bench.registry import Entry

if TYPE_CHECKING:
    from bench.experiments.sweep import Tuned


@dataclass(frozen=True)
class Preset:
    """The best configuration that a sweep found."""

    model: str
    options: Mapping[str, Any]
    value: float
    trials: int
    minutes: float
    storage: str
    path: Path

    def words(self) -> str:
        """Return what stands under a table."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        effort = f"{self.trials} trials, {self.minutes:.0f} min, {self.storage}"
        return f"{self.model} ({options}; validation NDCG@10 {self.value:.4f}, {effort})"


def presets(results: Path, dataset: str, entries: Sequence[Entry]) -> dict[str, Preset]:
    """Return model -> preset of the models that have one for a data set.

    Raises:
        UserError: none has one, or a file is damaged.
    """
    found = {}
    for entry in entries:
        name = entry.card.name
        path = preset_path(results, dataset, name)
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found[name] = Preset(
                name, dict(values["options"]), float(values["value"]), int(values["trials"]),
                float(values["minutes"]), str(values["storage"]), path,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged preset ({error}); delete it and sweep again") from error
    if not found:
        fix = f"first: bench sweep {entries[0].card.name if entries else 'all'} --dataset {dataset}"
        raise UserError(f"--tuned: {results / 'presets' / dataset} holds no preset of these models; {fix}")
    return found


def preset_path(results: Path, dataset: str, model: str) -> Path:
    """Return where the best configuration of a model on a data set is written."""
    return results / "presets" / dataset / f"{model.replace(':', '_')}.json"


def write_preset(results: Path, tuned: "Tuned") -> Path:
    """Write the best configuration that a sweep found, for `bench run --tuned`."""
    path = preset_path(results, tuned.dataset, tuned.model)
    with replacing(path) as partial:
        values = {name: value for name, value in vars(tuned).items() if name != "url"}
        partial.write_text(json.dumps(values, indent=1, default=list) + "\n", encoding="utf-8")
    return path
