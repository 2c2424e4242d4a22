import os
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import bench
from bench import registry
from bench.config import build_options, flatten
from bench.errors import UserError

ROOT = Path(bench.__file__).parent
EXAMPLE = Path(__file__).parent / "files" / "newest_item.py"
CARD = 'Card(name="{}", label="M", model="{}", family="{}", paper="p", year={}, inputs="i"{})\n'


def card(name, model="Model", family="sequential", year=2020, rest=""):
    return CARD.format(name, model, family, year, rest)


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """A checkout with rooms of its own, in place of the real ones."""
    (tmp_path / "models").mkdir()
    (tmp_path / "baselines").mkdir()
    monkeypatch.setattr(bench, "__path__", [str(tmp_path)])
    return tmp_path


def test_models_are_found_in_files_and_packages_of_both_rooms(rooms):
    (rooms / "baselines" / "one.py").write_text("CARD = " + card("one") + "OTHER = " + card("one-ce"))
    (rooms / "baselines" / "_draft.py").write_text("CARD = " + card("draft"))
    (rooms / "models" / "big").mkdir()
    (rooms / "models" / "big" / "__init__.py").write_text(
        f"CARDS = ({card('big', family='proposed').strip()},)"
    )
    (rooms / "models" / "big" / "part.py").write_text("CARD = " + card("part"))
    found = registry.entries()
    assert {name: entry.module for name, entry in found.items()} == {
        "one": "bench.baselines.one",
        "one-ce": "bench.baselines.one",
        "big": "bench.models.big",
    }


def test_models_stand_in_the_order_family_year_name(rooms):
    cards = [
        ("b", "multimodal", 2020), ("a", "proposed", 2019), ("d", "sequential", 2018),
        ("c", "sequential", 2018), ("e", "sequential", 2016),
        ("f", "heuristic", 2030), ("g", "multibehavior", 2000),
    ]  # fmt: skip
    for name, family, year in cards:
        (rooms / "models" / f"{name}.py").write_text("CARD = " + card(name, family=family, year=year))
    assert list(registry.entries()) == ["f", "e", "c", "d", "b", "g", "a"]
    assert [entry.card.name for entry in registry.select("a,d,e")] == ["e", "d", "a"]


def test_a_name_taken_twice_names_both_files(rooms):
    for room in registry.ROOMS:
        (rooms / room / "x.py").write_text("CARD = " + card("same"))
    with pytest.raises(UserError, match=r"baselines/x.py: model 'same' is in .*models/x.py too"):
        registry.entries()


@pytest.mark.parametrize("text", ["CARD = Card(name=NAME)", "CARD = Card(name='x')", "def broken("])
def test_a_card_that_cannot_be_read_names_the_file(rooms, text):
    (rooms / "models" / "x.py").write_text(text)
    with pytest.raises(UserError, match="models/x.py: card not readable"):
        registry.entries()


def test_an_unknown_family_is_refused(rooms):
    (rooms / "models" / "x.py").write_text("CARD = " + card("x", family="sequencial"))
    with pytest.raises(UserError, match="did you mean 'sequential'"):
        registry.entries()


