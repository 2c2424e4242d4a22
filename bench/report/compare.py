"""Two models of the store, compared user by user, in words and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.evaluation.comparison import Comparison, compare
from bench.evaluation.metrics import per_user
from bench.experiments.record import Record
from bench.report.rows import arrays_by_model


@dataclass(frozen=True)
class Compared:
    """A comparison and what it is of."""

    labels: tuple[str, str]
    dataset: str
    metric: str
    users: int
    result: Comparison


def compare_models(
    records: Sequence[Record], models: tuple[str, str], metric: str, margin: float
) -> Compared:
    """Compare two models on the users that both rank.

    Args:
        records: of both, on the same candidates.
        models: registry names.
        metric: `HR@K`, `NDCG@K`, `MRR`.
        margin: difference that would not matter.

    Raises:
        UserError: one has no finished cell, or the metric is unknown.
    """
    arrays = arrays_by_model(records)
    for name in models:
        if name not in arrays:
            raise UserError(
                f"{name}: no finished cell on these candidates; run it first: bench run --models {name}"
            )
    if models[0] == models[1]:
        raise UserError(f"{models[0]}: named twice; give two models")
    try:
        values = [np.stack([per_user(metric, one["test_rank"]) for one in arrays[name]]) for name in models]
    except ValueError as error:
        raise UserError(f"--metric {metric}: {error}") from error
    labels = {r.cell.model: r.label + ("†" if r.reconstruction else "") for r in records}
    made = compare(values[0], values[1], margin)
    names = (labels[models[0]], labels[models[1]])
    return Compared(names, records[0].cell.dataset, metric, values[0].shape[1], made)


def lines_of(compared: Compared) -> list[tuple[str, str]]:
    """Return what is printed: names and values."""
    result, (first, second) = compared.result, compared.labels
    flip, both = result.sign_flip, result.both
    rows = [
        (
            "compared",
            f"{first} less {second}, {compared.metric}, {compared.dataset}, {compared.users:,} users",
        )
    ]
    for label, means in zip(compared.labels, result.seed_means, strict=True):
        spread = f" \u00b1 {np.std(means, ddof=1):.4f}" if len(means) > 1 else ""
        rows.append(
            (label, f"{np.mean(means):.4f}{spread}, {len(means)} seed{'s' if len(means) > 1 else ''}")
        )
    rows += [
        ("difference", f"{flip.difference:+.4f}, 95 % interval {flip.low:+.4f} to {flip.high:+.4f} (users)"),
        ("seeds x users", f"95 % interval {both.low:+.4f} to {both.high:+.4f}, p {both.p:.4f}"),
        ("sign-flip test", f"p {flip.p:.4f} (users, seeds averaged)"),
        ("Wilcoxon", f"p {result.wilcoxon_p:.4f}"),
        ("Student's t", f"p {result.t_p:.4f}"),
        ("effect size", f"Cohen's d {result.effect:+.3f}"),
        ("users", f"{result.wins:,} better, {result.losses:,} worse, {result.ties:,} equal"),
    ]
    larger = f"difference larger than {result.margin:g}"
    verdict = f"no {larger}" if result.equivalent else f"a {larger} cannot be ruled out"
    rows.append(("equivalence", f"{verdict} (90 % interval, two one-sided tests at 5 %)"))
    return rows


def to_dict(compared: Compared) -> dict[str, Any]:
    """Return plain values."""
    return asdict(compared)
