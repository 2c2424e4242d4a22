import dataclasses

import torch

from bench.training.checkpoint import Checkpoint
from bench.training.data import training_data
from bench.training.loop import FitOptions, fit
from bench.training.watcher import Silent
from tests.training.small import CPU, Options, Small, model_for, without_validation


def test_a_model_without_stages_is_left_as_it_is(make_task):
    data = training_data(make_task())
    result = fit(model_for(data, stages=0), data, CPU, FitOptions())
    assert result.epochs == 0 and result.stopped == "none"


class TwoStages(Small):
    """Notes every call; the second stage starts from the centre that the first has learned."""

    def __init__(self, config, info):
        super().__init__(config, info)
        self.calls = []
        self.register_buffer("centre", torch.zeros(8))

    def set_up(self, events):
        self.calls.append(("set up", len(events.item)))

    def start_stage(self, stage, events):
        self.calls.append(("stage", stage, self.stage_name))
        if stage == "s1":
            self.centre.copy_(self.table.weight.mean(0).detach())

    def start_epoch(self, epoch, events):
        self.calls.append(("epoch", self.stage_name, epoch))

    def loss(self, batch):
        pulled = (self.table.weight.mean(0) - self.centre).square().sum()
        terms = super().loss(batch)
        return {**terms, "loss": terms["loss"] + 0.0 * pulled} if self.stage_name == "s1" else terms


def test_a_model_is_set_up_once_and_told_each_stage_and_epoch(make_task):
    data = training_data(make_task())
    model = TwoStages(Options(epochs=2, stages=2), data.info)
    fit(model, data, CPU, FitOptions())
    assert model.calls == [
        ("set up", len(data.events.item)),
        ("stage", "s0", "s0"), ("epoch", "s0", 0), ("epoch", "s0", 1),
        ("stage", "s1", "s1"), ("epoch", "s1", 0), ("epoch", "s1", 1),
    ]  # fmt: skip


def test_a_stage_starts_with_the_best_weights_of_the_one_before(make_task):
    data = training_data(make_task())
    torch.manual_seed(0)
    one = TwoStages(Options(epochs=3, stages=1), data.info)
    fit(one, data, CPU, FitOptions())
    torch.manual_seed(0)
    two = TwoStages(Options(epochs=3, stages=2), data.info)
    fit(two, data, CPU, FitOptions())
    assert torch.equal(two.centre, one.table.weight.mean(0)) and two.centre.abs().sum() > 0


def test_what_a_stage_derived_from_learned_weights_survives_an_interruption(make_task, tmp_path):
    class Halt(Silent):
        def epoch(self, stage, number, of, batches):
            if (stage, number) == ("s1", 2):
                raise KeyboardInterrupt

    data = training_data(make_task())

    def trained(watcher, checkpoint):
        torch.manual_seed(0)
        model = TwoStages(Options(epochs=3, stages=2), data.info)
        try:
            fit(model, data, CPU, FitOptions(), watcher, checkpoint)
        except KeyboardInterrupt:
            return None
        return model

    whole = trained(Silent(), Checkpoint(None))
    assert trained(Halt(), Checkpoint(tmp_path / "part", "key")) is None
    resumed = trained(Silent(), Checkpoint(tmp_path / "part", "key"))
    assert resumed.calls[1:] == [("stage", "s0", "s0"), ("stage", "s1", "s1"), ("epoch", "s1", 2)]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


class Ending(Small):
    """Ends its first stage after three epochs, whatever validation says."""

    seen = 0

    def stages(self):
        first, second = super().stages()
        return dataclasses.replace(first, own_end=True, patience=1), second

    def stage_is_over(self):
        self.seen += 1
        return self.seen == 3


def test_a_model_may_end_its_own_stage_and_keeps_its_last_weights(make_task):
    data = training_data(make_task())
    torch.manual_seed(0)
    model = Ending(Options(stages=2, epochs=6, rate=0.0), data.info)
    result = fit(model, data, CPU, FitOptions())
    assert [curve["stage"] for curve in result.curves] == ["s0"] * 3 + ["s1"] * 6
    torch.manual_seed(0)
    alone = Ending(Options(stages=2, epochs=6), data.info)
    alone.stages = lambda: Ending.stages(alone)[:1]
    result = fit(alone, data, CPU, FitOptions())
    assert (result.stopped, result.epochs, result.best_epoch) == ("model", 3, 3)
    again = model_for(data, epochs=3)  # the same three epochs, ended by their number
    fit(again, without_validation(data), CPU, FitOptions())
    for one, other in zip(alone.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
