import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.config import ProtocolOptions
from bench.experiments.record import Cell
from bench.report.tables import build, notes, to_csv, to_json, to_latex, to_markdown, write_tables
from tests.records import done, failed

USERS = 300
CTR = ProtocolOptions(task="ctr")


def record(model, skill, seed=0):
    """Pairs 1:1; the score is the label times `skill` plus noise."""
    cell = Cell("tiny", "f", CTR, "c" * 64, model, {}, "0", None, None, seed)
    rng = np.random.default_rng([seed, *model.encode()])
    arrays = {}
    for part in ("test", "validation"):
        label = np.tile([1, 0], USERS)
        arrays[f"{part}_user"] = np.repeat(np.arange(USERS), 2)
        arrays[f"{part}_label"] = label
        arrays[f"{part}_score"] = (rng.standard_normal(2 * USERS) + skill * label).astype(np.float32)
    return done(cell, arrays, model.upper(), "ctr")


def test_values_are_means_over_seeds():
    runs = [record("a", 1.0, seed) for seed in (0, 1)]
    (row,) = build(runs).rows
    arrays = [run.outcome.arrays for run in runs]
    aucs = [roc_auc_score(one["test_label"], one["test_score"]) for one in arrays]
    assert row.metrics["AUC"].mean == pytest.approx(np.mean(aucs))
    assert row.metrics["AUC"].std == pytest.approx(np.std(aucs, ddof=1))
    assert set(row.metrics) == {"AUC", "GAUC", "LogLoss"} and row.seeds == (0, 1)


def test_the_lowest_logloss_is_bold_and_the_next_underlined():
    table = build([record("good", 2.0), record("fair", 1.0), record("bad", 0.2)])
    lines = to_markdown(table).splitlines()
    good, fair, bad, chance = lines[2:6]
    assert good.count("**") == 6 and good.startswith("| GOOD | **")
    assert fair.count("<u>") == 3 and "**" not in fair
    assert "**" not in bad + chance and "<u>" not in bad + chance
    assert table.ranking("LogLoss") == sorted(table.ranking("LogLoss"))
    assert chance.startswith("| *chance* | 0.5000 | 0.5000 | 0.6931 |")


def test_the_best_is_tested_by_a_bootstrap_on_auc():
    table = build([record("good", 2.0), record("twin", 2.0), record("bad", 0.2)])
    p = {row.model: row.p for row in table.rows}
    other = ({"good", "twin"} - {table.best}).pop()
    assert p[table.best] is None and p[other] >= 0.05 and p["bad"] < 0.01
    text = to_markdown(table)
    assert f"| {other.upper()}* |" in text and "| BAD |" in text
    assert "paired bootstrap over users on AUC, Holm-corrected" in text


def test_the_notes_say_what_a_pair_is_and_how_scores_become_probabilities():
    text = "\n".join(notes(build([record("a", 1.0)])))
    for part in (
        "the first 1 of its untouched candidates (label 0)",
        "never at random",
        "Platt calibration, two parameters fitted on the validation pairs",
        "best validation NDCG@10",
    ):
        assert part in text, part


def test_every_form_tells_the_task():
    table = build([record("a", 1.0), failed(record("b", 0.5))])
    found = json.loads(to_json(table))
    assert (found["task"], found["protocol"], found["chance"]["AUC"]) == ("ctr", "uniform99", 0.5)
    assert found["rows"][0]["metrics"]["GAUC"].keys() == {"mean", "std"}
    assert found["rows"][1]["metrics"] == {}
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert rows[0]["protocol"] == "uniform99-ctr" and float(rows[2]["LogLoss"]) == pytest.approx(np.log(2))
    assert "LogLoss" in to_latex(table)


def test_files_do_not_replace_those_of_the_ranking_table(tmp_path):
    assert write_tables(build([record("a", 1.0)]), tmp_path)[0].name == "table_tiny_uniform99-ctr.md"


def test_metrics_may_be_chosen_in_any_case_and_foreign_ones_are_refused():
    table = build([record("a", 1.0)], ["logloss", "auc"])
    assert table.metrics == ("LogLoss", "AUC") and set(table.rows[0].metrics) == {"LogLoss", "AUC"}
    with pytest.raises(ValueError, match="'NDCG@10': expected AUC, GAUC, LogLoss"):
        build([record("a", 1.0)], ["NDCG@10"])


def test_two_tasks_never_share_a_table():
    ranked = record("b", 1.0)
    cell = Cell("tiny", "f", ProtocolOptions(), "c" * 64, "b", {}, "0", None, None, 0)
    with pytest.raises(ValueError, match="do not belong in one table"):
        build([record("a", 1.0), dataclasses.replace(ranked, cell=cell)])


def test_records_of_other_pairs_never_share_a_table():
    other = record("b", 1.0)
    other.outcome.arrays["test_label"][:2] = [0, 1]
    with pytest.raises(ValueError, match="b: the records rank other users"):
        build([record("a", 1.0), other])
