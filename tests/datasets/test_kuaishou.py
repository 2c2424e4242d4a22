import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.storage import load
from bench.datasets.kuaishou import Options, read
from bench.errors import UserError

# user, photo, click, like, follow, time, playing, duration
LINES = (
    "8\t30\t1\t0\t0\t761000000300\t5\t10\n"
    "8\t10\t1\t1\t0\t761000000100\t12\t10\n"  # clicked and liked
    "9\t20\t0\t0\t0\t761000000150\t0\t7\n"  # shown only
    "9\t30\t1\t0\t1\t761000000200\t3\t9\n"  # the author followed
    "9\t10\t0\t1\t0\t761000000250\t0\t0\n"  # liked without a click
    "9\t40\t1\t0\t0\t761000000400\t3\t0\n"  # a duration of 0
)
TEXTS = "10\t2972,38252,4202\n20\t7\n30\t0\n"
FACES = (
    "10\t[[0.20, 0, 18, 69], [0.23, 1, 20, 88]]\n"
    "20\t[[0.5, 1, 33, 50]]\n"
    "40\t[[0.1,0,5,7], [0.1,0,5,7], [0.1,0,5,7]]\n"
)


def raw_folder(
    folder: Path, log: str | bytes = LINES, texts: str | None = TEXTS, faces: str | None = FACES
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_interaction.txt").write_bytes(log.encode() if isinstance(log, str) else log)
    for name, text in (("train_text.txt", texts), ("train_face.txt", faces)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def rows(raw: Path, **options: object) -> list[tuple]:
    return pl.concat([part.events for part in read(raw, Options(**options)).events.parts()]).rows()


def items(raw: Path, *ids: int, **options: object) -> list[tuple]:
    return read(raw, Options(**options)).items(pl.Series(ids)).rows()


def complaint(action) -> str:
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def constant(value: float) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((1, 2048), value, np.float32))
    return file.getvalue()


def test_clicks_and_likes_are_events_and_a_row_with_both_gives_the_click_first(tmp_path):
    assert rows(raw_folder(tmp_path)) == [
        (8, 30, "click", 761000000300), (8, 10, "click", 761000000100), (8, 10, "favor", 761000000100),
        (9, 30, "click", 761000000200), (9, 10, "favor", 761000000250), (9, 40, "click", 761000000400),
    ]  # fmt: skip


def test_events_are_typed_and_exposures_without_click_are_counted(tmp_path):
    data = read(raw_folder(tmp_path), Options())
    (part,) = data.events.parts()
    assert dict(part.events.schema) == {
        "user": pl.Int64, "item": pl.Int64, "behavior": pl.String, "timestamp": pl.Int64
    }  # fmt: skip
    assert part.rows == 6 and part.dropped == {"exposures without click": 1}
    assert data.behaviors == ("click", "favor") and not data.simulated
    assert data.mapping.startswith("click = 1 -> click, like = 1 -> favor")
    assert data.mapping.endswith("no visual files were given")


@pytest.mark.parametrize(
    ("options", "favors"),
    [
        ({"favor": "like"}, [(8, 10), (9, 10)]),
        ({"favor": "like_or_follow"}, [(8, 10), (9, 30), (9, 10)]),
        ({"favor": "watch"}, [(8, 10)]),  # 12 of 10 seconds; 3 of 0 is no share
        ({"favor": "watch", "watch_ratio": 0.5}, [(8, 30), (8, 10)]),
        ({"favor": "watch", "watch_ratio": 0.25}, [(8, 30), (8, 10), (9, 30)]),
    ],
)
def test_the_definition_of_a_favor_is_an_option_and_stands_in_the_mapping(tmp_path, options, favors):
    raw = raw_folder(tmp_path)
    assert [row[:2] for row in rows(raw, **options) if row[2] == "favor"] == favors
    told = {"like": "like = 1 ->", "like_or_follow": "like = 1 or follow = 1 ->"}
    ratio = options.get("watch_ratio", 1)
    expected = told.get(options["favor"], f"playing_time / duration_time >= {ratio} ->")
    assert expected in read(raw, Options(**options)).mapping


def test_a_watch_ratio_of_nothing_is_refused():
    for ratio in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            Options(watch_ratio=ratio)


def test_word_ids_become_titles_and_faces_attributes(tmp_path):
    raw = raw_folder(tmp_path)
    assert read(raw, Options()).attributes == ("faces", "gender")
    assert items(raw, 10, 20, 30, 40, 50) == [
        (10, "2972 38252 4202", "2", "both"),
        (20, "7", "1", "male"),
        (30, "", "0", None),  # a text of 0 is none; no line of faces is no face
        (40, None, "3+", "female"),
        (50, None, "0", None),
    ]


def test_items_have_what_the_files_given_tell(tmp_path):
    assert items(raw_folder(tmp_path / "a", faces=None), 10, 40) == [(10, "2972 38252 4202"), (40, None)]
    assert items(raw_folder(tmp_path / "b", texts=None), 10) == [(10, "2", "both")]
    neither = read(raw_folder(tmp_path / "c", texts=None, faces=None), Options())
    assert neither.items is None and neither.attributes == () and "no text files" in neither.mapping


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1\t2\t1\t0\t0\t761000000000\t3\n", ["row 7", "7 columns in '1", "expected 8"]),
        ("1\t2\t1\t0\t0\t761000000000\t3\t4\t5\n", ["row 7", "9 columns", "expected 8"]),
        ("1,2,1,0,0,761000000000,3,4\n", ["row 7", "1 columns", "expected 8"]),
        ("1.0\t2\t1\t0\t0\t761000000000\t3\t4\n", ["row 7", "user '1.0'", "whole number"]),
        ("1\t2e6\t1\t0\t0\t761000000000\t3\t4\n", ["row 7", "item '2e6'", "whole number"]),
        ("1\t-2\t1\t0\t0\t761000000000\t3\t4\n", ["row 7", "item '-2'", "0 or more"]),
        ("1\t2\t2\t0\t0\t761000000000\t3\t4\n", ["row 7", "click '2'", "0 or 1"]),
        ("1\t2\t1\t\t0\t761000000000\t3\t4\n", ["row 7", "like ''", "0 or 1"]),
        ("1\t2\t1\t0\tTrue\t761000000000\t3\t4\n", ["row 7", "follow 'True'", "0 or 1"]),
        ("1\t2\t1\t0\t0\t0\t3\t4\n", ["row 7", "time '0'", "from 1 to"]),
        ("1\t2\t1\t0\t0\t7610000000000000\t3\t4\n", ["row 7", "time '7610000000000000'", "999999999999999"]),
        ("1\t2\t1\t0\t0\t761000000000\t-3\t4\n", ["row 7", "playing_time '-3'", "0 or more"]),
        ("1\t2\t1\t0\t0\t761000000000\t3\tlong\n", ["row 7", "duration_time 'long'", "0 or more"]),
    ],
)
def test_a_malformed_line_is_named_or_skipped_and_counted(tmp_path, line, told):
    raw = raw_folder(tmp_path, LINES + line + LINES)
    text = complaint(lambda: rows(raw))
    assert all(part in text for part in ["train_interaction.txt", *told])
    assert len(rows(raw, on_bad_row="skip")) == 12
    (part,) = read(raw, Options(on_bad_row="skip")).events.parts()
    assert part.rows == 13 and sorted(part.dropped.values()) == [1, 2]


