"""The numbers of a table: means over seeds, the chance level, who is best and whether that is significant.

What a metric is, and how models are tested, stands in `bench.evaluation.kinds`, a kind at a time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from bench.cards import Family
from bench.evaluation.kinds import KINDS, Kind
from bench.experiments.record import NOT_VALIDATED, Cell, DataFacts, Outcome, Record, data_key

if TYPE_CHECKING:
    import pandas

ORDER: tuple[str, ...] = get_args(Family)


@dataclass(frozen=True)
class Value:
    """A metric over seeds: a fraction, LogLoss in nats."""

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
    used_up: bool
    """Whether a seed ended after the last epoch that its model allows, before early stopping would."""
    validated: bool
    """False where there was no validation event, so that nothing chose when to stop."""
    metrics: Mapping[str, Value]
    """Empty for a failed row."""
    parameters: int = 0
    train_seconds: float = 0.0
    """Mean over seeds."""
    epochs: int = 0
    """Mean over seeds, rounded."""
    targets_seen: int = 0
    """Training targets, repeated visits counted; mean over seeds, rounded."""
    targets_per_second: float = 0.0
    """Mean over seeds, of the seconds spent in training steps."""
    score_users_per_second: float = 0.0
    """Mean over seeds."""
    peak_memory_mb: float = 0.0
    """Highest over seeds, MiB."""
    commits: tuple[str, ...] = ()
    """First letters of the commits that its cells were run at, `+` behind one with changes."""
    fingerprints: tuple[str, ...] = ()
    """Those of the prepared data that its cells were run on."""
    p: float | None = None
    """Holm-adjusted p-value of the best row against this one on the tested metric; None for the best row."""

    @property
    def named(self) -> str:
        """The label, marked where the model is a reconstruction."""
        return self.label + ("†" if self.reconstruction else "")


@dataclass(frozen=True)
class Table:
    """Models on one data set under one protocol, against the same candidates."""

    dataset: str
    protocol: Mapping[str, Any]
    """The fields of `ProtocolOptions`."""
    fingerprint: str
    """That of the first record; others differ in vectors at most."""
    candidates_hash: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    chance: Mapping[str, float]
    """Expected value of a scorer that knows nothing; empty where no cell is finished."""
    facts: DataFacts
    measured: Mapping[str, float]
    """What the kind says of the arrays: `least_candidates`, `median_candidates`."""
    best: str | None
    """Model of the highest mean of the tested metric."""
    tuned: tuple[str, ...] = ()
    """Models whose options come from a sweep, with its trials, in words."""
    where: str = ""
    """Condition under which the test users were chosen; empty for all."""
    left_out: tuple[str, ...] = ()
    """What `left_out` says of the finished cells that no row holds."""

    @property
    def simulated(self) -> bool:
        """True for generated data."""
        return self.facts.simulated

    @property
    def task(self) -> str:
        """`rank` or `ctr`."""
        return str(self.protocol.get("task", "rank"))

    @property
    def kind(self) -> Kind:
        """What is measured."""
        return KINDS[self.task]

    @property
    def saturated(self) -> tuple[str, ...]:
        """Metrics that some users cannot fail, having too few candidates."""
        return self.kind.saturated(self.metrics, self.measured)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame: a row per model, a column per metric and deviation, then the costs."""
        import pandas

        rows = []
        for row in self.rows:
            values: dict[str, Any] = {"model": row.model, "label": row.label, "status": row.status}
            for name, value in row.metrics.items():
                values |= {name: value.mean, f"{name} std": value.std}
            costs = ("parameters", "train_seconds", "epochs", "targets_seen", "targets_per_second",
                     "score_users_per_second", "peak_memory_mb", "p", "reason")  # fmt: skip
            rows.append(values | {"seeds": len(row.seeds)} | {name: getattr(row, name) for name in costs})
        return pandas.DataFrame(rows)

    def ranking(self, metric: str) -> list[float]:
        """Return the distinct means of a metric, best first."""
        means = {row.metrics[metric].mean for row in self.rows if metric in row.metrics}
        return sorted(means, reverse=metric not in self.kind.lower_is_better)


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
    newest = {record.cell.model: _variant(record) for record in sorted(shared, key=_age)}
    return [record for record in shared if _variant(record) == newest[record.cell.model]]


def left_out(records: Sequence[Record], shown: Sequence[Record]) -> tuple[str, ...]:
    """Say, a line each, which finished cells are neither shown nor replaced by a cell of the same seed.

    Args:
        records: those that `comparable` was given.
        shown: what it returned.
    """
    known = {(record.cell.model, record.cell.seed) for record in shown}
    models, grounds = {model for model, _ in known}, {_ground(record) for record in shown}
    done = [record for record in records if record.status == "done"]
    lost = [record for record in done if (record.cell.model, record.cell.seed) not in known]
    lost.sort(key=lambda record: (record.label, record.cell.seed))
    other_run = {
        f"{record.label} seed {record.cell.seed} ({_commit(record) or 'no commit'})": None
        for record in lost
        if _ground(record) in grounds
    }
    other_data = {record.label: None for record in lost if record.cell.model not in models}
    lines = []
    if other_run:
        lines += [f"Left out, run with other code, options or limits than their row: {', '.join(other_run)}"]
    if other_data:
        lines += [f"Left out, run on other data, protocol or candidates: {', '.join(other_data)}"]
    return tuple(lines)


def _age(record: Record) -> str:
    return record.finished_at


