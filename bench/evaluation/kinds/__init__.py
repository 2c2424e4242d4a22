"""The kinds of task: a module each, found here by name. Another kind is another module and an entry here."""

from collections.abc import Mapping

from bench.evaluation.kinds import ctr, rank
from bench.evaluation.kinds.kind import Arrays, Kind

__all__ = ["KINDS", "Arrays", "Kind"]

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (rank.KIND, ctr.KIND)}
