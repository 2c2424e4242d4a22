"""Do multi-behavior models gain by clicks where clicks tell something, and only there?

    OMP_NUM_THREADS=1 python tests/benchmarks/useful_clicks.py --max-minutes 1

Three generated worlds: in `useful` a click follows the taste of its user as a favor does, in `popular` clicks
are drawn by popularity alone, in `even` all items are equally popular and clicks are drawn from them like
lots. In each, every model is trained with all events and with the favors alone
(`protocol.history=target`), ranked on the same held-out favors and candidates, and compared by a paired
sign-flip test over users, seeds averaged, Holm-corrected over the models of a world. A model that uses its
behaviors gains in the first world. In the second clicks tell popularity and nothing else, and favors alone
are few to learn even that from: what a model gains there should not lift it above `popularity`, which reads
as much and learns nothing. In the third clicks tell nothing at all.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.api import Results, run
from bench.evaluation.metrics import ndcg
from bench.evaluation.significance import holm, paired_test

MODELS = "popularity,item-knn,nmtr,dipn,sgdl,mb_str,kmclr,ebm"
WORLDS: dict[str, dict[str, Any]] = {
    "useful": {"data.accidental_clicks": 0.0},
    "popular": {"data.accidental_clicks": 1.0},
    "even": {"data.accidental_clicks": 1.0, "data.popularity_skew": 0.0},
}
"""Options of each world's generator."""


def gains(results: Results, model: str) -> NDArray[np.float64]:
    """Return (S,) NDCG@10 of each test user, seeds averaged, of this run's cells alone."""
    mine = [one for one in results.records if one.cell.model == model]
    for failed in (one for one in mine if one.status != "done"):
        raise SystemExit(f"{model}, seed {failed.cell.seed}: {failed.reason}")
    ranks = [one.outcome.arrays["test_rank"] for one in mine]
    mean: NDArray[np.float64] = np.mean([ndcg(rank, 10) for rank in ranks], axis=0)
    return mean


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-minutes", type=float, default=None, help="limit of each training")
    parser.add_argument("--results", type=Path, default=Path("results/useful_clicks"))
    given = parser.parse_args()
    size: dict[str, Any] = {"data.users": 1000, "data.items": 1000, "data.behavior_preference": 0.0}
    for world, planted in WORLDS.items():
        parts, rows = [], []
        for history in ("merged", "target"):
            options = size | planted | {"protocol.history": history}
            limits = {"seeds": given.seeds, "max_minutes": given.max_minutes}
            folder = given.results / world
            parts.append(run("synthetic", given.models, options=options, results=folder, **limits))
        for model in given.models.split(","):
            both = [gains(part, model) for part in parts]
            rows.append((model, *(values.mean() for values in both), paired_test(*both)))
        print(f"\nworld {world}, NDCG@10 of {len(both[0]):,} users, {given.seeds} seeds")
        for (model, merged, target, test), p in zip(rows, holm([row[3].p for row in rows]), strict=True):
            print(
                f"{model:10} all events {merged:.4f}  favors alone {target:.4f}  "
                f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]  p {p:.4f}"
            )


if __name__ == "__main__":
    main()
