"""Checks of what a reader says of the items: titles, pictures, attributes, ready-made vectors."""

from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from bench.data.contract.subject import Subject, looking
from bench.data.preparation.check import check_features, check_items
from bench.data.readers.known import first_ids
from bench.data.schema import RawFeatures, StreamedFeatures

PICTURES = 500  # that are looked for


def check_items_are_those_of_the_events(subject: Subject) -> str:
    """The item table has each item once, with the ids of the events."""
    read = subject.first
    if read.items is None:
        return "not checked: there is no item table"
    with looking("read the item table", "RawData(items=...), and at what `attributes` and `numbers` name"):
        check_items(read.items, read.raw.attributes, read.events["item"].dtype, read.raw.numbers)
    known = read.items["item"].cast(read.ids.dtype)
    shared = int(read.ids.is_in(known.implode()).sum())
    assert shared or not len(known), (
        f"looked for the {len(read.ids):,} items of the events in the item table and saw none of them: "
        f"{first_ids(read.ids)} in the events, {first_ids(known)} in the table; look at the column of the id "
        "in both files, at leading zeros and letters before the number"
    )
    said = f"{shared:,} of {len(read.ids):,} items are in the item table"
    return said if 2 * shared >= len(read.ids) else f"warning: only {said}"


def check_vectors_are_finite_and_fit_their_items(subject: Subject) -> str:
    """Ready-made vectors have one form, no NaN, and the ids of the events."""
    read, said = subject.first, []
    for modality, given in read.raw.features.items():
        if isinstance(given, RawFeatures):
            with looking("read the ready-made vectors", "`features`, a row for each item"):
                check_features(given, modality, read.events["item"].dtype)
            rows, width = given.vectors.shape
            having = int(read.ids.is_in(pl.Series(given.items).cast(read.ids.dtype).implode()).sum())
            known = first_ids(given.items)
        else:
            rows = having = _read_stream(given, modality, read.ids)
            width, known = given.width, "none"
        assert having or not rows, (
            f"looked for the {modality} vectors of {len(read.ids):,} items and saw none: "
            f"{first_ids(read.ids)} in the events, {known} among the vectors; look at the ids of `features`"
        )
        said.append(f"{modality}: width {width}, of {having:,} of {len(read.ids):,} items")
    return "; ".join(said) or "not checked: there are no ready-made vectors"


def _read_stream(given: StreamedFeatures, modality: str, ids: pl.Series) -> int:
    """Read streamed vectors and return how many there are."""
    seen = np.zeros(len(ids), bool)  # (N,)
    for rows, vectors in given.blocks(ids):
        where = f"read a block of {modality} vectors and saw"
        assert vectors.shape == (len(rows), given.width), (
            f"{where} shape {vectors.shape} for {len(rows)} rows, width {given.width} being declared; look "
            "at StreamedFeatures"
        )
        assert not len(rows) or (rows.min() >= 0 and rows.max() < len(ids)), (
            f"{where} rows {rows.min()} to {rows.max()} for {len(ids)} items; look at StreamedFeatures: rows "
            "count the ids given, from 0"
        )
        again = rows[seen[rows]]
        assert not len(again) and len(np.unique(rows)) == len(rows), (
            f"{where} an item a second time; look at StreamedFeatures: each item at most once"
        )
        seen[rows] = True
        wrong = ~np.isfinite(vectors).all(axis=1)
        assert not wrong.any(), (
            f"{where} NaN or infinite values of item {ids[int(rows[wrong.argmax()])]!r}; leave such an item "
            "out, so that it counts as absent"
        )
    return int(seen.sum())


def check_pictures_are_where_the_items_say(subject: Subject) -> str:
    """Some of the pictures that the item table names are files."""
    items = subject.first.items
    if items is None or "image" not in items.columns or not (named := items["image"].drop_nulls()).len():
        return "not checked: the items name no pictures"
    paths = [Path(str(name)) for name in islice(named, PICTURES)]
    there = sum(path.is_file() for path in paths)
    assert there, (
        f"looked for {len(paths):,} of {len(named):,} pictures and saw none, the first at {paths[0]}; look "
        "at the column 'image': a path that is found from any folder, so the raw folder stands in front"
    )
    return f"{there:,} of {len(paths):,} pictures are there"
