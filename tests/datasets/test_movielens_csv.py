import gzip
from pathlib import Path

import polars as pl
import pytest

from bench.data.preparation.check import check_raw
from bench.data.schema import EventStream, Part, RawData
from bench.datasets.movielens.releases import Options, read
from bench.errors import UserError

POSTERS = Path(__file__).parents[3] / "shared" / "data" / "ml-latest-small-posters"
HEADER = "userId,movieId,rating,timestamp\n"
TIME = 1_000_000_000
RATINGS = "1,31,2.5,1000000000\n1,11,4.0,1000000000\n2,11,3.5,999999990\n"
DAT = RATINGS.replace(",", "::")
MOVIES = (
    "movieId,title,genres\n"
    '11,"American President, The (1995)",Comedy|Drama\n'
    '31,"""Great Performances"" Cats (1998)",(no genres listed)\n'
    "40,Fawlty Towers (1975-1979),Comedy\n"
    "41,Hyena Road,(no genres listed)\n"
)
CLICKS_AND_FAVOR = [
    (1, 31, "click", TIME), (1, 11, "click", TIME), (1, 11, "favor", TIME), (2, 11, "click", TIME - 10)
]  # fmt: skip
TEXTS = {
    11: "American President, The Comedy Drama 1995", 31: '"Great Performances" Cats 1998',
    40: "Fawlty Towers Comedy 1975", 41: "Hyena Road",
}  # fmt: skip


