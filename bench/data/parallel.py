"""Work done ahead in threads, results in order. Polars, NumPy's sorts and files do not hold the others up."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def mapped(function: Callable[[Given], Made], given: Iterable[Given], workers: int = 2) -> Iterator[Made]:
    """Yield what a function makes of each item, in their order, with as many under way as there are workers.

    Raises:
        Exception: what the function raises, in place of its result; nothing new is begun after it.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Made]] = deque()
        for item in given:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ahead(given: Iterable[Made]) -> Iterator[Made]:
    """Yield what an iterable yields, the next one being made while the last one is worked on."""
    rest = iter(given)
    with ThreadPoolExecutor(1) as pool:
        end = object()
        coming = pool.submit(next, rest, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, rest, end)
            yield item  # type: ignore[misc]
