"""What M3BSR costs beside SASRec: time, work and memory of a training step, and scoring.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/m3bsr_step.py

Default options (d = 64, windows of at most 50) on a catalog of 2,000 items with vectors of 512; 64 windows,
every third of them with 10 to 49 events, each event a click or a favor. In the causal reading, as in SASRec,
every event is a target; in the prefix reading a window is a prefix with one target (`before` has the chain of
ten steps and works on padding, as M3BSR did once). Seconds are CPU seconds of the fastest of several steps;
the forms take turns, so that a busy moment meets all of them. Work is counted by torch's FLOP counter over
forward and backward pass (products; on a CPU it does not see attention), and the matmul peak is that of a
product of two 2048 x 2048 float32 matrices in the same run. Peak memory is that of a process of its own, less
what it held before the step. Scoring is of 256 users with 100 candidates, vectors of items included.

Reach on one core: 3,000 targets a second in training, 600 users a second in scoring, batch 1024 within 4 GB.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.config import build_options
from bench.interface import Batch, Causal, DatasetInfo, ItemContent, Recommender, TrainingEvents
from bench.registry import select
from bench.training.step import make_optimizer, train_step

ITEMS, FEATURES, LENGTH = 2000, 512, 50
NO_DENOISING = {"cdmd_m.replace": "identity", "cdmd_b.replace": "identity"}
STEPS = {steps: {"cdmd_m.reverse_steps": steps, "cdmd_b.reverse_steps": steps} for steps in (2, 3, 10)}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "m3bsr": ("m3bsr", {}),
    "padding too": ("m3bsr", {"packed": False}),
    "2 reverse steps": ("m3bsr", STEPS[2]),
    "3 reverse steps": ("m3bsr", STEPS[3]),
    "10 reverse steps": ("m3bsr", STEPS[10]),
    "no denoising": ("m3bsr", NO_DENOISING),
    "autocast": ("m3bsr", {"autocast": True}),
    "prefix, before": ("m3bsr:prefix", {}),
    "prefix, packed": ("m3bsr:prefix", {"packed": True}),
    "prefix, packed, 1 step": (
        "m3bsr:prefix",
        {"packed": True, "cdmd_m.reverse_steps": 1, "cdmd_b.reverse_steps": 1},
    ),
    "sasrec": ("sasrec", {}),
}


def build(name: str, options: Mapping[str, Any]) -> Recommender:
    """Return a model by its registry name, its weights from seed 0."""
    rng = np.random.default_rng(0)
    rows = ITEMS + 1
    features = {kind: rng.standard_normal((rows, FEATURES)).astype(np.float32) for kind in ("image", "text")}
    content = ItemContent(ITEMS, features, {kind: np.ones(rows, bool) for kind in features})
    (entry,) = select(name)
    kind = entry.load()
    torch.manual_seed(0)
    config = build_options(kind.Config, {**entry.card.options, **options}, name)
    model = kind(config, DatasetInfo(1024, ITEMS, ("click", "favor"), content))
    item = rng.integers(1, rows, 1024).astype(np.int32)
    times = np.arange(1024)
    model.set_up(TrainingEvents(times, item, rng.integers(1, 3, 1024).astype(np.int8), times, ITEMS))
    return model


def batch(rows: int, causal: bool) -> Batch:
    """Return windows with a label at each event, or with one target each."""
    g = torch.Generator().manual_seed(1)
    lengths = torch.where(
        torch.arange(rows) % 3 == 0, torch.randint(10, LENGTH, (rows,), generator=g), LENGTH
    )
    real = torch.arange(LENGTH) >= LENGTH - lengths[:, None]
    history, labels = torch.randint(1, ITEMS + 1, (2, rows, LENGTH), generator=g) * real
    behavior, kinds = torch.randint(1, 3, (2, rows, LENGTH), generator=g) * real
    data = Batch(torch.arange(rows), history, behavior, torch.zeros_like(history))
    if causal:
        return replace(data, labels=labels, label_behavior=kinds)
    return replace(data, target=labels[:, -1], target_behavior=kinds[:, -1])


def step(name: str, options: Mapping[str, Any], rows: int = 64) -> tuple[Callable[[], Any], int]:
    """Return one training step as a function, warmed up, and how many targets it has."""
    model = build(name, {"batch_size": rows, **options})
    (stage,) = model.stages()
    data = batch(rows, isinstance(stage.view, Causal))
    optimizer = make_optimizer(model.train(), stage)

    def once() -> Any:
        return train_step(model, data, stage, optimizer)

    once()
    return once, rows if data.labels is None else int((data.labels > 0).sum())


def scoring(name: str, options: Mapping[str, Any], users: int = 256) -> Callable[[], Any]:
    """Return the scoring of users as a function."""
    model, data = build(name, options).eval(), batch(users, causal=True)
    candidates = torch.randint(1, ITEMS + 1, (users, 100))

    @torch.no_grad()
    def once() -> Any:
        return model.score(data, candidates)

    return once


def fastest(steps: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return name -> CPU seconds of its fastest step; all take turns."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, once in steps.items():
            begun = time.process_time()
            once()
            best[name] = min(best[name], time.process_time() - begun)
    return best


def counted(once: Callable[[], Any]) -> float:
    """Return the GFLOP of a step."""
    with FlopCounterMode(display=False) as counter:
        once()
    return counter.get_total_flops() / 1e9


def matmul() -> tuple[Callable[[], Any], float]:
    """Return a large product and its GFLOP."""
    a, b = torch.randn(2, 2048, 2048)
    return (lambda: a @ b), 2 * 2048**3 / 1e9


def resident(field: str) -> float:
    """Return a memory figure of this process (VmRSS or VmHWM, Linux) in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def memory(name: str, options: Mapping[str, Any], rows: int) -> float:
    """Return the peak of one training step in MiB, over what the process held before it."""
    model = build(name, {"batch_size": rows, **options})
    (stage,) = model.stages()
    data, optimizer = batch(rows, isinstance(stage.view, Causal)), make_optimizer(model.train(), stage)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    train_step(model, data, stage, optimizer)
    return resident("VmHWM") - before


def alone(*arguments: Any) -> float:
    """Return `memory` as measured in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, *arguments).result()


def table(rounds: int) -> Iterator[str]:
    """Yield the lines of all forms."""
    product, size = matmul()
    steps = {name: step(*form) for name, form in FORMS.items()}
    work = {name: counted(once) for name, (once, _) in steps.items()}
    best = fastest({"matmul": product, **{name: once for name, (once, _) in steps.items()}}, rounds)
    scored = fastest({name: scoring(*form) for name, form in FORMS.items()}, 2)
    peak = size / best["matmul"]
    yield f"fp32 matmul peak {peak:.0f} GFLOP/s"
    yield f"{'':<24}{'ms/window':>10}{'targets/s':>10}{'GFLOP':>8}{'of peak':>8}{'users/s':>9}"
    for name, (_, targets) in steps.items():
        share = work[name] / best[name] / peak
        line = f"{name:<24}{1e3 * best[name] / 64:>10.2f}{targets / best[name]:>10.0f}{work[name]:>8.1f}"
        yield f"{line}{share:>8.2f}{256 / scored[name]:>9.0f}"


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; a step of 64 windows")
    for line in table(rounds):
        print(line, flush=True)
    for micro in (64, 1024):
        print(f"batch 1024, micro-batch {micro}: {alone('m3bsr', {'micro_batch': micro}, 1024):.0f} MiB")


if __name__ == "__main__":
    main()
