"""Pictures of every mode become RGB by the value range, upright, on white."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data.preparation.images import read_image, survey
from bench.data.preparation.runs import silent

SIXTEEN = np.linspace(0, 65535, 64).round().reshape(8, 8)
"""Gray values of 16 bits, from black to white."""
TURNED = np.zeros((4, 6, 3), np.uint8)
TURNED[:2, :3] = (250, 10, 10)
TURNED[3, 5] = (10, 10, 250)


def pixels(image: Image.Image, path: Path, **saved: Any) -> np.ndarray:
    """Save a picture and return (H, W, 3) what it is read as."""
    image.save(path, **saved)
    read = read_image(str(path))
    assert read.mode == "RGB"
    return np.asarray(read).astype(int)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_their_eight_bits(suffix, tmp_path):
    read = pixels(Image.fromarray(SIXTEEN.astype(np.uint16)), tmp_path / f"a.{suffix}")
    assert np.abs(read - (SIXTEEN / 257)[..., None]).max() <= 0.5
    dark = pixels(Image.fromarray((SIXTEEN / 2).astype(np.uint16)), tmp_path / f"b.{suffix}")
    assert dark.max() == 127  # the range of the mode counts, not that of the picture


@pytest.mark.parametrize("top", [1, 255, 65535, 3e9])
def test_floats_are_scaled_by_the_range_that_they_fill(top, tmp_path):
    values = (SIXTEEN / 65535 * top).astype(np.float32)
    read = pixels(Image.fromarray(values), tmp_path / "a.tif")
    assert np.abs(read - (SIXTEEN / 257)[..., None]).max() <= 0.51


def test_negative_values_stretch_from_the_darkest_to_the_brightest(tmp_path):
    read = pixels(Image.fromarray(np.array([[-3, -1, 1]], np.float32)), tmp_path / "a.tif")
    assert read[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(Image.fromarray(np.full((2, 2), -3, np.int32)), tmp_path / "b.tif").max() == 0


def test_whole_numbers_of_32_bits_may_hold_8_or_16(tmp_path):
    for bits in (8, 16):
        values = (SIXTEEN / 65535 * (2**bits - 1)).round().astype(np.int32)
        read = pixels(Image.fromarray(values), tmp_path / f"{bits}.tif")
        assert np.abs(read - (SIXTEEN / 257)[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("image", "suffix", "saved"),
    [
        (Image.new("CMYK", (3, 2), (0, 0, 0, 0)), "tif", {}),
        (Image.new("CMYK", (3, 2), (0, 0, 0, 0)), "jpg", {}),
        (Image.new("1", (3, 2), 1), "png", {}),
        (Image.new("1", (3, 2), 1), "tif", {}),
        (Image.new("LA", (3, 2), (0, 0)), "png", {}),
        (Image.new("RGBA", (3, 2), (0, 0, 0, 0)), "png", {}),
        (Image.new("RGBA", (3, 2), (9, 9, 9, 0)), "webp", {"lossless": True}),
        (Image.new("P", (3, 2), 0), "png", {"transparency": 0}),
        (Image.new("P", (3, 2), 0), "gif", {"transparency": 0}),
        (Image.new("L", (3, 2), 7), "png", {"transparency": 7}),
        (Image.new("RGB", (3, 2), (7, 8, 9)), "png", {"transparency": (7, 8, 9)}),
        (Image.new("I;16", (3, 2), 700), "png", {"transparency": 700}),
    ],
)
def test_white_and_transparent_is_white(image, suffix, saved, tmp_path):
    if image.mode == "P":
        image.putpalette([0, 0, 0] * 256)
    assert pixels(image, tmp_path / f"a.{suffix}", **saved).min() == 255


def test_half_transparent_black_is_half_gray_and_opaque_stays(tmp_path):
    colors = np.array([[[0, 0, 0, 128], [10, 20, 30, 255]]], np.uint8)
    read = pixels(Image.fromarray(colors), tmp_path / "a.png")
    assert read[0].tolist() == [[127, 127, 127], [10, 20, 30]]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_turn_of_exif_is_applied_once(suffix, orientation, turns, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == "webp" else {}
    read = pixels(Image.fromarray(TURNED), tmp_path / f"a.{suffix}", exif=exif, **lossless)
    assert (read == np.rot90(TURNED, turns)).all()  # 6: a quarter clockwise


def test_damaged_exif_is_no_fault_of_the_pixels(tmp_path):
    read = pixels(Image.fromarray(TURNED), tmp_path / "a.png", exif=b"Exif\0\0MM nothing")
    assert (read == TURNED).all()


def test_ordinary_pictures_keep_their_digest_and_others_change_it(tmp_path):
    import hashlib

    plain, deep = tmp_path / "plain.png", tmp_path / "deep.png"
    Image.new("RGBA", (2, 2), (1, 2, 3, 255)).save(plain)
    Image.fromarray(SIXTEEN.astype(np.uint16)).save(deep)
    digests = survey([str(plain), str(deep)], "error", silent).digests
    contents = [hashlib.sha256(path.read_bytes()).digest() for path in (plain, deep)]
    assert digests[0] == contents[0]
    assert digests[1] != contents[1]
