import dataclasses
import time

import pytest
import torch

from bench.errors import UserError
from bench.training.data import training_data
from bench.training.loop import FitOptions, fit, validate
from tests.training.small import CPU, model_for, without_validation


def test_training_is_repeatable_digit_for_digit(make_task):
    data = training_data(make_task())
    runs = [fit(model_for(data), data, CPU, FitOptions()).curves for _ in range(2)]
    assert [{k: v for k, v in c.items() if k != "seconds"} for c in runs[0]] == [
        {k: v for k, v in c.items() if k != "seconds"} for c in runs[1]
    ]


def test_the_loss_falls_and_the_best_weights_are_kept(make_task):
    data = training_data(make_task())
    model = model_for(data, epochs=12)
    result = fit(model, data, CPU, FitOptions())
    assert result.curves[-1]["loss"] < 0.8 * result.curves[0]["loss"]
    assert result.best == max(c["NDCG@10"] for c in result.curves)
    assert result.curves[result.best_epoch - 1]["NDCG@10"] == result.best
    assert validate(model, data, CPU, 7) == pytest.approx(result.best)
    assert not model.training


def test_patience_ends_a_stage(make_task):
    data = training_data(make_task())
    result = fit(model_for(data, epochs=100, patience=2, rate=0.0), data, CPU, FitOptions())
    assert result.stopped == "patience" and result.epochs == 3


@pytest.mark.parametrize(("steps", "epochs"), [(0, 3), (1, 3), (3, 4), (4, 5), (10**6, 11)])
def test_patience_holds_a_number_of_steps_in_at_most_five_times_its_epochs(make_task, steps, epochs):
    data = training_data(make_task())
    model = model_for(data, epochs=100, patience=2, rate=0.0)
    stages = [dataclasses.replace(stage, patience_steps=steps, batch_size=10**6) for stage in model.stages()]
    model.stages = lambda: tuple(stages)  # type: ignore[method-assign]
    assert data.batches(stages[0].view, 0).num_batches(10**6) == 1
    result = fit(model, data, CPU, FitOptions())
    assert (result.stopped, result.epochs) == ("patience", epochs)  # the first epoch is the best


def test_without_validation_training_runs_to_its_epochs_and_keeps_the_last_weights(make_task):
    data = without_validation(training_data(make_task()))
    model = model_for(data, epochs=6, patience=1)
    result = fit(model, data, CPU, FitOptions())
    assert (result.stopped, result.epochs, result.best_epoch, result.best) == ("epochs", 6, 6, None)
    assert [curve["NDCG@10"] for curve in result.curves] == [None] * 6
    longer = model_for(data, epochs=6, patience=100)
    fit(longer, data, CPU, FitOptions())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), longer.parameters(), strict=True))
    assert validate(model, data, CPU, 7) is None


def test_without_validation_the_time_limit_keeps_the_last_weights_too(make_task):
    data = without_validation(training_data(make_task()))
    result = fit(model_for(data, epochs=10**6, patience=1), data, CPU, FitOptions(max_minutes=0.01))
    assert result.stopped == "minutes" and result.best_epoch == result.epochs > 2


@pytest.mark.parametrize(("wait", "epochs"), [(1, 2), (2, 3), (3, 4)])
def test_patience_may_be_counted_in_targets_seen(make_task, wait, epochs):
    data = training_data(make_task())
    one = fit(model_for(data, epochs=1), data, CPU, FitOptions()).targets  # of an epoch
    model = model_for(data, epochs=100, patience=100, rate=0.0)
    stages = [dataclasses.replace(stage, patience_targets=wait * one) for stage in model.stages()]
    model.stages = lambda: tuple(stages)
    result = fit(model, data, CPU, FitOptions())
    assert (result.stopped, result.epochs) == ("patience", epochs)
    assert [curve["targets"] for curve in result.curves] == [one * n for n in range(1, epochs + 1)]


def test_the_time_limit_ends_training_and_leaves_weights(make_task):
    data = training_data(make_task())
    begun = time.monotonic()
    result = fit(model_for(data, epochs=10**6, patience=10**6), data, CPU, FitOptions(max_minutes=0.02))
    assert result.stopped == "minutes" and time.monotonic() - begun < 10
    assert result.epochs >= 1 and result.best_epoch >= 1


def test_every_stage_gets_its_share_of_the_time(make_task):
    data = training_data(make_task())
    model = model_for(data, epochs=10**6, patience=10**6, stages=2)
    result = fit(model, data, CPU, FitOptions(max_minutes=0.02))
    spent = {name: max(c["seconds"] for c in result.curves if c["stage"] == name) for name in ("s0", "s1")}
    assert spent["s0"] == pytest.approx(0.6, abs=0.4) and spent["s1"] > spent["s0"]


def test_a_loss_that_is_not_finite_is_an_error_naming_model_epoch_and_step(make_task):
    data = training_data(make_task())
    with pytest.raises(UserError, match="Small: the loss is nan in epoch 1, step 1"):
        fit(model_for(data, broken=True), data, CPU, FitOptions())


def test_an_optimizer_may_begin_anew_in_every_epoch(make_task):
    data = without_validation(training_data(make_task()))
    moved = []
    for fresh in (False, True):
        model = model_for(data, epochs=2)
        stage = dataclasses.replace(model.stages()[0], new_optimizer=fresh, batch_size=10**6)
        model.stages = lambda stage=stage: (stage,)
        fit(model, data, CPU, FitOptions())
        moved.append([p.detach().clone() for p in model.parameters()])
    assert not torch.equal(moved[0][0], moved[1][0])
