import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.datasets.kuaishou.visual import blocks, vector
from bench.errors import UserError


def complaint(action) -> str:
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def constant(value: float, dtype: str = "float32", shape: tuple[int, ...] = (1, 2048)) -> bytes:
    return npy(np.full(shape, value, dtype))


def folder_of(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir(parents=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def zip_of(place: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place


def vectors(place: Path, *ids: int, on_bad_row: str = "error") -> dict[int, tuple[float, float]]:
    """Return row -> first and last value."""
    found = {}
    for at, values in blocks(place, on_bad_row, pl.Series(ids, dtype=pl.Int64)):
        assert values.shape == (len(at), 2048) and values.dtype == np.float16
        found |= {int(row): (float(v[0]), float(v[-1])) for row, v in zip(at, values, strict=True)}
    return found


FORMS = ["folder", "folder with endings", "stored zip", "deflated zip", "zip with a folder"]
FILES = {"10": constant(1.5), "20": constant(-2, "float64", (2048,)), "30": constant(0.25, "float16")}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_read_from_a_folder_and_from_a_zip_alike(tmp_path, form):
    if form.startswith("folder"):
        ending = ".npy" if "endings" in form else ""
        place = folder_of(tmp_path / "visual_train", {name + ending: data for name, data in FILES.items()})
    else:
        inside = "final_visual_train/" if "with" in form else ""
        files = {inside + name: data for name, data in FILES.items()}
        files |= {inside: b""} if inside else {}
        place = zip_of(tmp_path / "v.zip", files, zipfile.ZIP_DEFLATED if "deflated" in form else 0)
    expected = {1: (1.5, 1.5), 2: (-2.0, -2.0), 4: (0.25, 0.25)}
    assert vectors(place, 5, 10, 20, 25, 30) == expected


def test_blocks_cover_all_photos_once_in_order(tmp_path):
    place = zip_of(tmp_path / "v.zip", {str(photo): constant(photo) for photo in range(0, 1500, 3)})
    ids = pl.Series(range(1500))
    parts = list(blocks(place, "error", ids))
    at = np.concatenate([rows for rows, _ in parts])
    assert at.tolist() == list(range(0, 1500, 3)) and len(parts) == 3
    assert np.concatenate([v for _, v in parts])[:, 7].tolist() == at.astype(np.float16).tolist()
    assert list(blocks(place, "error", pl.Series([1, 2]))) == []


DAMAGED = {
    "shape": (npy(np.zeros((2, 1024), np.float32)), "shape (2, 1024) of float32"),
    "width": (npy(np.zeros((1, 512), np.float32)), "shape (1, 512) of float32"),
    "whole numbers": (npy(np.zeros((1, 2048), np.int64)), "shape (1, 2048) of int64"),
    "objects": (npy(np.array([[print] * 2048], dtype=object)), "Python objects, which are never unpickled"),
    "cut off": (constant(1)[:-100], "8092 bytes of values instead of 8192"),
    "too long": (constant(1) + b"\0" * 8, "8200 bytes of values instead of 8192"),
    "cut off head": (constant(1)[:60], "no .npy file"),
    "empty": (b"", "no .npy file"),
    "text": (b"0.1 0.2 0.3 " * 100, "no .npy file"),
    "infinite": (constant(np.inf), "NaN, infinite or beyond 65504"),
    "not a number": (constant(np.nan), "NaN, infinite or beyond 65504"),
    "too large": (constant(1e6), "NaN, infinite or beyond 65504"),
    "another version": (b"\x93NUMPY\x03\x00" + constant(1)[8:], "no .npy file"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_array_is_named_or_counts_as_absent_with_a_warning(tmp_path, damage):
    data, found = DAMAGED[damage]
    place = folder_of(tmp_path / "visual", {"10": constant(1), "20": data})
    text = complaint(lambda: vectors(place, 10, 20))
    assert text.startswith(f"{place}: photo 20: ") and found in text
    assert "expected a .npy array of 2048 floats, shape (1, 2048) or (2048,)" in text and "skip" in text
    with pytest.warns(UserWarning, match="1 photos count as absent, the first: photo 20"):
        assert vectors(place, 10, 20, on_bad_row="skip") == {0: (1, 1)}


def test_a_pickle_in_place_of_an_array_is_never_loaded():
    bomb = b"cbuiltins\nexec\n(S'raise SystemExit(3)'\ntR."
    with pytest.raises(ValueError, match=r"no \.npy file"):
        vector(bomb)
    with pytest.raises(ValueError, match="never unpickled"):
        vector(npy(np.array([None], dtype=object)))


def test_a_damaged_photo_that_nobody_kept_does_not_matter(tmp_path):
    place = folder_of(tmp_path / "visual", {"10": constant(1), "20": b"junk"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vectors(place, 10) == {0: (1, 1)}


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    place = zip_of(tmp_path / "v.zip", {"10": constant(1), "20": constant(2)})
    data = bytearray(place.read_bytes())
    data[300] ^= 0xFF  # inside the values of photo 10: its checksum fails
    place.write_bytes(data)
    assert "photo 10: a member that cannot be unpacked" in complaint(lambda: vectors(place, 10, 20))
    with pytest.warns(UserWarning, match="1 photos count as absent"):
        assert vectors(place, 10, 20, on_bad_row="skip") == {1: (2, 2)}


def test_a_member_that_unpacks_to_more_than_any_array_is_not_unpacked(tmp_path):
    place = zip_of(tmp_path / "v.zip", {"10": b"\0" * 2**21}, zipfile.ZIP_DEFLATED)
    assert f"photo 10: {2**21} bytes" in complaint(lambda: vectors(place, 10))


@pytest.mark.parametrize("name", ["../10", "final_visual/../../10", "/etc/10", "..\\10", "C:\\10", "\\10"])
def test_a_zip_with_a_member_that_climbs_out_of_the_folder_is_refused(tmp_path, name):
    place = zip_of(tmp_path / "v.zip", {"20": constant(1), name: constant(2)})
    for rule in ("error", "skip"):
        text = complaint(lambda rule=rule: vectors(place, 20, on_bad_row=rule))
        assert f"v.zip: member '{name}' leads out of the folder" in text


@pytest.mark.parametrize("data", [b"", b"no zip at all", zipfile.stringFileHeader + b"\0" * 50])
def test_a_file_that_is_no_zip_is_refused(tmp_path, data):
    (tmp_path / "v.zip").write_bytes(data)
    assert "no readable zip" in complaint(lambda: vectors(tmp_path / "v.zip", 10))
