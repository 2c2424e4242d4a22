import gzip
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from bench.datasets.movielens import ml_100k as movielens
from bench.datasets.movielens.ml_100k import Options, read
from bench.errors import UserError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
RATINGS = "1\t10\t3\t100\n2\t10\t4\t90\n1\t267\t5\t100\n"


def atomic_folder(folder: Path, ratings: str = RATINGS, header: str = INTER) -> Path:
    (folder / "ml-100k.inter").write_text(header + ratings, encoding="utf-8")
    movies = "10\tMisérables, Les\t1995\tDrama Musical\n267\tunkonwn\tunkonwn\tunknown\n"
    movies += "11\tLand III (1995)\tV\tAnimation\n"
    (folder / "ml-100k.item").write_text(ITEM + movies, encoding="utf-8")
    return folder


def original_folder(folder: Path) -> Path:
    def movie(item: int, title: str, genres: set[int]) -> str:
        flags = [str(int(genre in genres)) for genre in range(19)]
        return "|".join([str(item), title, "01-Jan-1995", "", "http://x", *flags])

    lines = [movie(10, "Misérables, Les (1995)", {8, 12}), movie(267, "unknown", {0})]
    lines += [movie(11, "Land III (1995)", {3})]
    (folder / "u.data").write_text(RATINGS, encoding="utf-8")
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


@pytest.mark.parametrize("make", [atomic_folder, original_folder])
def test_both_forms_give_the_same_events_and_texts(tmp_path: Path, make) -> None:
    data = read(make(tmp_path), Options())
    assert data.events.rows() == [(1, 10, "click", 100), (2, 10, "favor", 90), (1, 267, "favor", 100)]
    assert data.behaviors == ("click", "favor")
    assert data.items is not None
    texts = dict(data.items.rows())
    assert texts == {10: "Misérables, Les Drama Musical 1995", 267: None, 11: "Land III Animation 1995"}


def test_nested_rule_puts_the_click_before_the_favor_of_the_same_time(tmp_path: Path) -> None:
    data = read(atomic_folder(tmp_path), Options(rule="nested", favor_rating=5))
    assert data.events.rows() == [
        (1, 10, "click", 100), (2, 10, "click", 90), (1, 267, "click", 100), (1, 267, "favor", 100),
    ]  # fmt: skip
    assert "5" in data.mapping


@pytest.mark.parametrize("make", [atomic_folder, original_folder])
def test_gzipped_files_give_the_same_and_a_cut_off_one_is_refused(tmp_path: Path, make) -> None:
    expected = read(make(tmp_path), Options())
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = read(tmp_path, Options())
    assert data.events.equals(expected.events) and data.items.equals(expected.items)
    packed = next(path for path in tmp_path.iterdir() if path.name.startswith(("u.data", "ml-100k.inter")))
    packed.write_bytes(packed.read_bytes()[:-6])
    with pytest.raises(UserError, match=f"{packed.name}: cannot be read"):
        read(tmp_path, Options())


def test_a_folder_around_the_unzipped_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "ml-100k").mkdir()
    original_folder(tmp_path / "ml-100k")
    assert len(read(tmp_path, Options()).events) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1\t10\t3\n", ["row 3", "3 columns", "expected 4"]),
        ("1\t10\tgood\t5\n", ["row 3", "rating 'good'", "number of stars"]),
        ("1\t10\t3\t5.5\n", ["row 3", "timestamp '5.5'", "whole number"]),
        ("-1\t10\t3\t5\n", ["row 3", "user '-1'", "whole number"]),
        ("\n", ["row 3", "1 columns", "expected 4"]),
    ],
)
def test_a_malformed_line_is_named_with_its_row_and_value(tmp_path: Path, line: str, told: list[str]) -> None:
    atomic_folder(tmp_path, "1\t10\t3\t100\n" + line)
    with pytest.raises(UserError) as error:
        read(tmp_path, Options())
    assert all(part in str(error.value) for part in ["ml-100k.inter", *told]) and "\n" not in str(error.value)


