"""Orders by packed numbers, against Python's stable sort."""

import numpy as np
import polars as pl
import pytest

from bench.data.preparation.order import distinct, distinct_pairs, numbering, order_by, ranks, stable_order


@pytest.mark.parametrize("shift", [0, -(2**40), 2**61])
@pytest.mark.parametrize("span", [1, 7, 2**20, 2**62])
def test_the_order_is_that_of_a_stable_sort(span: int, shift: int) -> None:
    values = np.random.default_rng(0).integers(0, span, 1000) + np.int64(shift)
    assert stable_order(values).tolist() == sorted(range(1000), key=lambda place: values[place])


def test_values_too_far_apart_to_be_packed_are_ordered_too() -> None:
    values = np.array([2**63 - 1, -(2**63), 0, -(2**63), 2**63 - 1])
    assert stable_order(values).tolist() == [1, 3, 2, 0, 4]


def test_nothing_and_a_single_value_have_an_order() -> None:
    assert stable_order(np.empty(0, np.int64)).tolist() == []
    assert stable_order(np.array([-5])).tolist() == [0]


@pytest.mark.parametrize("unit", [1, 2**20, 2**58])  # packed into one number, and in two steps
def test_two_columns_order_by_the_first_then_the_second_then_the_place(unit: int) -> None:
    first, second = np.array([2, 1, 2, 1, 2]), np.array([5, 9, 4, 9, 4]) * unit
    assert order_by(first, second).tolist() == [1, 3, 2, 4, 0]
    assert order_by(first[:0], second[:0]).tolist() == []


@pytest.mark.parametrize("unit", [1, 2**58])
@pytest.mark.parametrize("kinds", [(pl.Int64, pl.Int64), (pl.Int64, pl.String), (pl.UInt64, pl.Int64)])
def test_distinct_pairs_stand_in_the_order_of_both(unit: int, kinds: tuple[type, type]) -> None:
    pairs = [(3, 7), (2, 9), (3, 5), (2, 9), (3, 7), (3, 9)]
    given = pl.DataFrame(
        {"user": [user for user, _ in pairs], "item": [item * unit for _, item in pairs]}
    ).cast({"user": kinds[0], "item": kinds[1]})
    found = distinct_pairs(given)
    assert found.schema == given.schema
    assert found.rows() == sorted(set(given.rows()))
    assert distinct_pairs(given.clear()).rows() == []


@pytest.mark.parametrize(
    ("ids", "like"),
    [
        (pl.Series([30, 7, 30]), [1, 0, 1]),
        (pl.Series([2**64 - 1, 7, 2**63], dtype=pl.UInt64), [2, 0, 1]),
        (pl.Series(["b", "a10", "a9", "b", "Z"]), [3, 1, 2, 3, 0]),
    ],
)
def test_ranks_stand_in_the_order_of_the_ids(ids: pl.Series, like: list[int]) -> None:
    found = ranks(ids)
    assert found.dtype == np.int64
    assert np.unique(found, return_inverse=True)[1].tolist() == like


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (pl.Series("x", [5, 2, 5, 9, 2]), [2, 5, 9]),
        (pl.Series("x", [], dtype=pl.Int64), []),
        (pl.Series("x", [2**64 - 1, 7, 7], dtype=pl.UInt64), [7, 2**64 - 1]),
        (pl.Series("x", ["b", "a", "b"]), ["a", "b"]),
    ],
)
def test_distinct_ids_ascend_and_keep_name_and_type(ids: pl.Series, found: list[int]) -> None:
    assert distinct(ids).to_list() == found
    assert distinct(ids).name == "x" and distinct(ids).dtype == ids.dtype


@pytest.mark.parametrize("ids", [[2, 3, 7], [-3, 0, 2], [5, 10**12], ["a", "b", "é"]])
def test_ids_are_numbered_from_1_in_their_order(ids: list[int] | list[str]) -> None:
    column = pl.Series([ids[1], ids[0], ids[-1], ids[1]])
    assert numbering(pl.Series(ids))(column).tolist() == [2, 1, len(ids), 2]
