"""Ranking against the whole catalog beside the bare product of users and items, in one run.

    python tests/benchmarks/full_ranking.py

Prints the fastest of some repetitions each: the tiled product alone, `rank` under the full catalog, the plain
way (`topk` of whole rows, 256 users at a time), their ratios to the product, and the peak memory above the
tables. Pin it for a fair figure: `OMP_NUM_THREADS=1 taskset -c 0 python ...`.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.data.schema import ItemContent, Touched
from bench.evaluation.catalog import TILE_BYTES
from bench.evaluation.ranks import Held, rank
from bench.interface import Batch, DatasetInfo, Recommender
from bench.nn.scoring import dot_scores


class Dots(Recommender):
    """Users and items as given vectors."""

    def __init__(self, users: torch.Tensor, items: torch.Tensor) -> None:
        count = len(items) - 1
        super().__init__(None, DatasetInfo(len(users), count, ("click",), ItemContent(count)))
        self.users, self.items = users, items

    def encode(self, batch: Batch) -> torch.Tensor:
        return self.users[batch.user]

    def encode_items(self) -> torch.Tensor:
        return self.items

    def score_encoded(self, encoded, candidates, items):
        return dot_scores(encoded, items, candidates)


def product(users: torch.Tensor, items: torch.Tensor) -> None:
    """Multiply tile by tile into one buffer, as fast as the library can."""
    width = TILE_BYTES // (4 * len(users))
    buffer = torch.empty(len(users) * width)
    for start in range(1, len(items), width):
        tile = items[start : start + width]
        torch.mm(users, tile.T, out=buffer[: len(users) * len(tile)].view(len(users), len(tile)))


def plain(users: torch.Tensor, items: torch.Tensor) -> None:
    """Take the best 20 of whole rows."""
    for part in users.split(256):
        (part @ items[1:].T).topk(20)


def fastest(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the seconds of the fastest repetition of each; they take turns, to meet the same machine."""
    seconds = [np.inf] * len(functions)
    for _ in range(repeats):
        for number, function in enumerate(functions):
            begun = time.perf_counter()
            function()
            seconds[number] = min(seconds[number], time.perf_counter() - begun)
    return seconds


def peak() -> float:
    """Return the largest resident size so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in (("users", 1024), ("items", 618_529), ("size", 64), ("touched", 60), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    users, items = torch.randn(given.users, given.size), torch.randn(given.items + 1, given.size)
    touched = np.sort(rng.integers(1, given.items + 1, (given.users, given.touched)), 1).astype(np.int32)
    offsets = np.arange(given.users + 1, dtype=np.int64) * given.touched
    rows, targets = np.arange(given.users), touched[:, 0].astype(np.int64)
    held = Held(rows, targets, None, Touched(offsets, touched.ravel()), 0)
    model = Dots(users, items)
    blank = torch.zeros(given.users, 1, dtype=torch.int64)
    batch = Batch(torch.from_numpy(rows), blank, blank, blank)
    product(users, items)
    before = peak()
    rank(model, held, [(rows, batch)], torch.device("cpu"))
    memory = peak() - before
    ranked, bare, simple = fastest(
        [
            lambda: rank(model, held, [(rows, batch)], torch.device("cpu")),
            lambda: product(users, items),
            lambda: plain(users, items),
        ],
        given.repeats,
    )
    threads = torch.get_num_threads()
    print(f"{given.users:,} users, {given.items:,} items, width {given.size}, {threads} threads")
    print(f"tiled product alone  {bare:6.2f} s")
    print(f"rank, full catalog   {ranked:6.2f} s  {ranked / bare:.2f} times it")
    print(f"topk of whole rows   {simple:6.2f} s  {simple / bare:.2f} times it")
    print(f"memory of rank above the tables  {memory:.0f} MiB")


if __name__ == "__main__":
    main()
