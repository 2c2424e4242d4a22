import pytest
import torch

from bench.training.checkpoint import Checkpoint
from bench.training.data import training_data
from bench.training.loop import FitOptions, fit
from tests.training.small import CPU, Options, Small, StopAfter, model_for


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
