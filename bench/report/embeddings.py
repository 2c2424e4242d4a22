"""Items at the stages of a model: what stands beside the picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.files import replacing


@dataclass(frozen=True)
class Panel:
    """One view."""

    name: str
    flat: NDArray[np.float32]
    """(n, 2) the projection that is drawn."""
    kinds: NDArray[np.int64]
    """(n,)."""
    measured: Any
    """`bench.experiments.embeddings.Spread`."""


@dataclass(frozen=True)
class Embeddings:
    """Views of the items of a data set."""

    dataset: str
    color: str
    names: tuple[str, ...]
    """Kinds; the last two are `other` and `unknown`."""
    panels: tuple[Panel, ...]
    seeds: int


def lines_of(made: Embeddings) -> list[str]:
    """Return the figures of each view in words."""
    lines = []
    for panel in made.panels:
        one = panel.measured
        flat, pure = np.array(one.flat_silhouettes), np.array(one.flat_purities)
        lines.append(
            f"{panel.name}: silhouette {one.silhouette:+.4f}, purity of 10 neighbors {one.purity:.4f} "
            f"(chance {one.chance:.4f}); projected, {made.seeds} seeds: silhouette {flat.mean():+.4f} "
            f"\u00b1 {flat.std():.4f}, purity {pure.mean():.4f} \u00b1 {pure.std():.4f}"
        )
    lines.append(
        f"{made.dataset}, kinds by {made.color}; vectors standardised; 'other' and items of no known kind "
        "are not counted"
    )
    return lines


def write(made: Embeddings, folder: Path, name: str) -> Path:
    """Write the figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": made.dataset,
        "color": made.color,
        "kinds": list(made.names),
        "views": {panel.name: {**asdict(panel.measured), "items": len(panel.kinds)} for panel in made.panels},
        "notes": lines_of(made),
    }
    path = folder / f"{name}.json"
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
