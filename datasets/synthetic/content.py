"""What an item shows of its factors: noisy vectors, and titles and pictures of the same noisy factors."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WORDS, TITLE_LENGTH = 600, 6
PICTURE = 32  # pixels per side


def split_factors(factors: int) -> tuple[slice, slice, slice]:
    """Return the coordinates of the shared, visual and textual factors among F."""
    shared = factors // 4
    visual = shared + (factors - shared) // 2
    return slice(0, shared), slice(shared, visual), slice(visual, factors)


def visible_factors(factors: int) -> dict[str, Integers]:
    """Return modality -> coordinates that it shows."""
    shared, visual, textual = (np.r_[part] for part in split_factors(factors))
    return {"image": np.concatenate([shared, visual]), "text": np.concatenate([shared, textual])}


def brands(cluster: Integers, clusters: int, share: float, rng: np.random.Generator) -> pl.Series:
    """Return one brand per item: its cluster's for this share of the items, any brand for the others."""
    own = rng.random(len(cluster)) < share
    number = np.where(own, cluster, rng.integers(clusters, size=len(cluster)))
    return pl.Series([f"brand {one}" for one in number])


def show(
    factors: Floats, size: int, noise: float, rng: np.random.Generator
) -> tuple[NDArray[np.float16], Floats]:
    """Show factors through a random linear map with noise.

    Args:
        factors: (N, d), variance 1 per coordinate.
        size: D, width of the vectors.
        noise: standard deviation of the noise of a vector's coordinate; that of its signal is about 1.
        rng: source of the map and the noise.

    Returns:
        Vectors (N, D), rounded so that the last bits of a machine's arithmetic do not show, and the factors
        (N, d) that can be read off them by least squares.
    """
    mixing = rng.standard_normal((factors.shape[1], size)) / math.sqrt(factors.shape[1])
    vectors = factors @ mixing + noise * rng.standard_normal((len(factors), size))
    return vectors.astype(np.float16), vectors @ np.linalg.pinv(mixing)


def titles(factors: Floats, present: NDArray[np.bool_], rng: np.random.Generator) -> list[str | None]:
    """Return one title per item: the words nearest to it, of a vocabulary over the factors' directions."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = np.array([syllables[i % 70] + syllables[i // 70] + syllables[i * 11 % 70] for i in range(WORDS)])
    directions = rng.standard_normal((factors.shape[1], WORDS))
    directions /= np.linalg.norm(directions, axis=0)
    made: list[str | None] = []
    for rows in _chunks(len(factors)):
        nearest = np.argpartition(-factors[rows] @ directions, TITLE_LENGTH, axis=1)[:, :TITLE_LENGTH]
        made += [" ".join(row) for row in words[np.sort(nearest, axis=1)]]
    return [title if has_title else None for title, has_title in zip(made, present, strict=True)]


def pictures(
    factors: Floats, present: NDArray[np.bool_], folder: Path, rng: np.random.Generator
) -> list[str | None]:
    """Write a PNG for each present item, colored waves with the factors as amplitudes, and return the paths.

    Raises:
        UserError: the folder cannot be written.
    """
    from PIL import Image  # not needed for vectors

    y, x = np.mgrid[0:PICTURE, 0:PICTURE] * (2 * math.pi / PICTURE)
    waves = [np.cos(rng.integers(4) * x + rng.integers(4) * y + 6.3 * rng.random()) for _ in factors.T]
    patterns = np.stack(waves)[..., None] * rng.standard_normal((len(waves), 1, 1, 3))  # (d, side, side, 3)
    paths: list[str | None] = [None] * len(factors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rows in _chunks(len(factors)):
            brightness = factors[rows] @ patterns.reshape(len(waves), -1) / math.sqrt(len(waves))
            pixels = (255 / (1 + np.exp(-brightness))).astype(np.uint8).reshape(-1, PICTURE, PICTURE, 3)
            for row in np.flatnonzero(present[rows]):
                path = folder / f"{rows.start + row + 1}.png"
                Image.fromarray(pixels[row]).save(path)
                paths[rows.start + row] = str(path)
    except OSError as error:
        raise UserError(f"image_folder={folder}: cannot be written ({error}); name another folder") from error
    return paths


def _chunks(rows: int, size: int = 1024) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
