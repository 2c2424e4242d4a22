import csv
import dataclasses
import io
import json
import time
from itertools import product

import numpy as np
import pytest
from rich.console import Console

from bench.config import ProtocolOptions
from bench.evaluation import metrics
from bench.evaluation.significance import paired_p_values, paired_test
from bench.experiments.record import Cell, Outcome
from bench.report.tables import (
    build,
    comparable,
    left_out,
    notes,
    show,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    write_tables,
)
from tests import records
from tests.records import FACTS, done

USERS = 4


def record(model, ranks, seed=0, family="sequential", **changes):
    cell = Cell("tiny", "f", ProtocolOptions(), "c" * 64, model, {}, "0", None, None, seed)
    own = {name: changes.pop(name) for name in list(changes) if name in Cell.__dataclass_fields__}
    cell = dataclasses.replace(cell, **own)
    arrays = {
        "test_user": np.arange(len(ranks)),
        "test_rank": np.array(ranks),
        "test_size": np.full(len(ranks), 100),
    }
    values = {
        "label": model.upper(),
        "parameters": 1500,
        "train_seconds": 10.0,
        "epochs": 3,
        "finished_at": "2025-01-01",
    }
    return done(cell, arrays, family=family, **{**values, **changes})


def failed(model, seed=0, **changes):
    return records.failed(record(model, [], seed, **changes))


def test_metrics_are_the_means_over_users_and_seeds():
    # seed 0: hits at 10 for ranks 1, 3; seed 1: for rank 10 alone. NDCG = 1 / log2(1 + rank)
    table = build([record("a", [1, 3, 11, 100]), record("a", [10, 20, 50, 60], seed=1)])
    (row,) = table.rows
    assert row.metrics["HR@10"].mean == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert row.metrics["HR@10"].std == pytest.approx(0.25 / np.sqrt(2))
    assert row.metrics["HR@20"].mean == pytest.approx((3 / 4 + 2 / 4) / 2)
    first, second = (1 + 0.5) / 4, 1 / np.log2(11) / 4
    assert row.metrics["NDCG@10"].mean == pytest.approx((first + second) / 2)
    assert row.seeds == (0, 1) and row.p is None


def test_one_seed_has_no_deviation():
    table = build([record("a", [1, 2, 3, 4])])
    assert table.rows[0].metrics["HR@10"].std is None
    assert "±" not in to_markdown(table).splitlines()[2]


def test_the_chance_level_is_that_of_the_candidates():
    table = build([record("a", [1, 2, 3, 4])], ["HR@10", "NDCG@1", "MRR"])
    harmonic = sum(1 / n for n in range(1, 101))
    assert table.chance == pytest.approx({"HR@10": 0.1, "NDCG@1": 0.01, "MRR": harmonic / 100})


def test_families_stand_in_their_order_and_models_as_given():
    rows = build(
        [record("p", [1] * 4, family="proposed"), record("z", [1] * 4), record("b", [1] * 4),
         record("h", [1] * 4, family="heuristic")]
    ).rows  # fmt: skip
    assert [row.model for row in rows] == ["h", "z", "b", "p"]


def test_best_is_bold_and_second_underlined_in_each_metric():
    lines = to_markdown(
        build([record("a", [1, 1, 15, 15]), record("b", [5, 5, 5, 50]), record("c", [90] * 4)])
    ).splitlines()
    a, b, c, chance = lines[2:6]
    assert a.startswith("| A | <u>0.5000</u> | **0.5000** | **1.0000** | **0.6250**")
    assert b.startswith("| B* | **0.7500** | <u>0.2901</u> | <u>0.7500</u> | <u>0.2901</u>")
    assert c.startswith("| C* | 0.0000 | 0.0000 |") and "**" not in chance and "<u>" not in chance


def test_the_chance_row_is_never_marked():
    text = to_markdown(build([record("a", [100] * 4)]))
    assert "| *chance* | 0.1000 |" in text


def test_a_failed_model_is_a_row_with_its_reason():
    table = build([record("a", [1, 2, 3, 4]), failed("b")])
    a, b = table.rows
    assert (a.status, b.status, b.reason, b.metrics) == ("done", "failed", "out of memory", {})
    assert "| B | failed |" in to_markdown(table) and "failed: out of memory |" in to_markdown(table)