def test_a_header_where_none_belongs_is_named(tmp_path):
    header = "user_id\tphoto_id\tclick\tlike\tfollow\ttime\tplaying_time\tduration_time\n"
    text = complaint(lambda: rows(raw_folder(tmp_path, header + LINES)))
    assert "row 1" in text and "header" in text


def test_a_log_that_was_cut_off_inside_a_line_is_refused(tmp_path):
    assert "row 7: 6 columns" in complaint(lambda: rows(raw_folder(tmp_path, LINES + LINES[:20])))


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path):
    log = LINES.encode() + b"1\t2\t1\t0\t0\t7610000\xff0000\t3\t4\n"
    assert "row 7: byte 0xff is not UTF-8" in complaint(lambda: rows(raw_folder(tmp_path, log)))


@pytest.mark.parametrize("text", ["10\t1,b\n", "10\t\n", "10\t1;2\n", "10\n", "x\t1\n", "10\t1.0,2\n"])
def test_a_malformed_text_is_named_or_counts_as_none(tmp_path, text):
    raw = raw_folder(tmp_path, texts="20\t7\n" + text, faces=None)
    told = complaint(lambda: items(raw, 10, 20))
    assert "train_text.txt: row 2" in told
    assert items(raw, 10, 20, on_bad_row="skip") == [(10, None), (20, "7")]


