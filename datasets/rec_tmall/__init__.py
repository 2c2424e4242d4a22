"""Rec-Tmall: clicks, collects, carts and purchases on Tmall, with titles, brands, sellers and categories.

Tianchi's data set 140281, the e-commerce data set of the M3BSR paper (arXiv:2508.05352). How the paper came
from 1.3 billion rows to 72,051 users is not said; `user_share` samples users by a hash of their id.

A sampled user has all of his events, and a smaller share with the same seed gives a part of the same users.
Times are the publisher's local ones (UTC+8), counted in seconds as if they were UTC.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.cards import DatasetCard
from bench.data.readers.behaviors import behavior_names, mapping_text
from bench.data.readers.blocks import header_of
from bench.data.readers.folder import files_of
from bench.data.readers.log import Field, LogFiles, LogOptions
from bench.data.schema import TOUCHED, RawData
from bench.datasets.rec_tmall.items import ATTRIBUTES, SOH, Items, full_form, prefixed_id
from bench.datasets.rec_tmall.simulation import ACTIONS, MARKER, UNFINISHED
from bench.errors import UserError

CARD = DatasetCard(
    name="rec_tmall",
    title="Rec-Tmall: real clicks and favorites (collect) on Tmall, with titles, brands, sellers, categories",
    real=True,
    licence="research use, no redistribution (terms of Tianchi; accept them there)",
    published=(
        "https://tianchi.aliyun.com/dataset/140281 (cite: Alibaba Group, Rec-Tmall Dataset, Tianchi, 140281; "
        "the e-commerce data set of M3BSR, SIGIR 2025)"
    ),
    files=(
        "tianchi_2014002_rec_tmall_log_parta.txt, _partb.txt and _partc.txt, unpacked (any of the three); if "
        "at hand tianchi_2014001_rec_tmall_product.txt and a folder images/ with <item_id>.jpg; or "
        "the publisher's (sample)...csv files"
    ),
    behaviors="click -> click, collect -> favor; cart and alipay dropped unless behaviors lists them",
    modalities="titles; images where the user has them, nothing is fetched; category, brand, seller",
    size="1,333,729,303 rows (counted by a user of the set), 50 GB; 8,133,507 products",
    paper={"users": 72051, "items": 93466, "interactions": 328387, "click": 4.16, "favor": 1.73},
    dirt=(
        "Titles, brands and sellers may be empty or 'null': unknown. Bytes that are no UTF-8 become U+FFFD. "
        "Rows stand in no order of time. Items that the product table lacks are kept, their content is "
        "unknown; of a product listed twice the first line counts. Repeated events are kept. Ids may carry a "
        "letter (i161, u2625) and times be written 2014/9/18 15:03, as in the sample. Times outside "
        "2008..2019 are malformed."
    ),
)

COLUMNS = ("item_id", "user_id", "action", "vtime")
FIRST, LAST = 1_199_145_600, 1_577_836_799  # 2008-01-01 00:00:00 (Tmall opened) and 2019-12-31 23:59:59
MASK = 2**32 - 1
ACTION = pl.Enum(ACTIONS)


@dataclass(frozen=True)
class Options(LogOptions):
    """Which raw behaviors become what, and of which users."""

    behaviors: tuple[str, ...] = ("click=click", "collect=favor")
    """Shallow -> deep, `click,collect,cart,alipay` for all; the last is the target, others are dropped."""
    user_share: float = 1.0
    """Share of the users taken, by a hash of their id; above 0, 1 takes all."""
    sample_seed: int = 0
    """Which users a share below 1 takes."""

    def __post_init__(self) -> None:
        if not 0 < self.user_share <= 1:
            raise ValueError("user_share must be above 0 and at most 1")
        if self.sample_seed < 0:
            raise ValueError("sample_seed must be 0 or more")


def read(raw: Path | None, options: Options) -> RawData:
    """Return the events of the log parts in file order, and the products and pictures of the items kept.

    Args:
        raw: folder of the files, or the log itself, beside which the others are looked for.
        options: the mapping of behaviors, the share of users.

    Raises:
        UserError: no log is there; on reading: it has a header where none belongs, a line is malformed.
    """
    names = behavior_names(options.behaviors, ACTIONS)
    files = _log_files(raw)
    folder = files[0].parent if raw is None or raw.is_file() else raw
    products = _tables(folder, "product")
    images = folder / "images"
    return RawData(
        events=_log(files, names, options),
        behaviors=tuple(dict.fromkeys(names.values())),
        mapping=_mapping(files, names, options),
        items=Items(
            products[0] if products else None, images if images.is_dir() else None, options.on_bad_row
        ),
        attributes=ATTRIBUTES if products else (),
        pictures=images,
        simulated=(folder / MARKER).is_file(),
    )


def _log_files(raw: Path | None) -> tuple[Path, ...]:
    """Return the parts of the log in the order of their names.

    Raises:
        UserError: nothing was given, or no log is there, or the folder is left of an interrupted simulation.
    """
    if raw is None:
        raise UserError("rec_tmall: no files given; put the log parts into a folder and give it by --raw")
    if raw.is_file():
        return (raw,)
    if (raw / UNFINISHED).exists():
        raise UserError(f"{raw}: an interrupted simulation left it; remove it and simulate again")
    if tables := _tables(raw, "log"):
        return tables
    fix = "unpack the publisher's archives and give their folder by --raw"
    raise UserError(f"{raw}: expected tianchi_2014002_rec_tmall_log_parta.txt, partb, partc there; {fix}")


def _tables(folder: Path, what: str) -> tuple[Path, ...]:
    """Return the files of one table by name, plain or .gz, or in folders of that name; else the sample's.

    Raises:
        UserError: a file is there twice, which would double its rows.
    """
    for ending in ("txt", "csv"):
        tables = [
            path
            for pattern in (f"*rec_tmall_{what}*.{ending}", f"*rec_tmall_{what}*.{ending}.gz")
            for path in files_of(folder, (pattern, f"*rec_tmall_{what}*/{pattern}"))
        ]
        by_name: dict[str, Path] = {}
        for path in sorted(tables, key=lambda path: path.name):
            name = path.name.removesuffix(".gz")
            if name in by_name:
                raise UserError(f"{path}: the same file as {by_name[name]}; remove one of them")
            by_name[name] = path
        if by_name:
            return tuple(by_name.values())
    return ()


def _log(files: tuple[Path, ...], names: dict[str, str], options: Options) -> LogFiles:
    """Return the stream of events; the form of the first file is that of all."""
    full = full_form(files[0])
    return LogFiles(
        files=files,
        columns=COLUMNS if full else header_of(files[0], COLUMNS),
        fields=(
            prefixed_id("item", "item_id", "i"),
            prefixed_id("user", "user_id", "u"),
            Field("action", pl.col("action").cast(ACTION, strict=False), f"one of {', '.join(ACTIONS)}"),
            _full_time() if full else _sample_time(),
        ),
        select=lambda typed: _events(typed, names, options),
        separator=SOH if full else ",",
        header=not full,
        on_bad_row=options.on_bad_row,
        lossy=True,
    )


def _full_time() -> Field:
    text = pl.col("vtime")
    seconds = _seconds(text, "%Y-%m-%d %H:%M:%S")
    # Without the length, a time cut off by a digit would pass for another one.
    whole = (text.str.len_bytes() == 19) & seconds.is_between(FIRST, LAST)
    expected = "yyyy-mm-dd hh:mm:ss of the years 2008 to 2019"
    return Field("timestamp", pl.when(whole).then(seconds), expected, "vtime")


def _sample_time() -> Field:
    """Return the field of `2014/9/18 15:03`, or the full form, which other copies of the sample have."""
    text = pl.col("vtime")
    short = pl.when(text.str.slice(-3, 1) == ":").then(_seconds(text, "%Y/%m/%d %H:%M"))
    seconds = pl.coalesce(short, _full_time().value)
    expected = "yyyy/m/d h:mm of the years 2008 to 2019"
    return Field("timestamp", pl.when(seconds.is_between(FIRST, LAST)).then(seconds), expected, "vtime")


def _seconds(text: pl.Expr, form: str) -> pl.Expr:
    # Without the cache: nearly all times differ, and it then costs twice as much as parsing.
    return text.str.to_datetime(form, time_unit="ms", strict=False, cache=False).dt.epoch("s")


def _events(typed: pl.LazyFrame, names: dict[str, str], options: Options) -> pl.LazyFrame:
    """Return the rows of the chosen users; behaviors as categories, far smaller than text."""
    rows = typed
    if options.user_share < 1:
        below = round(options.user_share * (MASK + 1))
        rows = rows.filter(user_hash(pl.col("user"), options.sample_seed) < below)
    behaviors = pl.Enum([*dict.fromkeys(names.values()), TOUCHED])
    table = pl.Series([names.get(action, TOUCHED) for action in ACTIONS], dtype=behaviors)
    behavior = pl.lit(table).gather(pl.col("action").to_physical()).alias("behavior")
    return rows.select("user", "item", behavior, "timestamp")


def user_hash(user: pl.Expr, seed: int) -> pl.Expr:
    """Return 32 bits that look random, the same on every machine and with every version of polars.

    Two rounds of shift, exclusive or and multiplication, as in splitmix64, on 32 bits: products of numbers
    below 2^32 fit into uint64, so that nothing rests on how an overflow is treated. The shifts and factors
    are those that C. Wellons' search found least biased (hash prospector, 2018, public domain).

    Args:
        user: int64 ids of 0 or more.
        seed: 0 or more; another one gives unrelated bits.
    """
    start = (seed * 0x9E3779B9 + 0x7F4A7C15) & MASK
    bits = user.cast(pl.UInt64)
    bits = (bits ^ (bits // 2**32) ^ pl.lit(start, pl.UInt64)) & MASK
    bits = ((bits ^ (bits // 2**16)) * 0x21F0AAAD) & MASK
    bits = ((bits ^ (bits // 2**15)) * 0x735A2D97) & MASK
    return bits ^ (bits // 2**15)


def _mapping(files: tuple[Path, ...], names: dict[str, str], options: Options) -> str:
    text = f"{mapping_text(names, ACTIONS)}; read from {', '.join(path.name for path in files)}"
    if options.user_share == 1:
        return text
    return f"{text}; {options.user_share:.4%} of the users, sampled with seed {options.sample_seed}"