def test_a_table_of_failures_alone_still_prints():
    table = build([failed("a"), failed("b")])
    assert table.best is None and table.chance == {}
    for text in (to_markdown(table), to_csv(table), to_latex(table), to_json(table)):
        assert "out of memory" in text or text.startswith("\\begin")


def test_a_model_with_one_failed_seed_is_partial():
    (row,) = build([record("a", [1] * 4), failed("a", seed=1)]).rows
    assert (row.status, row.seeds, row.reason) == ("partial", (0,), "seed 1: out of memory")


def test_finished_cells_that_no_row_holds_are_named():
    old = [record("a", [1] * 4, seed=s, epochs=5, finished_at="2025-01-02") for s in (0, 1)]
    new = record("a", [1] * 4, seed=1, epochs=9, finished_at="2025-01-03")
    elsewhere = record("b", [1] * 4, candidates_hash="old", finished_at="2025-01-01")
    given = [*old, new, elsewhere, failed("c", epochs=5, seed=7, finished_at="2025-01-01")]
    shown = comparable(given)
    assert left_out(given, shown) == (
        "Left out, run with other code, options or limits than their row: A seed 0 (no commit)",
        "Left out, run on other data, protocol or candidates: B",
    )
    assert left_out(shown, shown) == ()
    table = dataclasses.replace(build(shown), left_out=left_out(given, shown))
    assert table.left_out[0] in notes(table)


def test_rows_of_fewer_seeds_are_named():
    rows = [record("a", [1] * 4, seed=s) for s in (0, 1, 2)] + [record("b", [1] * 4, seed=1), failed("c")]
    assert "Seeds: 0, 1, 2; mean ± sample deviation where there are several; 1 alone: B" in notes(build(rows))
    assert "Seeds: 0, 1, 2; mean ± sample deviation where there are several" in notes(build(rows[:3]))


def test_shared_signs_give_the_p_value_of_the_exact_enumeration():
    rng = np.random.default_rng(0)
    best, others = rng.random(9), rng.random((3, 9))
    signs = np.array(list(product([-1, 1], repeat=9)))
    gaps = best - others
    exact = [np.mean(np.abs(signs @ gap) >= abs(gap.sum()) - 1e-12) for gap in gaps]
    assert paired_p_values(best, others, draws=40_000) == pytest.approx(exact, abs=0.01)
    assert paired_p_values(best, others) == pytest.approx([paired_test(best, o).p for o in others], abs=0.02)


def test_a_star_marks_rows_that_the_best_does_not_beat_significantly():
    rng = np.random.default_rng(1)
    good = rng.integers(1, 6, 300)
    close = np.where(rng.random(300) < 0.5, good, np.clip(good + rng.integers(-1, 2, 300), 1, None))
    table = build([record("best", good), record("close", close), record("bad", good + 40)])
    p = {row.model: row.p for row in table.rows}
    best = table.best
    assert best is not None and p[best] is None and p["bad"] == pytest.approx(2 / 10_001, rel=0.6)
    other = ({"best", "close"} - {best}).pop()
    assert p[other] is not None and p[other] >= 0.05
    text = to_markdown(table)
    assert f"| {other.upper()}* |" in text and "| BAD |" in text
    assert "not significantly better than this row" in text
    text = to_markdown(build([record("best", good), record("bad", good + 40)]))
    assert "BEST, the best, is significantly better than every other row" in text and "BAD*" not in text


def test_a_table_of_many_users_and_models_takes_seconds():
    rng = np.random.default_rng(2)
    records = [record(f"m{i}", rng.integers(1, 100, 20_000)) for i in range(8)]
    begun = time.perf_counter()
    build(records)
    assert time.perf_counter() - begun < 8


def test_json_has_the_agreed_form():
    table = build([record("a", [1, 2, 3, 4]), record("a", [2, 2, 3, 4], seed=1), failed("b")])
    found = json.loads(to_json(table))
    assert {"dataset", "protocol", "candidates_hash", "simulated", "rows"} <= found.keys()
    assert (found["dataset"], found["protocol"], found["candidates_hash"]) == ("tiny", "uniform99", "c" * 64)
    assert found["simulated"] is False
    wanted = {"model", "label", "status", "seeds", "metrics", "parameters", "train_seconds", "epochs",
              "score_users_per_second", "peak_memory_mb", "reason"}  # fmt: skip
    assert all(wanted <= row.keys() for row in found["rows"])
    assert found["rows"][0]["metrics"]["HR@10"] == {"mean": 1.0, "std": 0.0}
    assert (found["rows"][0]["seeds"], found["rows"][0]["epochs"]) == (2, 3)
    assert (found["rows"][1]["status"], found["rows"][1]["reason"]) == ("failed", "out of memory")


