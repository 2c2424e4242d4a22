"""Threads and devices."""

import os
import subprocess
import sys

import pytest
import torch

from bench.errors import UserError
from bench.training import device


@pytest.fixture
def threads():
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "jobs", "share"), [(8, 2, 4), (7, 2, 3), (2, 4, 1), (4, 1, 4)])
def test_cells_side_by_side_share_the_cores(cores, jobs, share, monkeypatch, threads):
    monkeypatch.setattr(device, "CORES", cores)
    assert device.limit_threads(jobs) == share == torch.get_num_threads()


def test_a_limit_of_the_environment_counts():
    code = "from bench.training.device import limit_threads; print(limit_threads(1))"
    limited = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=limited, capture_output=True, check=True)
    assert done.stdout.strip() == b"1"


def test_a_device_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"--device cuda:99: not available here"):
        device.pick("cuda:99")
