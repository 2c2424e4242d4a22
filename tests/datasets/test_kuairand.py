from pathlib import Path

import polars as pl
import pytest

from bench.data.schema import RawData
from bench.datasets import kuairand
from bench.datasets.kuairand import Options
from bench.errors import UserError
from tests.datasets.conftest import events_of

HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
EARLY, LATE = "log_standard_4_08_to_4_21_{}.csv", "log_standard_4_22_to_5_08_{}.csv"


def read(raw: Path | None, options: Options) -> RawData:
    return events_of(kuairand.read(raw, options).collected())


def line(user: object, video: object, time: object, **signals: object) -> str:
    fields = dict.fromkeys(HEADER.strip().split(","), "0")
    fields |= {"user_id": user, "video_id": video, "date": "20220421", "hourmin": "1300", "time_ms": time}
    fields |= {"duration_ms": "9000", "tab": "1"} | signals
    return ",".join(map(str, fields.values())) + "\n"


ROWS = [
    line(0, 3784, 1650517204000, is_click=1, is_like=1, play_time_ms=5387),
    line(0, 20, 1650517204001, is_follow=1),
    line(0, 21, 1650517204002),
    line(5, 20, 1650517203000, is_click=1, long_view=1),
]
LATER = line(0, 7, 1650600000000, is_like=1)


def folder_with(folder: Path, early: str | bytes = HEADER + "".join(ROWS), version: str = "pure") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / EARLY.format(version)).write_bytes(early.encode() if isinstance(early, str) else early)
    (folder / LATE.format(version)).write_text(HEADER + LATER)
    (folder / f"log_random_4_22_to_5_08_{version}.csv").write_text(HEADER + line(9, 9, 9, is_click=1))
    return folder


def complaint(raw: Path | None, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(raw, options or Options())
    assert "\n" not in str(error.value)
    return str(error.value)


EVENTS = [
    (0, 3784, "click", 1650517204000),
    (0, 3784, "favor", 1650517204000),
    (5, 20, "click", 1650517203000),
    (0, 7, "favor", 1650600000000),
]


def test_a_row_gives_its_click_before_its_favor_and_exposures_and_random_logs_give_nothing(
    tmp_path: Path,
) -> None:
    data = read(folder_with(tmp_path), Options())
    assert data.events.rows() == EVENTS
    assert dict(data.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert data.behaviors == ("click", "favor") and data.items is None
    assert data.mapping.startswith("is_click above 0 -> click, is_like above 0 -> favor; other rows dropped")


def test_joined_signals_give_one_event_a_row_in_the_order_of_the_behaviors(tmp_path: Path) -> None:
    options = Options(behaviors=("long_view=view", "is_click=click", "is_like|is_follow|play_time_ms=favor"))
    data = read(folder_with(tmp_path), options)
    assert data.events.rows() == [
        (0, 3784, "click", 1650517204000),
        (0, 3784, "favor", 1650517204000),
        (0, 20, "favor", 1650517204001),
        (5, 20, "view", 1650517203000),
        (5, 20, "click", 1650517203000),
        (0, 7, "favor", 1650600000000),
    ]
    assert data.behaviors == ("view", "click", "favor")
    assert "is_like or is_follow or play_time_ms above 0 -> favor" in data.mapping


def test_parts_of_27k_are_read_in_the_order_of_their_time_from_the_folder_around_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    texts = {EARLY: ("".join(ROWS[:2]), "".join(ROWS[2:])), LATE: (LATER, "")}
    for name, parts in texts.items():
        for number, text in enumerate(parts, 1):
            if text:
                (folder / name.format(f"27k_part{number}")).write_text(HEADER + text)
    assert read(tmp_path, Options()).events.rows() == EVENTS


def test_a_single_log_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    folder_with(tmp_path, (HEADER + "".join(ROWS)).replace("\n", "\r\n").rstrip(), "1k")
    assert read(tmp_path / EARLY.format("1k"), Options()).events.rows() == EVENTS[:3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,2,20220421\n", ["row 6", "3 columns in '1,2,20220421'", "expected 19"]),
        (line(1, 2, 3).strip() + ",0\n", ["row 6", "20 columns", "expected 19"]),
        (line(1, 2, 3)[:20], ["row 6", "expected 19"]),
        (line(1, 2, 1650517204003, tab="").strip(), ["row 6", "tab ''", "cut off"]),
        (line("u1", 2, 3), ["row 6", "user_id 'u1'", "whole number"]),
        (line(1, "2.0", 3), ["row 6", "video_id '2.0'", "whole number"]),
        (line(1, 2, "noon"), ["row 6", "time_ms 'noon'", "milliseconds"]),
        (line(1, 2, 1650517204003, is_like="yes"), ["row 6", "is_like 'yes'", "whole number"]),
    ],
)
def test_a_malformed_or_cut_line_is_named_with_its_file_row_and_value(
    tmp_path: Path, text: str, told: list[str]
) -> None:
    said = complaint(folder_with(tmp_path, HEADER + "".join(ROWS) + text))
    assert all(part in said for part in [EARLY.format("pure"), *told, "repair or remove"])


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    text = complaint(folder_with(tmp_path, HEADER.encode() + line(1, 2, 3, tab="\xff").encode("latin-1")))
    assert "row 2: byte 0xff is not UTF-8" in text


def test_a_missing_period_and_a_mixture_of_versions_are_refused(tmp_path: Path) -> None:
    folder_with(tmp_path)
    (tmp_path / LATE.format("pure")).unlink()
    assert "log_standard_4_22_to_5_08_*.csv is missing" in complaint(tmp_path)
    folder_with(folder_with(tmp_path), version="1k")
    assert "logs of 1k and pure, expected one version" in complaint(tmp_path)


def test_no_files_a_headless_log_and_an_unknown_signal_are_refused(tmp_path: Path) -> None:
    assert "--raw" in complaint(None)
    assert "expected log_standard_4_08_to_4_21_*.csv and" in complaint(tmp_path)
    assert "row 1: no column 'user_id'" in complaint(folder_with(tmp_path, ROWS[0]))
    assert "row 2: nothing there" in complaint(folder_with(tmp_path, HEADER))
    folder_with(tmp_path)
    assert "did you mean 'is_follow'" in complaint(tmp_path, Options(behaviors=("is_click|is_folow=favor",)))
