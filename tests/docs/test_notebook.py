"""The notebook of the docs runs from the first cell to the last, and holds what it printed."""

import pytest

from tests.docs.documented import ROOT

nbformat = pytest.importorskip("nbformat", reason="the part [docs] is not installed")
nbclient = pytest.importorskip("nbclient", reason="the part [docs] is not installed")

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_holds_its_outputs_and_no_trace_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    numbers = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sum(len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code") >= 5
    assert "/home/" not in text and "/tmp/" not in text and "Traceback" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert (tmp_path / "results" / "cells" / "ml-100k").is_dir()
