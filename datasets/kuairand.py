"""KuaiRand: short videos shown in a feed, with 12 signals of feedback a row; Pure, 1K and 27K have one form.

C. Gao, S. Li, Y. Zhang, J. Chen, B. Li, W. Lei, P. Jiang, X. He, KuaiRand: An Unbiased Sequential
Recommendation Dataset with Randomly Exposed Videos, CIKM 2022.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names
from bench.data.readers.blocks import header_of
from bench.data.readers.folder import files_of
from bench.data.readers.log import Field, LogFiles, LogOptions, id_field, number_field
from bench.data.schema import TOUCHED, RawData
from bench.errors import UserError

CARD = DatasetCard(
    name="kuairand",
    title="KuaiRand (Pure, 1K or 27K): real clicks and likes of short videos in 2022",
    real=True,
    licence="CC BY-SA 4.0",
    published=(
        "https://kuairand.com (cite: Gao, Li, Zhang, Chen, Li, Lei, Jiang, He, KuaiRand: An Unbiased "
        "Sequential Recommendation Dataset with Randomly Exposed Videos, CIKM 2022)"
    ),
    files=(
        "log_standard_4_08_to_4_21_*.csv and log_standard_4_22_to_5_08_*.csv of one of Pure, 1K, 27K; their "
        "folder, or the unpacked one around data; log_random and the feature tables are not read"
    ),
    behaviors="is_click -> click, is_like -> favor; by option any of the 12 signals, joined by |",
    modalities="none; the publisher gives no pictures and no titles",
    size=(
        "Pure: 27,285 users, 7,551 videos, 1,436,609 rows; 1K: 1,000 users, 4,369,953 videos, "
        "11,713,045 rows; 27K: 27,285 users, many times larger"
    ),
    dirt=(
        "A row is an exposure: rows whose chosen signals are all 0 are no events and are dropped. One row "
        "may give several behaviors, all at its time, the shallow one first. Likes are rare; "
        "behaviors=is_click=click,is_like|is_follow|is_forward=favor gives more targets. Repeated events "
        "are kept. Randomly exposed videos (log_random) are left out: nobody's history led to them. Times "
        "are milliseconds since 1970."
    ),
)

SIGNALS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "play_time_ms",
    "duration_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter",
)  # fmt: skip
TOUCHING = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view",
            "is_profile_enter")  # fmt: skip
"""Signals of something that the user did with the video, where no behavior is made of them."""
PERIODS = ("4_08_to_4_21", "4_22_to_5_08")
FIRST = 10**11  # milliseconds: 1973; smaller numbers are seconds
NAME = re.compile(r"log_standard_(4_08_to_4_21|4_22_to_5_08)_(\w+?)(_part\d+)?\.csv")


@dataclass(frozen=True)
class Options(LogOptions):
    """Which signals become what."""

    behaviors: tuple[str, ...] = ("is_click=click", "is_like=favor")
    """Shallow -> deep, `is_click=click,is_like|is_follow=favor`: a row with any of the signals above 0."""


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events of the standard logs in file order, times in milliseconds since 1970.

    Args:
        raw: folder with the logs, the folder around `data`, or a single log.
        options: the mapping of behaviors.

    Raises:
        UserError: a log is missing, logs of two versions are mixed, or a line is malformed or cut off.
    """
    names = behavior_names(_single(options.behaviors), SIGNALS)
    groups = _groups(names)
    files = _logs(raw)
    words = [f"{' or '.join(signals)} above 0 -> {name}" for name, signals in groups.items()]
    return RawData(
        events=_log(files, names, options),
        behaviors=tuple(groups),
        mapping=f"{', '.join(words)}; other rows dropped; standard logs only",
    )


def _single(entries: Sequence[str]) -> list[str]:
    """Turn `is_like|is_follow=favor` into `is_like=favor`, `is_follow=favor`."""
    split = [(value or name, name) for value, _, name in (entry.rpartition("=") for entry in entries)]
    return [f"{signal.strip()}={name}" for value, name in split for signal in value.split("|")]


def _groups(names: dict[str, str]) -> dict[str, list[str]]:
    """Return behavior -> its signals, shallow -> deep."""
    return {name: [s for s, other in names.items() if other == name] for name in names.values()}


def _logs(raw: Path | None) -> list[Path]:
    """Return the standard logs of one version in the order of their time."""
    if raw is None:
        raise UserError("kuairand: no files given; put the standard logs into a folder, give it as --raw")
    if raw.is_file():
        return [raw]
    for folder in (raw, raw / "data"):
        files = files_of(folder, ["log_standard_*.csv"])
        logs = [(path, match) for path in files if (match := NAME.fullmatch(path.name))]
        missing = [period for period in PERIODS if period not in [match[1] for _, match in logs]]
        if logs and missing:
            fix = "put it beside the other, or give one file alone by --raw"
            raise UserError(f"{folder}: log_standard_{missing[0]}_*.csv is missing; {fix}")
        if len(versions := {match[2] for _, match in logs}) > 1:
            mixed = " and ".join(sorted(versions))
            raise UserError(f"{folder}: logs of {mixed}, expected one version; put each into its own folder")
        if logs:
            return [path for path, _ in logs]
    wanted = " and ".join(f"log_standard_{period}_*.csv" for period in PERIODS)
    raise UserError(f"{raw}: expected {wanted} there; unpack the publisher's archive and give it by --raw")


def _log(files: list[Path], names: dict[str, str], options: Options) -> LogFiles:
    columns = header_of(files[0], ("user_id", "video_id", "time_ms", *names))
    for path in files[1:]:
        if header_of(path, columns) != columns:
            raise UserError(f"{path}: row 1: other columns than in {files[0].name}; give logs of one version")
    signals = [number_field(signal, "a whole number of 0 or more") for signal in names]
    ids = (id_field("user", "user_id"), id_field("item", "video_id"))
    time = number_field("timestamp", "whole milliseconds since 1970", "time_ms", low=FIRST)
    others = [signal for signal in TOUCHING if signal in columns and signal not in names]
    signals += [replace(number_field(signal, ""), optional=True) for signal in others]
    last = columns[-1]  # a line that was cut off behind the last comma has the right width
    is_filled = pl.when(pl.col(last) != "").then(True)
    given = Field("last column", is_filled, "a value: the line was cut off", last)
    flags = {
        name: pl.any_horizontal(pl.col(signal) > 0 for signal in group)
        for name, group in _groups(names).items()
    }
    return LogFiles(
        files=tuple(files),
        columns=columns,
        fields=(*ids, time, *signals, given),
        select=lambda typed: _events(typed, flags, others),
        header=True,
        dropped={"exposures without any of the signals": ~pl.any_horizontal(*flags.values())},
        on_bad_row=options.on_bad_row,
    )


def _events(typed: pl.LazyFrame, flags: dict[str, pl.Expr], others: list[str]) -> pl.LazyFrame:
    """Return an event for each behavior of a row, shallow first; `TOUCHED` for other signals alone."""
    chosen = pl.any_horizontal(*flags.values())
    named = [pl.when(flag).then(pl.lit(name)) for name, flag in flags.items()]
    named.append(pl.when(~chosen).then(pl.lit(TOUCHED)))
    rows = typed.filter(pl.any_horizontal(chosen, *(pl.col(signal) > 0 for signal in others)))
    behavior = pl.concat_list(named).list.drop_nulls().alias("behavior")
    return rows.select("user", "item", behavior, "timestamp").explode("behavior")
