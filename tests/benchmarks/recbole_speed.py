"""Targets per second in training and users per second in scoring: ours and RecBole's modules in one run.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/recbole_speed.py

The models are those of `recbole_parity.py`, on `ml-100k`, with the batches that they train on there.
RecBole's side calls `calculate_loss`, `full_sort_predict` and `predict` of its module, without its trainer,
data loader and evaluator; what its loader does to a batch (masks of BERT4Rec) is done before the clock runs,
as is the making of our batches. A step is loss, backward pass and Adam on both sides. `predict` scores pairs,
so RecBole's sampled ranking encodes a user once per candidate; 40 users with 100 candidates are about the
4,096 rows that its evaluation takes at once.

The sides take turns, so that a busy moment meets both. Rates are medians, by CPU seconds of this process.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import Any

import torch
from recbole_parity import PAIRS, Pair, Visits, build

from bench.experiments.grid import open_plan
from bench.experiments.plan import make_plan
from bench.interface import Batch, Recommender
from bench.training.data import TrainingData, training_data
from bench.training.step import make_optimizer

ALL_USERS, SAMPLED_USERS, CANDIDATES = 256, 40, 100
Work = Callable[[int], int]
"""Does its work of one round and returns how many targets or users that was."""


def step(model: Recommender, optimizer: torch.optim.Optimizer, loss: Callable[[], Any]) -> None:
    """Take one training step."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()


def our_training(model: Recommender, data: TrainingData, rounds: int) -> Work:
    """Return the training of our model."""
    (stage,) = model.stages()
    optimizer = make_optimizer(model, stage)
    batches = list(islice(data.batches(stage.view, 0).epoch(0, stage.batch_size), rounds))

    def work(number: int) -> int:
        batch = batches[number]
        step(model, optimizer, lambda: model.loss(batch)["loss"])
        assert batch.labels is not None
        return int((batch.labels > 0).sum())

    return work


def recbole_training(adapter: Any, data: TrainingData, rounds: int) -> Work:
    """Return the training of RecBole's module."""
    (stage,) = adapter.stages()
    optimizer, visits, prepared = make_optimizer(adapter, stage), Visits(adapter), []
    for batch in islice(data.batches(stage.view, 0).epoch(0, stage.batch_size), rounds):
        columns = adapter.of(**adapter.row(batch), item_id=batch.target)
        interaction, before = adapter.change(adapter.log, columns), visits.seen
        visits.add(batch)
        prepared.append((interaction, visits.seen - before))

    def work(number: int) -> int:
        interaction, targets = prepared[number]
        step(adapter, optimizer, lambda: adapter.inner.calculate_loss(interaction))
        return targets

    return work


def scoring(ours: Recommender, adapter: Any, batch: Batch) -> dict[str, tuple[Work, Work]]:
    """Return the scoring of all items and of 100 candidates, ours and RecBole's."""
    everything = torch.arange(1, ours.info.num_items + 1)
    candidates = torch.randint(1, ours.info.num_items + 1, (len(batch), CANDIDATES))
    some = batch.rows(slice(0, SAMPLED_USERS))
    asked = adapter.row(some)
    rows = {name: value.repeat_interleave(CANDIDATES, 0) for name, value in asked.items()}
    pairs = adapter.of(**rows, item_id=candidates[:SAMPLED_USERS].flatten())
    users = adapter.of(**adapter.row(batch))

    def counted(count: int, score: Callable[[], Any]) -> Work:
        @torch.no_grad()
        def work(number: int) -> int:
            ours.eval(), adapter.eval()
            score()
            return count

        return work

    def all_items() -> torch.Tensor:
        return ours.score_encoded(ours.encode(batch), everything, ours.encode_items())

    return {
        "all items, users/s": (
            counted(len(batch), all_items),
            counted(len(batch), lambda: adapter.inner.full_sort_predict(users)),
        ),
        "100 candidates, users/s": (
            counted(len(batch), lambda: ours.score(batch, candidates)),
            counted(SAMPLED_USERS, lambda: adapter.inner.predict(pairs)),
        ),
    }


def rates(sides: tuple[Work, Work], rounds: int) -> tuple[float, float]:
    """Return what the two sides do per CPU second; the first round of each is left out."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side, work in zip(taken, sides, strict=True):
            begun = time.process_time()
            count = work(number)
            side.append(count / (time.process_time() - begun))
    return median(taken[0][1:]), median(taken[1][1:])


def lines(name: str, pair: Pair, data: TrainingData, rounds: int) -> Iterator[str]:
    """Yield the rows of a model."""
    ours, adapter = build(pair.ours, data, 0), build(pair.recbole, data, 0)
    _, batch = next(data.validation.batches(50, ALL_USERS))
    works = {
        "training, targets/s": (our_training(ours, data, rounds), recbole_training(adapter, data, rounds))
    }
    for what, sides in (works | scoring(ours, adapter, batch)).items():
        mine, theirs = rates(sides, rounds)
        yield f"| {name} | {what} | {mine:,.0f} | {theirs:,.0f} | {mine / theirs:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(PAIRS))
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    data = training_data(open_plan(make_plan("ml-100k", [])))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| Model | what | ours | RecBole | ratio |")
    print("|---|---|---|---|---|")
    for name in given.models.split(","):
        for line in lines(name, PAIRS[name], data, given.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
