"""What is to be run: one frozen request, built in one place from what a command line or a program says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.config import (
    ProtocolOptions,
    Settings,
    TrainingOptions,
    build_options,
    model_overrides,
    parse_settings,
)
from bench.registry import Entry, entries


@dataclass(frozen=True)
class Plan:
    """Models x seeds on one data set under one protocol."""

    dataset: str
    """A prepared data set, or one that prepares itself."""
    models: tuple[Entry, ...]
    data: Mapping[str, str] = field(default_factory=dict)
    """`data.*` settings of a variant, `shuffle_modality` of any prepared data set."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Model name -> options given by the user, where they differ from the usual ones."""
    fixed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Model name -> names of all options given by the user."""
    protocol: ProtocolOptions = field(default_factory=ProtocolOptions)
    """Split, candidates, history."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """Limits and device."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and batches; the candidates do not depend on them."""

    def with_presets(self, options: Mapping[str, Mapping[str, Any]]) -> "Plan":
        """Return the plan with options of models; those that the user has given stay as they are."""
        overrides = {name: dict(given) for name, given in self.overrides.items()}
        for name, values in options.items():
            kept = {key: value for key, value in values.items() if key not in self.fixed.get(name, ())}
            overrides[name] = {**kept, **overrides.get(name, {})}
        return replace(self, overrides=overrides)

    @property
    def num_cells(self) -> int:
        """Models times seeds."""
        return len(self.models) * len(self.seeds)


def make_plan(
    dataset: str,
    models: Sequence[Entry],
    *,
    settings: Sequence[str] = (),
    task: Literal["rank", "ctr"] = "rank",
    candidates: str | None = None,
    seeds: int = 3,
    epochs: int | None = None,
    max_minutes: float | None = None,
    total_minutes: float | None = None,
    device: str | None = None,
) -> Plan:
    """Return the plan of a request; a setting wins over the argument that says the same.

    Args:
        dataset: name of a prepared data set, or of one that prepares itself.
        models: as `registry.select` or `ablation.members` gives them.
        settings: `key=value` pairs: MODEL.X, X, data.X, protocol.X, training.X.
        task: what is measured.
        candidates: protocol, `uniform99` and the like; None is the default.
        seeds: how many, from 0.
        epochs: most epochs of each stage.
        max_minutes: minutes after which a training stops.
        total_minutes: minutes for all trainings together, instead.
        device: `auto`, `cpu`, `cuda`.

    Raises:
        UserError: an option that nothing has, or a value of another type or out of its bounds.
    """
    parsed: Settings = parse_settings(settings, {*entries(), *(entry.card.name for entry in models)})
    limits = {"epochs": epochs, "max_minutes": max_minutes, "total_minutes": total_minutes, "device": device}
    asked = {"task": task, "candidates": candidates}
    return Plan(
        dataset=dataset,
        models=tuple(models),
        data=parsed.data,
        overrides=model_overrides(parsed, models),
        fixed={
            entry.card.name: frozenset(
                {*parsed.shared, *parsed.models.get(entry.base, {}), *parsed.models.get(entry.card.name, {})}
            )
            for entry in models
        },
        protocol=build_options(ProtocolOptions, _given(asked) | parsed.protocol, "protocol"),
        training=build_options(TrainingOptions, _given(limits) | parsed.training, "training"),
        seeds=tuple(range(seeds)),
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
