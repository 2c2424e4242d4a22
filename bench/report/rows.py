"""The numbers of a table: means over seeds, the chance level, who is best and whether that is significant.

Reads stored ranks alone; a new metric or cut-off needs no new training.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.metrics import chance, per_user
from bench.evaluation.significance import holm, paired_p_values
from bench.experiments.store import Record

METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")
TESTED = "NDCG@10"
ORDER = ("heuristic", "sequential", "multimodal", "multibehavior", "proposed")


@dataclass(frozen=True)
class Value:
    """A metric over seeds, fraction."""

    mean: float
    std: float | None
    """Sample deviation over seeds (n - 1); None for one seed."""


@dataclass(frozen=True)
class Row:
    """One model."""

    model: str
    label: str
    family: str
    reconstruction: bool
    status: str
    """`done`, `failed`, or `partial` where some seeds failed."""
    reason: str
    """Why it failed, or a remark."""
    seeds: tuple[int, ...]
    """Finished seeds."""
    options: Mapping[str, Any]
    """Options that differ from the model's defaults."""
    limits: str
    """`at most 5 epochs`, or empty."""
    cut: bool
    """True where the time limit ended a training."""
    metrics: Mapping[str, Value]
    """Empty for a failed row."""
    parameters: int = 0
    train_seconds: float = 0.0
    """Mean over seeds."""
    epochs: int = 0
    """Mean over seeds, rounded."""
    score_users_per_second: float = 0.0
    """Mean over seeds."""
    peak_memory_mb: float = 0.0
    """Highest over seeds, MiB."""
    p: float | None = None
    """Holm-adjusted p-value of the best row against this one on `TESTED`; None for the best row itself."""


@dataclass(frozen=True)
class Table:
    """Models on one data set under one protocol, against the same candidates."""

    dataset: str
    protocol: Mapping[str, Any]
    """The fields of `ProtocolOptions`."""
    fingerprint: str
    candidates_hash: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    chance: Mapping[str, float]
    """Expected value of a scorer that knows nothing; empty where no cell is finished."""
    facts: Mapping[str, Any]
    """`Record.dataset`."""
    best: str | None
    """Model of the highest mean of `TESTED`."""

    @property
    def simulated(self) -> bool:
        """True for generated data."""
        return bool(self.facts.get("simulated", False))

    def ranking(self, metric: str) -> list[float]:
        """Return the distinct means of a metric, highest first."""
        return sorted({row.metrics[metric].mean for row in self.rows if metric in row.metrics}, reverse=True)


def comparable(records: Iterable[Record]) -> list[Record]:
    """Return the records that may share a table: the newest data and candidates, each model as it ran last.

    Records of other prepared data, protocol or candidates than those of the newest record are left out; of a
    model only the seeds that have the options, code and limits of its newest record are kept, in their order.
    """
    given = list(records)
    if not given:
        return []
    last = max(given, key=_age)
    shared = [record for record in given if _ground(record) == _ground(last)]
    newest = {record.cell["model"]: _variant(record) for record in sorted(shared, key=_age)}
    return [record for record in shared if _variant(record) == newest[record.cell["model"]]]


def _age(record: Record) -> str:
    return record.finished_at


def _ground(record: Record) -> tuple[str, ...]:
    cell = record.cell
    return (
        cell["dataset"],
        cell["fingerprint"],
        cell["candidates_hash"],
        json.dumps(cell["protocol"], sort_keys=True),
    )


def _variant(record: Record) -> str:
    names = ("options", "code_hash", "epochs", "max_minutes")
    return json.dumps([record.cell[name] for name in names], sort_keys=True)


