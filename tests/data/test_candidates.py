from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.protocol.candidates import Candidates, draw, stored
from bench.data.protocol.split import split
from bench.data.schema import Interactions, Touched
from bench.errors import UserError

KINDS: tuple[str, ...] = ("uniform99", "popular99")
Collect = Callable[[Interactions], Touched]


def touching(items: list[list[int]]) -> Touched:
    return Touched(
        np.cumsum([0] + [len(part) for part in items], dtype=np.int64), np.concatenate(items).astype(np.int32)
    )


def all_users(
    kind: str, touched: Touched, counts: NDArray[np.int64], num_items: int, seed: int = 0
) -> Candidates:
    """Draw for every user of `touched`, the first touched item held out."""
    users = np.arange(len(touched.offsets) - 1)
    first = touched.item[touched.offsets[:-1]].astype(np.int64)
    return draw(kind, seed, users, first, touched, counts, num_items)


def rows(candidates: Candidates) -> list[list[int]]:
    assert candidates.negatives is not None
    return candidates.negatives.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_items", [60, 300, 2000])
def test_negatives_are_distinct_untouched_items(
    random_log: Callable[..., Interactions], touched_of: Collect, kind: str, num_items: int
) -> None:
    log = random_log(2, num_users=80, num_items=num_items)
    touched, parts = touched_of(log), split(log, 2)
    users, items = log.user_of(parts.test), log.item[parts.test].astype(np.int64)
    counts = np.bincount(log.item, minlength=num_items + 1)
    negatives = draw(kind, 5, users, items, touched, counts, num_items).negatives
    assert negatives is not None and negatives.shape == (len(users), 99) and negatives.dtype == np.int32
    for user, row in zip(users.tolist(), negatives.tolist(), strict=True):
        real = [item for item in row if item]
        free = set(range(1, num_items + 1)) - set(touched.of(user).tolist())
        assert len(set(real)) == len(real) == min(99, len(free))
        assert set(real) <= free
        assert row[len(real) :] == [0] * (99 - len(real))


def test_a_user_with_few_untouched_items_gets_all_of_them() -> None:
    touched = touching([list(range(3, 120)), [1, 2]])
    for kind in KINDS:
        negatives = all_users(kind, touched, np.arange(121), 120).negatives
        assert negatives is not None
        assert sorted(negatives[0].tolist()) == [0] * 96 + [1, 2, 120]
        assert (negatives[1] > 2).all()


def test_uniform_negatives_hit_every_untouched_item_equally_often() -> None:
    # one user class below and one above the bound of the exact draw; 4000 users x 99 of 498 free items
    for num_items in (200, 500):
        touched = touching([[1, 2]] * 4000)
        negatives = all_users("uniform99", touched, np.zeros(num_items + 1, np.int64), num_items).negatives
        assert negatives is not None
        seen = np.bincount(negatives.ravel(), minlength=num_items + 1)
        share = 99 / (num_items - 2)
        assert seen[:3].tolist() == [0, 0, 0]
        assert np.abs(seen[3:] / 4000 - share).max() < 5 * np.sqrt(share * (1 - share) / 4000)


def test_popular_negatives_start_with_an_item_in_proportion_to_its_count() -> None:
    # the first negative is one draw: items 3..602 with weight 1 or 3, touched items 1 and 2 however popular
    counts = np.array([0, 50, 50] + [1, 3] * 300)
    touched = touching([[1, 2]] * 4000)
    negatives = all_users("popular99", touched, counts, 602).negatives
    assert negatives is not None
    heavy = float((counts[negatives[:, 0]] == 3).mean())
    assert abs(heavy - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)


def test_exact_popular_draw_has_the_same_proportion() -> None:
    counts = np.array([0, 50, 50] + [1, 3] * 100)  # 200 free items: below the bound of the exact draw
    negatives = all_users("popular99", touching([[1, 2]] * 4000), counts, 202).negatives
    assert negatives is not None
    heavy = float((counts[negatives[:, 0]] == 3).mean())
    assert abs(heavy - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)


