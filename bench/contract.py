"""What every model must do: checks on one model class, used by the tests and by `bench test`.

A check raises AssertionError with a line that says what is wrong. They run on the log of `bench.example`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contract_worlds import (
    check_a_catalog_of_one_item_is_enough,
    check_an_empty_target_history_is_scored,
    check_images_and_texts_may_be_absent,
    check_memory_grows_no_faster_than_the_catalog,
    check_one_behavior_is_enough,
    check_parameters_are_registered,
)
from bench.data.batches.loader import TrainingBatches, training_events
from bench.example import (
    ITEMS,
    TARGET,
    example_batch,
    example_candidates,
    example_info,
    example_log,
    example_split,
)
from bench.interface import Batch, Causal, Recommender, Stage, TrainingEvents
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step


@dataclass(frozen=True)
class Subject:
    """A model class and the options under which it is checked."""

    kind: type[Recommender]
    config: Any
    """An instance of `kind.Config`."""

    def build(self, seed: int = 0) -> Recommender:
        """Return the model, built and prepared as for a run, in training mode."""
        torch.manual_seed(seed)
        model = self.kind(self.config, example_info())
        model.set_up(events())
        return model


def events() -> TrainingEvents:
    """Return the training part of the example."""
    return training_events(example_log(), example_split(), ITEMS)


def training_batches(stage: Stage, epoch: int, users: int | None = None) -> Iterator[Batch]:
    """Yield the batches of one epoch of a stage, of the last `users` users alone where given."""
    parts = example_split()
    ends = parts.train_end.copy()
    if users is not None:
        ends[:-users] = example_log().offsets[: -users - 1]
    parts = replace(parts, train_end=ends)
    source = TrainingBatches(example_log(), parts, stage.view, ITEMS, TARGET, "same_timestamp", 0)
    return source.epoch(epoch, min(stage.batch_size, 64))


@torch.no_grad()
def scores(model: Recommender, batch: Batch, candidates: Tensor) -> Tensor:
    """Return the model's scores in eval mode."""
    return model.eval().score(batch, candidates)


def check_scores_have_one_finite_number_per_candidate(subject: Subject) -> None:
    """`score` returns (B, C) floats, finite, also for a history without events."""
    batch = example_batch()
    actual = scores(subject.build(), batch, example_candidates(batch))
    assert actual.shape == (len(batch), 12), (
        f"score returned {tuple(actual.shape)}, expected {(len(batch), 12)}"
    )
    assert actual.is_floating_point(), f"score returned {actual.dtype}, expected floats"
    assert torch.isfinite(actual[:-1]).all(), "a score is NaN or infinite"
    assert torch.isfinite(actual[-1]).all(), "a score of a history without events is NaN or infinite"


def check_order_of_candidates_permutes_scores(subject: Subject) -> None:
    """A candidate's score does not depend on its column."""
    model, batch = subject.build(), example_batch()
    candidates = example_candidates(batch)
    _same(
        scores(model, batch, candidates.flip(1)).flip(1), scores(model, batch, candidates), "candidate order"
    )


def check_padding_does_not_change_scores(subject: Subject) -> None:
    """Three more columns of padding change nothing."""
    model, batch = subject.build(), example_batch()
    candidates = example_candidates(batch)
    wider = {
        n: torch.nn.functional.pad(getattr(batch, n), (3, 0)) for n in ("history", "behavior", "timestamp")
    }
    _same(
        scores(model, replace(batch, **wider), candidates), scores(model, batch, candidates), "more padding"
    )


def check_batch_mates_do_not_change_scores(subject: Subject) -> None:
    """A user alone, and the batch in reverse order, give the same scores as the batch."""
    model, batch = subject.build(), example_batch()
    candidates = example_candidates(batch)
    expected = scores(model, batch, candidates)
    backwards = torch.arange(len(batch) - 1, -1, -1)
    _same(
        scores(model, batch.rows(backwards), candidates[backwards]).flip(0),
        expected,
        "the order of the batch",
    )
    for row in range(len(batch)):
        one = slice(row, row + 1)
        _same(scores(model, batch.rows(one), candidates[one]), expected[one], "the other users of the batch")


