"""Files are replaced whole or left alone, and nothing of a dead process stays."""

import os
import subprocess
import sys

import pytest

from bench.errors import UserError
from bench.files import MACHINE, partial_path, replacing, require_writable


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with replacing(path) as partial:
        partial.write_text("one")
        assert not path.exists() and partial.suffix == ".txt"
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("two")
        raise KeyboardInterrupt
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_path_do_not_share_a_partial_file(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"  # the block that ends last wins, whole


def test_a_folder_takes_the_place_of_an_empty_one_and_is_removed_after_an_error(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with replacing(out) as partial:
        partial.mkdir()
        (partial / "x").touch()
    assert [path.name for path in out.iterdir()] == ["x"]
    with pytest.raises(OSError), replacing(out) as partial:  # it is not empty now
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_dead_processes_left_is_removed_and_that_of_living_ones_is_not(tmp_path):
    path = tmp_path / "a.txt"
    dead = tmp_path / f".partial-{MACHINE}-{dead_process()}-{'0' * 8}-a.txt"
    alive = tmp_path / f".partial-{MACHINE}-{os.getppid()}-{'0' * 8}-a.txt"
    elsewhere = tmp_path / f".partial-another-{dead_process()}-{'0' * 8}-a.txt"
    other = tmp_path / f".partial-{MACHINE}-{dead_process()}-{'0' * 8}-b.txt"
    for left in (dead, alive, elsewhere, other):
        left.touch()
    with replacing(path) as partial:
        partial.touch()
    assert set(tmp_path.iterdir()) == {path, alive, elsewhere, other}


def test_a_dead_process_leaves_folders_too(tmp_path):
    dead = tmp_path / f".partial-{MACHINE}-{dead_process()}-{'0' * 8}-set"
    (dead / "inside").mkdir(parents=True)
    with replacing(tmp_path / "set") as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_partial_names_differ_each_time(tmp_path):
    assert partial_path(tmp_path / "a") != partial_path(tmp_path / "a")


def test_a_folder_that_is_a_file_or_lies_below_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(UserError, match=r"--results .*: .*/file is a file, expected a folder"):
            require_writable(folder, "--results")


def test_a_writable_folder_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "deeper", "--results")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refused)
    with pytest.raises(UserError, match="cannot be written \\(Permission denied\\)"):
        require_writable(tmp_path, "--results")
