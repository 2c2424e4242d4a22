import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.preparation import features, shelf
from bench.data.preparation.features import Source
from bench.data.preparation.runs import silent
from bench.errors import UserError


class Counting:
    """An encoder of numbers written as text that counts its calls and may break off: "7" becomes [7, 1]."""

    def __init__(self, batch_size: int = 2, stop_after: int = 10**9) -> None:
        self.opened, self.done, self.batch_size, self.stop_after = 0, [], batch_size, stop_after

    def open(self) -> Any:
        self.opened += 1
        return self.encode

    def encode(self, contents: list[str]) -> Iterator[Any]:
        for start in range(0, len(contents), self.batch_size):
            if len(self.done) >= self.stop_after:
                raise KeyboardInterrupt
            batch = [int(content) for content in contents[start : start + self.batch_size]]
            self.done += batch
            yield np.array([[number, 1] for number in batch], np.float16)


def encode(numbers: list[int | None], encoder: Counting, cache: Path, watch: Any = silent) -> Source:
    contents = ["" if number is None else str(number) for number in numbers]
    keys = [hashlib.sha256(content.encode()).digest() if content else None for content in contents]
    made = shelf.Encoder("counting", "one", encoder.open)
    return shelf.encode_by_content(keys, contents, made, "text", cache, watch)


def given(source: Source) -> dict[int, float]:
    """Return row -> the number that its vector stands for; each row comes once."""
    blocks = list(source.blocks())
    pairs = [pair for at, vectors in blocks for pair in zip(at.tolist(), vectors[:, 0].tolist(), strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_what_is_on_the_shelf_is_not_encoded_again_and_the_model_not_opened(tmp_path):
    first, second = Counting(), Counting()
    made = encode([5, 6, 7, 8, 9], first, tmp_path)
    assert given(made) == {0: 5, 1: 6, 2: 7, 3: 8, 4: 9}
    assert first.done == [5, 6, 7, 8, 9]
    again = encode([5, 6, 7, 8, 9], second, tmp_path)
    assert given(again) == given(made)
    assert again.hash == made.hash
    assert second.opened == 0


def test_one_content_is_encoded_once_and_stands_for_all_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 3 * 4)  # three rows of two float16
    encoder = Counting()
    found = given(encode([4, None, 4, 3, 4, None, 4], encoder, tmp_path))
    assert found == {0: 4, 2: 4, 3: 3, 4: 4, 6: 4}
    assert encoder.done == [4, 3]
    sizes = [len(rows) for rows, _ in encode([4, 4, 4, 4, 4, 3], encoder, tmp_path).blocks()]
    assert sizes == [3, 3]  # however many rows share a content, a block stays small


def test_only_new_content_is_encoded(tmp_path):
    encode([0, 1, 2], Counting(), tmp_path)
    more = Counting()
    assert given(encode([4, 1, 3], more, tmp_path)) == {0: 4, 1: 1, 2: 3}
    assert more.done == [4, 3]


def test_an_interrupted_run_goes_on_after_its_last_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "SHARD", 4)
    broken, resumed = Counting(stop_after=6), Counting()
    with pytest.raises(KeyboardInterrupt):
        encode(list(range(10)), broken, tmp_path)
    made = encode(list(range(10)), resumed, tmp_path)
    assert broken.done == [0, 1, 2, 3, 4, 5]
    assert resumed.done == [4, 5, 6, 7, 8, 9]  # the shard 0..3 was finished, 4 and 5 were not yet stored
    assert given(made) == {number: number for number in range(10)}


def test_a_partly_written_shard_is_not_read(tmp_path):
    encode([0, 1], Counting(), tmp_path)
    (shard,) = tmp_path.glob("*/*")
    shard.rename(shard.with_suffix(".partial-1"))
    again = Counting()
    encode([0, 1], again, tmp_path)
    assert again.done == [0, 1]


def test_a_damaged_shard_is_named(tmp_path):
    encode([0, 1], Counting(), tmp_path)
    (shard,) = tmp_path.glob("*/*.npz")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{shard.name}: not a readable shelf of vectors .*delete the file"):
        encode([0, 1], Counting(), tmp_path)


def test_a_content_stored_by_two_runs_side_by_side_is_given_once(tmp_path):
    encode([0, 1], Counting(), tmp_path)
    (shard,) = tmp_path.glob("*/*.npz")
    (shard.parent / "other.npz").write_bytes(shard.read_bytes())
    assert given(encode([1, 0, 1], Counting(), tmp_path)) == {0: 1, 1: 0, 2: 1}


def test_another_order_or_content_gives_another_hash_and_no_content_gives_nothing(tmp_path):
    hashes = {encode(numbers, Counting(), tmp_path).hash for numbers in ([0, 1], [1, 0], [0, 1, None], [0])}
    assert len(hashes) == 4
    encoder = Counting()
    assert given(encode([None, None], encoder, tmp_path)) == {}
    assert encoder.opened == 0


def test_the_progress_counts_what_was_found_and_what_is_new(tmp_path):
    encode([0, 1, 2], Counting(), tmp_path)
    told = []
    encode([0, 1, 2, 3, 4, 5], Counting(), tmp_path, lambda *word: told.append(word))
    assert told == [("text encoded", 5, 6), ("text encoded", 6, 6)]
