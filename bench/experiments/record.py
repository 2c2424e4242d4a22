"""What a cell is (`Cell`) and what running it gave (`Record`): an outcome or a failure, where, on which data.

`Record.flat` and `Record.from_flat` alone know the layout of `record.json`; `results/README.md` describes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.config import ProtocolOptions

NOT_VALIDATED = "no validation: not stopped early"
"""Remark of a cell that was trained without a validation event."""
CTR_FIELDS = ("task", "ctr_negatives")
"""Fields of the protocol that a cell of the task `rank` leaves out: they cannot move its ranks."""


@dataclass(frozen=True)
class Cell:
    """One model on one data set under one protocol with one seed: everything that its result depends on."""

    dataset: str
    fingerprint: str
    """Fingerprint of the prepared data."""
    protocol: ProtocolOptions
    candidates_hash: str
    model: str
    """Registry name."""
    options: Mapping[str, Any]
    """Dotted options that differ from the defaults of the `Config`: those of the card and the user's."""
    code_hash: str
    """Hash of the model's source and of what all models share."""
    epochs: int | None
    """Most epochs of each stage; None is the model's own."""
    max_minutes: float | None
    """Limit of the training, minutes; None is no limit."""
    seed: int
    total_minutes: float | None = None
    """Limit of all trainings of the command together, minutes; `max_minutes` is then an even share of it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain JSON values."""
        minutes = None if self.max_minutes is None else float(self.max_minutes)
        protocol = asdict(self.protocol)
        if self.protocol.task == "rank":
            protocol = {name: protocol[name] for name in protocol if name not in CTR_FIELDS}
        values = {**asdict(self), "protocol": protocol, "options": dict(self.options), "max_minutes": minutes}
        if self.total_minutes is None:
            del values["total_minutes"]  # cells without it keep the key that they had before it was there
        return json.loads(to_json(values))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """Return the cell of `as_dict`; a TypeError or ValueError where it has other fields."""
        return cls(**{**values, "protocol": ProtocolOptions(**values["protocol"])})

    @property
    def key(self) -> str:
        """SHA-256, hex, of the canonical JSON: sorted names, no spaces, tuples as lists."""
        canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What training and testing a model gave. Times in seconds, memory in MiB."""

    arrays: Mapping[str, NDArray[Any]]
    """`rank`: `{test,validation}_{user,rank,size}`, 0-based user, 1-based rank, number of candidates;
    `ctr`: `{test,validation}_{user,label,score}`, label 1 for the held-out item, else 0.
    """
    remark: str = ""
    """What a reader of the row must know, such as `stopped at 2 min`."""
    parameters: int = 0
    """Trainable and frozen numbers in the model."""
    train_seconds: float = 0.0
    """Training and validation."""
    epochs: int = 0
    best_epoch: int = 0
    """From 1; 0 where nothing was trained."""
    stopped: str = "none"
    """`patience`, `epochs`, `minutes`, `model` (it ended its own stage) or `none`."""
    samples_per_second: float = 0.0
    targets_seen: int = 0
    """Training targets, repeated visits counted, all stages together."""
    targets_per_second: float = 0.0
    score_users_per_second: float = 0.0
    peak_memory_mb: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch: stage, epoch, seconds, loss terms, validation NDCG@10."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the model reports of itself."""


@dataclass(frozen=True)
class Failure:
    """Why a cell has no outcome."""

    reason: str
    """One line."""
    traceback: str = ""
    """Empty where the user can mend the cause: the reason says how."""


@dataclass(frozen=True)
class Environment:
    """What a reader needs to judge a timing or to repeat a run."""

    python: str
    platform: str
    device: str
    threads: int
    """Threads of a torch operation."""
    cores: int | None
    torch: str
    numpy: str
    polars: str
    m3bench: str
    git: Mapping[str, Any]
    """`commit` and `dirty`; empty outside a checkout."""


