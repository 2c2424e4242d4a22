"""Faults of a publisher's files, found by reading all of them without preparing anything."""

from collections.abc import Callable
from functools import partial

import polars as pl

from bench.data.preparation.check import check_events, check_raw
from bench.data.preparation.content import item_table
from bench.data.preparation.coverage import cautions_of
from bench.data.preparation.repeats import Repeats, repeats_warning
from bench.data.preparation.runs import Tally, Watch, counts, of_part
from bench.data.preparation.times import Times
from bench.data.schema import EventStream, Position, RawData, StreamedFeatures
from bench.errors import UserError


def check_raw_files(raw: RawData, watch: Watch) -> tuple[Tally, list[str]]:
    """Read everything that a preparation would read.

    Args:
        raw: what a reader returned, set to skip malformed rows where it can.
        watch: progress callback (stage, done, total).

    Returns:
        What was counted, and one line per fault: the first malformed rows, then whatever else is wrong. A
        line that begins with `warning` is none.
    """
    tally, items, findings = Tally(), pl.Series("item", [], pl.Int64), []
    times = Times()
    with Repeats() as repeats:
        try:
            check_raw(raw)
            if isinstance(raw.events, EventStream):
                start = Position()
                for part in raw.events.parts(start):
                    check_events(part.events, raw.behaviors)
                    tally.add(**of_part(part))
                    repeats.add(part.events, start)
                    times.add(part.events["timestamp"].to_numpy())
                    seen, start = part.events["item"].unique(), part.end
                    items = pl.concat([items, seen]).unique() if len(items) else seen
                    watch("rows read", tally.rows, tally.expected_rows(raw.events.size))
            else:
                behaviors, dropped = counts(raw.events)
                tally = Tally(len(raw.events), sum(behaviors.values()), dropped=dropped)
                repeats.add(raw.events)
                times.add(raw.events["timestamp"].to_numpy())
                items = raw.events["item"].unique()
        except UserError as error:
            return tally, [*tally.bad_rows, str(error)]
        findings += [*tally.bad_rows, *repeats_warning(raw, repeats), *times.warnings()]
    if not tally.behaviors.get(raw.behaviors[-1]) and isinstance(raw.events, EventStream):
        findings.append(f"events: no '{raw.behaviors[-1]}', the target behavior; see the option behaviors")
    return tally, [*findings, *_content_faults(raw, items.sort(), watch)]


def _content_faults(raw: RawData, ids: pl.Series, watch: Watch) -> list[str]:
    """Read the item table and the vectors of all items of the log."""
    faults: list[str] = []

    def table() -> None:
        faults.extend(cautions_of(item_table(raw, ids), {}))

    checks: list[Callable[[], None]] = [table]
    for modality, features in raw.features.items():
        if isinstance(features, StreamedFeatures):
            checks.append(partial(_read, features, modality, ids, watch))
    for check in checks:
        try:
            check()
        except UserError as error:
            faults.append(str(error))
    return faults


def _read(features: StreamedFeatures, modality: str, ids: pl.Series, watch: Watch) -> None:
    done = 0
    for rows, _ in features.blocks(ids):
        done += len(rows)
        watch(f"{modality} vectors read", done, len(ids))
