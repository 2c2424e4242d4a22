"""RecBole's classes behind the interface: the contract, equal scores, its catalog, and one run."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.baselines import recbole_models as catalog
from bench.cli import app
from bench.config import build_options
from bench.contract import CHECKS, Subject, events, training_batches
from bench.contract_worlds import World, build
from bench.errors import UserError
from bench.example import example_batch, example_info, example_log
from bench.interface import ItemContent
from bench.registry import select
from bench.training.step import make_optimizer, train_step

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("recbole") is None, reason="recbole is not installed"
)
NAMES = ("BPR", "LightGCN", "EASE", "MultiVAE", "CDAE", "NARM", "STAMP", "TransRec", "Pop", "NeuMF")


def subject(name: str, **options: object) -> Subject:
    (entry,) = select(f"recbole:{name}")
    kind = entry.load()
    return Subject(kind, build_options(kind.Config, {k: str(v) for k, v in options.items()}, name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, check) -> None:
    if (name, check.__name__) == ("EASE", "check_memory_grows_no_faster_than_the_catalog"):
        with pytest.raises(AssertionError, match="items by items"):  # its model is that array
            check(subject(name))
        return
    check(subject(name))


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "FISM", "NARM", "TransRec"])
def test_scores_are_those_that_recbole_predicts_for_pairs(name: str) -> None:
    model, batch = subject(name).build().eval(), example_batch()
    candidates = torch.tensor([1, 5, 7, 2]).expand(len(batch), -1)
    with torch.no_grad():
        scores = model.score(batch, candidates)
        for column, item in enumerate(candidates[0].tolist()):
            rows = {**model.row(batch), "item_id": torch.full((len(batch),), item)}
            assert torch.allclose(model.inner.predict(model.of(**rows)), scores[:, column], atol=1e-5)


def test_histories_are_padded_on_the_right_and_users_count_from_one() -> None:
    model, batch = subject("NARM", max_history=6).build(), example_batch()
    row = model.row(batch)
    for number, history in enumerate(batch.history.tolist()):
        items = [item for item in history if item][-6:]
        assert row["item_id_list"][number].tolist() == items + [0] * (6 - len(items))
        assert row["item_length"][number] == max(len(items), 1)
    assert torch.equal(row["user_id"], batch.user + 1)


def test_targets_of_a_model_that_masks_are_those_that_its_loss_counts(monkeypatch) -> None:
    model, batch = subject("BERT4Rec").build(), example_batch()
    batch = replace(batch, target=torch.ones(len(batch), dtype=torch.int64))
    given = []
    monkeypatch.setattr(model, "total", lambda interaction: given.append(interaction) or {})
    for _ in range(3):
        model.loss(batch)
        counted = sum(index > 0 for row in given[-1]["MASK_INDEX"].tolist() for index in row)
        assert model.targets_in(batch) == counted
    assert model.targets_in(batch) != len(batch)
    other = subject("NARM").build()
    other.loss(batch)
    assert other.targets_in(batch) == len(batch)


def test_the_graph_is_that_of_the_training_part() -> None:
    model = subject("LightGCN").build()
    matrix, part = model.log.inter_matrix("csr"), events()
    pairs = set(zip((part.user + 1).tolist(), part.item.tolist(), strict=True))
    assert set(zip(*matrix.nonzero(), strict=True)) == pairs and matrix.max() == 1
    table, ones, number = model.log.history_item_matrix()
    for user in range(1, model.log.user_num):
        assert set(table[user, : number[user]].tolist()) == {item for owner, item in pairs if owner == user}
    assert int(ones.sum()) == len(pairs)


def test_what_a_graph_model_kept_is_forgotten_when_its_weights_change() -> None:
    model, batch = subject("LightGCN").build().eval(), example_batch()
    candidates = torch.arange(1, 9).expand(len(batch), -1)
    with torch.no_grad():
        before = model.score(batch, candidates)
        state = {name: value * 2 for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        assert not torch.allclose(model.score(batch, candidates), before)


def test_attributes_of_items_reach_the_models_that_read_them() -> None:
    (entry,) = select("recbole:FDSA")
    kind = entry.load()
    plain = replace(example_info(), content=replace(example_info().content, attributes={}))
    with pytest.raises(UserError, match="recbole:FDSA: needs categorical attributes of items"):
        kind(kind.Config(), plain)
    codes = (np.arange(example_info().num_items + 1) % 4).astype(np.int32)
    info = replace(example_info(), content=replace(example_info().content, attributes={"brand": codes}))
    torch.manual_seed(0)
    model = kind(build_options(kind.Config, {}, "FDSA"), info)
    model.set_up(events())
    (stage,) = model.stages()
    model.loss(next(training_batches(stage, 0)))["loss"].backward()
    tables = [p for n, p in model.named_parameters() if "feature_embed" in n and p.grad is not None]
    assert tables and all(float(table.grad.abs().sum()) > 0 for table in tables)


WORKING = (
    ()
    if importlib.util.find_spec("recbole") is None
    else tuple(sorted(set(catalog.found()) - set(catalog.NOT_SUPPORTED)))
)


@pytest.mark.parametrize("name", WORKING)
def test_every_model_that_is_said_to_work_takes_a_step_and_scores(name: str) -> None:
    items = 200
    brand = (np.arange(items + 1) % 4).astype(np.int32)
    content = ItemContent(items, attributes={"brand": brand})
    world = World(example_log(), replace(example_info(), num_items=items, content=content))
    model = build(subject(name, batch_size=4) if name == "DGCF" else subject(name), world)
    for stage in model.stages():
        optimizer = make_optimizer(model.train(), stage)
        assert np.isfinite(train_step(model, next(world.batches(stage)), stage, optimizer)["loss"])
    batch = world.test_batch()
    with torch.no_grad():
        scores = model.eval().score(batch, torch.arange(1, 13).expand(len(batch), -1))
    assert scores.shape == (len(batch), 12)
    if name == "NAIS":  # as the catalog says, of users with an event in training
        scores = scores[torch.from_numpy(np.isin(batch.user.numpy(), world.events().user))]
    assert len(scores) > 5 and torch.isfinite(scores).all()
    assert name == "Pop" or float(scores.std()) > 0


def test_the_catalog_imports_neither_recbole_nor_torch() -> None:
    code = (
        "import sys; from bench.registry import select; from bench.baselines import recbole_models as c;"
        "paper = select('recbole:NARM')[0].card.paper;"
        "print(len(c.listing()), paper, 'torch' in sys.modules, 'recbole' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("64 Jing Li et al.") and done.stdout.strip().endswith("False False")


def test_every_model_is_listed_with_the_reason_where_it_does_not_work() -> None:
    rows = {name: outcome for name, _, outcome in catalog.listing()}
    assert rows["recbole:NARM"] == "works" and "faiss" in rows["recbole:NCL"]
    assert rows["recbole:FDSA"] == "works where items have attributes"
    assert len(WORKING) == sum(outcome.startswith("works") for outcome in rows.values()) == 51
    assert set(catalog.NOT_SUPPORTED) < {name.partition(":")[2] for name in rows}
    with pytest.raises(UserError, match="NCL clusters with faiss"):
        select("recbole:NCL")
    with pytest.raises(UserError, match="RecBole has no such model; .*NARM"):
        select("recbole:NARN")


def test_on_a_newer_python_the_message_says_why_it_cannot_be_installed(monkeypatch) -> None:
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    catalog.found.cache_clear()
    try:
        with pytest.raises(UserError, match=r"cannot be on Python 3.13: RecBole 1.2.1 needs ray 2.6"):
            select("recbole:BPR")
        monkeypatch.setattr(sys, "version_info", (3, 11, 9))
        with pytest.raises(UserError, match=r"run: pip install .*\[recbole\]"):
            select("recbole:BPR")
    finally:
        catalog.found.cache_clear()


def test_the_process_is_left_as_it_was() -> None:
    subject("SASRec").build()
    assert not torch.is_anomaly_enabled()  # switched on by a file of RecBole, it slows all that follows


def test_numbers_that_yaml_takes_for_words_are_numbers() -> None:
    assert catalog.number(["1e-2", "0.5", "gelu"]) == [0.01, "0.5", "gelu"]
    config = select("recbole:SASRec")[0].load().Config()
    assert config.layer_norm_eps == 1e-12 and config.hidden_act == "gelu"
    assert select("recbole:FISM")[0].load().Config().reg_weights == (0.01, 0.01)


def test_options_pass_through_and_rows_stand_in_one_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    data = ["--set", "data.users=100", "--set", "data.items=200", "--set", "data.events_per_user=12"]
    words = [
        "run", "--dataset", "synthetic", *data, "--models", "recbole:STAMP,popularity,recbole:BPR",
        "--seeds", "1", "--epochs", "2", "--set", "recbole:STAMP.embedding_size=16",
        "--results", str(tmp_path), "--json", "--jobs", "2",
    ]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["popularity", "recbole:BPR", "recbole:STAMP"]
    record = json.loads(next(tmp_path.glob("cells/*/recbole*STAMP*/record.json")).read_text())
    assert record["cell"]["options"] == {"embedding_size": 16}, record["cell"]
