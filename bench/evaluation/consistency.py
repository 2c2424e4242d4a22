"""Arithmetic that every table of HR@K and NDCG@K must obey when one item per user is held out.

With one relevant item a hit at rank r is worth 1 / log2(r + 1). So between two cut-offs K < L the gain of
NDCG lies between the gain of HR over log2(L + 1), all new hits at rank L, and over log2(K + 2), all of them
at K + 1. Rows that break this were not computed from one ranking.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

ROUNDING = 5e-5
"""Half the last digit of values printed with four decimals."""
EXACT = 1e-9
"""Slack of floating-point numbers that are not rounded at all."""


@dataclass(frozen=True)
class Violation:
    """One value that cannot stand in its row."""

    row: str
    """Name of the row."""
    rule: str
    """`gain` NDCG between two cut-offs against HR; `falls` with growing K; `bound` NDCG against HR; `chance`
    below a random ranker."""
    metric: str
    """`NDCG@20`; of a gain the larger cut-off."""
    value: float
    """As in the table, or the gain."""
    allowed: tuple[float, float]
    """Least and largest value that is possible, rounding not included."""


def check_consistency(
    rows: Mapping[str, Mapping[str, float]], candidates: int | None = 100, rounding: float = ROUNDING
) -> list[Violation]:
    """Return every violation, row by row.

    Args:
        rows: name -> metric -> fraction; metrics are `HR@K` and `NDCG@K`, others are ignored.
        candidates: items ranked for each user, for the level of a random ranker; None leaves that rule out.
        rounding: most by which a value may differ from the exact one, fraction.

    Raises:
        ValueError: a metric has no whole number behind its @.
    """
    by_row = (_row(name, values, candidates, rounding) for name, values in rows.items())
    return [violation for row in by_row for violation in row]


def chance(kind: str, cutoff: int, candidates: int) -> float:
    """Return HR@K or NDCG@K of a random ranker over so many candidates."""
    ranks = range(1, min(cutoff, candidates) + 1)
    worth = (1.0 if kind == "HR" else 1 / math.log2(rank + 1) for rank in ranks)
    return sum(worth) / candidates


def _row(
    name: str, values: Mapping[str, float], candidates: int | None, rounding: float
) -> Iterator[Violation]:
    by_kind = {kind: _cutoffs(values, kind) for kind in ("HR", "NDCG")}
    for kind, by_cutoff in by_kind.items():
        for before, after in pairwise(sorted(by_cutoff)):
            least = by_cutoff[before]
            if by_cutoff[after] < least - 2 * rounding - EXACT:
                yield Violation(name, "falls", f"{kind}@{after}", by_cutoff[after], (least, 1.0))
        for cutoff, value in by_cutoff.items():
            least = 0.0 if candidates is None else chance(kind, cutoff, candidates)
            if value < least - rounding - EXACT:
                yield Violation(name, "chance", f"{kind}@{cutoff}", value, (least, 1.0))
    yield from _against_hits(name, by_kind["HR"], by_kind["NDCG"], rounding)


def _against_hits(
    name: str, hits: Mapping[int, float], gains: Mapping[int, float], rounding: float
) -> Iterator[Violation]:
    """Compare NDCG with HR where the row has both: between neighboring cut-offs, and from rank 1 on."""
    low = high = 0.0
    before = 0
    for cutoff in sorted(hits.keys() & gains.keys()):
        more = hits[cutoff] - hits.get(before, 0.0)
        least, most = sorted((more / math.log2(cutoff + 1), more / math.log2(before + 2)))
        low, high = low + least, high + most
        gain = gains[cutoff] - gains.get(before, 0.0)
        # a gain is the difference of two rounded values, and so is the gain in hits behind its limits
        slack = 2 * rounding * (1 + 1 / math.log2(before + 2)) + EXACT
        if before and not least - slack <= gain <= most + slack:
            yield Violation(name, "gain", f"NDCG@{cutoff}", gain, (least, most))
        slack = 2 * rounding + EXACT
        if not low - slack <= gains[cutoff] <= high + slack:
            yield Violation(name, "bound", f"NDCG@{cutoff}", gains[cutoff], (low, high))
        before = cutoff


def _cutoffs(values: Mapping[str, float], kind: str) -> dict[int, float]:
    """Return K -> value of one metric."""
    named = ((name.partition("@"), value) for name, value in values.items())
    return {int(cutoff): value for (head, at, cutoff), value in named if head == kind and at}
