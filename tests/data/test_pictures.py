"""Pictures that are not found, belong to no item or are broken: errors that name both sides, and counts."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import cli
from bench.data import library
from bench.data.preparation import images
from bench.data.preparation.coverage import cautions
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.features import Source
from bench.data.preparation.images import survey
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.preparation.runs import silent
from bench.data.readers.pictures import pictures
from bench.data.schema import RawData, RawFeatures
from bench.data.stats import statistics, text_report
from bench.data.storage import load
from bench.errors import UserError

IDS = [f"B00{n}" for n in range(6)]


def log(items: list[Any]) -> pl.DataFrame:
    count = len(items)
    behavior = ["click"] * (count - 1) + ["favor"]
    return pl.DataFrame({"user": [1] * count, "item": items, "behavior": behavior, "timestamp": range(count)})


def prepared(folder: Path, items: pl.DataFrame | None, ids: list[Any] = IDS, **more: Any) -> Path:
    encoders = more.pop("encoders", EncoderOptions())
    raw = RawData(log(ids), ("click", "favor"), "", items=items, **more)
    return prepare(raw, "x", folder / "home" / "x", PrepareOptions(min_events=1), encoders, {})


def complaint(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepared(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert not (arguments[0] / "home" / "x").exists()
    return str(caught.value)


@pytest.fixture
def by_size(monkeypatch: pytest.MonkeyPatch) -> EncoderOptions:
    """Return options whose encoder of pictures is replaced by one that gives the color of the first pixel."""

    def encoder(batch_size: int, place: Any) -> Any:
        def opened() -> Any:
            def encode(paths: list[str]) -> Any:
                yield np.array([images.read_image(path).getpixel((0, 0)) for path in paths], np.float16)

            return encode

        from bench.data.preparation.shelf import Encoder

        return Encoder("first pixel", "first pixel", opened)

    monkeypatch.setattr("bench.data.preparation.efficientnet.encoder", encoder)
    return EncoderOptions(image="efficientnet")


def picture(path: Path, shade: int = 9) -> str:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 1, 1)).save(path)
    return str(path)


def bomb(path: Path) -> str:
    """Write the head of a PNG of 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return str(path)


