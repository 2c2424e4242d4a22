"""Raw files in the layout of Kuaishou's User Interest Modeling Challenge, simulated, at any scale.

At scale 1 the default preparation finds the paper's users, items, clicks and favors; the law of clicks and
tastes stands in `simulation_plan`. A favor is a row with like = 1. The real release cannot give the
paper's 40.96 favors per user in this way: its likes are 1.5 % of its clicks, here 16 %. Follows are as
rare as in the release; long watching goes with favors, so that other definitions of a favor find some too.

Published and met: click rate of the rows, photos with faces, shape of the visual features, order of the
columns, 12-digit times, playing time 0 without a click. Not published and assumed: the share of photos
without text, lengths of texts and videos, the law of popularity, that rows stand in the order of time.

What a model can learn: a photo's topic shows in its words, its visual features and its faces.
"""

import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.datasets.kuaishou.simulation_plan import SMALLEST, Integers, Plan, Sizes, plan, sizes
from bench.errors import UserError
from bench.files import replacing

MARKER, UNFINISHED = "SIMULATED.json", "SIMULATING.json"
LOG, TEXTS, FACES, VISUAL = "train_interaction.txt", "train_text.txt", "train_face.txt", "final_visual_train"
USER_IDS, PHOTO_IDS = 37_820, 7_560_366  # largest ids of the release
FIRST_TIME, SPAN = 761_000_000_000, 10**8  # milliseconds with a hidden offset
ROWS, PHOTOS = 500_000, 2048  # of the log and of the other files, written at once
SKIPPED = 0.1  # of the rows without a click that show a photo nobody clicks
FOLLOWS = 0.0049  # of the clicks: 0.00099 of the rows
MEDIAN_SECONDS, SIGMA_SECONDS, MOST_SECONDS, NO_DURATION = 13, 0.8, 3100, 0.002
NO_TEXT, WORDS, VOCABULARY, TOPIC_WORDS, ON_TOPIC = 0.3, 4, 40_000, 300, 0.6
WITH_FACES, MORE_FACES, MOST_FACES = 0.38, 0.4, 9
WIDTH, SIGNAL, NOISE = 2048, 0.6, 0.8  # of the visual features
BYTES_A_ROW, BYTES_A_PHOTO = 50, 8600  # about, to see beforehand that the disk suffices

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Shelf:
    """All photos, ascending by id."""

    photos: Integers
    """(M,) ids."""
    topic: NDArray[np.int32]
    """(M,) 0-based topic of each."""
    topics: int

    def blocks(self, stage: str, watch: Watch) -> Iterator[tuple[Integers, NDArray[np.int32]]]:
        """Yield ids and topics of a few photos after another, and report the progress."""
        for start in range(0, len(self.photos), PHOTOS):
            part = slice(start, start + PHOTOS)
            yield self.photos[part], self.topic[part]
            watch(stage, min(part.stop, len(self.photos)), len(self.photos))


def _silent(what: str, done: int, of: int) -> None:
    """Watch nothing."""


def simulate(out: Path, scale: float, seed: int = 0, watch: Watch = _silent) -> None:
    """Write log, texts, faces, the zip of visual features and, last, the marker file into a new folder.

    All is written beside it, under a temporary name, and renamed once it is whole. At scale 1
    these are 7 GB.

    Args:
        out: the folder; must not exist, or be empty.
        scale: 1 is the size that the paper keeps; 0.005 or more, since below it users know all photos.
        seed: of everything.
        watch: progress callback (stage, done, total).

    Raises:
        UserError: the scale is too small, the folder holds files, or it cannot be written.
    """
    if not SMALLEST <= scale < math.inf:
        raise UserError(f"--scale {scale}: expected {SMALLEST} or more; 1 is the size that the paper keeps")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; remove it or name another folder")
    try:
        with replacing(out) as partial:
            partial.mkdir()
            _write(partial, scale, seed, watch)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); make room or name another folder") from error


