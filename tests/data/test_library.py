import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import bench
from bench.data import library, sources
from bench.data.preparation.check_prepared import check_prepared
from bench.data.stats import statistics
from bench.data.storage import load, read_metadata
from bench.errors import UserError

READER = """
from dataclasses import dataclass

import polars as pl

from bench.cards import DatasetCard
from bench.data.schema import RawData

CARD = DatasetCard(
    name="NAME", title="a log for tests", real=False, licence="free", published="https://example.org/log",
    files="log.csv", behaviors="click, favor", modalities="none", size="small",
    needs_raw=NEEDS_RAW, options={"keep_last": 4},
)


@dataclass(frozen=True)
class Options:
    users: int = 3
    shops: tuple[str, ...] = ("north",)
    text_size: int = 2


def read(raw, options):
    rows = [(user, item) for user in range(options.users) for item in range(6)]
    return RawData(
        events=pl.DataFrame(
            {
                "user": [user for user, _ in rows],
                "item": [item for _, item in rows],
                "behavior": ["favor" if item % 2 else "click" for _, item in rows],
                "timestamp": [item for _, item in rows],
            }
        ),
        behaviors=("click", "favor"),
        mapping=" ".join(options.shops),
        items=pl.DataFrame({"item": range(6), "title": [f"word{item}" for item in range(6)]}),
    )
"""


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Add the data sets `selfmade` and `brought` to the room, and give an empty home."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    folder = tmp_path / "room" / "datasets"
    folder.mkdir(parents=True)
    for name, needs_raw in (("selfmade", "False"), ("brought", "True")):
        text = READER.replace("NAME", name).replace("NEEDS_RAW", needs_raw)
        (folder / f"reader_{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"bench.datasets.reader_{name}", raising=False)
    monkeypatch.setattr(bench, "__path__", [*bench.__path__, str(tmp_path / "room")])
    return folder


def test_home_is_bench_data_or_the_cache_folder_of_the_system(tmp_path, monkeypatch):
    assert library.home() == tmp_path / "home"
    monkeypatch.delenv("BENCH_DATA")
    monkeypatch.setattr(Path, "home", lambda: Path("/users/ada"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert library.home() == Path("/caches/m3bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library.home() == Path("/users/ada/.cache/m3bench")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert library.home() == Path("/users/ada/Library/Caches/m3bench")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert library.home() == Path("/local/m3bench")


def test_readers_are_read_from_the_source_and_not_imported():
    cards = library.readers()
    assert {"selfmade", "brought", "ml-100k", "synthetic"} <= set(cards)
    assert list(cards) == sorted(cards)
    assert cards["brought"].needs_raw and not cards["selfmade"].needs_raw
    assert "bench.datasets.reader_selfmade" not in sys.modules


def test_two_readers_of_one_name_are_an_error(room):
    (room / "reader_twin.py").write_text((room / "reader_brought.py").read_text())
    with pytest.raises(UserError, match=r"reader_twin.py: data set name 'brought' is taken by"):
        library.readers()


def test_a_reader_of_another_package_comes_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(READER.replace("NAME", "foreign").replace("NEEDS_RAW", "False"))
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("foreign", "elsewhere", "m3bench.datasets")
    monkeypatch.setattr(sources, "entry_points", lambda group: [point] if group == point.group else [])
    assert "foreign" in library.readers() and "elsewhere" not in sys.modules
    assert len(library.open_dataset("foreign", {}).interactions) == 12


def test_an_entry_point_without_its_module_is_named(monkeypatch):
    point = EntryPoint("gone", "no_such_module_here", "m3bench.datasets")
    monkeypatch.setattr(sources, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match="entry point gone = no_such_module_here: no such module"):
        library.readers()


def test_readers_may_lie_in_a_folder(room):
    (room / "shop").mkdir()
    (room / "shop" / "__init__.py").write_text("")
    (room / "shop" / "events.py").write_text(READER.replace("NAME", "shop").replace("NEEDS_RAW", "True"))
    assert library.readers()["shop"].needs_raw


def test_a_card_that_cannot_be_read_names_its_file(room):
    (room / "broken.py").write_text("CARD = DatasetCard(name=str(1))")
    with pytest.raises(UserError, match=r"broken.py: its card cannot be read"):
        library.readers()


def test_a_variant_has_a_folder_of_its_own_that_does_not_depend_on_order_or_spelling(tmp_path):
    home = tmp_path / "home"
    assert library.folder("ml", {}) == home / "ml"
    first = library.folder("ml", {"keep_last": "4", "flag": True, "shops": ("a", "b"), "limit": None})
    assert first == library.folder("ml", {"limit": "null", "shops": "a,b", "flag": "true", "keep_last": 4})
    assert re.fullmatch(r"ml-[0-9a-f]{8}", first.name)
    assert first != library.folder("ml", {"keep_last": "5", "flag": True, "shops": ("a", "b"), "limit": None})


def test_a_self_made_data_set_prepares_itself_once(tmp_path):
    dataset = library.open_dataset("selfmade", {})
    assert dataset.folder == tmp_path / "home" / "selfmade"
    assert len(dataset.interactions) == 12  # 3 users, the last 4 events by the card
    assert library.prepared() == {"selfmade": tmp_path / "home" / "selfmade"}
    stamp = (dataset.folder / "dataset.json").stat().st_mtime_ns
    assert library.open_dataset("selfmade", {}).fingerprint == dataset.fingerprint
    assert (dataset.folder / "dataset.json").stat().st_mtime_ns == stamp


def test_overrides_reach_reader_filters_and_encoders_as_typed_values():
    overrides = {"users": "2", "shops": "north,south", "keep_last": "null", "text": "none"}
    dataset = library.open_dataset("selfmade", overrides)
    assert dataset.name == library.folder("selfmade", overrides).name
    assert dataset.interactions.num_users == 2
    assert len(dataset.interactions) == 12
    assert dataset.metadata["mapping"] == "north south"
    assert dataset.metadata["reader_options"]["users"] == 2
    assert dataset.metadata["prepare_options"]["keep_last"] is None
    assert dataset.content.features == {}


def test_an_option_of_reader_and_encoder_is_set_in_both():
    metadata = read_metadata(library.resolve("selfmade", {"text_size": "7"}))
    assert metadata["reader_options"]["text_size"] == 7
    assert metadata["encoder_options"]["text_size"] == 7
    assert metadata["encoders"]["text"]["dim"] == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"keep_lst": "4"}, "no option 'keep_lst'; did you mean 'keep_last'?"),
        ({"users": "many"}, "users = 'many': expected a whole number"),
        ({"text": "bert"}, "text = 'bert': expected one of tfidf-svd, clip, none"),
        ({"min_events": "0"}, "must be 1 or more"),
    ],
)
def test_a_wrong_option_is_said_and_nothing_is_prepared(overrides, message):
    with pytest.raises(UserError, match=re.escape(message)):
        library.open_dataset("selfmade", overrides)
    assert library.prepared() == {}


