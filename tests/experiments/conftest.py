import pytest
import torch

from bench.data import library

SMALL = {"users": 120, "items": 220, "events_per_user": 12}


@pytest.fixture(scope="module")
def data_home(tmp_path_factory):
    """One prepared data set called `tiny` for all tests of a file."""
    patch = pytest.MonkeyPatch()
    patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
    library.prepare_named("synthetic", raw=None, name="tiny", overrides=SMALL)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)  # a cell takes its share of the cores
    patch.undo()
