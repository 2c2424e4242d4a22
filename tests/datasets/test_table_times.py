from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from bench.datasets.table import Options, read
from tests.datasets.test_table import HEADER, complaint, folder_with, part_of

MIXED = (
    HEADER
    + "1,10,buy,1600000000\n1,11,buy,1600000001\n\n1,12,buy,1600000002000\n1,13,buy,7\n"
    + "1,14,buy,1600000003000000\n"
)


def test_times_in_another_unit_than_most_are_malformed(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, MIXED))
    assert "row 5: timestamp '1600000002000'; expected a whole number, in s since 1970 like the most" in told
    assert "(also bad: row 7)" in told and "time_unit" in told
    part = part_of(read(tmp_path, Options(on_bad_row="skip")))
    assert part.events["item"].to_list() == [10, 11, 13]
    assert (part.rows, part.dropped) == (5, {"malformed rows": 2})


@pytest.mark.parametrize(
    ("unit", "kept"),
    [("s", [10, 11]), ("ms", [12]), ("us", [14])],
)
def test_a_given_unit_is_checked(tmp_path: Path, unit, kept: list[int]) -> None:
    options = Options(time_unit=unit, on_bad_row="skip")
    assert part_of(read(folder_with(tmp_path, MIXED), options)).events["item"].to_list() == kept
    told = complaint(tmp_path, Options(time_unit=unit))
    assert f"expected a whole number of unit {unit}, 1990 to 2100" in told


def test_days_and_nanoseconds_are_units_too(tmp_path: Path) -> None:
    folder_with(tmp_path, HEADER + "1,10,buy,18000\n1,11,buy,1600000000000000000\n")
    assert read(tmp_path, Options()).events["timestamp"].to_list() == [18_000, 1_600_000_000_000_000_000]
    for unit, item in (("day", 10), ("ns", 11)):
        part = part_of(read(tmp_path, Options(time_unit=unit, on_bad_row="skip")))
        assert part.events["item"].to_list() == [item]


@pytest.mark.parametrize(
    ("time", "form"),
    [
        ("2020-01-02T03:04:05", ""), ("2020-01-02 03:04:05", ""), ("2020-01-02 03:04:05.000", ""),
        ("2020-01-02T03:04:05Z", ""), ("2020-01-02T05:04:05.0+02:00", ""),
        ("2/1/2020 03:04:05", "%d/%m/%Y %H:%M:%S"),
        ("2020-01-02 03:04:05 UTC", ""), ("2020-01-02 03:04:05 GMT", ""), ("2020-01-02 03:04:05Z", ""),
        ("2020-01-02 03:04:05+00", ""), ("2020-01-02 03:04:05.000000 +0000", ""),
        ("2020-01-01T22:04:05-05", ""), ("2020-01-02 11:04:05 +08:00", ""), 
    ],
)  # fmt: skip
def test_date_times_become_microseconds(tmp_path: Path, time: str, form: str) -> None:
    data = read(folder_with(tmp_path, f"{HEADER}1,10,buy,{time}\n"), Options(time_format=form))
    assert data.events["timestamp"].to_list() == [1_577_934_245_000_000]  # 2020-01-02 03:04:05 UTC, by `date`