def test_csv_has_full_precision_and_a_line_a_row():
    rows = list(csv.DictReader(io.StringIO(to_csv(build([record("a", [1, 3, 11, 100]), failed("b")])))))
    assert [row["model"] for row in rows] == ["a", "b", "chance"]
    assert float(rows[0]["NDCG@10"]) == 0.375 and rows[0]["NDCG@10 std"] == "" and rows[1]["HR@10"] == ""
    assert rows[0]["candidates_hash"] == "c" * 64 and rows[1]["reason"] == "out of memory"


def test_a_row_that_the_time_limit_ended_after_few_targets_is_named_with_its_speed():
    fast = record("a", [1] * 4, targets_seen=1_000_000, targets_per_second=50_000.0, stopped="minutes")
    slow = {"targets_seen": 90_000, "targets_per_second": 750.0}
    (line,) = [
        line
        for line in notes(build([fast, record("b", [2] * 4, stopped="minutes", **slow)]))
        if "training targets" in line
    ]
    assert "1,000,000 training targets" in line and line.endswith("most: B (90,000, 750/s)")
    for other in (record("b", [2] * 4, stopped="patience", **slow), record("b", [2] * 4)):
        assert "training targets" not in "\n".join(notes(build([fast, other])))


def test_a_row_that_used_up_its_epochs_is_named_unless_the_user_set_them():
    end = "the most epochs that its options allow, not by early stopping"
    told = f"Training of a seed or more ended by {end}: "
    seeds = [record("a", [1] * 4, stopped="patience"), record("a", [1] * 4, seed=1, stopped="epochs")]
    other = record("b", [2] * 4, stopped="patience")
    assert told + "A" in notes(build([*seeds, other]))
    assert told not in "\n".join(notes(build([seeds[0], other])))
    limited = record("a", [1] * 4, epochs=3, stopped="epochs")
    assert told not in "\n".join(notes(build([limited, other])))
    assert "Limit: at most 3 epochs for A" in notes(build([limited, other]))


def test_latex_escapes_names_and_balances_its_braces():
    text = to_latex(
        build([record("a_b", [1] * 4, label="A_B & 100%", reconstruction=True), record("c", [50] * 4)])
    )
    assert r"A\_B \& 100\%$^{\dagger}$ & \textbf{1.0000}" in text and r"\underline{0.0000}" in text
    assert text.count("{") == text.count("}") and text.count(r"\begin") == text.count(r"\end") == 2


def test_the_notes_say_what_was_measured_on_what():
    records = [
        record(
            "a", [1] * 4, max_minutes=2.0, stopped="minutes", reconstruction=True, options={"hidden_size": 8}
        ),
        record("b", [2] * 4),
    ]
    text = "\n".join(notes(build(records)))
    for part in (
        "tiny, 10 users, 200 items, 1,000 events, 60 validation users, 4 test users",
        "click -> favor; mapping: pv -> click, fav -> favor",
        "image: ViT-B-32 01234567, present for 0.500 of the items; text: none",
        "candidates uniform99, hash cccccccccccc; split leave-last-out",
        "drop_target_click same_timestamp",
        "stand in the history shown already: 0.250",
        "Seeds: 0;",
        "Limit: at most 2 min for A",
        "Training ended by the time limit, not by convergence: A",
        "A (hidden_size=8)",
        "† reconstruction",
    ):
        assert part in text, part
    assert "SIMULATED" not in text


def test_simulated_data_are_named_everywhere():
    generated = record("a", [1] * 4)
    generated.dataset = dataclasses.replace(FACTS, simulated=True)
    table = build([generated])
    assert (
        "SIMULATED" in to_markdown(table) and "SIMULATED" in to_latex(table) and "SIMULATED" in _shown(table)
    )
    assert json.loads(to_json(table))["simulated"] is True and "True" in to_csv(table)


def _shown(table):
    console = Console(width=120, record=True, file=io.StringIO())
    show(table, console)
    return console.export_text()