def test_items_without_training_events_come_only_when_nothing_else_is_left() -> None:
    counts = np.zeros(1001, np.int64)
    counts[1:51] = 7  # user touched item 1: 49 popular items remain, and 50 places are filled with the others
    negatives = all_users("popular99", touching([[1]]), counts, 1000).negatives
    assert negatives is not None
    assert sorted(negatives[0, :49].tolist()) == list(range(2, 51))
    assert (negatives[0, 49:] > 50).all()


def test_one_item_holding_nearly_all_popularity_does_not_stall_the_draw() -> None:
    counts = np.ones(5001, np.int64)
    counts[1] = 10**6
    negatives = all_users("popular99", touching([[2], [1]]), counts, 5000).negatives
    assert negatives is not None
    assert negatives[0, 0] == 1 and 1 not in negatives[1]
    assert (np.diff(np.sort(negatives, axis=1), axis=1) > 0).all()


def test_the_same_seed_gives_the_same_candidates_and_another_seed_others() -> None:
    touched = touching([[1, 2], [3]] * 20)
    counts = np.zeros(901, np.int64)
    first, again, other = (all_users("uniform99", touched, counts, 900, seed) for seed in (1, 1, 2))
    assert rows(first) == rows(again) and first.hash == again.hash
    assert rows(first) != rows(other) and first.hash != other.hash


def test_validation_and_test_of_the_same_users_draw_apart() -> None:
    touched, users = touching([[1, 2]] * 10), np.arange(10)
    validation, test = (
        draw("uniform99", 0, users, np.full(10, item), touched, np.zeros(901, np.int64), 900)
        for item in (1, 2)
    )
    assert rows(validation) != rows(test)


def test_full_ranking_hashes_what_is_left_out() -> None:
    one = all_users("full", touching([[1, 2]]), np.zeros(10, np.int64), 9)
    more = all_users("full", touching([[1, 2, 3]]), np.zeros(10, np.int64), 9)
    assert one.negatives is None and len(one.hash) == 64
    assert one.hash != more.hash


def test_a_held_out_item_that_nobody_touched_is_an_error() -> None:
    with pytest.raises(UserError, match="user 1: the held-out item 4"):
        draw(
            "uniform99",
            0,
            np.array([0, 1]),
            np.array([1, 4]),
            touching([[1], [2]]),
            np.zeros(10, np.int64),
            9,
        )


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(UserError, match="uniform100"):
        all_users("uniform100", touching([[1]]), np.zeros(10, np.int64), 9)  # type: ignore[arg-type]


def keep(folder: Path, kind: str = "uniform99", seed: int = 0, items: int = 300) -> Candidates:
    touched, users = touching([[1, 2], [3]]), np.array([0, 1])
    counts = np.ones(items + 1, np.int64)
    return stored(folder, "test", kind, seed, users, np.array([2, 3]), touched, counts, items)


def test_stored_candidates_are_found_again(tmp_path: Path) -> None:
    first = keep(tmp_path)
    (path,) = (tmp_path / "candidates").iterdir()
    before = path.stat().st_mtime_ns
    again = keep(tmp_path)
    assert path.stat().st_mtime_ns == before and path.name.startswith("test-uniform99-0-")
    assert again.hash == first.hash and rows(again) == rows(first)


def test_other_arguments_are_stored_beside_and_full_ranking_not_at_all(tmp_path: Path) -> None:
    keep(tmp_path)
    keep(tmp_path, seed=1)
    keep(tmp_path, kind="popular99")
    keep(tmp_path, items=301)
    keep(tmp_path, kind="full")
    assert len(list((tmp_path / "candidates").iterdir())) == 4


def test_a_changed_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    hash_before = keep(tmp_path).hash
    (path,) = (tmp_path / "candidates").iterdir()
    with np.load(path) as content:
        negatives = content["negatives"].copy()
    negatives[0, 0] += 1
    np.savez(path, negatives=negatives, hash=np.array(hash_before))
    with pytest.raises(UserError, match=f"{path.name}.*delete the file"):
        keep(tmp_path)


def test_a_cut_off_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    keep(tmp_path)
    (path,) = (tmp_path / "candidates").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{path.name}.*delete the file"):
        keep(tmp_path)


def test_a_folder_that_cannot_be_written_still_gives_candidates(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    assert keep(blocked).hash == keep(tmp_path / "open").hash
