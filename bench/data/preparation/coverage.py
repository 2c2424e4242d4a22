"""Warnings about content that most items lack: often a sign of ids that are written in two ways."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from bench.data.preparation.content import COLUMN, filled
from bench.data.readers.known import first_ids
from bench.data.storage import read_items, read_metadata

ENOUGH = 0.5  # share of the items from which on nothing is said


def cautions(folder: Path) -> list[str]:
    """Return a line for each modality that fewer than half of the items of a prepared folder have, and for
    pictures that were skipped.
    """
    items, content = read_items(folder)
    encoded = {name: pl.Series(mask[1:]) for name, mask in content.present.items()}
    broken = read_metadata(folder).get("broken_pictures", {})
    lines = cautions_of(items, encoded)
    if broken.get("count"):
        files = "; ".join(broken["first"])
        lines.append(f"warning: image: {broken['count']} broken pictures count as absent: {files}")
    return lines


def cautions_of(items: pl.DataFrame, encoded: Mapping[str, pl.Series]) -> list[str]:
    """Return a line for each modality, and for the item table, of which fewer than half of the items know.

    Args:
        items: N items, with whatever is known of them.
        encoded: modality -> (N,) which items have a vector; of the others, titles and paths are counted.
    """
    has = {name: filled(items, column) for name, column in COLUMN.items() if column in items.columns}
    has |= encoded
    if columns := [pl.col(name).is_not_null() for name in items.columns if name != "item"]:
        has["item table"] = items.select(known=pl.any_horizontal(columns))["known"]
    lines = []
    for name, known in sorted(has.items()):
        if len(items) and (share := float(known.mean() or 0)) < ENOUGH:  # type: ignore[arg-type]
            lacking, having = (first_ids(items["item"].filter(mask)) for mask in (~known, known))
            sides = f"without: {lacking}; with: {having}"
            given = f"{int(known.sum())} of {len(items)} items ({share:.1%}) have one"
            lines.append(f"warning: {name}: {given} ({sides}); see that ids are written alike on both sides")
    return lines
