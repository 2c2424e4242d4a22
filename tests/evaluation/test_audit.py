"""The audit: what it flags in the paper, how it reads tables, and that ours pass."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UserError
from bench.evaluation.audit import audit_file, audit_paper, explained

GOOD = "HR@10,NDCG@10,HR@20,NDCG@20"


def test_the_paper_s_rows_are_those_of_the_list() -> None:
    done = audit_paper()
    assert len(done.rows) == 38
    broken = {one.row for one in done.violations}
    whole = {name for name in done.rows if name.startswith("Table 2")}
    assert whole - broken == {"Table 2, rec_tmall, BERT4Rec"} and broken <= whole
    assert [explained(one) for one in done.violations if one.rule == "falls"] == [
        "NDCG@20 is 0.1612, below 0.1630 at the smaller cut-off"
    ]


def test_a_markdown_table_of_ours_is_read_with_marks_and_deviations(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    path.write_text(
        "Text before\n\n"
        "| Model | HR@10 | NDCG@10 | HR@20 | NDCG@20 | Seeds |\n|---|---:|---:|---:|---:|---:|\n"
        "| SASRec* | **0.7675**\u00b10.0012 | 0.5045 | <u>0.8864</u> | 0.5347 | 3 |\n"
        "| Lost | failed |  |  |  |  |\n"
        "| Odd\u2020 | 0.4 | 0.11 | 0.5 | 0.4 | 1 |\n"
    )
    done = audit_file(path, 100)
    assert list(done.rows) == ["SASRec", "Odd"] and done.rows["SASRec"]["HR@10"] == 0.7675
    assert {one.row for one in done.violations} == {"Odd"}


def test_rounding_is_half_the_last_digit_printed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("model,NDCG@10,NDCG@20\na,0.163,0.162\nb,0.16300,0.16200\n")
    assert [one.row for one in audit_file(path, None).violations] == ["b"]


def test_percentages_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("dataset,method,hr@10,ndcg@10\nx,a,27.86,16.01\nx,a,27.86,16.01\n")
    with pytest.raises(UserError, match=r"line 2, HR@10 27.86: expected a fraction .* --percent"):
        audit_file(path, 100)
    done = audit_file(path, 100, percent=True)
    assert list(done.rows) == ["x, a", "x, a (line 3)"] and not done.violations


@pytest.mark.parametrize(
    ("text", "told"),
    [("model,MRR\na,0.2\n", "no head with HR@K"), ("model,HR@10\na,failed\n", "no row with a number")],
)
def test_other_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        audit_file(path, 100)
    with pytest.raises(UserError, match="no such file"):
        audit_file(tmp_path / "none.csv", 100)


def test_the_command_says_what_is_wrong_and_ends_with_1(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["audit"])
    assert shown.exit_code == 1 and "33 of 38 rows break it" in shown.stdout
    machine = CliRunner().invoke(app, ["audit", "--json"])
    assert json.loads(machine.stdout)["broken_rows"] == 33
    path = tmp_path / "table.csv"
    path.write_text(f"model,{GOOD}\na,0.5,0.3,0.6,0.325\n")
    fine = CliRunner().invoke(app, ["audit", str(path)])
    assert fine.exit_code == 0 and "0 of 1 rows break it" in fine.stdout
