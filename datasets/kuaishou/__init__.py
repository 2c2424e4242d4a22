"""Kuaishou, User Interest Modeling Challenge 2018: exposures of short videos with clicks, likes and follows.

The files are those of the challenge of China MM 2018. Photos, as the publisher calls its videos, have no
picture and no readable text: a vector of the cover and anonymous word ids stand for them.

A row gives a click event where click = 1 and a favor event where the favor's definition holds; where both
do, the click comes first, at the same time. Rows with neither are exposures: shown, not clicked, no events.
Interactions of the test part are not read, their labels were withheld.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.log import Field, LogFiles, LogOptions, id_field, log_file, number_field
from bench.data.readers.missing import is_word
from bench.data.schema import TOUCHED, RawData, StreamedFeatures
from bench.datasets.kuaishou.simulation import FACES, LOG, MARKER, TEXTS, UNFINISHED
from bench.datasets.kuaishou.visual import WIDTH, blocks
from bench.errors import UserError

CARD = DatasetCard(
    name="kuaishou",
    title="Kuaishou User Interest Modeling Challenge 2018: short videos shown, clicked and liked",
    real=True,
    licence="of the challenge's organiser, who gives the files out; no terms of redistribution known",
    published=(
        "https://www.kuaishou.com/activity/uimc (cite: Kuaishou User Interest Modeling Challenge, China MM "
        "2018; the M3BSR paper, arXiv:2508.05352, reports on a part of it)"
    ),
    files=(
        "train_interaction.txt, train_text.txt, train_face.txt and final_visual_train (.zip, or unpacked), "
        "in one folder, or in train/ with test/ beside it; the first alone suffices"
    ),
    behaviors=(
        "click = 1 -> click, like = 1 -> favor (favor=like_or_follow: or follow = 1; favor=watch: "
        "playing_time / duration_time >= watch_ratio); a row with both is a click, then a favor, at one time"
    ),
    modalities=(
        "image: the publisher's 2,048 values of the cover; text: word ids; attributes: faces on the cover "
        "(0, 1, 2, 3+), their gender (female, male, both)"
    ),
    size=(
        "first round: about 15,000 users, 4,278,686 photos, 20,854,340 rows, 20.2 % of them clicks; the "
        "final round is larger. The paper's part: 22,793 users, 618,529 items, 5,852,725 interactions, "
        "255.02 clicks and 40.96 favors per user"
    ),
    paper={"users": 22793, "items": 618529, "interactions": 5852725, "click": 255.02, "favor": 40.96},
    dirt=(
        "No header. Rows with neither click nor favor are dropped and counted. Likes are 1.5 % of the clicks "
        "of the release, too few for the paper's favors; what the paper counted is unknown. Time is in "
        "milliseconds with a hidden offset: only its order is used. Some durations are 0: such rows are no "
        "favor=watch. A text of 0 is none. Photos without a line of faces count as without faces. Photos "
        "without visual features are absent, not zero. A second line of a photo's text or faces is ignored."
    ),
)

COLUMNS = ("user", "item", "click", "like", "follow", "time", "playing_time", "duration_time")
FOLDERS = ("", "train/", "visual/")
VISUAL = ("final_visual_train", "visual_train", "train_visual")
LAST_TIME = 10**15 - 1
NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
FACE = rf"\[{NUMBER}, ?[01], ?{NUMBER}, ?{NUMBER}\]"


@dataclass(frozen=True)
class Options(LogOptions):
    """What a favor is, and where the files are."""

    favor: Literal["like", "like_or_follow", "watch"] = "like"
    """The target behavior: like = 1; like = 1 or follow = 1; or a share of the video that was watched."""
    watch_ratio: float = 1.0
    """Least playing_time / duration_time of a favor under favor=watch, above 0."""
    interactions: str = ""
    """Path of train_interaction.txt in the raw folder; empty: there, or in train/."""
    texts: str = ""
    """Path of train_text.txt, likewise."""
    faces: str = ""
    """Path of train_face.txt, likewise."""
    visual: str = ""
    """Folder or zip of the visual features; empty: final_visual_train, visual_train or train_visual there, in
    train/ or in visual/."""

    def __post_init__(self) -> None:
        if not 0 < self.watch_ratio < float("inf"):
            raise ValueError("watch_ratio must be above 0")


def read(raw: Path | None, options: Options) -> RawData:
    """Return clicks and favors as a stream, word ids as titles, faces as attributes, vectors of the covers.

    Args:
        raw: the folder of the files, or train_interaction.txt.
        options: the definition of a favor.

    Raises:
        UserError: a file is missing, or its simulation was interrupted; on reading: a line or array is
            malformed.
    """
    if options.interactions and raw is not None and raw.is_dir():
        path = _named(raw, options.interactions, "interactions")
    else:
        path = log_file(raw, "kuaishou", [inner + LOG for inner in FOLDERS])
    folder = path.parent if raw is None or raw.is_file() else raw
    if (folder / UNFINISHED).exists():
        fix = "remove the folder and simulate again"
        raise UserError(f"{folder}: its simulation was interrupted, the files are not whole; {fix}")
    texts = _find(folder, options.texts, "texts", (TEXTS, f"{TEXTS}.gz"))
    faces = _find(folder, options.faces, "faces", (FACES, f"{FACES}.gz"))
    unpacked = [name for kind in VISUAL for name in (f"{kind}/{kind}", kind, f"{kind}.zip")]
    visual = _find(folder, options.visual, "visual", unpacked)
    missing = [name for name, path in (("text", texts), ("visual", visual)) if path is None]
    features = {}
    if visual:
        features["image"] = StreamedFeatures(WIDTH, partial(blocks, visual, options.on_bad_row))
    return RawData(
        events=_log(path, options),
        behaviors=("click", "favor"),
        mapping=_mapping(options) + "".join(f"; no {name} files were given" for name in missing),
        items=partial(_items, texts, faces, options) if texts or faces else None,
        attributes=("faces", "gender") if faces else (),
        features=features,
        simulated=(folder / MARKER).exists(),
    )


def _named(folder: Path, given: str, option: str) -> Path:
    path = folder / given
    if not path.exists():
        raise UserError(f"{path}: nothing there; correct the option {option}={given}, a path in {folder}")
    return path


def _find(folder: Path, given: str, option: str, names: "list[str] | tuple[str, ...]") -> Path | None:
    """Return the path given by an option, or the first of the usual ones that exists."""
    if given:
        return _named(folder, given, option)
    usual = (folder / inner / name for inner in FOLDERS for name in names)
    return next((path for path in usual if path.exists()), None)


def _favor(options: Options) -> pl.Expr:
    """Return the condition of a favor over the typed columns."""
    playing, duration = pl.col("playing_time"), pl.col("duration_time")
    return {
        "like": pl.col("like"),
        "like_or_follow": pl.col("like") | pl.col("follow"),
        "watch": (duration > 0) & (playing >= options.watch_ratio * duration),
    }[options.favor]


def _mapping(options: Options) -> str:
    favor = {
        "like": "like = 1",
        "like_or_follow": "like = 1 or follow = 1",
        "watch": f"playing_time / duration_time >= {options.watch_ratio:g}",
    }[options.favor]
    return f"click = 1 -> click, {favor} -> favor; exposures with neither dropped"


def _log(path: Path, options: Options) -> LogFiles:
    favor = _favor(options)
    kinds = [pl.when("click").then(pl.lit("click")), pl.when(favor).then(pl.lit("favor"))]
    kinds.append(pl.when(~(pl.col("click") | favor)).then(pl.lit(TOUCHED)))
    behavior = pl.concat_list(kinds).list.drop_nulls().alias("behavior")  # shallow before deep

    def select(typed: pl.LazyFrame) -> pl.LazyFrame:
        rows = typed.filter(pl.col("click") | favor | pl.col("like") | pl.col("follow"))
        return rows.select("user", "item", behavior, "timestamp").explode("behavior")

    time = number_field("timestamp", f"a whole number from 1 to {LAST_TIME}", "time", 1, LAST_TIME)
    seconds = [number_field(name, "whole seconds, 0 or more") for name in ("playing_time", "duration_time")]
    return LogFiles(
        files=(path,),
        columns=COLUMNS,
        fields=(
            id_field("user"), id_field("item"), *map(_flag, ("click", "like", "follow")), time, *seconds,
        ),
        select=select,
        separator="\t",
        dropped={"exposures without click": ~(pl.col("click") | favor)},
        on_bad_row=options.on_bad_row,
    )  # fmt: skip


def _flag(name: str) -> Field:
    text = pl.col(name)
    return Field(name, pl.when(text.is_in(["0", "1"])).then(text == "1"), "0 or 1")


def _items(texts: Path | None, faces: Path | None, options: Options, ids: pl.Series) -> pl.DataFrame:
    """Return title, and faces with their gender, of the photos kept, as far as the files exist."""
    table = ids.alias("item").to_frame()
    if texts:
        words = pl.col("words")
        spaced = words.str.replace_all(",", " ", literal=True)
        none, listed = (words == "0") | is_word(words), words.str.contains(r"^\d+(,\d+)*$")
        title = pl.when(none).then(pl.lit("")).when(listed).then(spaced)
        field = Field("title", title, "word ids between commas, or 0", "words")
        known = _lines(texts, "words", (field,), options).table(ids, ["title"])
        table = table.join(known, on="item", how="left", maintain_order="left")
    if faces:
        known = _lines(faces, "list", _face_fields(), options).table(ids, ["faces", "gender"])
        table = table.join(known, on="item", how="left", maintain_order="left")
        table = table.with_columns(pl.col("faces").fill_null("0"))
    return table


def _lines(path: Path, column: str, fields: tuple[Field, ...], options: Options) -> LogFiles:
    """Return a file of photo ids, each with one text."""
    return LogFiles(
        files=(path,),
        columns=("item", column),
        fields=(id_field("item"), *fields),
        select=lambda typed: typed,
        separator="\t",
        on_bad_row=options.on_bad_row,
    )


def _face_fields() -> tuple[Field, Field]:
    """Return how many faces there are, and of whom; the latter is unknown where there are none."""
    text = pl.when(is_word(pl.col("list"))).then(pl.lit("[]")).otherwise("list")
    count = text.str.count_matches("[", literal=True) - 1
    faces = pl.when(count > 2).then(pl.lit("3+")).otherwise(count.cast(pl.String))
    faces = pl.when(text.str.contains(rf"^\[(?:{FACE}(?:, ?{FACE})*)?\]$")).then(faces)
    female, male = (text.str.contains(rf"\[{NUMBER}, ?{gender},") for gender in (0, 1))
    gender = pl.when(female & male).then(pl.lit("both")).when(female).then(pl.lit("female"))
    gender = gender.when(male).then(pl.lit("male"))
    expected = "a list of faces, each [share, gender 0 or 1, age, looks]"
    return Field("faces", faces, expected, "list"), Field("gender", gender, "", "list", optional=True)
