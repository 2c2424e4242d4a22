"""Our SASRec, GRU4Rec and BERT4Rec beside RecBole's own classes, trained alike: is NDCG@10 the same?

    OMP_NUM_THREADS=1 python tests/benchmarks/recbole_parity.py --minutes 60

Ours are set to RecBole's architecture, loss and optimizer as far as their options go. Both sides see the same
split of `ml-100k` and the same candidates, take steps of about as many targets, and stop at the same number
of target visits; the weights at that point are ranked on the test part, none are chosen by validation.

What remains different: RecBole trains on one history for each target, ours on all positions of a window of
50; RecBole's softmax has padding as a class; item tables and GRU kernels start from other distributions;
RecBole's BERT4Rec masks each event with probability 0.5 (ours half of them, one at least), does not count a
masked oldest event, clips no gradient, counts positions from the oldest event, and leaves the oldest event of
a history out in ranking.

Seconds are CPU seconds of this process in optimizer steps, batches included: they do not depend on what else
runs. Trained cells are kept in `--results`; a second call trains what is missing and prints the table.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baselines.recbole_models.adapter import seed_from_torch
from bench.config import build_options
from bench.data.protocol.task import Task
from bench.evaluation.metrics import ndcg
from bench.evaluation.ranks import rank
from bench.experiments.grid import open_plan
from bench.experiments.plan import make_plan
from bench.interface import Batch, Recommender
from bench.registry import select
from bench.training.data import TrainingData, held_part, training_data
from bench.training.step import make_optimizer, train_step

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Side:
    """A model and its options."""

    name: str
    options: dict[str, Any]
    feed: "Side | None" = None
    """RecBole's BERT4Rec, whose histories and masks our model is trained on."""


@dataclass(frozen=True)
class Pair:
    """One model, ours and RecBole's."""

    ours: Side
    recbole: Side
    targets: int
    """Target visits after which both stop."""

    @property
    def sides(self) -> dict[str, Side]:
        """Our model on its own batches, for BERT4Rec also on RecBole's, and RecBole's model."""
        fed = {"fed": replace(self.ours, feed=self.recbole)} if self.ours.name == "bert4rec" else {}
        return {"ours": self.ours, **fed, "recbole": self.recbole}


BERT_BLOCK = {"block": "bert", "loss": "ce", "num_heads": 2, "dropout": 0.5, "batch_size": 7}
NO_BIAS = {"embedding_size": 64, "hidden_size": 128, "bias": False, "dropout": 0.0, "optimizer": "adam"}
HALF_MASKED = {
    "mask_ratio": 0.5, "max_masked": 25, "last_share": 0.5, "weight_decay": 0.0, "warmup_steps": 0,
    "batch_size": 64,
}  # fmt: skip
PAIRS = {
    "SASRec": Pair(Side("sasrec", BERT_BLOCK), Side("recbole:SASRec", {"batch_size": 256}), 300_000),
    "GRU4Rec": Pair(
        Side("gru4rec", NO_BIAS | {"learning_rate": 1e-3, "batch_size": 7}),
        Side("recbole:GRU4Rec", {"batch_size": 256}),
        300_000,
    ),
    "BERT4Rec": Pair(
        Side("bert4rec", HALF_MASKED),
        Side("recbole:BERT4Rec", {"mask_ratio": 0.5, "batch_size": 64}),
        600_000,
    ),
}


def build(side: Side, data: TrainingData, seed: int) -> Recommender:
    """Return a model with weights of a seed."""
    (entry,) = select(side.name)
    kind = entry.load()
    torch.manual_seed(seed)
    model: Recommender = kind(build_options(kind.Config, side.options, side.name), data.info)
    model.set_up(data.events)
    return model


def with_masks_of_recbole(adapter: Any, batch: Batch) -> Batch:
    """Return a batch of histories as RecBole masks them, padded on the left, with its labels."""
    seed_from_torch()
    asked = adapter.row(batch)
    changed = adapter.change(adapter.log, adapter.of(**asked, item_id=batch.target))
    history = changed["Mask_item_id_list"]  # (B, L), padded on the right
    labels = torch.zeros_like(history).scatter_(1, changed["MASK_INDEX"], changed["Pos_item_id"])
    labels[:, 0] = 0  # the index that fills RecBole's list of masked positions
    length = history.shape[1]
    order = (torch.arange(length) - length + asked["item_length"][:, None]) % length  # padding first
    history, labels, zeros = history.gather(1, order), labels.gather(1, order), torch.zeros_like(history)
    return Batch(batch.user, history, zeros, zeros, labels=labels, label_behavior=(labels > 0).long())


