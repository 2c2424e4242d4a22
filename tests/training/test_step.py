import dataclasses

import pytest
import torch
from torch import nn

from bench.interface import Next, Stage
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


class Turned(nn.Module):
    """Parameters whose gradients autograd makes transposed, expanded and whole."""

    def __init__(self):
        super().__init__()
        self.whole = nn.Parameter(torch.randn(6, 4))
        self.turned = nn.Parameter(torch.randn(5, 3).T)
        self.summed = nn.Parameter(torch.randn(3, 5))

    def forward(self):
        product = self.whole.T @ torch.arange(12.0).view(6, 2)
        return product.square().sum() + (self.turned @ self.summed.T).sum() + self.summed.sum()


@pytest.mark.parametrize("kind", ["adam", "adamw", "adagrad"])
def test_optimizers_move_weights_by_their_formulas_however_gradients_lie_in_memory(kind):
    torch.manual_seed(0)
    model = Turned()
    stage = Stage(Next(10), 0.1, 16, optimizer=kind, weight_decay=0.02 if kind != "adagrad" else 0.0)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in expected.items()}
    second = {name: torch.zeros_like(p) for name, p in expected.items()}
    optimizer = make_optimizer(model, stage)
    for step in range(1, 4):
        optimizer.zero_grad()
        model().backward()
        for name, parameter in model.named_parameters():
            value, grad = expected[name], parameter.grad.double()
            if kind == "adagrad":  # Duchi et al. 2011
                second[name] += grad.square()
                expected[name] = value - 0.1 * grad / (second[name].sqrt() + 1e-6)
                continue
            value = value * (1 - 0.1 * 0.02) if kind == "adamw" else value  # decoupled decay
            grad = grad + 0.02 * expected[name] if kind == "adam" else grad
            first[name] = 0.9 * first[name] + 0.1 * grad  # Kingma and Ba 2015
            second[name] = 0.999 * second[name] + 0.001 * grad.square()
            rise = first[name] / (1 - 0.9**step)
            expected[name] = value - 0.1 * rise / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
        optimizer.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), expected[name], atol=1e-5, rtol=1e-5)