def broken(folder: Path) -> list[str]:
    """Return six files: cut off, empty, text, missing, far too large, not a number."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"<html>not found</html>")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(folder / "nan.tif")
    names = ("cut.jpg", "empty.png", "text.jpg", "missing.jpg")
    return [*(str(folder / name) for name in names), bomb(folder / "bomb.png"), str(folder / "nan.tif")]


def test_pictures_are_found_by_any_suffix_in_any_case(tmp_path):
    names = ["1.jpg", "2.JPG", "3.jpeg", "4.PNG", "5.webp", "6.Tiff", "7.gif", "8.BMP", "9.avif"]
    for name in [*names, "10.txt", "._11.jpg", "cover.jpg", "12"]:
        (tmp_path / name).write_bytes(b"")
    found = pictures(tmp_path)
    assert found.rows() == [(n, f"{tmp_path}/{name}") for n, name in enumerate(names, 1)]
    assert pictures(tmp_path, pl.Series(["cover", "5"]))["item"].to_list() == ["5", "cover"]


@pytest.mark.parametrize(("one", "other"), [("5.jpg", "5.png"), ("5.JPG", "5.jpg"), ("5.jpg", "i5.webp")])
def test_two_pictures_of_an_item_are_refused(one, other, tmp_path):
    for name in (one, other, "6.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="item 5 has two pictures, ") as caught:
        pictures(tmp_path, prefix="i")
    assert one in str(caught.value) and other in str(caught.value)
    assert len(pictures(tmp_path, pl.Series([6]))) == 1  # of an item that is not kept they are no fault


@pytest.mark.parametrize("there", [["5.0.jpg", "6.0.jpg"], ["B00.heic"], []])
def test_pictures_asked_for_and_not_found_name_both_sides(there, by_size, tmp_path):
    place = tmp_path / "posters"
    place.mkdir()
    for name in there:
        (place / name).write_bytes(b"")
    text = complaint(tmp_path, None, [5, 6, 7, 8], pictures=place, encoders=by_size)
    names = ", ".join(map(repr, there)) or "none"
    assert f"pictures in {place} (there: {names}; items in the events: 5, 6, 7); name picture files" in text


def test_a_folder_of_pictures_that_is_missing_and_pictures_of_other_items_are_told_apart(by_size, tmp_path):
    text = complaint(tmp_path, None, pictures=tmp_path / "posters", encoders=by_size)
    assert f"pictures in {tmp_path / 'posters'} (there: no such folder; items in the events: 'B000'" in text
    items = pl.DataFrame({"item": [*IDS, "A1", "A2"], "image": [None] * 6 + ["x.jpg", "y.jpg"]})
    text = complaint(tmp_path, items, encoders=by_size)
    assert "of the item table (there: 'A1', 'A2'; items in the events: 'B000', 'B001', 'B002')" in text


@pytest.mark.parametrize("given", ["table", "function"])
def test_an_item_table_of_other_items_names_both_sides(given, tmp_path):
    items: Any = pl.DataFrame({"item": ["5.0", "6.0", "7.0", "8.0"], "title": ["a", "b", "c", "d"]})
    text = complaint(tmp_path, items if given == "table" else lambda ids: items, ["5", "6", "7", "8"])
    assert "none of the 4 items of the events is there" in text
    assert "(ids there: '5.0', '6.0', '7.0'; in the events: '5', '6', '7')" in text


def test_titles_of_other_items_only_are_refused_and_no_titles_are_not(tmp_path):
    items = pl.DataFrame({"item": [*IDS, "A1"], "brand": ["b"] * 7, "title": [None] * 6 + ["red"]})
    text = complaint(tmp_path, items, attributes=("brand",))
    assert "text = tfidf-svd: none of the 6 items has one of the titles (there: 'A1'; items in" in text
    made = prepared(tmp_path, items[:6], attributes=("brand",))
    assert dict(text_report(statistics(made)))["text"].startswith("0.0% of the items")
    assert "text = clip" in complaint(tmp_path / "b", items[:6], encoders=EncoderOptions(text="clip"))


def test_ready_made_vectors_of_other_items_name_three_ids_of_both_sides(tmp_path):
    given = RawFeatures(["a", "b", "c", "d"], np.ones((4, 2), np.float32))
    text = complaint(tmp_path, None, features={"image": given})
    assert "(ids there: 'a', 'b', 'c'; in the events: 'B000', 'B001', 'B002')" in text


@pytest.mark.parametrize(("known", "warned"), [(2, True), (3, False)])
def test_content_of_less_than_half_of_the_items_is_a_warning(known, warned, tmp_path):
    made = prepared(tmp_path, pl.DataFrame({"item": IDS[:known], "title": ["red"] * known}))
    lines = cautions(made)
    assert bool(lines) == warned
    if warned:
        expected = "2 of 6 items (33.3%) have one (without: 'B002', 'B003', 'B004'; with: 'B000', 'B001')"
        assert lines[0].startswith(f"warning: item table: {expected}")
        assert lines[1].startswith(f"warning: text: {expected}")


def test_the_command_line_warns_and_check_does_not_call_it_a_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    log([5, 6, 7, 8]).with_columns(behavior=pl.lit("favor")).write_csv(tmp_path / "events.csv")
    (tmp_path / "items.csv").write_text("item,title\n5,red shoe\n", encoding="utf-8")
    options = ["--set", "items=items.csv", "--set", "min_events=1"]
    words = ["data", "prepare", "table", "--raw", str(tmp_path), "--name", "mine", *options]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0
    assert "warning: text: 1 of 4 items (25.0%) have one (without: 6, 7, 8; with: 5)" in result.stderr
    raw = ["data", "check", str(tmp_path), "--reader", "table", "--set", "items=items.csv"]
    for words in (["data", "check", "mine"], raw):
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 0
        assert "warning: text: 1 of 4 items" in result.output and "no fault found" in result.output


def test_five_broken_pictures_are_named_in_one_error(tmp_path):
    paths = broken(tmp_path)
    with pytest.raises(UserError) as caught:
        survey([None, *paths, paths[0], picture(tmp_path / "good.png")], "error", silent)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{paths[0]}: the image cannot be decoded")
    assert [path in text for path in paths] == [True] * 5 + [False]
    assert "; and 1 more); replace the files" in text and "--on-bad-row skip" in text
    assert f"{paths[3]}: no such image file" in text


def test_an_encoder_of_titles_that_is_named_is_an_error_where_there_are_no_titles(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    log([5, 6, 7, 8]).with_columns(behavior=pl.lit("favor")).write_csv(tmp_path / "events.csv")
    words = ["data", "prepare", "table", "--raw", str(tmp_path), "--name", "mine", "--set", "min_events=1"]
    result = CliRunner().invoke(cli.app, [*words, "--encoder", "tfidf-svd"])
    assert result.exit_code != 0
    assert "text = tfidf-svd: none of the 4 items has one of the titles (there: none" in str(result.exception)
    assert not (tmp_path / "data" / "mine").exists()
    assert CliRunner().invoke(cli.app, words).exit_code == 0


@pytest.mark.parametrize("encode", [True, False])
def test_broken_pictures_can_be_skipped_and_are_counted(encode, by_size, tmp_path):
    good = [picture(tmp_path / f"{n}.png", n) for n in (7, 8)]
    items = pl.DataFrame({"item": IDS, "image": [good[0], *broken(tmp_path)[:4], good[1]]})
    options = EncoderOptions(image="efficientnet" if encode else "none", on_bad_row="skip")
    made = prepared(tmp_path, items, encoders=options)
    data = load(made)
    assert data.items["image"].to_list() == [good[0], None, None, None, None, good[1]]
    assert data.metadata["lacking"]["image"] == 4
    if encode:
        assert data.content.present["image"].tolist() == [False, True, False, False, False, False, True]
        assert data.content.features["image"][[1, 6], 0].tolist() == [7, 8]
    rows = [text for name, text in text_report(statistics(made)) if name == "left out"]
    assert rows[0] == "4 broken pictures, whose items count as without" and "cut.jpg" in rows[1]
    assert any("4 broken pictures count as absent" in line for line in cautions(made))


def test_only_broken_pictures_are_an_error_even_where_they_are_skipped(by_size, tmp_path):
    items = pl.DataFrame({"item": IDS, "image": broken(tmp_path)})
    options = EncoderOptions(image="efficientnet", on_bad_row="skip")
    assert "all 6 pictures are broken" in complaint(tmp_path, items, encoders=options)


def test_the_rule_for_bad_rows_reaches_the_pictures(tmp_path, monkeypatch):
    log([5, 6, 7, 8]).write_csv(tmp_path / "events.csv")
    overrides = {"behaviors": "click,favor"}
    *_, encoders = library.read_raw("table", tmp_path, overrides, "skip")
    assert encoders.on_bad_row == "skip"
    assert library.read_raw("table", tmp_path, overrides)[3].on_bad_row == "error"


def test_a_source_without_pictures_has_no_broken_ones():
    assert dict(Source(lambda: iter(()), "x").broken) == {}
