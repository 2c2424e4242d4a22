"""`bench data` from raw files to a trained table, as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UserError

LOG = "".join(
    f"{user},{item},{item % 7},{'fav' if item % 3 == 0 else 'pv'},{1511539200 + 60 * item + user}\n"
    for user in range(12)
    for item in range(user, user + 9)
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "home"))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "UserBehavior.csv").write_text(LOG)
    return tmp_path / "home"


def bench(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str | Path) -> str:
    """Return the one line that a command says before it ends with exit code 2."""
    with pytest.raises(UserError) as error:
        bench(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def spoiled(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "UserBehavior.csv"
    path.write_text(LOG + "1,2,3,pv\n5,6,7,view,1511539300\n")
    return path.parent


def test_a_log_is_prepared_and_described(tmp_path):
    found = json.loads(bench("data", "prepare", "taobao", "--raw", tmp_path / "raw", "--json"))
    assert (found["users"], found["interactions"]) == (12, 108)
    assert found["behaviors"] == found["raw_behaviors"] == {"click": 72, "favor": 36}
    assert "72 of 72 raw; per user: mean 6.00" in bench("data", "stats", "taobao")
    listed = {row["name"]: row for row in json.loads(bench("data", "list", "--json"))}
    assert listed["taobao"]["prepared"] and not listed["kuaishou"]["prepared"]
    assert all(row["size"] and row["published"] and row["licence"] for row in listed.values() if row["real"])


def test_malformed_rows_stop_the_preparation_or_are_counted(tmp_path, home):
    raw = spoiled(tmp_path)
    told = refused("data", "prepare", "taobao", "--raw", raw)
    assert "row 109" in told and "row 110" in told and "--on-bad-row skip" in told
    assert not (home / "taobao").exists()
    found = json.loads(bench("data", "prepare", "taobao", "--raw", raw, "--on-bad-row", "skip", "--json"))
    assert found["interactions"] == 108 and found["dropped"]["malformed rows"] == 2
    assert "row 109: 4 columns" in found["first_malformed_rows"][0]
    shown = " ".join(bench("data", "stats", "taobao").split())  # found under its usual name
    assert shown.count("row 1") == 2


def test_raw_files_are_checked_without_preparing_them(tmp_path, home):
    sound = bench("data", "check", tmp_path / "raw", "--reader", "taobao")
    assert "108 rows, 108 events" in sound and "no fault found" in sound
    words = ["data", "check", str(spoiled(tmp_path)), "--reader", "taobao"]
    faulty = CliRunner().invoke(app, words)
    assert faulty.exit_code == 2
    assert "row 109: 4 columns in '1,2,3,pv'" in faulty.stdout and "row 110: behavior 'view'" in faulty.stdout
    assert not home.exists()
    assert "--reader NAME" in refused("data", "check", tmp_path / "raw")


def test_the_card_of_a_data_set_is_shown_and_an_unknown_one_gets_a_hint():
    shown = bench("data", "list", "rec_tmall")
    assert "tianchi" in shown.lower() and "72" in shown
    assert "did you mean 'taobao'" in refused("data", "list", "taobo")


def test_the_distributions_are_drawn(tmp_path):
    bench("data", "prepare", "taobao", "--raw", tmp_path / "raw")
    bench("data", "stats", "taobao", "--figure", tmp_path / "figures")
    assert (tmp_path / "figures" / "dataset_taobao.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures" / "dataset_taobao.pdf").stat().st_size > 5000


def test_simulated_kuaishou_goes_the_whole_way_to_a_table_that_says_so(tmp_path):
    raw, results = tmp_path / "simulated", tmp_path / "results"
    bench("data", "simulate", "kuaishou", "--out", raw, "--scale", "0.01")
    found = json.loads(bench("data", "prepare", "kuaishou", "--raw", raw, "--json"))
    assert abs(found["users"] - 227.93) < 0.02 * 227.93 and abs(found["items"] - 6185.29) < 0.02 * 6185.29
    assert (
        found["simulated"] and found["modalities"]["image"] > 0.99 and 0.3 < found["modalities"]["text"] < 1
    )
    assert found["paper"]["items"] == 618_529
    quick = ("--set", "hidden_size=16", "--set", "max_history=10", "--seeds", "1", "--epochs", "1")
    table = bench(
        "run", "--models", "sasrec,m3bsr", "--dataset", "kuaishou", *quick, "--results", results, "--json"
    )
    told = json.loads(table)
    assert told["simulated"] and [row["status"] for row in told["rows"]] == ["done", "done"]
    again = bench("run", "--models", "sasrec,m3bsr", "--dataset", "kuaishou", *quick, "--results", results)
    assert "simulated" in again.lower()


def test_a_simulation_is_refused_where_it_would_overwrite_or_is_unknown(tmp_path):
    assert "not empty" in refused("data", "simulate", "rec_tmall", "--out", tmp_path / "raw")
    assert "rec_tmall" in refused("data", "simulate", "rec_tmal", "--out", tmp_path / "x")
    assert "scale" in refused("data", "simulate", "kuaishou", "--out", tmp_path / "x", "--scale", "0")


@pytest.mark.parametrize("name", ["v1.5", "a.b.c"])
def test_a_data_set_name_may_hold_dots(tmp_path, monkeypatch, name):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    results = ("--results", str(tmp_path / "results"))
    for words in (
        ("data", "prepare", "synthetic", "--name", name, "--set", "users=100", "--set", "items=200"),
        ("data", "check", name), ("data", "stats", name, "--figure", str(tmp_path / "figures")),
        ("run", "--dataset", name, "--models", "popularity", "--seeds", "1", *results),
        ("table", "--dataset", name, *results),
    ):  # fmt: skip
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, (words, done.output)
    assert (tmp_path / "results" / "tables" / f"table_{name}_uniform99.csv").is_file()
    assert (tmp_path / "figures" / f"dataset_{name}.png").is_file()


@pytest.mark.parametrize("name", ["kuaishou", "rec_tmall"])
def test_a_set_that_nobody_can_download_offers_the_simulated_one(tmp_path, monkeypatch, name):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=f"SIMULATED: bench data simulate {name} --out DIR --scale 0.01"):
        CliRunner().invoke(app, ["data", "prepare", name], catch_exceptions=False)
    with pytest.raises(UserError) as error:
        CliRunner().invoke(app, ["data", "prepare", "tmall"], catch_exceptions=False)
    assert "SIMULATED" not in str(error.value)