def test_a_data_set_to_be_brought_says_what_it_is_where_it_is_and_how_to_prepare_it():
    with pytest.raises(UserError) as caught:
        library.open_dataset("brought", {"users": 2})
    message = str(caught.value)
    parts = ("brought: not prepared", "a log for tests", "https://example.org/log", "log.csv")
    assert all(part in message for part in parts)
    assert message.endswith("bench data prepare brought --raw DIR --set users=2")
    assert "\n" not in message


def test_a_brought_data_set_is_found_after_its_preparation_with_and_without_a_name(tmp_path):
    library.prepare_named("brought", raw=tmp_path, name=None, overrides={})
    library.prepare_named("brought", raw=tmp_path, name=None, overrides={"users": "2"})
    library.prepare_named("brought", raw=tmp_path, name="brought-two", overrides={"users": "2"})
    assert library.open_dataset("brought", {}).interactions.num_users == 3
    assert library.open_dataset("brought", {"users": 2}).interactions.num_users == 2
    named = library.open_dataset("brought-two", {})
    assert (named.name, named.interactions.num_users) == ("brought-two", 2)
    with pytest.raises(UserError, match=r"prepared with other options: brought-[0-9a-f]{8}, brought-two"):
        library.resolve("brought", {"users": 9})
    with pytest.raises(UserError, match=r"brought-two: is prepared already, so data.users cannot change it"):
        library.resolve("brought-two", {"users": 9})


