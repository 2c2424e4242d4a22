"""m3bench: a benchmark harness for multi-behavior, multi-modal recommenders.

The rooms `models/`, `baselines/` and `datasets/` lie beside this package in a checkout and are imported as
`bench.models`, `bench.baselines` and `bench.datasets`, never by their bare names (another library owns
`datasets`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import ablate, load_dataset, run, table

__all__ = ["ablate", "load_dataset", "run", "table"]

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the functions for programs when they are asked for: `import bench` loads no heavy library."""
    if name in __all__:
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
