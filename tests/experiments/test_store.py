import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from bench.config import ProtocolOptions
from bench.errors import UserError
from bench.experiments.record import Cell, Failure
from bench.experiments.store import Store
from tests.records import ENVIRONMENT, FACTS, done, failed

CELL = Cell(
    dataset="tiny",
    fingerprint="f" * 64,
    protocol=ProtocolOptions(),
    candidates_hash="c" * 64,
    model="sasrec",
    options={"hidden_size": 32, "sizes": (1, 2)},
    code_hash="0" * 64,
    epochs=None,
    max_minutes=1,
    seed=0,
)


def record_of(cell, status="done", ranks=(1, 5, 100)):
    arrays = {"test_user": [0, 1, 2], "test_rank": list(ranks), "test_size": [100] * 3}
    curves = [{"epoch": 1, "loss": np.float32(0.5), "NDCG@10": 0.25}]
    arrays = {name: np.array(values, np.int64) for name, values in arrays.items()}
    record = done(cell, arrays, "SASRec", parameters=1234, curves=curves)
    return record if status == "done" else failed(record)


def test_the_key_depends_on_every_field():
    changes = dict(
        dataset="other", fingerprint="e", protocol=ProtocolOptions(history="target"), candidates_hash="d",
        model="m", options={"hidden_size": 33}, code_hash="1", epochs=5, max_minutes=2.0, seed=1,
        total_minutes=9.0,
    )  # fmt: skip
    keys = [dataclasses.replace(CELL, **{name: value}).key for name, value in changes.items()]
    assert len({CELL.key, *keys}) == 1 + len(dataclasses.fields(Cell))


def test_the_key_does_not_depend_on_order_or_number_types():
    same = dataclasses.replace(CELL, options={"sizes": [1, 2], "hidden_size": 32}, max_minutes=1.0)
    assert same.key == CELL.key and len(CELL.key) == 64


def test_the_fields_of_the_task_ctr_are_in_the_key_of_its_cells_alone():
    assert not {"task", "ctr_negatives"} & CELL.as_dict()["protocol"].keys()
    cells = [dataclasses.replace(CELL, protocol=ProtocolOptions(task="ctr", ctr_negatives=k)) for k in (1, 2)]
    assert [cell.as_dict()["protocol"]["ctr_negatives"] for cell in cells] == [1, 2]
    assert len({CELL.key, *(cell.key for cell in cells)}) == 3


def test_records_of_two_tasks_lie_side_by_side_and_are_found_by_task(tmp_path):
    cell = dataclasses.replace(CELL, protocol=ProtocolOptions(task="ctr"))
    pairs = {"test_user": [0, 0], "test_label": [1, 0], "test_score": [0.1, -2.5]}
    judged = done(cell, {name: np.array(column) for name, column in pairs.items()})
    store = Store(tmp_path)
    store.write(record_of(CELL))
    store.write(judged)
    assert [record.key for record in store.records()] == [CELL.key]
    (found,) = store.records("ctr", dataset="tiny")
    assert (found.key, found.task) == (cell.key, "ctr")
    arrays = found.outcome.arrays
    assert {name: array.dtype for name, array in arrays.items()} == {
        "test_user": np.int32, "test_label": np.int32, "test_score": np.float32
    }  # fmt: skip
    assert arrays["test_score"].tolist() == [np.float32(0.1), -2.5]
    next(tmp_path.glob("cells/*/*/pairs.npz")).unlink()
    with pytest.raises(UserError, match="no pairs.npz beside it"):
        store.find(cell.key)


def test_a_written_record_is_found_whole(tmp_path):
    store = Store(tmp_path)
    assert store.find(CELL.key) is None
    store.write(record_of(CELL))
    found = store.find(CELL.key)
    assert found is not None
    outcome = found.outcome
    assert (found.label, found.cell.options) == ("SASRec", {"hidden_size": 32, "sizes": [1, 2]})
    assert (outcome.parameters, found.environment, found.dataset) == (1234, ENVIRONMENT, FACTS)
    assert outcome.curves == [{"epoch": 1, "loss": 0.5, "NDCG@10": 0.25}]
    ranks = outcome.arrays["test_rank"]
    assert ranks.tolist() == [1, 5, 100] and ranks.dtype == np.int32
    assert set(outcome.arrays) == {"test_user", "test_rank", "test_size"}