def test_a_missing_raw_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--raw .*nowhere: nothing there; expected: log.csv"):
        library.prepare_named("brought", raw=tmp_path / "nowhere", name=None, overrides={})
    with pytest.raises(UserError, match=r"bench data prepare brought --raw DIR"):
        library.prepare_named("brought", raw=None, name=None, overrides={})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "-x"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"--name .*: expected letters, digits"):
        library.prepare_named("selfmade", raw=None, name=name, overrides={})


def test_the_name_of_another_data_set_or_of_the_usual_preparation_is_refused():
    for reader, name, overrides in (("selfmade", "ml-100k", {}), ("selfmade", "selfmade", {"users": "2"})):
        with pytest.raises(UserError, match=rf"--name {name}: stands for data set"):
            library.prepare_named(reader, raw=None, name=name, overrides=overrides)


def test_an_unknown_name_gets_a_hint_over_readers_and_prepared_folders():
    library.prepare_named("selfmade", raw=None, name="winter-log", overrides={})
    with pytest.raises(UserError, match=r"selfmad: no such data set; did you mean 'selfmade'\?"):
        library.open_dataset("selfmad", {})
    with pytest.raises(UserError, match=r"did you mean 'winter-log'\?"):
        library.resolve("winter-lok", {})
    with pytest.raises(
        UserError, match=r"selfmad: no data set of this name can be prepared; did you mean 'selfmade'\?"
    ):
        library.prepare_named("selfmad", raw=None, name=None, overrides={})


def test_unfinished_and_outdated_folders_are_not_prepared_data_sets():
    done = library.resolve("selfmade", {})
    text = (done / "dataset.json").read_text()
    for name in (".partial-here-12-00000000-selfmade", "outdated", "empty"):
        (done.parent / name).mkdir()
        if name != "empty":
            content = text.replace('"format": 3', '"format": 2') if name == "outdated" else text
            (done.parent / name / "dataset.json").write_text(content)
    assert list(library.prepared()) == ["selfmade"]


def test_a_data_folder_with_brackets_in_its_name_works(tmp_path, monkeypatch):
    for name in ("my data [v2]", "a*b?c"):
        monkeypatch.setenv("BENCH_DATA", str(tmp_path / name))
        dataset = library.open_dataset("selfmade", {})
        assert len(dataset.interactions) == 12 and list(library.prepared()) == ["selfmade"]
        assert statistics(dataset.folder)["users"] == 3 and not check_prepared(dataset.folder)


def test_a_reader_that_fails_to_import_is_named(room):
    path = room / "reader_selfmade.py"
    path.write_text(path.read_text().replace("import polars as pl", "import no_such_module"))
    with pytest.raises(
        UserError, match=r"bench.datasets.reader_selfmade: cannot be imported: ModuleNotFoundError"
    ):
        library.open_dataset("selfmade", {})


def test_resolving_returns_the_folder_that_opening_loads():
    assert (
        load(library.resolve("selfmade", {})).fingerprint == library.open_dataset("selfmade", {}).fingerprint
    )


def test_the_library_imports_neither_torch_nor_a_reader():
    code = "import sys; from bench.data import library; library.readers(); print(*sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "bench.data.library" in modules
    heavy = {"torch", "sklearn", "scipy", "open_clip", "bench.datasets", "bench.data.preparation.encoders"}
    assert not heavy & set(modules)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_data_folder_that_is_a_file_is_named_before_anything_is_read(tmp_path, monkeypatch, below):
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "taken" / below))
    with pytest.raises(UserError, match=r"data folder \(BENCH_DATA\) .*taken is a file, expected a folder"):
        library.open_dataset("selfmade", {})
    assert (tmp_path / "taken").read_text() == "mine"
