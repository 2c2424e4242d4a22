from typing import Any

import numpy as np
import pytest

from bench.data import shelf


class Counting:
    """An encoder that counts its calls and may break off: row r becomes [r + 1, 1]."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.opened, self.rows, self.stop_after = 0, [], stop_after

    def open(self) -> Any:
        self.opened += 1
        return self.encode

    def encode(self, rows: list[int]) -> Any:
        if len(self.rows) >= self.stop_after:
            raise KeyboardInterrupt
        self.rows += rows
        return np.array([[row + 1, 1] for row in rows], np.float16)


def keys(count: int) -> list[bytes]:
    return [bytes([n]) * 32 for n in range(count)]


def test_what_is_on_the_shelf_is_not_encoded_again_and_the_model_not_opened(tmp_path):
    rows = np.arange(5)
    first, second = Counting(), Counting()
    table = shelf.encode_missing(keys(5), rows, tmp_path, first.open, 2)
    assert table[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert first.rows == [0, 1, 2, 3, 4]
    assert shelf.encode_missing(keys(5), rows, tmp_path, second.open, 2).tolist() == table.tolist()
    assert second.opened == 0


def test_only_new_content_is_encoded(tmp_path):
    shelf.encode_missing(keys(3), np.arange(3), tmp_path, Counting().open, 2)
    more = Counting()
    wanted = [keys(5)[n] for n in (4, 1, 3)]
    table = shelf.encode_missing(wanted, np.array([7, 8, 9]), tmp_path, more.open, 2)
    assert more.rows == [7, 9]
    assert table[:, 0].tolist() == [8, 2, 10]


def test_an_interrupted_run_goes_on_after_its_last_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "SHARD", 4)
    broken, resumed = Counting(stop_after=6), Counting()
    with pytest.raises(KeyboardInterrupt):
        shelf.encode_missing(keys(10), np.arange(10), tmp_path, broken.open, 2)
    table = shelf.encode_missing(keys(10), np.arange(10), tmp_path, resumed.open, 2)
    assert broken.rows == [0, 1, 2, 3, 4, 5]
    assert resumed.rows == [4, 5, 6, 7, 8, 9]  # the shard 0..3 was finished, 4 and 5 were not yet stored
    assert table[:, 0].tolist() == list(range(1, 11))


def test_a_partly_written_shard_is_not_read(tmp_path):
    shelf.encode_missing(keys(2), np.arange(2), tmp_path, Counting().open, 2)
    (shard,) = tmp_path.iterdir()
    shard.rename(shard.with_suffix(".partial-1"))
    again = Counting()
    shelf.encode_missing(keys(2), np.arange(2), tmp_path, again.open, 2)
    assert again.rows == [0, 1]


def test_without_a_shelf_nothing_is_kept_and_nothing_fails():
    table = shelf.encode_missing(keys(3), np.arange(3), None, Counting().open, 2)
    assert table[:, 0].tolist() == [1, 2, 3]