def check_shared_candidates_score_as_own_ones(subject: Subject) -> None:
    """`score_encoded` with (C,) candidates for all users equals `score` with (B, C)."""
    model, batch = subject.build().eval(), example_batch()
    tile = torch.arange(1, ITEMS + 1)
    with torch.no_grad():
        actual = model.score_encoded(model.encode(batch), tile, model.encode_items())
    assert actual.shape == (len(batch), ITEMS), (
        f"score_encoded gave {tuple(actual.shape)} for {ITEMS} shared candidates"
    )
    _same(actual, scores(model, batch, tile.repeat(len(batch), 1)), "sharing the candidates")


def check_eval_is_deterministic(subject: Subject) -> None:
    """Scores do not depend on the state of the random generator."""
    model, batch = subject.build(), example_batch()
    candidates = example_candidates(batch)
    first = scores(model, batch, candidates)
    torch.manual_seed(99)
    _same(scores(model, batch, candidates), first, "another state of the random generator")


def check_state_dict_holds_the_whole_model(subject: Subject) -> None:
    """A model of another seed gives the same scores once it has the weights."""
    model, batch = subject.build(), example_batch()
    for stage in model.stages():
        _step(model, stage)
    copy = subject.build(seed=1)
    copy.load_state_dict(model.state_dict())
    candidates = example_candidates(batch)
    _same(
        scores(copy, batch, candidates), scores(model, batch, candidates), "loading the state dict elsewhere"
    )


def check_same_seed_gives_same_loss(subject: Subject) -> None:
    """Two models of one seed have one loss."""
    first, second = (_losses(subject.build(), 5) for _ in range(2))
    assert first == second, f"losses {first} and {second} under one seed; use torch's global generator alone"


def check_a_position_sees_nothing_that_comes_later(subject: Subject) -> None:
    """What the labels of the first positions give, the loss or a named term of it, stays the same when later
    events are others.

    Of the last stage, if its view is `causal`, in eval mode. One term is enough: contrasts and penalties may
    look at whole windows.
    """
    model = subject.build()
    for stage in model.stages():
        start_stage(model, stage, events())
    if not model.stages() or not isinstance(stage.view, Causal):
        return
    model.start_epoch(0, events())
    batch = next(training_batches(stage, 0))
    early = torch.arange(batch.history.shape[1]) < batch.history.shape[1] * 2 // 3
    assert batch.labels is not None and batch.label_behavior is not None
    given = replace(batch, labels=batch.labels * early, label_behavior=batch.label_behavior * early)
    given = given.rows((batch.labels * early).any(1))
    early = early[len(early) - given.history.shape[1] :]
    other = torch.where(early | (given.history == 0), given.history, given.history % ITEMS + 1)
    gaps: dict[str, float] = {}
    for shown in (given, replace(given, history=other)):
        torch.manual_seed(3)
        terms = {name: float(value.detach()) for name, value in model.eval().loss(shown).items()}
        gaps = {name: abs(value - gaps.get(name, 0.0)) for name, value in terms.items()}
    assert min(gaps.values()) < 1e-5, (
        "uses the future: with other events after them, the labels of the first positions give another loss "
        f"(by {min(gaps.values()):.2e}); a position must not see what comes after it: look at the attention "
        "mask, at positions counted from the end, and at norms or means over time"
    )


def check_loss_moves_every_parameter(subject: Subject) -> None:
    """Loss and gradients are finite, and every parameter that wants a gradient gets one in some step."""
    model = subject.build()
    moved: set[str] = set()
    wanted: set[str] = set()
    for stage in model.stages():
        start_stage(model, stage, events())
        optimizer = make_optimizer(model, stage)
        for epoch in range(3):
            model.train().start_epoch(epoch, events())
            for batch in training_batches(stage, epoch):
                terms = train_step(model, batch, replace(stage, warmup_steps=0), optimizer)
                assert np.isfinite(list(terms.values())).all(), f"stage {stage.name}: loss terms {terms}"
                wanted |= {name for name, p in model.named_parameters() if p.requires_grad}
                moved |= _with_gradient(model, stage.name)
    assert not wanted - moved, f"no gradient in any step: {', '.join(sorted(wanted - moved))}"