def _ground(record: Record) -> tuple[str, ...]:
    cell = record.cell
    return (
        cell.dataset,
        data_key(cell.fingerprint, record.dataset),
        cell.candidates_hash,
        json.dumps(cell.as_dict()["protocol"], sort_keys=True),
    )


def _variant(record: Record) -> str:
    names = ("options", "code_hash", "epochs", "max_minutes")
    cell = record.cell.as_dict()
    return json.dumps([cell[name] for name in names], sort_keys=True)


def build(records: Sequence[Record], metrics: Sequence[str] | None = None) -> Table:
    """Make a table of records on the same candidates, one row per model, families in their order.

    Args:
        records: finished and failed cells.
        metrics: `HR@K`, `NDCG@K`, `MRR`; in the task `ctr` `AUC`, `GAUC`, `LogLoss`. None takes the usual.

    Raises:
        ValueError: no record, records on different data or candidates, or an unknown metric.
    """
    if not records:
        raise ValueError("a table needs at least one record")
    if len({_ground(record) for record in records}) > 1:
        raise ValueError("records of different data, protocols or candidates do not belong in one table")
    names = list(dict.fromkeys(record.cell.model for record in records))
    groups = {name: [record for record in records if record.cell.model == name] for name in names}
    kind = KINDS[records[0].task]
    arrays = arrays_by_model(records)
    best, p_values = kind.compare(arrays, None) if arrays else (None, {})
    chosen = tuple(map(kind.spelled, metrics or kind.metrics))
    rows = [_row(groups[name], chosen, p_values.get(name)) for name in names]
    first = records[0]
    sample = next((group[0] for group in arrays.values()), None)
    return Table(
        dataset=first.cell.dataset,
        protocol=first.cell.as_dict()["protocol"],
        fingerprint=first.cell.fingerprint,
        candidates_hash=first.cell.candidates_hash,
        metrics=chosen,
        rows=tuple(
            sorted(rows, key=lambda row: ORDER.index(row.family) if row.family in ORDER else len(ORDER))
        ),
        chance=kind.chance(sample, chosen) if sample else {},
        facts=first.dataset,
        measured=kind.facts(sample) if sample else {},
        best=best,
    )


def arrays_by_model(records: Iterable[Record]) -> dict[str, list[Mapping[str, NDArray[Any]]]]:
    """Return model -> arrays of its finished seeds; a model without one is left out."""
    arrays: dict[str, list[Mapping[str, NDArray[Any]]]] = {}
    for record in records:
        if isinstance(record.result, Outcome):
            arrays.setdefault(record.cell.model, []).append(record.result.arrays)
    return arrays


def _row(group: list[Record], metrics: Sequence[str], p: float | None) -> Row:
    first, cell = group[0], group[0].cell
    done = [record for record in group if record.status == "done"]
    failed = [record for record in group if record.status == "failed"]
    outcomes = [record.outcome for record in done]
    reasons = [f"seed {r.cell.seed}: {r.reason}" if len(group) > 1 else r.reason for r in failed]
    reasons += list(dict.fromkeys(outcome.remark for outcome in outcomes if outcome.remark))
    values = [KINDS[first.task].values(outcome.arrays, metrics) for outcome in outcomes]
    return Row(
        model=cell.model,
        label=first.label,
        family=first.family,
        reconstruction=first.reconstruction,
        status="done" if not failed else "partial" if done else "failed",
        reason="; ".join(reasons),
        seeds=tuple(record.cell.seed for record in done),
        options=cell.options,
        limits=_limits(cell),
        cut=any(outcome.stopped == "minutes" for outcome in outcomes),
        used_up=cell.epochs is None and any(outcome.stopped == "epochs" for outcome in outcomes),
        validated=not any(NOT_VALIDATED in outcome.remark for outcome in outcomes),
        metrics={name: _value([seed[name] for seed in values]) for name in metrics if done},
        parameters=outcomes[0].parameters if done else 0,
        train_seconds=_mean(outcome.train_seconds for outcome in outcomes),
        epochs=round(_mean(outcome.epochs for outcome in outcomes)),
        targets_seen=round(_mean(outcome.targets_seen for outcome in outcomes)),
        targets_per_second=_mean(outcome.targets_per_second for outcome in outcomes),
        score_users_per_second=_mean(outcome.score_users_per_second for outcome in outcomes),
        peak_memory_mb=max((outcome.peak_memory_mb for outcome in outcomes), default=0.0),
        commits=tuple(dict.fromkeys(filter(None, (_commit(record) for record in done)))),
        fingerprints=tuple(dict.fromkeys(record.cell.fingerprint for record in done)),
        p=p,
    )


def _commit(record: Record) -> str:
    """Return the commit that a cell was run at, with a plus where the files had changes."""
    git = record.environment.git
    return str(git.get("commit", ""))[:7] + ("+" if git.get("commit") and git.get("dirty") else "")


def _limits(cell: Cell) -> str:
    parts = [] if cell.epochs is None else [f"at most {cell.epochs} epochs"]
    if cell.total_minutes is not None:
        parts.append(f"{cell.total_minutes:g} min for all trainings of the command")
    elif cell.max_minutes is not None:
        parts.append(f"at most {cell.max_minutes:g} min")
    return ", ".join(parts)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0


def _value(over_seeds: list[float]) -> Value:
    std = float(np.std(over_seeds, ddof=1)) if len(over_seeds) > 1 else None
    return Value(float(np.mean(over_seeds)), std)