@pytest.mark.parametrize(
    "faces", ["[[0.2, 2, 18, 69]]", "[[0.2, 0, 18]]", "[0.2, 0, 18, 69]", "[[0.2, 0, 18, 69]"]
)
def test_a_malformed_list_of_faces_is_named(tmp_path, faces):
    raw = raw_folder(tmp_path, faces=f"10\t{faces}\n")
    assert f"row 1: list '{faces}', expected a list of faces" in complaint(lambda: items(raw, 10))


def test_files_are_found_in_one_folder_or_in_train_beside_test(tmp_path):
    raw_folder(tmp_path / "raw" / "train")
    (tmp_path / "raw" / "visual").mkdir()
    with zipfile.ZipFile(tmp_path / "raw" / "visual" / "train_visual.zip", "w") as archive:
        archive.writestr("final_visual_train/10", constant(1))
    test = tmp_path / "raw" / "test"
    test.mkdir()
    (test / "test_interaction.txt").write_text("not read")
    data = read(tmp_path / "raw", Options())
    assert len(pl.concat([part.events for part in data.events.parts()])) == 6
    assert data.attributes == ("faces", "gender") and data.mapping.endswith("dropped")
    ((at, _),) = data.features["image"].blocks(pl.Series([10, 30]))
    assert at.tolist() == [0] and data.features["image"].width == 2048
    assert rows(tmp_path / "raw" / "train" / "train_interaction.txt") == rows(tmp_path / "raw")


def test_options_name_files_that_stand_elsewhere(tmp_path):
    raw_folder(tmp_path / "in", texts=None, faces=None)
    (tmp_path / "in" / "train_interaction.txt").rename(tmp_path / "in" / "log.tsv")
    (tmp_path / "in" / "words").write_text("10\t5\n")
    assert items(tmp_path, 10, interactions="in/log.tsv", texts="in/words") == [(10, "5")]
    told = complaint(lambda: items(tmp_path, 10, interactions="in/log.tsv", visual="covers"))
    assert "covers: nothing there" in told and "visual=covers" in told


def test_nothing_given_and_a_folder_without_the_log_are_refused(tmp_path):
    assert "--raw" in complaint(lambda: read(None, Options()))
    assert "expected train_interaction.txt" in complaint(lambda: read(tmp_path, Options()))


def test_preparation_joins_events_titles_attributes_and_vectors_by_photo(tmp_path):
    raw = raw_folder(tmp_path / "raw")
    (raw / "final_visual_train").mkdir()
    for photo, value in (("10", 1), ("40", 4)):
        (raw / "final_visual_train" / photo).write_bytes(constant(value))
    options = PrepareOptions(min_events=3)
    target = prepare(read(raw, Options()), "k", tmp_path / "k", options, EncoderOptions(text_size=4), {})
    dataset = load(target)
    assert dataset.users.to_list() == [8, 9] and dataset.items["item"].to_list() == [10, 30, 40]
    assert dataset.interactions.item.tolist() == [1, 1, 2, 2, 1, 3]  # by user, then time, click before favor
    assert dataset.interactions.behavior.tolist() == [1, 2, 1, 1, 2, 1]
    assert dataset.content.present["image"].tolist() == [False, True, False, True]
    assert dataset.content.features["image"].shape == (4, 2048)
    assert dataset.content.features["image"][:, 5].tolist() == [0, 1, 0, 4]
    assert dataset.content.features["image"].dtype == np.float16
    assert dataset.content.present["text"].tolist() == [False, True, False, False]
    assert dataset.content.attributes["faces"].tolist() == [0, 2, 1, 3]  # "0", "2", "3+" in this order
    assert dataset.content.attributes["gender"].tolist() == [0, 1, 0, 2]  # both, unknown, female
    assert dataset.metadata["dropped"] == {"exposures without click": 1}
    assert dataset.metadata["raw_behaviors"] == {"click": 4, "favor": 2}


def test_the_order_of_the_lines_does_not_matter_where_times_differ(tmp_path):
    prints, options = [], PrepareOptions(min_events=1)
    for number, log in enumerate((LINES, "".join(sorted(LINES.splitlines(keepends=True))))):
        raw = raw_folder(tmp_path / f"raw{number}", log)
        folder = tmp_path / f"k{number}"
        prepare(read(raw, Options()), "k", folder, options, EncoderOptions(), {})
        prints.append(load(folder).fingerprint)
    assert prints[0] == prints[1]