def test_dates_and_parquet_date_times_are_read(tmp_path: Path) -> None:
    data = read(folder_with(tmp_path, HEADER + "1,10,buy,2020-01-02\n1,10,buy,2020-01-02T00:01\n"), Options())
    midnight = 1_577_923_200_000_000
    assert data.events["timestamp"].to_list() == [midnight, midnight + 60_000_000]
    frame = pl.DataFrame({"user": [1], "item": [1], "behavior": ["buy"], "timestamp": [datetime(2020, 1, 2)]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet", Options()).events["timestamp"].to_list() == [midnight]


def test_a_time_of_another_format_is_named(tmp_path: Path) -> None:
    told = complaint(folder_with(tmp_path, HEADER + "1,10,buy,2020-01-02\n"), Options(time_format="%d.%m.%Y"))
    assert "row 2: timestamp '2020-01-02'; expected a time as in %d.%m.%Y" in told


@pytest.mark.parametrize(
    ("time", "microseconds"),
    [
        ("2017-11-25 00:00:00.25 UTC", 1_511_568_000_250_000),  # 2017-11-25 00:00:00 UTC, by `date`
        ('"2017-11-25 00:00:00,25 UTC"', 1_511_568_000_250_000),
        ("2017-11-25T08:00:00.123456+0800", 1_511_568_000_123_456),
        ("2017-11-25t00:00z", 1_511_568_000_000_000),
        ("2017-11-24 23:30 -00:30", 1_511_568_000_000_000),
    ],
)
def test_fractions_and_zones_are_read_to_the_microsecond(tmp_path: Path, time: str, microseconds) -> None:
    data = read(folder_with(tmp_path, f"{HEADER}1,10,buy,{time}\n"), Options())
    assert data.events["timestamp"].to_list() == [microseconds]


@pytest.mark.parametrize(
    "time", ["2017-11-25 00:00:00 CST", "2017-11-25 00:00:00 +8", "2017-11-25 24:10:00Z"]
)
def test_a_zone_that_is_no_offset_is_refused_with_its_row(tmp_path: Path, time: str) -> None:
    rows = f"1,10,buy,2017-11-25 00:00:00 UTC\n1,11,buy,{time}\n"
    told = complaint(folder_with(tmp_path, HEADER + rows))
    assert f"row 3: timestamp '{time}'; expected an ISO date-time" in told
    part = part_of(read(tmp_path, Options(on_bad_row="skip")))
    assert part.events["item"].to_list() == [10]


def test_times_with_a_zone_in_parquet_are_the_same_moment(tmp_path: Path) -> None:
    moment = pl.Series([datetime(2017, 11, 25)]).dt.replace_time_zone("UTC")
    moment = moment.dt.convert_time_zone("Asia/Shanghai")
    frame = pl.DataFrame({"user": [1], "item": [1], "behavior": ["buy"], "timestamp": moment})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path, Options()).events["timestamp"].to_list() == [1_511_568_000_000_000]


def test_whole_floats_of_parquet_are_whole_numbers_and_missing_ones_malformed(tmp_path: Path) -> None:
    nan = float("nan")
    users, brands = [1.0, nan, 7.0, None], [3.0, 4.5, nan, 3.0]
    events = {"user": users, "item": [5.0, 6.0, 5.0, 5.0], "timestamp": [1, 2, 3, 4]}
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    items = pl.DataFrame(
        {"item": [5.0, 6.0, 8.0, 9.0], "brand": brands}, schema_overrides={"item": pl.Float32}
    )
    items.write_parquet(tmp_path / "items.parquet")
    names = {"behavior": "", "items": "items.parquet", "attributes": ("brand",)}
    told = complaint(tmp_path, Options(**names))
    assert "row 2: user 'NaN'; expected an id" in told and "(also bad: row 4)" in told
    data = read(tmp_path, Options(**names, on_bad_row="skip"))
    assert part_of(data).events.rows() == [(1, 5, "interaction", 1), (7, 5, "interaction", 3)]
    assert isinstance(data.items, pl.DataFrame)
    assert data.items.rows() == [(5, "3"), (6, "4.5"), (8, None), (9, "3")]


@pytest.mark.parametrize("wrong", [float("inf"), 2.0**53, -1.0, 0.5])
def test_a_float_that_is_no_exact_whole_number_is_refused_with_its_row(tmp_path: Path, wrong: float) -> None:
    frame = pl.DataFrame({"user": [1.0, wrong], "item": [1, 2], "timestamp": [5, 6]})
    frame.write_parquet(tmp_path / "events.parquet")
    assert "row 2: user '" in complaint(tmp_path, Options(behavior=""))
