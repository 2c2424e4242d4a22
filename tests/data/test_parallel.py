"""Work done ahead keeps its order, stays near, and hands faults on."""

from collections.abc import Iterator
from itertools import count
from threading import Event

import pytest

from bench.data.parallel import ahead, mapped


def test_results_come_in_the_order_of_what_was_given() -> None:
    first_may_end = Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(10)
        else:
            first_may_end.set()
        return number * number

    assert list(mapped(slow_first, range(6))) == [0, 1, 4, 9, 16, 25]


def test_no_more_is_begun_than_there_are_workers_beside_the_one_waited_for() -> None:
    begun: list[int] = []
    results = mapped(begun.append, count(), workers=2)
    next(results)
    results.close()
    assert len(begun) == 3


def test_a_fault_comes_in_the_place_of_its_result() -> None:
    results = mapped(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_reading_ahead_changes_nothing_and_is_one_ahead_at_most() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
        raise ValueError("the end")

    rest = ahead(numbers())
    assert next(rest) == 0 and next(rest) == 1
    assert list(made) in ([0, 1], [0, 1, 2])
    assert [next(rest), next(rest), next(rest)] == [2, 3, 4]
    with pytest.raises(ValueError, match="the end"):
        next(rest)
