"""What a training step of M3BSR costs: time against the counted work, memory, and the cheap modes.

    python tests/benchmarks/m3bsr_step.py

Default options (d = 64, T = 10) on a catalog of 2,000 items with vectors of 512. `50 events` are histories
of 25 clicks and 25 favors; `50 + 50` has 50 of each, the size at which the prototypes were measured. Work is
counted by torch's FLOP counter over forward and backward pass, and the matmul peak is that of a product of
two 2048 x 2048 float32 matrices in the same run. Each line is the fastest of several steps; modes take turns,
so that a busy moment meets all of them. Peak memory is that of a process of its own, less what it held before
the first step. Targets: at most counted work / (0.35 x peak) at B = 64, batch 1024 within 4 GB, histories of
8 in at most 0.25 of the time of 50.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.config import build_options
from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.m3bsr import M3BSR
from bench.models.m3bsr.config import M3BSRConfig
from bench.training.loop import make_optimizer, train_step

ITEMS, FEATURES = 2000, 512
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "checkpoint": {"cdmd_m.checkpoint": True, "cdmd_b.checkpoint": True},
    "grad_last=3": {"cdmd_m.grad_last": 3, "cdmd_b.grad_last": 3},
    "reverse_steps=3": {"cdmd_m.reverse_steps": 3, "cdmd_b.reverse_steps": 3},
    "autocast": {"autocast": True},
}


def build(options: Mapping[str, Any], length: int) -> M3BSR:
    """Return the model, its weights from seed 0."""
    rng = np.random.default_rng(0)
    rows = ITEMS + 1
    features = {name: rng.standard_normal((rows, FEATURES)).astype(np.float32) for name in ("image", "text")}
    content = ItemContent(ITEMS, features, {name: np.ones(rows, bool) for name in features})
    torch.manual_seed(0)
    config = build_options(M3BSRConfig, {"max_history": length, **options}, "model")
    return M3BSR(config, DatasetInfo(1024, ITEMS, ("click", "favor"), content))


def batch(rows: int, clicks: int, favors: int) -> Batch:
    """Return histories of so many clicks and favors in random order."""
    g = torch.Generator().manual_seed(1)
    kinds = torch.cat([torch.ones(clicks, dtype=torch.int64), torch.full((favors,), 2)])
    behavior = torch.stack([kinds[torch.randperm(len(kinds), generator=g)] for _ in range(rows)])
    history = torch.randint(1, ITEMS + 1, behavior.shape, generator=g)
    target = torch.randint(1, ITEMS + 1, (rows,), generator=g)
    return Batch(torch.arange(rows), history, behavior, torch.zeros_like(history), target=target)


def step(options: Mapping[str, Any], rows: int, clicks: int, favors: int) -> Callable[[], Any]:
    """Return one training step as a function, warmed up."""
    model, data = build(options, clicks + favors), batch(rows, clicks, favors)
    (stage,) = model.stages()
    optimizer = make_optimizer(model.train(), stage)

    def once() -> Any:
        return train_step(model, data, stage, optimizer)

    once()
    return once


def fastest(steps: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return name -> seconds of its fastest step; all take turns."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, once in steps.items():
            begun = time.perf_counter()
            once()
            best[name] = min(best[name], time.perf_counter() - begun)
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


def memory(options: Mapping[str, Any], rows: int, clicks: int, favors: int) -> float:
    """Return the peak of one training step in MiB, over what the process held before it."""
    model, data = build(options, clicks + favors), batch(rows, clicks, favors)
    (stage,) = model.stages()
    optimizer = make_optimizer(model.train(), stage)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    train_step(model, data, stage, optimizer)
    return resident("VmHWM") - before


def alone(*arguments: Any) -> float:
    """Return `memory` as measured in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, *arguments).result()


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    product, size = matmul()
    whole = {"micro_batch": 64}
    steps = {
        "B=64, 50 + 50": step(whole, 64, 50, 50),
        "B=64, 50 events": step(whole, 64, 25, 25),
        "B=64, 8 events": step(whole, 64, 4, 4),
        "B=64, 8 + 8": step(whole, 64, 8, 8),
    }
    work = {name: counted(once) for name, once in steps.items()}
    best = fastest({"matmul": product, **steps}, rounds)
    peak = size / best["matmul"]
    print(f"fp32 matmul peak {peak:.0f} GFLOP/s")
    for name in steps:
        allowed = work[name] / (0.35 * peak)
        share = work[name] / best[name] / peak
        line = f"{name}: {1e3 * best[name]:.0f} ms, {work[name]:.1f} GFLOP, {share:.2f} of the peak"
        print(f"{line}; {1e3 * allowed:.0f} ms at 0.35 of it")
    for short, long in (("B=64, 8 events", "B=64, 50 events"), ("B=64, 8 + 8", "B=64, 50 + 50")):
        print(f"{short} takes {best[short] / best[long]:.2f} of {long}")
    large = {f"B=256, 50 + 50, micro-batch {m}": step({"micro_batch": m}, 256, 50, 50) for m in (64, 256)}
    for name, seconds in fastest(large, 2).items():
        print(f"{name}: {1e3 * seconds:.0f} ms, {1e3 * seconds / 256:.1f} ms a sample")
    modes = fastest({name: step(mode, 64, 50, 50) for name, mode in MODES.items()}, rounds)
    for name, mode in MODES.items():
        held = alone(mode, 64, 50, 50)
        print(f"B=64, 50 + 50, {name}: {modes[name] / modes['default']:.2f} of the time, {held:.0f} MiB")
    for micro in (64, 256):
        print(f"B=1024, 50 + 50, micro-batch {micro}: {alone({'micro_batch': micro}, 1024, 50, 50):.0f} MiB")


if __name__ == "__main__":
    main()