def csv_folder(folder: Path, ratings: str = RATINGS, movies: str = MOVIES) -> Path:
    (folder / "ratings.csv").write_text(HEADER + ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def gz_folder(folder: Path) -> Path:
    (folder / "ratings.csv.gz").write_bytes(gzip.compress((HEADER + RATINGS).encode()))
    (folder / "movies.csv.gz").write_bytes(gzip.compress(MOVIES.encode()))
    return folder


def dat_folder(folder: Path, ratings: str = DAT) -> Path:
    (folder / "ratings.dat").write_text(ratings, encoding="latin-1")
    movies = "11::American President, The (1995)::Comedy|Drama\n31::Star Wars: Misérables (1998)::Drama\n"
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    return folder


def dat_gz_folder(folder: Path) -> Path:
    for path in (dat_folder(folder) / "ratings.dat", folder / "movies.dat"):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


def parts_of(data: RawData) -> list[Part]:
    assert isinstance(data.events, EventStream)
    return list(data.events.parts())


def events_of(data: RawData) -> pl.DataFrame:
    return pl.concat([part.events for part in parts_of(data)])


def items_of(data: RawData) -> pl.DataFrame:
    assert isinstance(data.items, pl.DataFrame)
    return data.items


def with_posters(folder: Path, *names: str) -> Path:
    (folder / "posters").mkdir()
    for name in names:
        (folder / "posters" / name).write_bytes(b"")
    return folder


def complaint(folder: Path, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        parts_of(read(folder, options or Options()))
    assert "\n" not in str(error.value)
    return str(error.value)


def untold(folder: Path, parts: list[str]) -> list[str]:
    """Return those parts that the complaint lacks."""
    message = complaint(folder)
    return [part for part in parts if part not in message]


@pytest.mark.parametrize("make", [csv_folder, gz_folder])
def test_csv_files_give_a_click_a_rating_and_a_favor_right_after_it(tmp_path: Path, make) -> None:
    data = read(make(tmp_path), Options())
    assert events_of(data).rows() == CLICKS_AND_FAVOR
    assert (data.behaviors, events_of(data)["timestamp"].dtype) == (("click", "favor"), pl.Int64)
    assert dict(items_of(data).rows()) == TEXTS
    assert "rating >= 4 -> favor as well" in data.mapping


@pytest.mark.parametrize("make", [dat_folder, dat_gz_folder])
def test_the_1m_form_is_latin_1_and_split_at_double_colons_only(tmp_path: Path, make) -> None:
    data = read(make(tmp_path), Options())
    assert events_of(data).rows() == CLICKS_AND_FAVOR
    assert dict(items_of(data).rows()) == {11: TEXTS[11], 31: "Star Wars: Misérables Drama 1998"}


def test_dat_files_in_utf_8_keep_their_letters(tmp_path: Path) -> None:
    dat_folder(tmp_path)
    (tmp_path / "movies.dat").write_bytes("31::Misérables, Les (1995)::Drama\n".encode())
    items = items_of(read(tmp_path, Options()))
    assert items.rows() == [(31, "Misérables, Les Drama 1995")]


def test_the_disjoint_rule_and_another_threshold(tmp_path: Path) -> None:
    data = read(csv_folder(tmp_path), Options(rule="disjoint", favor_rating=3.5))
    assert events_of(data)["behavior"].to_list() == ["click", "favor", "favor"]
    assert "3.5" in data.mapping


def test_posters_are_joined_by_movie_id_and_others_have_none(tmp_path: Path) -> None:
    with_posters(csv_folder(tmp_path), "11.jpg", "99.jpg", "cover.jpg", "31.png")
    data = read(tmp_path, Options())
    images = {item: image for item, _, image in items_of(data).select("item", "title", "image").rows()}
    posters = tmp_path / "posters"
    with_file = {11: f"{posters}/11.jpg", 31: f"{posters}/31.png", 99: f"{posters}/99.jpg"}
    assert images == {**with_file, 40: None, 41: None}


def test_only_movies_with_a_poster_and_their_ratings_are_kept(tmp_path: Path) -> None:
    with_posters(csv_folder(tmp_path), "11.jpg")
    data = read(tmp_path, Options(with_poster_only=True))
    assert events_of(data).rows() == CLICKS_AND_FAVOR[1:]
    assert items_of(data)["item"].to_list() == [11]
    assert parts_of(data)[0].dropped == {"movies without a poster": 1}


def test_posters_that_are_asked_for_but_missing_are_refused(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    assert "posters: no such folder" in complaint(tmp_path, Options(with_poster_only=True))
    assert "covers: no such folder" in complaint(tmp_path, Options(posters="covers"))
    with_posters(tmp_path, "50.jpg")
    assert "no movie of movies.csv has a poster" in complaint(tmp_path, Options(with_poster_only=True))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,31,3\n", ["row 3", "3 columns", "expected 4"]),
        ("1,31,3,5,6\n", ["row 3", "5 columns", "expected 4"]),
        ("\n2,31,x,5\n", ["row 4", "rating 'x'"]),
        ("1,31,good,5\n", ["row 3", "rating 'good'", "number of stars"]),
        ("1,31,,5\n", ["row 3", "rating ''", "number of stars"]),
        ("1,31,0.0,5\n", ["row 3", "rating '0.0'", "from 0.5 to 5"]),
        ("1,31,3.0,1e9\n", ["row 3", "timestamp '1e9'", "whole seconds since 1970"]),
        ("1,31,3.0,1000000000000\n", ["row 3", "timestamp '1000000000000'", "whole seconds since 1970"]),
        ("-1,31,3.0,5\n", ["row 3", "userId '-1'", "whole number"]),
        ("1,tt31,3.0,5\n", ["row 3", "movieId 'tt31'", "whole number"]),
    ],
)
def test_a_malformed_csv_line_is_named_with_row_and_value(tmp_path: Path, line: str, told: list[str]) -> None:
    assert not untold(csv_folder(tmp_path, "1,31,2.5,1000000000\n" + line), ["ratings.csv", *told])
    (part,) = parts_of(read(tmp_path, Options(on_bad_row="skip")))
    assert (len(part.events), part.rows, sum(part.dropped.values())) == (1, 2, 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1::31::3\n", ["row 2", "3 columns", "expected 4"]),
        ("1::31::3::5::6\n", ["row 2", "5 columns", "expected 4"]),
        ("1::31::good::5\n", ["row 2", "rating 'good'", "number of stars"]),
        ("1:31:3:5\n", ["row 2", "1 columns", "expected 4"]),
    ],
)
def test_a_malformed_dat_line_is_named_with_row_and_value(tmp_path: Path, line: str, told: list[str]) -> None:
    assert not untold(dat_folder(tmp_path, "1::31::2::1000000000\n" + line), ["ratings.dat", *told])


