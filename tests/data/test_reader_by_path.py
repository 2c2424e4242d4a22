"""A reader that lies anywhere is prepared, checked and listed by its path, like one of the room."""

import importlib.resources
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data import library, sources
from bench.data.example_log import write_example
from bench.errors import UserError

TEMPLATE = importlib.resources.files("bench.templates").joinpath("new_dataset.py").read_text(encoding="utf-8")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template as my_set.py, its example log beside it, and an empty home."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    write_example(tmp_path / "raw")
    (tmp_path / "my_set.py").write_text(TEMPLATE.replace("new-dataset", "my-set"))
    return tmp_path / "my_set.py"


def call(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def shown(*words: str | Path) -> str:
    """Return what a command prints, without the breaks of lines."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refused(*words: str | Path) -> str:
    with pytest.raises(UserError) as error:
        call(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_is_prepared_under_the_name_of_its_card_and_found_by_it(reader: Path, tmp_path: Path) -> None:
    sizes = json.loads(call("data", "prepare", reader, "--raw", tmp_path / "raw", "--json"))
    assert (sizes["name"], sizes["users"], sizes["simulated"]) == ("my-set", 60, True)
    data = library.open_dataset("my-set", {})
    assert data.folder == tmp_path / "home" / "my-set"
    assert data.metadata["reader"] == "my-set" and data.metadata["reader_file"] == str(reader)
    listed = {row["name"]: row for row in json.loads(call("data", "list", "--json"))}
    assert listed["my-set"]["prepared"] and str(reader) in listed["my-set"]["title"]


def test_options_and_another_name_are_taken(reader: Path, tmp_path: Path) -> None:
    words = ("data", "prepare", reader, "--raw", tmp_path / "raw", "--set", "behaviors=view,cart,like")
    sizes = json.loads(call(*words, "--name", "with-carts", "--json"))
    assert sizes["name"] == "with-carts" and list(sizes["behaviors"]) == ["view", "cart", "like"]
    assert refused(*words, "--name", "my-set").startswith("--name my-set: stands for data set 'my-set'")
    assert refused(*words, "--name", "taobao").startswith("--name taobao: stands for data set 'taobao'")


def test_its_card_is_shown_and_raw_files_are_checked_by_it(reader: Path, tmp_path: Path) -> None:
    assert json.loads(call("data", "list", reader, "--json"))["name"] == "my-set"
    log = tmp_path / "raw" / "events.csv"
    assert "900 rows, 831 events" in call("data", "check", log.parent, "--reader", reader)
    log.write_text(log.read_text() + "u1,i1,view\n")
    words = ["data", "check", str(log.parent), "--reader", str(reader)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "events.csv: row 902: 3 columns" in done.stdout


def test_a_reader_that_changed_after_the_preparation_is_said_by_the_check(reader, tmp_path) -> None:
    call("data", "prepare", reader, "--raw", tmp_path / "raw")
    assert "warning" not in call("data", "check", "my-set")
    reader.write_text(reader.read_text().replace("say in a line what it is", "another title") + "# a word\n")
    assert "warning" not in call("data", "check", "my-set")
    reader.write_text(reader.read_text().replace("FIRST, LAST = 631_152_000", "FIRST, LAST = 0"))
    assert f"warning: {reader}: the reader has changed" in call("data", "check", "my-set")
    call("data", "prepare", reader, "--raw", tmp_path / "raw")
    assert "warning" not in call("data", "check", "my-set")
    reader.unlink()
    assert "warning" not in call("data", "check", "my-set")


def test_a_reader_that_changed_after_the_preparation_is_said_before_models_are_run(reader, tmp_path) -> None:
    call("data", "prepare", reader, "--raw", tmp_path / "raw")
    words = ("run", "--models", "popularity", "--dataset", "my-set", "--seeds", "1", "--jobs", "1")
    assert "has changed since" not in shown(*words, "--dry-run")
    reader.write_text(reader.read_text().replace('"like=favor"', '"cart=favor"'))
    expected = f"warning: {reader}: the reader has changed since this was prepared"
    assert expected in shown(*words, "--dry-run")
    assert expected in shown(*words, "--results", tmp_path / "results")


def test_what_another_reader_has_prepared_under_the_name_is_not_replaced(reader, tmp_path) -> None:
    call("data", "prepare", reader, "--raw", tmp_path / "raw", "--name", "shop")
    other = tmp_path / "other_set.py"
    other.write_text(TEMPLATE.replace("new-dataset", "other-set"))
    told = refused("data", "prepare", other, "--raw", tmp_path / "raw", "--name", "shop")
    assert told.startswith(f"shop: was prepared by another reader, {reader}; choose another name by --name")
    assert library.open_dataset("shop", {}).metadata["reader"] == "my-set"
    call("data", "prepare", reader, "--raw", tmp_path / "raw", "--name", "shop")  # its own reader may


def test_a_folder_of_raw_files_does_not_hide_the_prepared_data_set_of_its_name(
    reader, tmp_path, monkeypatch
) -> None:
    call("data", "prepare", reader, "--raw", tmp_path / "raw", "--name", "raw")
    monkeypatch.chdir(tmp_path)
    assert "no fault found" in call("data", "check", "raw")
    assert "users" in call("data", "stats", "raw")


@pytest.mark.parametrize("words", [("check",), ("stats",), ("export", "--to", "atomic")], ids=lambda w: w[0])
def test_a_data_set_without_files_is_prepared_where_it_is_first_named(words, tmp_path, monkeypatch) -> None:
    pytest.importorskip("recbole", reason="recbole brings ml-100k")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    call("data", words[0], "ml-100k", *words[1:])
    assert library.prepared() == {"ml-100k": tmp_path / "home" / "ml-100k"}


def test_a_data_set_whose_files_have_to_be_brought_says_which(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    told = refused("data", "export", "taobao", "--to", tmp_path / "atomic")
    assert told.startswith("taobao: not prepared here") and "bench data prepare taobao --raw DIR" in told


def test_unfinished_work_of_another_code_is_not_gone_on_from(reader, tmp_path, monkeypatch) -> None:
    """What `select` does is no part of a stream's identity; the code of the reader is."""

    def prepare(stop: str = "") -> int:
        monkeypatch.delitem(sys.modules, sources.find(str(reader)).module, raising=False)

        def watch(stage: str, done: int, of: int) -> None:
            if stage == stop:
                raise KeyboardInterrupt

        library.prepare_named(
            str(reader), raw=tmp_path / "raw", name=None, overrides={"text": "none"}, watch=watch
        )
        return len(library.open_dataset("my-set", {"text": "none"}).interactions)

    with pytest.raises(KeyboardInterrupt):
        prepare(stop="events sorted")
    text = reader.read_text()
    kept = "select=lambda typed: events(names)(typed.filter(pl.col('user') != 'u1')),"
    reader.write_text(text.replace("select=events(names),", kept))
    without_one = prepare()
    reader.write_text(text)
    assert 0 < without_one < prepare()


def test_a_module_beside_the_reader_is_found_and_counts(reader: Path, tmp_path: Path) -> None:
    text = reader.read_text().replace(
        "import polars as pl\n", "import polars as pl\nimport my_raw_names\n", 1
    )
    reader.write_text(text.replace('("view", "cart", "like")  #', "my_raw_names.ALL  #"))
    beside = tmp_path / "my_raw_names.py"
    beside.write_text('ALL = ("view", "cart", "like")\n')
    before = sources.find(str(reader)).code_hash()
    call("data", "prepare", reader, "--raw", tmp_path / "raw")
    beside.write_text('ALL = ("view", "like")\n')
    assert sources.find(str(reader)).code_hash() != before


def test_the_path_of_a_registered_reader_is_the_registered_one() -> None:
    known = sources.registered()["taobao"]
    assert sources.find(str(known.path)) == known and not known.by_path


FAULTS = {
    "no such file": (None, "missing.py: no such file; expected a .py file with a DatasetCard and a read"),
    "no card": ("x = 1\n", "holds no DatasetCard, expected one DatasetCard; write one `CARD = DatasetCard("),
    "a card that is computed": (
        TEMPLATE.replace('name="new-dataset"', "name=str(1)"), "its card cannot be read: malformed node",
    ),
    "a card that lacks a field": (
        TEMPLATE.replace('    modalities="text (titles)",\n', ""),
        "its card cannot be read: DatasetCard.__init__() missing 1 required positional argument",
    ),
    "no Python": ("def read(:\n", "its card cannot be read: invalid syntax"),
    "a name of the room": (TEMPLATE.replace("new-dataset", "taobao"), "data set name 'taobao' is taken by"),
    "a name that is no file name": (
        TEMPLATE.replace("new-dataset", "my set"), "data set name 'my set': expected letters, digits",
    ),
    "no read": (TEMPLATE.replace("def read(", "def reads("), "holds no function `read`; write `def read("),
    "no options": (
        TEMPLATE.replace("class Options(", "class Choices(").replace(": Options", ": object"),
        "holds no dataclass `Options`; write `@dataclass(frozen=True) class Options`",
    ),
    "an option without a default": (
        TEMPLATE.replace(' = ("view=click", "like=favor")', "").replace("(LogOptions)", ""),
        "Options() fails: TypeError",
    ),
    "raises on import": (TEMPLATE + "\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
    "raises on reading": (
        TEMPLATE.replace("    names = behavior_names", "    options.colour\n    names = behavior_names"),
        "line 51: AttributeError: 'Options' object has no attribute 'colour'; --debug shows the traceback",
    ),
    "raises while the log is read": (
        TEMPLATE.replace("select=events(names)", "select=lambda typed: typed.select('users')"),
        "ColumnNotFoundError",
    ),
    "returns something else": (
        TEMPLATE.replace("    return RawData(log", "    return tuple((log"
        ).replace("simulated=made_up)", "made_up))"),
        "read returned tuple, expected RawData",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_reader_is_one_line(fault: str, reader: Path, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    path = tmp_path / "missing.py"
    if text is not None:
        path.write_text(text)
    said = refused("data", "prepare", path, "--raw", tmp_path / "raw")
    assert message in said and str(path) in said
    assert not (tmp_path / "home" / "new-dataset").exists()


def test_what_is_no_python_file_and_a_missing_raw_folder_are_one_line(reader: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("events")
    assert f"{notes}: not a .py file, expected the name" in refused("data", "prepare", notes)
    assert "did you mean 'taobao'" in refused("data", "prepare", "taobo")
    assert f"bench data prepare {reader} --raw DIR" in refused("data", "prepare", reader)
    assert "nothing there; expected: events.csv" in refused("data", "prepare", reader, "--raw", "/nowhere")


def test_a_path_in_place_of_a_prepared_data_set_says_how_to_prepare_it(reader: Path) -> None:
    said = refused("run", "--models", "popularity", "--dataset", reader)
    assert f"bench data prepare {reader} --raw DIR, then give its name, my-set" in said
