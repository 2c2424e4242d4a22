"""A long log in runs and buckets gives what the same events give when they are held at once."""

import errno
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from bench.data.preparation import runs
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.schema import EventStream, Part, Position, RawData
from bench.data.storage import load, read_metadata
from bench.errors import UserError


class Slices(EventStream):
    """Events given in parts of 37 rows; counts the parts read."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.events, self.read = events, 0

    @property
    def identity(self) -> str:
        return "slices"

    @property
    def size(self) -> int:
        return len(self.events)

    def parts(self, start: Position) -> Iterator[Part]:
        for at in range(start.offset, len(self.events), 37):
            rows = self.events.slice(at, 37)
            self.read += 1
            yield Part(rows, len(rows) + 1, {"blank": 1}, Position(0, at + 37), len(rows))


def log(text_ids: bool = False, rows: int = 4000) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    user = np.concatenate([np.full(700, 40), rng.integers(0, 300, rows - 700)])  # one user has many
    frame = pl.DataFrame(
        {
            "user": rng.permutation(user),
            "item": rng.integers(0, 90, rows),
            "behavior": rng.choice(["click", "favor"], rows),
            "timestamp": rng.permutation(rows) // 3,  # ties, which the order of the log breaks
        }
    )
    return frame.with_columns(pl.col("user", "item").cast(pl.String)) if text_ids else frame


def made(events, folder, watch=runs.silent, **options):
    raw = RawData(events, ("click", "favor"), "as it is")
    return prepare(raw, "x", folder, PrepareOptions(**options), EncoderOptions(), {}, watch)


@pytest.fixture
def small_buckets(monkeypatch):
    monkeypatch.setattr(runs, "BUCKET_ROWS", 300)
    monkeypatch.setattr(runs, "STEP", 4)


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"keep_last": None}, {"min_events": 14, "min_item_events": 40, "keep_last": 3}]
)
def test_buckets_give_what_the_whole_gives(tmp_path, small_buckets, text_ids, options):
    events = log(text_ids)
    steps = []
    whole = load(made(events, tmp_path / "whole", **options))
    parts = load(made(Slices(events), tmp_path / "parts", lambda *step: steps.append(step), **options))
    assert parts.fingerprint == whole.fingerprint
    assert parts.interactions.timestamp.tolist() == whole.interactions.timestamp.tolist()
    assert parts.metadata["raw_behaviors"] == whole.metadata["raw_behaviors"]
    assert parts.metadata["dropped"] == {"blank": 109} and parts.metadata["raw_rows"] == 4109
    assert max(of for stage, _, of in steps if stage == "events sorted") > 8


def test_an_interrupted_preparation_goes_on_where_it_was(tmp_path, small_buckets):
    whole = load(made(log(), tmp_path / "whole"))
    for stage, least in (("rows read", 2000), ("events sorted", 4)):
        stream, folder = Slices(log()), tmp_path / stage.replace(" ", "-")

        def stop(told, done, of, stage=stage, least=least):
            if told == stage and done >= least:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            made(stream, folder, stop)
        assert not folder.exists()
        before = stream.read
        made(stream, folder)
        lost = int(stage == "rows read")  # the part that was read ahead
        assert stream.read == 109 + lost and before > 40  # no finished part was read twice
        assert load(folder).fingerprint == whole.fingerprint
        assert not (tmp_path / ".unfinished").exists()


def test_a_ledger_line_that_was_cut_off_counts_as_not_written(tmp_path, small_buckets):
    stream = Slices(log())

    def stop(told, done, of):
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(stream, tmp_path / "x", stop)
    (ledger,) = (tmp_path / ".unfinished").rglob(runs.LEDGER)
    ledger.write_text(ledger.read_text()[:-9])
    made(stream, tmp_path / "x")
    assert stream.read == 109 + 2  # the part of that line, and the one that was read ahead
    assert load(tmp_path / "x").fingerprint == load(made(log(), tmp_path / "whole")).fingerprint


def test_shuffled_rows_with_distinct_times_give_the_same_data_set(tmp_path, small_buckets):
    events = log().with_columns(timestamp=pl.int_range(pl.len()))
    shuffled = events.sample(fraction=1, shuffle=True, seed=1)
    first, second = made(Slices(events), tmp_path / "a"), made(Slices(shuffled), tmp_path / "b")
    assert read_metadata(first)["fingerprint"] == read_metadata(second)["fingerprint"]


def test_a_log_without_any_event_of_the_mapping_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none left of 0 rows"):
        made(Slices(log().head(0)), tmp_path / "x")


def test_a_faulty_part_is_refused_and_nothing_looks_prepared(tmp_path):
    events = log().with_columns(timestamp=pl.when(pl.int_range(pl.len()) == 2500).then(-4).otherwise(7))
    with pytest.raises(UserError, match="timestamp is -4"):
        made(Slices(events), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_one_line_and_what_was_read_is_kept(tmp_path, small_buckets):
    stream = Slices(log())

    def full(told, done, of):
        if told == "events sorted":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="the disk is full.*BENCH_DATA.*parts of a long log are kept"):
        made(stream, tmp_path / "x", full)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished"]
    made(stream, tmp_path / "x")
    assert stream.read == 109  # nothing was read twice
