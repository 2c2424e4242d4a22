"""Times that look wrong though they are numbers: 0, 1970, 9999, seconds among milliseconds.

Counted by unit and year, so memory does not grow with the log. A log whose times are all small (days, say) is
as it is; what is looked for is few among many.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

EDGES = np.array([1, 10**8, 10**11, 10**14, 10**17])
"""Where the next unit begins: of 1973 to 5138, the same span a thousandfold."""
UNITS = ("0", "below 1973 in seconds", "s", "ms", "us", "ns")
PER_SECOND = (1, 1, 1, 10**3, 10**6, 10**9)
RARE = 0.01
"""Share of a year below which it may be a fault."""
FAR = 5
"""Years from the median beyond which a rare year is reported."""
SHOWN = 6


class Times:
    """Counts the times of a log."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()

    def add(self, timestamp: NDArray[np.int64]) -> None:
        """Count the next events, (E,) of any unit."""
        unit = np.searchsorted(EDGES, timestamp, side="right")
        for code in np.unique(unit):
            seconds = timestamp[unit == code] // PER_SECOND[code]
            years = seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(int) + 1970
            for year, count in zip(*np.unique(years, return_counts=True), strict=True):
                self.counts[UNITS[code], int(year) if code > 1 else 0] += int(count)

    def warnings(self) -> list[str]:
        """Return a line where units are mixed, and one where a few years lie far from the others."""
        total = self.counts.total()
        by_unit: Counter[str] = Counter()
        for (unit, _), count in self.counts.items():
            by_unit[unit] += count
        if len(by_unit) > 1:
            named = ", ".join(f"{count:,} {_named(unit)}" for unit, count in by_unit.most_common())
            fix = "write all in one unit, remove what marks a missing time"
            return [f"warning: times of {total:,} events: {named}; {fix}"]
        years = sorted((year, count) for (_, year), count in self.counts.items())
        passed, middle = 0, 0
        for year, count in years:
            passed += count
            if 2 * passed >= total:
                middle = year
                break
        odd = [(year, n) for year, n in years if n < RARE * total and abs(year - middle) > FAR]
        if not odd:
            return []
        few = ", ".join(f"{count:,} of {year}" for year, count in odd[:SHOWN])
        more = " and more" * (len(odd) > SHOWN)
        most = f"warning: times of {total:,} events, most about {middle}"
        return [f"{most}: {few}{more}; repair or remove them"]


def _named(unit: str) -> str:
    return {"0": "are 0", UNITS[1]: f"lie {UNITS[1]}"}.get(unit, f"in {unit}")


def prepared_times(folder: Path) -> list[str]:
    """Return the warnings of a prepared data set."""
    times = Times()
    with pq.ParquetFile(folder / "events.parquet") as file:
        for batch in file.iter_batches(columns=["timestamp"]):
            times.add(batch.column(0).to_numpy(zero_copy_only=False))
    return times.warnings()