def build(records: Sequence[Record], metrics: Sequence[str] = METRICS) -> Table:
    """Make a table of records on the same candidates, a row a model, families in their order.

    Args:
        records: finished and failed cells.
        metrics: `HR@K`, `NDCG@K`, `MRR`.

    Raises:
        ValueError: no record, records on different data or candidates, or an unknown metric.
    """
    if not records:
        raise ValueError("a table needs at least one record")
    if len({_ground(record) for record in records}) > 1:
        raise ValueError("records of different data, protocols or candidates do not belong in one table")
    names = list(dict.fromkeys(record.cell["model"] for record in records))
    groups = {name: [record for record in records if record.cell["model"] == name] for name in names}
    done = {name: [r for r in group if r.status == "done"] for name, group in groups.items()}
    tested = _tested({name: group for name, group in done.items() if group})
    best = max(tested, key=lambda name: float(tested[name].mean()), default=None)
    p_values = _p_values(best, tested)
    rows = [_row(groups[name], done[name], metrics, p_values.get(name)) for name in names]
    first = next((group[0] for group in done.values() if group), records[0])
    return Table(
        dataset=first.cell["dataset"],
        protocol=first.cell["protocol"],
        fingerprint=first.cell["fingerprint"],
        candidates_hash=first.cell["candidates_hash"],
        metrics=tuple(metrics),
        rows=tuple(
            sorted(rows, key=lambda row: ORDER.index(row.family) if row.family in ORDER else len(ORDER))
        ),
        chance=_chance(first.ranks["test_size"], metrics) if first.status == "done" else {},
        facts=first.dataset,
        best=best,
    )


def _row(group: list[Record], done: list[Record], metrics: Sequence[str], p: float | None) -> Row:
    cell, first = group[0].cell, group[0]
    failed = [record for record in group if record.status == "failed"]
    reasons = [f"seed {r.cell['seed']}: {r.reason}" if len(group) > 1 else r.reason for r in failed]
    reasons += list(dict.fromkeys(record.reason for record in done if record.reason))
    ranks = [record.ranks["test_rank"] for record in done]
    return Row(
        model=cell["model"],
        label=first.label,
        family=first.family,
        reconstruction=first.reconstruction,
        status="done" if not failed else "partial" if done else "failed",
        reason="; ".join(reasons),
        seeds=tuple(record.cell["seed"] for record in done),
        options=cell["options"],
        limits=_limits(cell),
        cut=any(record.stopped == "minutes" for record in done),
        metrics={name: _value([float(per_user(name, r).mean()) for r in ranks]) for name in metrics if done},
        parameters=done[0].parameters if done else 0,
        train_seconds=_mean(record.train_seconds for record in done),
        epochs=round(_mean(record.epochs for record in done)),
        score_users_per_second=_mean(record.score_users_per_second for record in done),
        peak_memory_mb=max((record.peak_memory_mb for record in done), default=0.0),
        p=p,
    )


def _limits(cell: Mapping[str, Any]) -> str:
    parts = [] if cell["epochs"] is None else [f"at most {cell['epochs']} epochs"]
    parts += [] if cell["max_minutes"] is None else [f"at most {cell['max_minutes']:g} min"]
    return ", ".join(parts)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0


def _value(over_seeds: list[float]) -> Value:
    std = float(np.std(over_seeds, ddof=1)) if len(over_seeds) > 1 else None
    return Value(float(np.mean(over_seeds)), std)


def _tested(done: Mapping[str, list[Record]]) -> dict[str, NDArray[np.float64]]:
    """Return model -> (S,) per-user values of `TESTED`, averaged over its seeds."""
    values: dict[str, NDArray[np.float64]] = {}
    users: NDArray[np.int32] | None = None
    for name, group in done.items():
        for record in group:
            present = record.ranks["test_user"]
            if users is not None and not np.array_equal(users, present):
                raise ValueError(f"{name}: the records rank other users than those of the other models")
            users = present
        values[name] = np.mean([per_user(TESTED, record.ranks["test_rank"]) for record in group], axis=0)
    return values


def _p_values(best: str | None, tested: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    others = [name for name in tested if name != best]
    if best is None or not others:
        return {}
    raw = paired_p_values(tested[best], np.stack([tested[name] for name in others]))
    return dict(zip(others, holm(raw), strict=True))


def _chance(sizes: NDArray[np.int32], metrics: Sequence[str]) -> dict[str, float]:
    levels: dict[str, float] = {}
    for name in metrics:
        cut = name.partition("@")[2]
        levels[name] = chance(sizes, int(cut))[name.upper()] if cut else _chance_reciprocal(sizes)
    return levels


def _chance_reciprocal(sizes: NDArray[np.int32]) -> float:
    """Return the expected reciprocal rank where the rank is uniform on 1..size: H(size) / size."""
    counts = np.arange(1, int(sizes.max()) + 1)
    return float((np.cumsum(1.0 / counts) / counts)[sizes - 1].mean())
