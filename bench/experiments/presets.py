"""Tuned configurations: what `bench sweep` writes and `bench run --tuned` reads. Imports no Optuna."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.registry import Entry


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
        path = results / "presets" / dataset / f"{name.replace(':', '_')}.json"
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