@dataclass(frozen=True)
class DataFacts:
    """What stands under a table about its data."""

    name: str
    behaviors: tuple[str, ...]
    """From the shallowest to the target."""
    mapping: str
    """How the publisher's signals became these behaviors."""
    encoders: Mapping[str, Any]
    """Modality -> name and hash of what made its vectors."""
    coverage: Mapping[str, float]
    """Modality -> fraction of the items that have it."""
    simulated: bool
    target_in_history: float
    """Fraction of the held-out items that stand in the history shown."""
    users: int
    items: int
    interactions: int
    validation_users: int
    test_users: int
    hidden_events: int = 0
    """Training events left out, since they give a held-out event away."""


def data_key(fingerprint: str, facts: DataFacts) -> str:
    """Return what tells prepared data from others: their fingerprint; or, where an encoder made vectors, all
    that is known but the vectors themselves, whose last bits depend on the processor.
    """
    if not facts.encoders:
        return fingerprint
    known = (facts.behaviors, facts.mapping, facts.encoders, facts.coverage, facts.simulated, facts.users,
             facts.items, facts.interactions, facts.hidden_events)  # fmt: skip
    return json.dumps(known, sort_keys=True)


@dataclass
class Record:
    """A cell that was run."""

    cell: Cell
    label: str
    """Model as tables show it."""
    family: str
    reconstruction: bool
    result: Outcome | Failure
    environment: Environment
    dataset: DataFacts
    finished_at: str = ""
    """UTC, ISO 8601; set when it is written."""

    @property
    def key(self) -> str:
        """Key of the cell."""
        return self.cell.key

    @property
    def task(self) -> str:
        """`rank` or `ctr`."""
        return self.cell.protocol.task

    @property
    def status(self) -> Literal["done", "failed"]:
        """Whether there is an outcome."""
        return "done" if isinstance(self.result, Outcome) else "failed"

    @property
    def reason(self) -> str:
        """Why it failed, or the remark on the outcome."""
        return self.result.remark if isinstance(self.result, Outcome) else self.result.reason

    @property
    def outcome(self) -> Outcome:
        """What the cell gave.

        Raises:
            ValueError: it failed.
        """
        if isinstance(self.result, Failure):
            raise ValueError(f"{self.label}, seed {self.cell.seed}, failed: {self.result.reason}")
        return self.result

    def flat(self) -> dict[str, Any]:
        """Return the values of `record.json`, all but its format; the arrays lie in a file of their own."""
        values = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "result"}
        if isinstance(self.result, Outcome):
            result = {name: value for name, value in vars(self.result).items() if name not in _APART}
        else:
            result = {"extra": {"traceback": self.result.traceback} if self.result.traceback else {}}
        parts = {"cell": self.cell.as_dict(), "environment": vars(self.environment)}
        parts["dataset"] = vars(self.dataset)
        return {"key": self.key, "status": self.status, "reason": self.reason, **values, **parts, **result}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Record":
        """Return the record of `flat`.

        Args:
            values: what `flat` returned, read from JSON.
            arrays: `Outcome.arrays`.

        Raises:
            TypeError: values that a record does not have.
            KeyError: values that it lacks.
            ValueError: the key is not that of the cell.
        """
        given = dict(values)
        key, status, reason = (given.pop(name) for name in ("key", "status", "reason"))
        given["cell"] = Cell.from_dict(given["cell"])
        given["environment"] = Environment(**given["environment"])
        facts = given["dataset"]
        given["dataset"] = DataFacts(**{**facts, "behaviors": tuple(facts["behaviors"])})
        result: Outcome | Failure
        if status == "done":
            result = Outcome(arrays, reason, **{name: given.pop(name) for name in _FLATTENED})
        else:
            part = {name: given.pop(name, None) for name in _FLATTENED}
            result = Failure(reason, (part["extra"] or {}).get("traceback", ""))
        record = cls(result=result, **given)
        if record.key != key:
            raise ValueError(f"key {key} is not that of its cell, {record.key}")
        return record


_APART = ("arrays", "remark")
_FLATTENED = tuple(part.name for part in fields(Outcome) if part.name not in _APART)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON in which NumPy scalars are numbers, paths and the like text."""
    return json.dumps(value, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