def test_an_entry_point_brings_the_one_class_it_names(rooms, tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(
        "A = " + card("theirs", "Theirs") + "B = " + card("hidden", "Hidden")
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", "their_package:Theirs", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "m3bench.models" else [])
    assert {name: entry.module for name, entry in registry.entries().items()} == {"theirs": "their_package"}
    assert "their_package" not in sys.modules


def test_an_entry_point_without_its_module_is_named(rooms, monkeypatch):
    point = EntryPoint("gone", "no_such_module_here:Model", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match="entry point gone = no_such_module_here:Model"):
        registry.entries()


def test_all_families_names_and_paths_may_be_mixed_each_once():
    everything = registry.select("all")
    ranked = [name for name, entry in registry.entries().items() if "rank" in entry.card.tasks]
    assert [entry.card.name for entry in everything] == ranked
    mixed = registry.select(f"sasrec, heuristic,{EXAMPLE},sasrec")
    names = [entry.card.name for entry in mixed]
    assert {entry.card.family for entry in mixed[:-2]} == {"heuristic"}
    assert names[-2:] == ["sasrec", "newest-item"]


def test_an_unknown_model_gets_a_hint():
    with pytest.raises(UserError, match=r"--models sasrek: no such model or family; did you mean 'sasrec'"):
        registry.select("sasrek")


def test_choosing_nothing_is_refused():
    with pytest.raises(UserError, match="no model chosen"):
        registry.select(" , ")


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="--models nowhere/mine.py: no such file"):
        registry.select("nowhere/mine.py")


def test_a_file_without_a_card_says_what_to_write(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"holds no Card; write `CARD = Card\(name="):
        registry.select(str(tmp_path / "mine.py"))


def test_a_given_file_may_not_take_a_registered_name(tmp_path):
    (tmp_path / "mine.py").write_text("CARD = " + card("sasrec"))
    with pytest.raises(UserError, match=r"'sasrec' is taken by .*sasrec.py"):
        registry.select(str(tmp_path / "mine.py"))


def test_the_path_of_a_registered_file_is_the_registered_model():
    known = registry.entries()["sasrec"]
    assert known in registry.select(str(known.path)) and registry.select(
        f"{known.path},all"
    ) == registry.select("all")


def test_a_given_file_is_imported_once_under_a_stable_name():
    (entry,) = registry.select(str(EXAMPLE))
    (again,) = registry.select(os.path.relpath(EXAMPLE))
    assert entry == again
    kind = entry.load()
    assert kind is again.load() and kind.__module__ == entry.module
    assert pickle.loads(pickle.dumps(kind.Config(hidden_size=8))) == kind.Config(hidden_size=8)


def test_a_pickled_entry_loads_in_another_process(tmp_path):
    (entry,) = registry.select(str(EXAMPLE))
    (tmp_path / "entry").write_bytes(pickle.dumps(entry))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'entry')!r}, 'rb')).load().__name__)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "NewestItem"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "no class 'Model', named by card 'mine'"),
        ("class Model: pass\n", "'Model' is not a Recommender subclass"),
        (
            "import no_such_library\n",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, body, message):
    (tmp_path / "mine.py").write_text("from bench.interface import Card\nCARD = " + card("mine") + body)
    (entry,) = registry.select(str(tmp_path / "mine.py"))
    with pytest.raises(UserError) as error:
        entry.load()
    assert message in str(error.value) and str(tmp_path / "mine.py") in str(error.value)


def test_listing_and_hashing_import_no_heavy_library():
    code = "import sys, bench.registry as r; [e.code_hash() for e in r.select('all')]; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert not {"torch", "pandas", "sklearn", "matplotlib", "optuna", "polars"} & set(done.stdout.split())


def test_every_registered_model_has_a_whole_card():
    for name, entry in registry.entries().items():
        assert name == name.lower() and entry.card.label and entry.card.paper and entry.card.inputs, name


def test_all_leaves_out_what_belongs_to_another_task_or_is_chosen_by_name_alone():
    ranked, clicked = ({e.card.name for e in registry.select("all", task)} for task in ("rank", "ctr"))
    assert {"sasrec", "m3bsr", "diff_msin"} <= ranked & clicked
    assert clicked - ranked == {"din", "dnn"}
    assert "m3bsr-printed" not in ranked | clicked | {e.card.name for e in registry.select("proposed")}
    assert [e.card.name for e in registry.select("m3bsr-printed,dnn")] == ["dnn", "m3bsr-printed"]


@pytest.mark.parametrize("entry", registry.entries().values(), ids=lambda entry: entry.card.name)
def test_every_trained_model_states_a_search_space_of_options_that_it_has(entry: registry.Entry) -> None:
    kind = entry.load().Config
    known = flatten(build_options(kind, entry.card.options, entry.card.name))
    assert bool(entry.card.search) is ("learning_rate" in known)
    for option, values in entry.card.search.items():
        assert option in known, option
        for value in values:
            build_options(kind, {**entry.card.options, option: value}, entry.card.name)


def test_a_search_space_needs_two_values() -> None:
    card = next(iter(registry.entries().values())).card
    with pytest.raises(ValueError, match="two values or more"):
        replace(card, search={"learning_rate": (0.1,)})