def check_loss_falls_when_fitting_eight_users(subject: Subject) -> None:
    """Forty epochs over eight users lower the loss of every stage by a tenth or more.

    The last stage ends where it has fallen by twice that; earlier ones are what later ones build on.
    """
    model = subject.build()
    stages = model.stages()
    for stage in stages:
        start_stage(model, stage, events())
        quick = replace(stage, learning_rate=max(stage.learning_rate, 3e-3), warmup_steps=0)
        optimizer = make_optimizer(model, quick)
        values: list[float] = []
        for epoch in range(40):
            values.append(_epoch_loss(model, quick, optimizer, epoch))
            before, after = np.mean(values[:2]), np.mean(values[-4:])
            if stage is stages[-1] and epoch >= 5 and after < before - 0.2 * abs(before):
                break
        assert after < before - 0.1 * abs(before), (
            f"stage {stage.name}: loss {before:.4f} -> {after:.4f} in {len(values)} epochs"
        )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_scores_have_one_finite_number_per_candidate,
    check_order_of_candidates_permutes_scores,
    check_padding_does_not_change_scores,
    check_batch_mates_do_not_change_scores,
    check_shared_candidates_score_as_own_ones,
    check_eval_is_deterministic,
    check_state_dict_holds_the_whole_model,
    check_same_seed_gives_same_loss,
    check_loss_moves_every_parameter,
    check_loss_falls_when_fitting_eight_users,
    check_a_position_sees_nothing_that_comes_later,
    check_parameters_are_registered,
    check_one_behavior_is_enough,
    check_images_and_texts_may_be_absent,
    check_an_empty_target_history_is_scored,
    check_a_catalog_of_one_item_is_enough,
    check_memory_grows_no_faster_than_the_catalog,
)


WHERE = {
    "candidate order": "whether `score` pairs each score with its own candidate",
    "more padding": "sums, means and positions that count padding; batch.mask tells the events",
    "the order of the batch": "norms, means or sorting over the users of a batch",
    "the other users of the batch": "norms, means or softmaxes over the users of a batch",
    "sharing the candidates": "`score_encoded`, which gets candidates (C,) shared by all users, or (B, C)",
    "another state of the random generator": "dropout and draws that go on in eval mode",
    "loading the state dict elsewhere": "what scoring reads and state_dict does not hold: plain attributes, "
    "users kept from training; register parameters and buffers, or compute it in `set_up`",
}
"""What changed the scores -> where a model usually goes wrong."""


def run_checks(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield (name of the check, what is wrong; empty where it holds), all checks, also after a failure."""
    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            check(subject)
            yield name, ""
        except Exception as error:  # a check must not hide the ones after it
            yield name, f"{type(error).__name__}: {error}".splitlines()[0]


def _same(actual: Tensor, expected: Tensor, change: str) -> None:
    gap = float((actual - expected).abs().max())
    close = torch.allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert close, f"{change} changes scores by up to {gap:.2e}; look at {WHERE[change]}"


def _step(model: Recommender, stage: Stage) -> None:
    """Take one optimizer step of a stage."""
    start_stage(model, stage, events())
    optimizer = make_optimizer(model.train(), stage)
    model.start_epoch(0, events())
    train_step(model, next(training_batches(stage, 0)), replace(stage, warmup_steps=0), optimizer)


def _losses(model: Recommender, seed: int) -> list[float]:
    """Return the loss of the first batch of every stage."""
    torch.manual_seed(seed)
    losses = []
    for stage in model.stages():
        start_stage(model, stage, events())
        model.train().start_epoch(0, events())
        losses.append(model.loss(next(training_batches(stage, 0)))["loss"].item())
    return losses


def _with_gradient(model: Recommender, stage: str) -> set[str]:
    """Return the parameters with a gradient other than zero."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), f"stage {stage}: gradient of {name} is NaN or infinite"
    return {name for name, gradient in gradients.items() if bool(gradient.any())}


def _epoch_loss(model: Recommender, stage: Stage, optimizer: torch.optim.Optimizer, epoch: int) -> float:
    """Train for one epoch on eight users and return the mean loss of its steps."""
    model.train().start_epoch(epoch, events())
    steps = [
        train_step(model, batch, stage, optimizer)["loss"] for batch in training_batches(stage, epoch, 8)
    ]
    return float(np.mean(steps))
