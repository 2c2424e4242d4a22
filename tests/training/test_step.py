import dataclasses

import pytest
import torch

from bench.training.data import training_data
from bench.training.step import make_optimizer, set_rates, train_step
from tests.training.small import model_for


def test_micro_batches_give_the_gradient_of_the_whole_batch(make_task):
    data = training_data(make_task())
    grads = []
    for size in (None, 5):
        model = model_for(data, micro_batch=size).eval()  # eval: dropout draws would differ
        stage = model.stages()[0]
        batch = next(iter(data.batches(stage.view, 0).epoch(0, 16)))
        train_step(model, batch, dataclasses.replace(stage, learning_rate=0.0), make_optimizer(model, stage))
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_parameters_do_not_move_and_decay_spares_biases(make_task):
    data = training_data(make_task())
    model = model_for(data)
    stage = dataclasses.replace(model.stages()[0], frozen=("table",), weight_decay=0.1, optimizer="adamw")
    optimizer = make_optimizer(model, stage)
    batch = next(iter(data.batches(stage.view, 0).epoch(0, 16)))
    before = model.table.weight.clone(), model.head.weight.clone()
    train_step(model, batch, stage, optimizer)
    assert torch.equal(before[0], model.table.weight) and not torch.equal(before[1], model.head.weight)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(p.dim() < 2 for p in optimizer.param_groups[1]["params"])


def test_warm_up_raises_the_rate_linearly(make_task):
    data = training_data(make_task())
    model = model_for(data)
    stage = dataclasses.replace(model.stages()[0], warmup_steps=4, learning_rate=0.4)
    optimizer = make_optimizer(model, stage)
    batch = next(iter(data.batches(stage.view, 0).epoch(0, 16)))
    rates = []
    for _ in range(6):
        train_step(model, batch, stage, optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_the_rate_falls_with_the_root_of_the_steps(make_task):
    data = training_data(make_task())
    model = model_for(data)
    stage = dataclasses.replace(model.stages()[0], warmup_steps=2, decay_after=4, learning_rate=0.4)
    optimizer = make_optimizer(model, stage)
    rates = []
    for _ in range(16):
        set_rates(optimizer, stage)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4 * (4 / 5) ** 0.5])
    assert rates[15] == pytest.approx(0.4 * (4 / 16) ** 0.5)


def test_parameters_may_have_a_learning_rate_of_their_own(make_task):
    data = training_data(make_task())
    model = model_for(data)
    stage = dataclasses.replace(model.stages()[0], warmup_steps=2, rates=(("head.", 0.5),), learning_rate=0.1)
    optimizer = make_optimizer(model, stage)
    batch = next(iter(data.batches(stage.view, 0).epoch(0, 16)))
    before = [p.detach().clone() for p in model.parameters()]
    train_step(model, batch, stage, optimizer)  # Adam's first step is as long as the rate; warm-up halves it
    longest = [float((p.detach() - b).abs().max()) for p, b in zip(model.parameters(), before, strict=True)]
    assert longest == pytest.approx([0.05, 0.25, 0.25], rel=1e-3)
