"""Memory and time of models on three growing sizes of generated data, and the law by which they grow.

    OMP_NUM_THREADS=1 python tests/benchmarks/baseline_growth.py --models stosa,sgdl

Users, items and events double from size to size. Each cell is a process of its own: it builds the model and
what it derives from the training part (graphs), trains one epoch, or `--steps` steps of it, and says how many
seconds the whole epoch takes, how long the set-up took, and how much resident memory it reached above the
data. The last column is the exponent of the growth: 1 is proportional to the events, 2 to their square.

`--catalog` runs every model at the paper's size instead (22,793 users, 618,529 items, 5.85 million events),
`--steps` steps of it: what a dense user x item or item x item array would not survive.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from bench.config import build_options
from bench.data.batches.loader import TrainingBatches
from bench.data.protocol.split import Split
from bench.data.schema import Interactions
from bench.interface import DatasetInfo, ItemContent, TrainingEvents
from bench.registry import select
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step

SIZES = ((500, 5_000), (1_000, 10_000), (2_000, 20_000))
MODELS = "stosa,ssdrec,nmtr,dipn,sgdl,mb_str,kmclr,ebm,missrec,mmsbr,mmmlp,m3srec,cmclrec"
EVENTS_PER_USER = 60
CATALOG = (22_793, 618_529, 257)
"""Users, items and events per user of the paper's Kuaishou."""


def log_of(users: int, items: int, each: int) -> Interactions:
    """Return users with `each` events on popular items, a quarter of them favors."""
    rng = np.random.default_rng(0)
    count = users * each
    item = (items * rng.random(count) ** 3).astype(np.int32) + 1
    behavior = np.where(rng.random(count) < 0.25, 2, 1).astype(np.int8)
    offsets = np.arange(users + 1, dtype=np.int64) * each
    return Interactions(offsets, item, behavior, np.tile(np.arange(each, dtype=np.int64), users))


def content_of(items: int, width: int = 64) -> ItemContent:
    """Return images and texts of all items but every tenth, random vectors in half precision."""
    rng, has = np.random.default_rng(1), np.arange(items + 1) % 10 > 0
    features = {
        name: rng.standard_normal((items + 1, width), np.float32).astype(np.float16)
        for name in ("image", "text")
    }
    return ItemContent(items, features, dict.fromkeys(features, has))


def resident() -> float:
    """Return the largest resident size so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, users: int, items: int, each: int, steps: int | None) -> dict[str, float]:
    """Train an epoch, or some steps of it, and return seconds and memory."""
    (entry,) = select(name)
    events = log_of(users, items, each)
    split = Split("all", events.offsets[1:], np.empty(0, np.int64), np.empty(0, np.int64))
    training = TrainingEvents(events.users(), events.item, events.behavior, events.timestamp, items)
    info = DatasetInfo(users, items, ("click", "favor"), content_of(items))
    before = resident()
    torch.manual_seed(0)
    kind = entry.load()
    model = kind(build_options(kind.Config, entry.card.options, name), info)
    begun = time.perf_counter()
    model.set_up(training)
    set_up = time.perf_counter() - begun
    seconds, targets = 0.0, 0
    for stage in model.stages():
        start_stage(model, stage, training)
        optimizer = make_optimizer(model.train(), stage)
        batches = TrainingBatches(events, split, stage.view, items, 2, "same_timestamp", 0)
        model.start_epoch(0, training)
        done, begun = 0, time.perf_counter()
        for batch in batches.epoch(0, stage.batch_size):
            train_step(model, batch, replace(stage, warmup_steps=0), optimizer)
            done += 1
            targets += len(batch) if batch.labels is None else int((batch.labels > 0).sum())
            if done == steps:
                break
        seconds += (time.perf_counter() - begun) / done * batches.num_batches(stage.batch_size)
        model.stage_is_over()
    return {"seconds": seconds, "set_up": set_up, "memory": resident() - before, "targets": targets}


def cell(name: str, users: int, items: int, each: int, steps: int | None) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--cell", name, str(users), str(items), str(each), str(steps or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {users:,} users, {items:,} items: {done.stderr.strip()[-600:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def exponent(first: float, last: float, factor: float) -> float:
    """Return by which power a figure grew when the data grew by a factor."""
    return math.log(max(last, 1e-9) / max(first, 1e-9)) / math.log(factor)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--steps", type=int, default=None, help="steps per stage; default: the whole epoch")
    parser.add_argument("--catalog", action="store_true", help="the paper's size, 2 steps unless told")
    parser.add_argument("--cell", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        name, *sizes, steps = given.cell
        users, items, each = map(int, sizes)
        print(json.dumps(measure(name, users, items, each, int(steps) or None)))
        return
    sizes = [CATALOG] if given.catalog else [(*size, EVENTS_PER_USER) for size in SIZES]
    steps = given.steps or (2 if given.catalog else None)
    print(f"{torch.get_num_threads()} threads; seconds of an epoch, of the set-up, MiB above the data")
    for name in given.models.split(","):
        rows = [cell(name, *size, steps) for size in sizes]
        for (users, items, _), row in zip(sizes, rows, strict=True):
            print(
                f"{name:10} {users:>7,} users {items:>8,} items  epoch {row['seconds']:9.1f} s  "
                f"set-up {row['set_up']:7.2f} s  {row['memory']:8.0f} MiB",
                flush=True,
            )
        if len(rows) > 1:
            factor = sizes[-1][0] / sizes[0][0]
            powers = {part: exponent(rows[0][part], rows[-1][part], factor) for part in ("seconds", "memory")}
            print(
                f"{name:10} grows by power {powers['seconds']:.2f} in time, {powers['memory']:.2f} in memory"
            )


if __name__ == "__main__":
    main()
