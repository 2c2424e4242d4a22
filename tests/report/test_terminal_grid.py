import io

import pytest
from rich.console import Console

from bench.report.grid import print_grid

HEAD = ["Model", "HR@10", "NDCG@10", "Train s", "MiB"]
ROWS = [
    ["a model of a long name", "[bold]0.7419±0.0100[/bold]", "0.5111±0.0104", "1,085", "1,470"],
    ["b", "0.1", "0.4312 (-0.0210*)", "0", "365"],
]
FIGURES = {"0.7419±0.0100", "0.5111±0.0104", "0.4312", "(-0.0210*)", "0.1000"}


def printed(width: int, spare: int = 2) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_grid(console, "title", HEAD, ROWS, ["chance", "0.1000", "0.0454", "", ""], spare)
    return console.export_text()


@pytest.mark.parametrize("width", range(10, 90))
def test_no_figure_loses_a_digit_at_any_width(width: int) -> None:
    words = printed(width).split()
    assert set(words) >= FIGURES and "…" not in "".join(words)
    shown = [name for name in ("1,085", "1,470", "365") if name in words]
    assert shown in (["1,085", "1,470", "365"], ["1,085"], [])
    assert ("MiB:" in words) == (len(shown) < 3)


def test_columns_that_may_go_do_so_from_the_end_and_are_named() -> None:
    assert "1,470" in printed(80) and "no room" not in printed(80)
    (line,) = [line for line in printed(48).splitlines() if "no room" in line]
    assert line.startswith("MiB: no room in 48 columns") and "1,085" in printed(48)
    assert "Train s, MiB: no room in 40 columns" in " ".join(printed(40).split())


def test_columns_that_may_not_go_stay() -> None:
    assert "1,470" in printed(40, spare=0).split()