def test_windows_line_ends_and_a_missing_last_one_change_nothing(tmp_path: Path) -> None:
    atomic_folder(tmp_path)
    expected = read(tmp_path, Options()).events
    (tmp_path / "ml-100k.inter").write_bytes((INTER + RATINGS).rstrip("\n").replace("\n", "\r\n").encode())
    assert read(tmp_path, Options()).events.equals(expected)


def test_a_header_without_a_needed_column_says_which(tmp_path: Path) -> None:
    atomic_folder(tmp_path, header="user_id:token\titem_id:token\tstars:float\ttimestamp:float\n")
    with pytest.raises(UserError, match="row 1: no column 'rating'"):
        read(tmp_path, Options())


def test_latin_bytes_in_a_utf8_file_are_named_with_their_row(tmp_path: Path) -> None:
    atomic_folder(tmp_path)
    (tmp_path / "ml-100k.item").write_bytes(ITEM.encode() + b"1\tMis\xe9rables\t1995\tDrama\n")
    with pytest.raises(UserError, match="row 2: byte 0xe9 is not utf-8"):
        read(tmp_path, Options())


def test_a_threshold_that_no_rating_reaches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="favor_rating = 6"):
        read(atomic_folder(tmp_path), Options(favor_rating=6))


def test_an_empty_rating_file_and_a_folder_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected ml-100k.inter and ml-100k.item or u.data and u.item"):
        read(tmp_path, Options())
    with pytest.raises(UserError, match="row 2: nothing there"):
        read(atomic_folder(tmp_path, ratings=""), Options())


def test_the_installed_files_are_found_without_importing_recbole(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    atomic_folder(folder)
    monkeypatch.delitem(sys.modules, "recbole", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(read(None, Options()).events) == 3
    assert "recbole" not in sys.modules


def fake_pip(monkeypatch, fill) -> None:
    """Replace pip by a function of the folder given to --dest."""

    def run(command, **_) -> subprocess.CompletedProcess:
        return fill(Path(command[command.index("--dest") + 1]), command)

    monkeypatch.setattr(movielens, "_installed", lambda: None)
    monkeypatch.setattr(subprocess, "run", run)


def test_the_fetched_wheel_gives_the_two_files_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    seen: list[Path] = []

    def fill(dest: Path, command: list[str]) -> subprocess.CompletedProcess:
        seen.append(dest)
        assert "--no-deps" in command and command[0] == sys.executable
        with ZipFile(dest / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
            for name in ("ml-100k.inter", "ml-100k.item"):
                wheel.write(atomic_folder(tmp_path) / name, f"recbole/dataset_example/ml-100k/{name}")
            wheel.writestr("../climbed.txt", "no")
        return subprocess.CompletedProcess(command, 0, "", "")

    fake_pip(monkeypatch, fill)
    assert len(read(None, Options()).events) == 3
    assert not seen[0].exists() and not (seen[0].parent / "climbed.txt").exists()


def test_a_failed_download_names_the_two_other_ways(monkeypatch) -> None:
    fake_pip(monkeypatch, lambda _, command: subprocess.CompletedProcess(command, 1, "", "x\nno network\n"))
    with pytest.raises(UserError, match=r"no network.*install recbole==1.2.1, or give a folder .*--raw"):
        read(None, Options())


def test_a_wheel_without_the_data_is_refused(monkeypatch) -> None:
    def fill(dest: Path, command: list[str]) -> subprocess.CompletedProcess:
        with ZipFile(dest / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("recbole/__init__.py", "")
        return subprocess.CompletedProcess(command, 0, "", "")

    fake_pip(monkeypatch, fill)
    with pytest.raises(UserError, match="expected ml-100k inside"):
        read(None, Options())


def test_the_real_files_have_the_published_counts() -> None:
    try:
        data = read(None, Options())
    except UserError as error:
        pytest.skip(f"MovieLens-100K is neither installed nor to be fetched: {error}")
    events, items = data.events, data.items
    assert items is not None
    assert (len(events), events["user"].n_unique(), events["item"].n_unique()) == (100_000, 943, 1_682)
    assert dict(events["behavior"].value_counts().rows()) == {"favor": 55_375, "click": 44_625}
    assert dict(items.rows())[1] == "Toy Story Animation Children's Comedy 1995"
    assert (len(items), items["title"].null_count()) == (1_682, 1)
