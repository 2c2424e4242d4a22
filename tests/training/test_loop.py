import dataclasses
import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.interface import Next, Recommender, Stage
from bench.training.checkpoint import Checkpoint
from bench.training.data import training_data
from bench.training.loop import FitOptions, fit, make_optimizer, set_rates, train_step, validate
from bench.training.watcher import Silent

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    epochs: int = 5
    patience: int = 100
    patience_steps: int = 0
    rate: float = 0.05
    micro_batch: int | None = None
    stages: int = 1
    broken: bool = False


class Small(Recommender):
    """Mean of item vectors, with dropout so that the random state matters."""

    Config = Options

    def __init__(self, config, info):
        super().__init__(config, info)
        self.table = nn.Embedding(info.num_items + 1, 8, padding_idx=0)
        self.head = nn.Linear(8, info.num_items + 1)

    def stages(self):
        c = self.config
        given = {"epochs": c.epochs, "patience": c.patience, "micro_batch": c.micro_batch}
        stage = Stage(Next(10), c.rate, 16, patience_steps=c.patience_steps, **given)
        return tuple(dataclasses.replace(stage, name=f"s{number}") for number in range(c.stages))

    def hidden(self, batch):
        mean = self.table(batch.history).sum(1) / batch.mask.sum(1, keepdim=True).clamp(min=1)
        return nn.functional.dropout(mean, 0.3, self.training)

    def loss(self, batch):
        value = nn.functional.cross_entropy(self.head(self.hidden(batch)), batch.target)
        return {"loss": value * float("nan") if self.config.broken else value, "main": value}

    def score(self, batch, candidates):
        return self.head(self.hidden(batch)).gather(1, candidates)


def model_for(data, **options):
    torch.manual_seed(0)
    return Small(Options(**options), data.info)


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


class StopAfter(Silent):
    """Breaks the run off in the given epoch, as a kill would."""

    def __init__(self, epoch):
        self.last = epoch

    def epoch(self, stage, number, of, batches):
        if number == self.last and stage == "s1":
            raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_bit(make_task, tmp_path):
    data = training_data(make_task())
    whole = model_for(data, stages=2)
    expected = fit(whole, data, CPU, FitOptions())
    checkpoint = Checkpoint(tmp_path / "cell.pt", "key")
    with pytest.raises(KeyboardInterrupt):
        fit(model_for(data, stages=2), data, CPU, FitOptions(), StopAfter(3), checkpoint)
    torch.manual_seed(99)
    resumed = Small(Options(stages=2), data.info)
    result = fit(resumed, data, CPU, FitOptions(), checkpoint=checkpoint)
    assert [c["NDCG@10"] for c in result.curves] == [c["NDCG@10"] for c in expected.curves]
    assert [c["loss"] for c in result.curves] == [c["loss"] for c in expected.curves]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_checkpoint_of_another_cell_is_ignored(tmp_path):
    Checkpoint(tmp_path / "cell.pt", "one").save({"stage": 1})
    assert Checkpoint(tmp_path / "cell.pt", "two").load() is None
    assert Checkpoint(tmp_path / "cell.pt", "one").load()["stage"] == 1


class Harmful:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "older", "harmful"])
def test_a_checkpoint_that_cannot_be_read_is_set_aside_and_runs_no_code(make_task, tmp_path, capsys, kind):
    path, trace = tmp_path / "cell.pt", tmp_path / "trace"
    checkpoint = Checkpoint(path, "key")
    checkpoint.save({"stage": 0, "weights": {"a": torch.ones(1000)}})
    whole = path.read_bytes()
    if kind == "older":
        torch.save({"stage": 0, "key": "key"}, path)
    elif kind == "harmful":
        torch.save({"format": 2, "key": "key", "state": {"stage": Harmful(trace)}}, path)
    else:
        path.write_bytes({"cut": whole[:-500], "empty": b"", "text": b"no checkpoint"}[kind])
    data = training_data(make_task())
    result = fit(model_for(data, epochs=1), data, CPU, FitOptions(), checkpoint=checkpoint)
    assert result.epochs == 1 and not trace.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "cell.pt cannot be read" in line and "set aside as cell.pt.damaged" in line
    assert (tmp_path / "cell.pt.damaged").exists()


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


def without_validation(data):
    blind = dataclasses.replace(data.validation, targets=data.validation.targets[:0])
    return dataclasses.replace(data, validation=blind)


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
