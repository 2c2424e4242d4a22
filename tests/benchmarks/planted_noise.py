"""Whether M3BSR's denoising works where there is something to be denoised: noise is planted, a stage is taken
away.

    python tests/benchmarks/planted_noise.py [--seeds 3] [--jobs 2] [--worlds noise,brands,clicks,...]
        [--reading causal|prefix]

Worlds of 2,000 users and 2,000 items whose interest moves over 20 clusters:

- `noise`: image and text vectors with noise of three times their signal.
- `brands`: the same, with brands among the ids that tell of the clusters.
- `clicks`: six of ten clicks by popularity alone, beside favors that tell of a lasting taste.
- `taste`: `clicks` without the accidental ones, to compare it with.
- `short`: `noise` in histories of 8 events in the mean, which average away less of it.
- `rare`: `noise` and brands, four times as many items: 7 or 8 events for each.
- `missing`: half of the images and of the texts are absent, the others without noise; brands.
- `few_favors`: every other click by popularity alone; favors are few and follow another interest.
- `none`: nothing of it.
- `preference`: clicks follow what images show, favors what texts show.

`no_loss` has the whole chain, trained by the main loss alone, and `no_noise` starts it without noise in
training: they tell denoising from a deep stage and from noise as regularisation.

Printed for each: NDCG@10 of the test items by model, its difference to the full model with a paired test over
users (seeds averaged, Holm over the models of the world), R2 of a linear probe of the true item factors (the
coordinates that a modality shows) from the streams before and after CDMD-M and from the ids, its condition,
and the gates by behavior and modality. The small M3BSR stops by its validation NDCG@10 as always, at most
after --epochs, and keeps its best weights.

The probe is ridge regression, fitted on the items of one half and judged on the other half. In the prefix
reading histories are short; in the causal one they are whole.
About 2 minutes a training on one core.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORLD = {"users": 2000, "items": 2000, "events_per_user": 30, "drift": 1, "clusters": 20}
QUIET = {"image_noise": 0, "text_noise": 0, "accidental_clicks": 0, "behavior_preference": 0}
NOISE = {"image_noise": 3, "text_noise": 3}
CHAINS = ("full", "no_cdmd_m", "mlp", "no_loss", "context")
MISSING = {"missing_image": 0.5, "missing_text": 0.5, "brand_share": 0.9}
TASTE = {"items": 1000, "events_per_user": 40, "drift": 0.5, "favor_share": 0.4}
WORLDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "noise": (NOISE, ("full", "no_cdmd_m", "mlp", "no_loss", "no_noise", "context")),
    "brands": ({**NOISE, "brand_share": 0.9}, ("full", "no_cdmd_m", "mlp", "steps25", "no_loss")),
    "short": ({**NOISE, "events_per_user": 8}, CHAINS),
    "rare": ({**NOISE, "brand_share": 0.9, "items": 8000}, CHAINS),
    "missing": (MISSING, CHAINS),
    "clicks": ({**TASTE, "accidental_clicks": 0.6}, ("full", "no_cdmd_b")),
    "taste": (TASTE, ("full", "no_cdmd_b")),
    "few_favors": ({"accidental_clicks": 0.5}, ("full", "no_cdmd_b")),
    "none": ({}, ("full", "no_cdmd_m", "no_cdmd_b")),
    "preference": ({"behavior_preference": 1}, ("full",)),
}
SMALL = {
    "hidden_size": 32, "max_history": 10, "max_targets_per_user": 4, "patience": 3,
    # half the coordinates: as much weight as by default
    "cdmd_m.loss_weight": 0.04, "cdmd_b.loss_weight": 0.04,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {"clicks": {"max_history": 16}, "taste": {"max_history": 16}}
CAUSAL = {"max_history": 40}
MODELS: dict[str, dict[str, Any]] = {
    "full": {},
    "no_cdmd_m": {"cdmd_m.replace": "identity"},
    "no_cdmd_b": {"cdmd_b.replace": "identity"},
    "mlp": {"cdmd_m.replace": "mlp"},
    "steps25": {"cdmd_m.diffusion_steps": 25, "cdmd_m.reverse_steps": 5},
    "no_loss": {"cdmd_m.loss_weight": 0},
    "no_noise": {"cdmd_m.train_start": "mean"},
    "context": {"cdmd_m.cond": "context"},  # of the causal reading alone
}
SHOWN = ("image", "text")


@dataclass(frozen=True)
class Result:
    """What one training gave."""

    ndcg: Floats
    """(S,) of each test user."""
    condition: dict[str, float]
    """Modality -> R2 of what it shows, from the condition of CDMD-M: the ids, or their context."""
    before: dict[str, float]
    """Modality -> R2 of the streams that enter CDMD-M."""
    after: dict[str, float]
    gates: Floats
    """(2, 3) by behavior and modality."""
    noise_error: float
    """Of the predictors of CDMD-M, a coordinate, mean over steps; NaN without one."""
    best_epoch: int


def options_of(world: str, name: str, reading: str) -> dict[str, Any]:
    """Return the options of a model in a world."""
    from bench.models.m3bsr import CARDS

    if reading == "causal":
        return {**SMALL, **CAUSAL, **MODELS[name]}
    return {**CARDS[0].variants["prefix"][1], **SMALL, **MORE.get(world, {}), **MODELS[name]}


def train(world: str, name: str, seed: int, epochs: int, reading: str) -> Result:
    """Train one model in one world and measure it."""
    import torch

    from bench.config import ProtocolOptions, build_options
    from bench.data import library
    from bench.data.protocol.task import open_task
    from bench.data.storage import load
    from bench.evaluation.metrics import ndcg
    from bench.evaluation.ranks import rank
    from bench.experiments.diagnostics import diagnose
    from bench.models.m3bsr import M3BSR
    from bench.models.m3bsr.config import M3BSRConfig
    from bench.training.data import held_part, training_data
    from bench.training.loop import FitOptions, fit

    torch.set_num_threads(1)
    options = {name: str(value) for name, value in {**WORLD, **QUIET, **WORLDS[world][0]}.items()}
    folder = library.resolve("synthetic", options)
    task = open_task(load(folder), ProtocolOptions())
    data, device = training_data(task), torch.device("cpu")
    torch.manual_seed(seed)
    chosen = build_options(M3BSRConfig, options_of(world, name, reading), "model")
    model = M3BSR(chosen, data.info)
    found = fit(model, data, device, FitOptions(seed, epochs))
    test = held_part(task, task.interactions, task.split.test, task.test)
    ranks = rank(model, test.held, test.batches(model.max_history, 256), device, name)
    shown = diagnose(model, data.validation, device, 256)["diagnostics"]
    noise = shown.get("noise_error", {"rows": [], "values": []})
    errors = [e for kind, e in zip(noise["rows"], noise["values"], strict=True) if kind.startswith("CDMD-M")]
    condition, before, after = probes(model, data.validation, np.load(folder / "truth.npz")["item_factors"])
    return Result(
        ndcg=np.asarray(ndcg(ranks, 10), np.float64),
        condition=condition,
        before=before,
        after=after,
        gates=np.array(shown["gates"]["values"], np.float64),
        noise_error=float(np.mean(errors)) if errors else float("nan"),
        best_epoch=found.best_epoch,
    )


def probes(model: Any, part: Any, factors: NDArray[np.float32]) -> list[dict[str, float]]:
    """Return modality -> R2 by the condition and by its stream before and after CDMD-M, over the events of
    the validation histories.
    """
    import torch

    from bench.datasets.synthetic import visible_factors
    from bench.models.m3bsr.layout import layout

    items, streams = [], []
    with torch.no_grad():
        for _, batch in part.batches(model.max_history, 256):
            content = model.inputs.finished(model.inputs.content_streams(batch.history), batch.mask)
            done = model.denoised(batch, layout(batch, model.target_behavior)).modality
            items.append(batch.history[batch.mask])
            condition, _ = model.cdmd_m.condition(done[0], batch.behavior)
            shown = [condition.expand(2, -1, -1, -1), content, done[1:]]
            streams.append(torch.cat(shown)[:, batch.mask])
    item, values = torch.cat(items).numpy(), torch.cat(streams, 1).double().numpy()
    goals = {
        m: factors[item][:, shown].astype(float) for m, shown in visible_factors(factors.shape[1]).items()
    }
    return [
        {m: probe(values[start + place], goals[m], item) for place, m in enumerate(SHOWN)}
        for start in (0, 2, 4)
    ]


def probe(x: Floats, y: Floats, item: NDArray[np.int64]) -> float:
    """Return R2 of ridge regression of y (E, F) on x (E, D), fitted and judged on different items."""
    fitted = (np.random.default_rng(0).random(item.max() + 1) < 0.5)[item]
    center_x, center_y = x[fitted].mean(0), y[fitted].mean(0)
    inputs, goals = x[fitted] - center_x, y[fitted] - center_y
    gram, cross = inputs.T @ inputs, inputs.T @ goals
    judged = y[~fitted]
    total = np.square(judged - judged.mean(0)).sum()
    found = []
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1):
        ridge = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
        guess = center_y + (x[~fitted] - center_x) @ np.linalg.solve(gram + ridge, cross)
        found.append(1 - np.square(judged - guess).sum() / total)
    return float(max(found))


def report(world: str, results: dict[str, list[Result]]) -> None:
    """Print the table of a world."""
    from bench.evaluation.significance import holm, paired_test

    print(f"\n{world}: {WORLDS[world][0] or 'nothing planted'}")
    values = {name: np.mean([one.ndcg for one in runs], 0) for name, runs in results.items()}
    others = [name for name in results if name != "full"]
    tests = {name: paired_test(values[name], values["full"]) for name in others}
    corrected = dict(zip(others, holm([tests[name].p for name in others]), strict=True)) if others else {}
    for name, runs in results.items():
        each = np.array([one.ndcg.mean() for one in runs])
        spread = each.std(ddof=1) if len(each) > 1 else 0.0
        line = f"  {name:<10} NDCG@10 {each.mean():.4f} ± {spread:.4f}"
        if name in tests:
            gap = tests[name]
            line += f"  diff. {gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] p {corrected[name]:.4f}"
        print(line + f"  best epochs {[one.best_epoch for one in runs]}")
    for name, runs in results.items():
        print(f"  {name:<10} " + "; ".join(probed(m, runs) for m in SHOWN), end="")
        print(f"; noise error {np.mean([one.noise_error for one in runs]):.3f}")
    gates = np.mean([one.gates for one in results["full"]], 0)
    for behavior, row in zip(("click", "favor"), gates, strict=True):
        print(f"  gates, {behavior}: id {row[0]:.3f}, image {row[1]:.3f}, text {row[2]:.3f}")
    leaning = [np.subtract(*one.gates[0, 1:]) - np.subtract(*one.gates[1, 1:]) for one in results["full"]]
    print(f"  (image - text) of clicks less that of favors, by seed: {np.round(leaning, 3).tolist()}")


def probed(modality: str, runs: list[Result]) -> str:
    """Return R2 before and after CDMD-M, and of its condition."""
    condition, before, after = (
        [getattr(one, part)[modality] for one in runs] for part in ("condition", "before", "after")
    )
    gaps = np.round(np.subtract(after, before), 3).tolist()
    means = f"{np.mean(before):.3f} -> {np.mean(after):.3f}, by the condition {np.mean(condition):.3f}"
    return f"{modality} R2 {means} (gain by seed {gaps})"


def main() -> None:
    """Train all of it side by side and print a table a world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--reading", choices=("causal", "prefix"), default="causal")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_DATA"] = folder
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
            for world in chosen.worlds.split(","):
                models = [m for m in WORLDS[world][1] if chosen.reading == "causal" or m != "context"]
                seeds = range(chosen.seeds)
                rest = (chosen.epochs, chosen.reading)
                runs = {m: [pool.submit(train, world, m, seed, *rest) for seed in seeds] for m in models}
                report(world, {m: [one.result() for one in waited] for m, waited in runs.items()})
                sys.stdout.flush()


if __name__ == "__main__":
    main()
