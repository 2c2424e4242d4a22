"""m3bench: a benchmark harness for multi-behavior, multi-modal recommenders.

The rooms `models/`, `baselines/` and `datasets/` lie beside this package in a checkout and are imported as
`bench.models`, `bench.baselines` and `bench.datasets`, never by their bare names (another library owns
`datasets`).
"""

from pathlib import Path

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))

__version__ = "0.1.0"
