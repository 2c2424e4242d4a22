"""Item ids of two sides that do not meet: an item table, pictures or vectors against the events."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import UserError

SHOWN = 3  # ids of each side


def first_ids(ids: Iterable[Any] | pl.Series) -> str:
    """Return the first ids as errors show them: text in quotes, numbers bare."""
    first = [id_ for id_, _ in zip(ids, range(SHOWN), strict=False)]
    return ", ".join(map(repr, first)) or "none"


def require_known(
    table: Path | str, known: int, table_ids: Sequence[Any] | pl.Series, ids: pl.Series
) -> None:
    """Raise a UserError where an item table has rows, but none of the items kept.

    Args:
        table: file or folder of the table.
        known: how many of the items kept it holds.
        table_ids: its first ids.
        ids: of the items kept.
    """
    if known or not len(ids) or not len(table_ids):
        return
    problem = f"none of the {len(ids)} items of the events is there"
    both = f"ids there: {first_ids(table_ids)}; in the events: {first_ids(ids)}"
    raise UserError(f"{table}: {problem} ({both}); write the ids alike on both sides, or leave the table out")