def _write(folder: Path, scale: float, seed: int, watch: Watch) -> None:
    """Write all files, each with a random stream of its own."""
    size = sizes(scale)
    _check_room(folder, size)
    marker = {"data_set": "kuaishou", "scale": scale, "seed": seed}
    (folder / UNFINISHED).write_text(json.dumps(marker) + "\n", encoding="utf-8")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
    watch("clicks drawn", 0, size.pairs)
    planned = plan(size, streams[0])
    watch("clicks drawn", size.pairs, size.pairs)
    users = _ids(size.users, USER_IDS, streams[1])
    photos = _ids(size.photos + size.skipped, PHOTO_IDS, streams[1])
    _write_log(folder / LOG, planned, users, photos, streams[2], watch)
    order = np.argsort(photos)
    shelf = Shelf(photos[order], planned.topic[order], size.topics)
    _write_texts(folder / TEXTS, shelf, streams[3], watch)
    _write_faces(folder / FACES, shelf, streams[4], watch)
    _write_visual(folder / f"{VISUAL}.zip", shelf, streams[5], watch)
    (folder / UNFINISHED).rename(folder / MARKER)


def _check_room(folder: Path, size: Sizes) -> None:
    needed = size.rows * BYTES_A_ROW + (size.photos + size.skipped) * BYTES_A_PHOTO
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"about {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")


def _ids(count: int, largest: int, rng: np.random.Generator) -> Integers:
    """Return distinct ids in random order, from 1 to `largest`, or to more where they do not suffice."""
    return 1 + rng.choice(max(largest, 2 * count), count, replace=False)


