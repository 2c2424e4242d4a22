"""The checker on rows worked out by hand, and on the table that the M3BSR paper prints."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bench.evaluation.consistency import chance, check_consistency
from bench.evaluation.metrics import ndcg

PAPER = Path(__file__).resolve().parents[2] / "bench" / "evaluation" / "paper_results.json"


def rules(values, **options):
    return [(v.rule, v.metric) for v in check_consistency({"row": values}, **options)]


def test_metrics_of_one_ranking_are_consistent_at_every_cut_off():
    ranks = np.random.default_rng(0).integers(1, 101, 500)
    values = {f"HR@{k}": float((ranks <= k).mean()) for k in (1, 5, 10, 20, 50)}
    values |= {f"NDCG@{k}": float(ndcg(ranks, k).mean()) for k in (1, 5, 10, 20, 50)}
    assert rules(values, candidates=None, rounding=0.0) == []
    assert rules({name: round(value, 4) for name, value in values.items()}, candidates=None) == []


def test_all_hits_at_the_ends_of_an_interval_are_allowed_and_a_little_beyond_is_not():
    base = {"HR@10": 0.2, "NDCG@10": 0.1, "HR@20": 0.3}
    low, high = 0.1 / math.log2(21), 0.1 / math.log2(12)
    for gain, found in ((low, []), (high, []), (low - 1e-3, ["gain"]), (high + 1e-3, ["gain"])):
        values = {**base, "NDCG@20": 0.1 + gain}
        assert [rule for rule, _ in rules(values, candidates=None, rounding=0.0)] == found


def test_a_metric_that_falls_with_the_cut_off_is_found():
    assert ("falls", "HR@20") in rules({"HR@10": 0.3, "HR@20": 0.2})
    assert ("falls", "NDCG@20") in rules({"NDCG@10": 0.163, "NDCG@20": 0.1612})
    assert rules({"NDCG@10": 0.1630, "NDCG@20": 0.1629}) == []  # rounding may do that


def test_ndcg_outside_what_the_hits_allow_is_found():
    assert rules({"HR@10": 0.4, "NDCG@10": 0.4 / math.log2(11)}) == []
    assert rules({"HR@10": 0.4, "NDCG@10": 0.11}) == [("bound", "NDCG@10")]
    assert rules({"HR@10": 0.4, "NDCG@10": 0.41}) == [("bound", "NDCG@10")]


def test_a_row_below_chance_is_found_where_the_candidates_are_known():
    assert chance("HR", 10, 100) == pytest.approx(0.1)
    assert chance("NDCG", 10, 100) == pytest.approx(0.0454, abs=5e-5)
    assert chance("NDCG", 20, 100) == pytest.approx(0.0704, abs=5e-5)
    assert rules({"HR@10": 0.09}) == [("chance", "HR@10")]
    assert rules({"HR@10": 0.09}, candidates=None) == rules({"HR@10": 0.09}, candidates=1000) == []


def test_other_metrics_and_missing_partners_are_passed_over():
    assert rules({"MRR@10": 5.0, "AUC": 0.1, "HR@10": 0.2, "NDCG@20": 0.1}) == []


@pytest.fixture(scope="module")
def paper():
    rows = {}
    for record in json.loads(PAPER.read_text(encoding="utf-8"))["records"]:
        if record["table"] == "table2":
            rows.setdefault(f"{record['dataset']} {record['method']}", {})[record["metric"]] = record["value"]
    return rows, check_consistency(rows)


def found(violations, rule, metric=None):
    return {v.row for v in violations if v.rule == rule and metric in (None, v.metric)}


def test_gains_of_the_paper_are_impossible_in_33_of_34_rows(paper):
    rows, violations = paper
    assert len(rows) == 34
    assert set(rows) - found(violations, "gain") == {"rec_tmall BERT4Rec"}
    too_high = {v.row for v in violations if v.rule == "gain" and v.value > v.allowed[1]}
    assert too_high == {"kuaishou STOSA"}


def test_the_headline_row_of_the_paper_falls_with_the_cut_off(paper):
    assert [(v.row, v.metric, v.value) for v in paper[1] if v.rule == "falls"] == [
        ("kuaishou M3BSR", "NDCG@20", 0.1612)
    ]


def test_rows_of_the_paper_below_the_bound_are_those_listed(paper):
    expected = {"kuaishou GRU4Rec", "kuaishou SASRec", "rec_tmall GRU4Rec"}
    assert found(paper[1], "bound", "NDCG@10") == found(paper[1], "bound", "NDCG@20") == expected


def test_rows_of_the_paper_below_chance_are_those_listed(paper):
    gru, sas, bert = (f"kuaishou {name}" for name in ("GRU4Rec", "SASRec", "BERT4Rec"))
    tmall = ("rec_tmall GRU4Rec", "rec_tmall SASRec")
    expected = {
        "HR@10": {gru},
        "HR@20": {gru, sas, bert},
        "NDCG@10": {tmall[0], gru, sas},
        "NDCG@20": {*tmall, gru, sas, bert},
    }
    assert {metric: found(paper[1], "chance", metric) for metric in expected} == expected
