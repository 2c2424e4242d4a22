"""The average of a stage's weights: its values, what is validated and kept, and interruptions."""

import dataclasses

import pytest
import torch

from bench.training.average import WeightAverage
from bench.training.checkpoint import Checkpoint
from bench.training.data import training_data
from bench.training.loop import FitOptions, fit, validate
from bench.training.watcher import Silent
from tests.training.small import CPU, model_for, without_validation


def test_the_average_is_a_mean_at_first_and_exponential_later():
    layer = torch.nn.Linear(1, 1, bias=False)
    average, seen = WeightAverage(layer, 0.75), []
    for value in (8.0, 4.0, 0.0, 4.0, 8.0, 2.0):
        layer.weight.data.fill_(value)
        average.update()
        seen.append(float(average.values[0]))
    by_hand = [8, 6, 4, 4, 5, 0.75 * 5 + 0.25 * 2]  # four steps of a plain mean: 1 / (1 - 0.75)
    assert seen == pytest.approx(by_hand)


def test_it_is_in_the_model_for_a_while_alone_and_leaves_what_is_frozen():
    layer = torch.nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    average = WeightAverage(layer, 0.5)
    layer.weight.data.fill_(1.0)
    average.update()
    layer.weight.data.fill_(5.0)
    average.update()
    bias = float(layer.bias.detach())
    with pytest.raises(KeyError), average.applied():
        assert float(layer.weight.detach()) == 3.0 and float(layer.bias.detach()) == bias
        raise KeyError
    assert float(layer.weight.detach()) == 5.0 and float(average.values[0]) == 3.0


def averaged(data, decay, watcher=None, checkpoint=None):
    """Return a model trained with an average of its weights, and how that went."""
    model = model_for(data, epochs=4)
    stage = dataclasses.replace(model.stages()[0], weight_average=decay)
    model.stages = lambda: (stage,)
    return model, fit(model, data, CPU, FitOptions(), watcher, checkpoint)


def test_the_kept_weights_are_the_mean_over_all_steps(make_task):
    """Against a training that is watched step by step, with a decay under which nothing is forgotten."""
    data = without_validation(training_data(make_task()))
    steps = []

    class Watching(Silent):
        def step(self, terms, samples, left):
            steps.append([p.detach().clone() for p in plain.parameters()])

    plain = model_for(data, epochs=4)
    fit(plain, data, CPU, FitOptions(), Watching())
    model, _ = averaged(data, 1 - 1e-9)
    for number, parameter in enumerate(model.parameters()):
        mean = torch.stack([one[number] for one in steps]).double().mean(0).float()
        torch.testing.assert_close(parameter.detach(), mean, rtol=1e-4, atol=1e-5)


def test_what_is_validated_is_what_is_kept(make_task):
    data = training_data(make_task())
    model, result = averaged(data, 0.9)
    assert result.best == pytest.approx(validate(model, data, CPU, 256), abs=1e-9)
    assert result.best == max(curve["NDCG@10"] for curve in result.curves)


def test_an_interrupted_training_goes_on_to_the_bit(make_task, tmp_path):
    class Halt(Silent):
        def epoch(self, stage, number, of, batches):
            if number == 2:
                raise KeyboardInterrupt

    data = training_data(make_task())
    whole, _ = averaged(data, 0.9)
    with pytest.raises(KeyboardInterrupt):
        averaged(data, 0.9, watcher=Halt(), checkpoint=Checkpoint(tmp_path / "part", "key"))
    resumed, _ = averaged(data, 0.9, checkpoint=Checkpoint(tmp_path / "part", "key"))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_stage_with_an_end_of_its_own_has_no_average(make_task):
    stage = model_for(training_data(make_task())).stages()[0]
    with pytest.raises(ValueError, match="own_end keeps the last weights"):
        dataclasses.replace(stage, own_end=True, weight_average=0.9)