def test_the_terminal_table_fits_120_columns_whole():
    records = [
        record("a-model-of-a-long-name", [1, 2, 3, s + 4], s, label="MB-STR + EBM (long)") for s in (0, 1, 2)
    ]
    lines = _shown(build([*records, failed("b")])).splitlines()
    row = next(line for line in lines if "MB-STR" in line)
    assert row.count("±") == 4 and "…" not in "".join(lines) and max(map(len, lines[:8])) <= 120
    assert any(line == "B failed: out of memory" for line in lines)


def test_files_are_written_whole_under_a_name_that_tells_the_protocol(tmp_path):
    table = build([record("a", [1] * 4)])
    names = [path.name for path in write_tables(table, tmp_path / "tables")]
    assert names == [f"table_tiny_uniform99.{ending}" for ending in ("md", "csv", "tex", "json")]
    changed = ProtocolOptions(candidates="full", split="global-time", candidates_seed=3)
    (path, *_) = write_tables(build([record("a", [1] * 4, protocol=changed)]), tmp_path / "tables")
    assert path.name == "table_tiny_full-global-time-candidates_seed3.md"
    assert len(list((tmp_path / "tables").iterdir())) == 8
    assert (tmp_path / "tables" / names[0]).read_text() == to_markdown(table)


def test_too_few_candidates_are_said_and_the_metrics_that_cannot_miss_are_marked():
    given = record("a", [1, 2, 3, 4])
    arrays = {**given.outcome.arrays, "test_size": np.array([7, 40, 100, 100])}
    table = build([dataclasses.replace(given, result=Outcome(arrays))], ["HR@5", "HR@7", "NDCG@10", "MRR"])
    assert table.measured == {"least_candidates": 7, "median_candidates": 70.0}
    assert table.saturated == ("HR@7", "NDCG@10")
    text = "\n".join(notes(table))
    assert "fewer than 100 where a user has too few untouched items: 7 at the least, median 70" in text
    assert "‡ HR@7, NDCG@10: the cut-off takes in all candidates of some users" in text
    assert "| Model | HR@5 | HR@7‡ | NDCG@10‡ | MRR |" in to_markdown(table)
    assert r"HR@7$^{\ddagger}$" in to_latex(table) and "HR@7‡" in _shown(table)
    assert json.loads(to_json(table))["saturated_metrics"] == ["HR@7", "NDCG@10"]
    assert to_csv(table).splitlines()[1].endswith(",7")


def test_a_full_number_of_candidates_needs_no_word():
    table = build([record("a", [1, 2, 3, 4])])
    assert table.saturated == () and "‡" not in to_markdown(table)
    assert "fewer than" not in "\n".join(notes(table))


def test_a_new_metric_is_one_entry(monkeypatch):
    monkeypatch.setitem(metrics.METRICS, "FIRST", lambda ranks, k: (ranks == k).astype(float))
    table = build([record("a", [1, 2, 3, 2])], ["first@2"])
    assert table.rows[0].metrics["FIRST@2"].mean == 0.5 and table.chance["FIRST@2"] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="expected HR@K, NDCG@K, FIRST@K or MRR"):
        build([record("a", [1, 2, 3, 2])], ["second@2"])


@pytest.mark.parametrize("name", ["HR@10", "NDCG@10", "MRR", "NDCG@3"])
def test_the_chance_level_is_the_mean_over_all_ranks(name):
    sizes = np.array([3, 7, 100, 100, 12])
    expected = np.mean([metrics.per_user(name, np.arange(1, size + 1)).mean() for size in sizes])
    assert metrics.chance_of(name, sizes) == pytest.approx(expected)


def test_commits_are_named_where_rows_were_made_by_several():
    def at(model, commit, dirty=False):
        made = record(model, [1, 2, 3, 4])
        return dataclasses.replace(
            made, environment=dataclasses.replace(made.environment, git={"commit": commit, "dirty": dirty})
        )

    one = build([at("a", "1234567890"), at("b", "1234567890")])
    assert not any(line.startswith("Made by commits") for line in notes(one))
    several = build([at("a", "1234567890"), at("b", "abcdefabcd", dirty=True), at("c", "1234567890")])
    assert "Made by commits: 1234567 (A, C); abcdefa+ (B)" in notes(several)