def test_bytes_that_are_not_utf_8_are_named_with_their_row(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\n11,Mis\xe9rables,Drama\n")
    assert not untold(tmp_path, ["movies.csv", "row 2", "byte 0xe9 is not UTF-8"])


def test_a_movie_line_that_is_too_short_or_has_no_number_is_named(tmp_path: Path) -> None:
    csv_folder(tmp_path, movies="movieId,title,genres\n11,Heat\n")
    assert not untold(tmp_path, ["movies.csv", "row 2", "2 columns", "expected 3"])
    csv_folder(tmp_path, movies="movieId,title,genres\nx,Heat,Drama\n")
    assert not untold(tmp_path, ["movies.csv", "row 2", "movieId 'x'", "whole number"])


def test_malformed_movies_are_skipped_and_told_in_the_mapping(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    bad = b"11\n\nx,Heat,Drama\n12,Mis\xe9rables,Drama\n13,a,b,c\n1 4,a,b\n,a,b\n"
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\n" + bad + b'31,"Heat, ""2""",Drama\n')
    rest = "(also bad: row 4, row 5, row 6, row 7 and more)"
    assert not untold(tmp_path, ["movies.csv: row 2: 1 columns in '11'", rest])
    data = read(tmp_path, Options(on_bad_row="skip"))
    assert items_of(data).rows() == [(31, 'Heat, "2" Drama')]
    assert "6 malformed rows of movies.csv left out" in data.mapping


def test_a_movie_without_a_title_has_no_text(tmp_path: Path) -> None:
    csv_folder(tmp_path, movies="movieId,title,genres\n11,,Drama\n31,Heat,\n")
    assert items_of(read(tmp_path, Options())).rows() == [(11, None), (31, "Heat")]


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    for name in ("ratings.csv", "movies.csv"):
        data = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n").rstrip()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    data = read(tmp_path, Options())
    assert events_of(data).rows() == CLICKS_AND_FAVOR
    assert dict(items_of(data).rows()) == TEXTS


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    csv_folder(tmp_path, movies="genres,movieId,title,extra\nDrama,31,Heat (1995),x\n")
    (tmp_path / "ratings.csv").write_text("timestamp,rating,movieId,userId\n1000000000,2.5,31,1\n")
    data = read(tmp_path, Options())
    assert events_of(data).rows() == CLICKS_AND_FAVOR[:1]
    assert items_of(data).rows() == [(31, "Heat Drama 1995")]


def test_missing_empty_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--raw"):
        read(None, Options())
    assert "ratings.csv, ratings.csv.gz, ratings.dat" in complaint(tmp_path)
    assert "row 2: nothing there, expected events" in complaint(csv_folder(tmp_path, ratings=""))
    (tmp_path / "ratings.csv").write_text("user,movieId,rating,timestamp\n1,2,3,4\n")
    assert "row 1: no column 'userId'" in complaint(tmp_path)
    (tmp_path / "ratings.csv").write_text("")
    assert "ratings.csv: row 1: nothing there" in complaint(tmp_path)
    (tmp_path / "ratings.csv").unlink()
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress((HEADER + RATINGS * 99).encode())[:-20])
    assert "ratings.csv.gz: after row" in complaint(tmp_path)
    (tmp_path / "movies.csv").rename(tmp_path / "movies.csv.gz")
    assert "movies.csv.gz: cannot be read" in complaint(tmp_path)


def test_a_threshold_that_no_rating_can_reach_is_refused(tmp_path: Path) -> None:
    message = complaint(csv_folder(tmp_path), Options(favor_rating=6))
    assert "favor_rating = 6: expected stars from 0.5 to 5" in message


def test_the_real_files_have_the_published_counts() -> None:
    if not POSTERS.is_dir():
        pytest.skip("the latest-small files with posters are not at ../shared/data")
    data = read(POSTERS, Options())
    clicks = events_of(data).filter(pl.col("behavior") == "click")
    assert (len(clicks), clicks["user"].n_unique(), clicks["item"].n_unique()) == (100_004, 671, 9_066)
    items = items_of(data)
    assert (len(items), len(items) - items["image"].null_count()) == (9_125, 2_447)
    assert items["title"].null_count() == 0
    pictured = clicks.join(items.drop_nulls("image"), on="item", how="semi")
    assert round(len(pictured) / len(clicks), 3) == 0.660
    check_raw(data)


def test_two_thirds_of_the_real_ratings_are_on_movies_with_a_poster() -> None:
    if not POSTERS.is_dir():
        pytest.skip("the latest-small files with posters are not at ../shared/data")
    data = read(POSTERS, Options(with_poster_only=True))
    events = events_of(data)
    counts = dict(events["behavior"].value_counts().rows())
    assert counts["click"] == 66_007
    assert round(counts["favor"] / counts["click"], 3) == 0.539
    assert (len(items_of(data)), sum(part.rows for part in parts_of(data))) == (2_447, 100_004)
    assert all(Path(image).is_file() for image in items_of(data)["image"])
    users = events.group_by("user").agg((pl.col("behavior") == name).sum().alias(name) for name in counts)
    assert len(users) == 671
    assert (users["click"] >= 5).sum() == 666
    assert ((users["favor"] >= 2).sum(), (users["favor"] >= 5).sum()) == (667, 639)
    favored = users.filter(pl.col("favor") > 0)  # whose mean is the README's
    assert (round(users["click"].mean(), 1), round(favored["favor"].mean(), 1)) == (98.4, 53.1)