def _write_log(
    path: Path, planned: Plan, users: Integers, photos: Integers, rng: np.random.Generator, watch: Watch
) -> None:
    """Write the exposures in the order of time, those without a click between the others."""
    size, pairs = planned.sizes, len(planned.user)
    drawn = np.exp(rng.normal(math.log(MEDIAN_SECONDS), SIGMA_SECONDS, len(photos)))
    seconds = np.minimum(1 + drawn, MOST_SECONDS).astype(np.int64)
    seconds[rng.random(len(photos)) < NO_DURATION] = 0
    slices = -(-size.rows // ROWS)
    bounds = np.linspace(0, pairs, slices + 1).astype(np.int64)  # of the pairs in each slice
    impressions = np.diff(np.linspace(0, size.rows - pairs, slices + 1).astype(np.int64))
    with path.open("wb") as file:
        for number, count in enumerate(impressions):
            part = slice(bounds[number], bounds[number + 1])
            rows = _slice(planned, part, int(count), seconds, rng)
            ids = pl.Series("user", users[rows["user"]]), pl.Series("photo", photos[rows["photo"]])
            _append(file, rows.with_columns(*ids).sort("time", maintain_order=True))
            watch("rows written", int(bounds[number + 1] + impressions[: number + 1].sum()), size.rows)


def _slice(
    planned: Plan, part: slice, count: int, seconds: Integers, rng: np.random.Generator
) -> pl.DataFrame:
    """Return the rows of some pairs and, from the same time, `count` rows without a click."""
    pairs = len(planned.user)
    user = np.concatenate([planned.user[part], planned.user[rng.integers(pairs, size=count)]])
    other = planned.photo[rng.integers(pairs, size=count)].astype(np.int64)  # popular photos, to active users
    skipped = rng.random(count) < SKIPPED * bool(planned.sizes.skipped)
    other[skipped] = rng.integers(planned.sizes.photos, len(planned.topic), size=int(skipped.sum()))
    photo = np.concatenate([planned.photo[part], other])
    when = planned.when[part]
    when = np.concatenate([when, rng.uniform(when[0], when[-1], count)])
    none = np.zeros(count, np.bool_)
    click, like = np.concatenate([planned.clicked[part], none]), np.concatenate([planned.favored[part], none])
    watched = rng.random(len(user)) * np.where(like, 1, 1.05) + 0.5 * like  # share of the video
    duration = seconds[photo]
    return pl.DataFrame(
        {
            "user": user,
            "photo": photo,
            "click": click.astype(np.int8),
            "like": like.astype(np.int8),
            "follow": (click & (rng.random(len(user)) < FOLLOWS)).astype(np.int8),
            "time": FIRST_TIME + (when * SPAN).astype(np.int64),
            "playing_time": np.where(click, watched * duration, 0).astype(np.int64),
            "duration_time": duration,
        }
    )


def _append(file: io.BufferedWriter, rows: pl.DataFrame) -> None:
    text = rows.write_csv(include_header=False, separator="\t", quote_style="never")
    file.write(text.encode())


def _write_texts(path: Path, shelf: Shelf, rng: np.random.Generator, watch: Watch) -> None:
    """Write the words of each photo: its topic's and any, or 0 where it has none."""
    vocabulary = rng.integers(1, VOCABULARY + 1, size=(shelf.topics, TOPIC_WORDS))
    with path.open("wb") as file:
        for photos, topic in shelf.blocks("texts written", watch):
            lengths = np.where(rng.random(len(photos)) < NO_TEXT, 0, 1 + rng.poisson(WORDS, len(photos)))
            owner = np.repeat(np.arange(len(photos)), lengths)
            own = vocabulary[topic[owner], rng.integers(TOPIC_WORDS, size=len(owner))]
            common = 1 + (VOCABULARY * rng.random(len(owner)) ** 3).astype(np.int64)
            words = pl.Series(np.where(rng.random(len(owner)) < ON_TOPIC, own, common))
            texts = _joined(owner, words, len(photos), ",").fill_null("0")
            _append(file, pl.DataFrame({"photo": photos, "text": texts}))


def _joined(owner: Integers, values: pl.Series, count: int, between: str) -> pl.Series:
    """Return the values of each owner as one text, null for owners of none."""
    flat = pl.DataFrame({"owner": owner, "value": values.cast(pl.String)})
    texts = flat.group_by("owner").agg(pl.col("value").str.join(between))
    everyone = pl.DataFrame({"owner": np.arange(count)})
    return everyone.join(texts, on="owner", how="left", maintain_order="left")["value"]


def _write_faces(path: Path, shelf: Shelf, rng: np.random.Generator, watch: Watch) -> None:
    """Write share of the picture, gender, age, looks of each face; photos without a face have no line."""
    male = rng.random(shelf.topics)
    with path.open("wb") as file:
        for photos, topic in shelf.blocks("faces written", watch):
            faces = 1 + np.minimum(rng.poisson(MORE_FACES, len(photos)), MOST_FACES - 1)
            faces[rng.random(len(photos)) >= WITH_FACES] = 0
            owner = np.repeat(np.arange(len(photos)), faces)
            columns = {
                "share": (rng.beta(2, 6, len(owner)) / faces[owner]).round(4),
                "gender": (rng.random(len(owner)) < male[topic[owner]]).astype(np.int8),
                "age": rng.integers(1, 70, len(owner)),
                "looks": rng.integers(20, 100, len(owner)),
            }
            face = pl.DataFrame(columns).select(pl.format("[{}, {}, {}, {}]", *columns)).to_series()
            table = pl.DataFrame({"photo": photos, "faces": _joined(owner, face, len(photos), ", ")})
            _append(file, table.drop_nulls().with_columns(pl.format("[{}]", "faces").alias("faces")))


def _write_visual(path: Path, shelf: Shelf, rng: np.random.Generator, watch: Watch) -> None:
    """Write one array of shape (1, 2048) float32 a photo, 0 or more like those of a ReLU, into a zip."""
    head = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": (1, WIDTH)}
    np.lib.format.write_array_header_1_0(head, form)
    center = SIGNAL * rng.standard_normal((shelf.topics, WIDTH), dtype=np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for photos, topic in shelf.blocks("visual features written", watch):
            vectors = rng.standard_normal((len(photos), WIDTH), dtype=np.float32)
            vectors = np.maximum(NOISE * vectors + center[topic], 0).astype("<f4")
            for photo, vector in zip(photos, vectors, strict=True):
                member = zipfile.ZipInfo(f"{VISUAL}/{photo}")  # its date is fixed: equal seeds, equal bytes
                archive.writestr(member, head.getvalue() + vector.tobytes())