def test_the_folder_is_named_after_dataset_model_seed_and_key(tmp_path):
    Store(tmp_path).write(record_of(CELL))
    folder = tmp_path / "cells" / "tiny" / f"sasrec-seed0-{CELL.key[:12]}"
    assert sorted(path.name for path in folder.iterdir()) == ["ranks.npz", "record.json"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_model_names_with_odd_letters_stay_inside_the_store(tmp_path):
    cell = dataclasses.replace(CELL, model="recbole:../BPR", dataset="a/b")
    Store(tmp_path).write(record_of(cell))
    assert len(list(tmp_path.glob("cells/*/*/record.json"))) == 1
    assert Store(tmp_path).find(cell.key) is not None
    assert len(Store(tmp_path).records(dataset="a/b")) == 1


def test_a_failed_record_is_kept_but_not_found_and_the_next_run_replaces_it(tmp_path):
    store = Store(tmp_path)
    store.write(record_of(CELL, "failed"))
    assert store.find(CELL.key) is None
    (record,) = store.records()
    assert (record.status, record.result) == ("failed", Failure("out of memory"))
    with pytest.raises(ValueError, match="SASRec, seed 0, failed: out of memory"):
        record.outcome  # noqa: B018
    store.write(record_of(CELL))
    assert [r.status for r in store.records()] == ["done"]


def test_records_are_filtered_by_cell_and_own_fields(tmp_path):
    store = Store(tmp_path)
    for seed in (0, 1):
        store.write(record_of(dataclasses.replace(CELL, seed=seed)))
    store.write(record_of(dataclasses.replace(CELL, dataset="other"), "failed"))
    assert len(store.records()) == 3
    assert [r.cell.seed for r in store.records(dataset="tiny", seed=1)] == [1]
    assert len(store.records(status="failed")) == 1
    assert store.records(dataset="nowhere") == []


def test_an_interrupted_write_leaves_no_record(tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "write_text", interrupted)
        store.write(record_of(CELL))
    assert store.find(CELL.key) is None and store.records() == []
    store.write(record_of(CELL))
    assert store.find(CELL.key) is not None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "key": "x", "unknown": 2}', '{"a": 1}']
)
def test_a_damaged_record_is_one_line_with_path_and_fix(tmp_path, content):
    Store(tmp_path).write(record_of(CELL))
    path = next(tmp_path.glob("cells/*/*/record.json"))
    path.write_text(content)
    for read in (lambda: Store(tmp_path).find(CELL.key), Store(tmp_path).records):
        with pytest.raises(UserError) as error:
            read()
        assert str(path) in str(error.value) and f"delete {path.parent}" in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_or_broken_ranks_are_damage_too(tmp_path):
    store = Store(tmp_path)
    store.write(record_of(CELL))
    path = next(tmp_path.glob("cells/*/*/ranks.npz"))
    whole = path.read_bytes()
    for broken in (b"", whole[:40], whole[:60] + bytes(60) + whole[120:]):
        path.write_bytes(broken)
        found = store.find(CELL.key)
        assert found is not None
        with pytest.raises(UserError, match="damaged record"):
            [found.outcome.arrays[name] for name in ("test_rank", "test_user", "test_size")]
    path.unlink()
    with pytest.raises(UserError, match="no ranks.npz beside it"):
        store.find(CELL.key)


def test_another_format_is_named(tmp_path):
    Store(tmp_path).write(record_of(CELL))
    path = next(tmp_path.glob("cells/*/*/record.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(UserError, match="format 99, expected 1"):
        Store(tmp_path).find(CELL.key)


def test_a_record_says_when_it_was_finished_in_order(tmp_path):
    store = Store(tmp_path)
    first, second = record_of(CELL), record_of(dataclasses.replace(CELL, seed=1))
    store.write(first)
    store.write(second)
    assert first.finished_at < second.finished_at and first.finished_at.endswith("+00:00")


def _write_many(root: str) -> None:
    for _ in range(20):
        Store(Path(root)).write(record_of(CELL))


def test_two_processes_writing_one_cell_leave_one_whole_record(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(Store(tmp_path).records()) == 1
    assert sorted(path.name for path in tmp_path.glob("cells/tiny/*/*")) == ["ranks.npz", "record.json"]


def test_checkpoints_lie_beside_the_cells(tmp_path):
    assert Store(tmp_path).checkpoint_path("abc") == tmp_path / "checkpoints" / "abc.pt"
