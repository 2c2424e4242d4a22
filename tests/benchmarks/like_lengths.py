"""What a training step costs with rows of like length together and with the batch as one rectangle.

    OMP_NUM_THREADS=1 python tests/benchmarks/like_lengths.py --dataset ml-100k

The gain depends on how much of a batch is padding, so the share of real events stands beside it. Both forms
take turns on the same batches; figures are medians of the CPU time of steps (loss, gradients, optimizer).
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.experiments.grid import open_plan
from bench.experiments.plan import make_plan
from bench.nn.lengths import by_length
from bench.training.data import training_data
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step


def rectangle(function: Callable[..., Any], size: Tensor, *parts: Tensor) -> Any:
    """Stand in for `by_length` without its parts."""
    return function(*parts)


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--models", default="sasrec,sasrec-ce,bert4rec,stosa,mb_str")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    entries = registry.select(given.models)
    data = training_data(open_plan(make_plan(given.dataset, entries)))
    print(f"{'model':10} {'real':>6} {'rectangle':>12} {'parts':>12} {'ratio':>6}")
    for entry in entries:
        kind = entry.load()
        torch.manual_seed(0)
        model = kind(kind.Config(**entry.card.options), data.info)
        stage = model.stages()[0]
        model.set_up(data.events)
        start_stage(model, stage, data.events)
        optimizer, module = make_optimizer(model.train(), stage), sys.modules[kind.__module__]
        seconds: dict[Any, list[float]] = {rectangle: [], by_length: []}
        real: list[float] = []
        for batch in islice(data.batches(stage.view, 0).epoch(0, stage.batch_size), given.steps):
            real.append(float(batch.mask.float().mean()))
            for form, times in seconds.items():
                module.by_length = form  # type: ignore[attr-defined]
                begun = time.process_time()
                train_step(model, batch, stage, optimizer)
                times.append(time.process_time() - begun)
        whole, parts = (1000 * median(times[1:]) for times in seconds.values())
        share = sum(real) / len(real)
        print(f"{entry.card.name:10} {share:6.0%} {whole:9.1f} ms {parts:9.1f} ms {whole / parts:6.2f}")


if __name__ == "__main__":
    main()