def train(side: Side, targets: int, seed: int, task: Task) -> dict[str, Any]:
    """Return ranks of the test users, CPU seconds of training, target visits and steps."""
    data = training_data(task)
    model, feed = build(side, data, seed), None
    (stage,) = model.stages()
    view, size = stage.view, stage.batch_size
    if side.feed is not None:
        feed = build(side.feed, data, seed)
        view, size = feed.stages()[0].view, feed.stages()[0].batch_size
    batches, optimizer, seen = data.batches(view, seed), make_optimizer(model, stage), 0
    epoch = steps = 0
    begun = time.process_time()
    model.train()
    while seen < targets:
        for batch in batches.epoch(epoch, size):
            batch = batch if feed is None else with_masks_of_recbole(feed, batch)
            train_step(model, batch, stage, optimizer)
            seen += model.targets_in(batch)
            steps += 1
            if seen >= targets:
                break
        epoch += 1
    seconds = time.process_time() - begun
    test = held_part(task, task.interactions, task.split.test, task.test)
    ranks = rank(model, test.held, test.batches(model.max_history, 256), CPU)
    return {"rank": ranks.tolist(), "seconds": seconds, "targets": seen, "steps": steps}


def trained(given: argparse.Namespace, task: Task) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the cells by model, side and seed; those missing are trained while there is time."""
    given.results.mkdir(parents=True, exist_ok=True)
    deadline, cells = time.monotonic() + 60 * given.minutes, {}
    for seed in map(int, given.seeds.split(",")):
        for name in given.models.split(","):
            pair = PAIRS[name]
            for label, side in pair.sides.items():
                if label not in given.sides.split(","):
                    continue
                path = given.results / f"{name}-{label}-{seed}.json"
                asked = {"options": side.options, "limit": pair.targets, "candidates": task.candidates_hash}
                cell = json.loads(path.read_text()) if path.is_file() else {}
                if {key: cell.get(key) for key in asked} != asked:
                    if time.monotonic() >= deadline:
                        continue
                    cell = asked | train(side, pair.targets, seed, task)
                    path.write_text(json.dumps(cell))
                    print(path.stem, f"{ndcg(np.array(cell['rank']), 10).mean():.4f}", flush=True)
                cells[name, label, seed] = cell
    return cells


def standard_errors(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the standard errors of the difference over users and over seeds.

    Args:
        ours: (seeds, users) NDCG@10.
        theirs: the same.

    Returns:
        that over users, paired, of the means over seeds; that over seeds, of the two means over users, 0 with
        one seed.
    """
    difference = ours.mean(0) - theirs.mean(0)
    users = difference.std(ddof=1) / np.sqrt(len(difference))
    if len(ours) < 2:
        return float(users), 0.0
    spread = sum(side.mean(1).var(ddof=1) / len(side) for side in (ours, theirs))
    return float(users), float(np.sqrt(spread))


HEAD = (
    "Model", "seeds", "target visits", "ours", "RecBole", "difference", "SE users", "SE seeds", "within 2 SE",
    "CPU s ours", "CPU s RecBole",
)  # fmt: skip


def row(title: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """Return a row of the table from the cells of the same seeds."""
    sides = (ours, theirs)
    mine, other = (ndcg(np.array([one["rank"] for one in side]), 10) for side in sides)  # (seeds, users)
    users, spread = standard_errors(mine, other)
    gap, error = mine.mean() - other.mean(), np.hypot(users, spread)
    seconds = [f"{np.mean([one['seconds'] for one in side]):.0f}" for side in sides]
    visits = " / ".join(f"{np.mean([one['targets'] for one in side]):,.0f}" for side in sides)
    level = "yes" if abs(gap) <= 2 * error else "no"
    means = [f"{mine.mean():.4f}", f"{other.mean():.4f}", f"{gap:+.4f}", f"{users:.4f}", f"{spread:.4f}"]
    return f"| {' | '.join([title, str(len(ours)), visits, *means, level, *seconds])} |"


def table(cells: dict[tuple[str, str, int], dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown: each side of ours beside RecBole's, over common seeds."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for name, label in dict.fromkeys((name, label) for name, label, _ in cells if label != "recbole"):
        done = {seed for one, side, seed in cells if (one, side) == (name, label)}
        seeds = sorted(seed for seed in done if (name, "recbole", seed) in cells)
        if seeds:
            title = f"{name}, RecBole's batches" if label == "fed" else name
            yield row(title, *([cells[name, side, seed] for seed in seeds] for side in (label, "recbole")))


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(PAIRS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sides", default="ours,fed,recbole")
    parser.add_argument("--minutes", type=float, default=60, help="no training begins later")
    parser.add_argument("--results", type=Path, default=Path("results/recbole_parity"))
    given = parser.parse_args()
    task = open_plan(make_plan("ml-100k", []))
    for line in table(trained(given, task)):
        print(line)


if __name__ == "__main__":
    main()
