import dataclasses
import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.config import ProtocolOptions
from bench.errors import UserError
from bench.experiments.record import Cell
from bench.report import figures
from bench.report.ablation import compare, notes, to_csv, to_latex, to_markdown
from bench.report.panels import spread
from bench.report.tables import latex_text
from tests.records import FACTS, done, failed

STREAMS = [f"{behavior} {part}" for behavior in ("click", "favor") for part in ("id", "image", "text")]
VARIANTS = ("CDMD-M", "CDMD-B", "MEIE", "Shared Expert", "Disent.")


def record(model, label, ranks=(1, 2, 3, 4), seed=0, **changes):
    cell = Cell("tiny", "f", ProtocolOptions(), "c" * 64, model, {}, "0", None, None, seed)
    arrays = {
        "test_user": np.arange(len(ranks)),
        "test_rank": np.array(ranks),
        "test_size": np.full(len(ranks), 100),
    }
    return done(cell, arrays, label, "proposed", **changes)


def six_rows(seeds=2, users=200):
    """A model and five variants; the further down, the worse, the last one as good as the model."""
    rng = np.random.default_rng(0)
    base = rng.integers(1, 15, users)
    rows = [("m", "M", 0), *((f"m:v{n}", f"M w/o {name}", n % 5) for n, name in enumerate(VARIANTS, 1))]
    return [record(name, label, base + worse, seed) for name, label, worse in rows for seed in range(seeds)]


def diagnostic(values, rows, columns, form="heatmap", title="what is shown", unit="fraction"):
    values = np.asarray(values).tolist()
    return {"title": title, "values": values, "rows": list(rows), "columns": list(columns), "unit": unit,
            "axes": ["row", "column"], "form": form}  # fmt: skip


def shown_model():
    """A record with two stages of training and every kind of diagnostic."""
    rng = np.random.default_rng(1)
    terms = ("loss", "main", "contrast", "denoise_m", "denoise_b")
    curves = [
        {"stage": "first" if epoch < 5 else "second", "epoch": epoch % 5 + 1, "seconds": 1.0, "NDCG@10": 0.1,
         **{name: 3.0 / (n + 1) ** 2 for n, name in enumerate(terms)}}
        for epoch in range(25)
    ]  # fmt: skip
    cosines = rng.uniform(-1, 1, (7, 7))
    steps = [str(step) for step in range(1, 26)]
    extra = {
        "gates": diagnostic([[0.2, 0.5, None], [0.7, 0.2, 0.1]], ("click", "favor"), ("id", "image", "text")),
        "cosines": diagnostic(cosines, ["shared", *STREAMS], ["shared", *STREAMS], unit="cosine"),
        "norms": diagnostic(rng.uniform(1, 8, (6, 2)), STREAMS, ("kept", "removed"), "bars"),
        "noise_error": diagnostic(rng.uniform(0.3, 0.4, (7, 25)), ["shared", *STREAMS], steps, "lines"),
    }
    return record("m", "M", curves=curves, best_epoch=4, epochs=25, extra={"diagnostics": extra})


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws a figure without writing it."""
    kept: list[Figure] = []

    def keep(figure, folder, name):
        FigureCanvasAgg(figure).draw()
        kept.append(figure)
        return []

    def draw(function, *arguments, **options):
        monkeypatch.setattr(figures, "save", keep)
        function(*arguments, **options)
        return kept[-1]

    return draw


def drawn_texts(figure):
    """Return the texts that are drawn: not the labels of ticks beyond the ends of an axis."""
    beyond = set()
    for axis in (axis for panel in figure.findobj(Axes) for axis in (panel.xaxis, panel.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond |= {tick.label1 for tick in ticks if not low <= tick.get_loc() <= high}
    found = figure.findobj(lambda part: isinstance(part, Text) and part not in beyond)
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def texts(figure):
    return [text.get_text() for text in drawn_texts(figure)]


def overlaps(figure):
    """Return the pairs of upright texts that touch, and the texts that leave the figure."""
    found = drawn_texts(figure)
    boxes = [text.get_window_extent(figure.canvas.get_renderer()).padded(-0.5) for text in found]
    upright = [place for place, text in enumerate(found) if text.get_rotation() in (0.0, 90.0)]
    pairs = [
        (found[a].get_text(), found[b].get_text())
        for a, b in itertools.combinations(upright, 2)
        if boxes[a].overlaps(boxes[b])
    ]
    frame = figure.bbox
    whole = [frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes]
    return pairs, [text.get_text() for text, inside in zip(found, whole, strict=True) if not inside]


@pytest.mark.parametrize("metrics", [None, ("HR@10",), ("HR@10", "NDCG@10", "HR@20", "NDCG@20")])
def test_no_text_of_the_ablation_figure_touches_another_or_leaves_it(drawn, tmp_path, metrics):
    assert overlaps(drawn(figures.ablation, compare(six_rows()), tmp_path, metrics)) == ([], [])


def test_no_text_of_the_diagnostics_figure_touches_another_or_leaves_it(drawn, tmp_path):
    assert overlaps(drawn(figures.diagnostics, shown_model(), tmp_path)) == ([], [])


def test_the_bars_carry_the_values_of_the_table(drawn, tmp_path):
    found = compare(six_rows())
    shown = {text for text in texts(drawn(figures.ablation, found, tmp_path))}
    for row in found.table.rows:
        assert {f"{row.metrics['HR@10'].mean:.4f}", found.short(row)} <= shown
    assert "w/o Shared Expert" in shown and "M" in shown
    change = found.differences["m:v1"]["HR@10"]
    assert f"\N{MINUS SIGN}{-change:.4f}" in shown
    assert any("tiny, mean and sample deviation over 2 seeds" in text for text in shown)


def test_p_values_stand_beside_the_metric_that_is_tested(drawn, tmp_path):
    shown = {text for text in texts(drawn(figures.ablation, compare(six_rows()), tmp_path))}
    assert sum(", p<0.001" in text for text in shown) == 4
    assert "+0.0000, p=1.000" in shown  # the variant that ranks like the full model


def test_generated_data_are_named_in_every_figure(drawn, tmp_path):
    rows = six_rows()
    for one in rows:
        one.dataset = dataclasses.replace(FACTS, simulated=True)
    model = dataclasses.replace(shown_model(), dataset=dataclasses.replace(FACTS, simulated=True))
    for function, what in ((figures.ablation, compare(rows)), (figures.diagnostics, model)):
        assert any("tiny (SIMULATED DATA)" in text for text in texts(drawn(function, what, tmp_path)))


def test_both_files_are_written_whole_and_under_a_name_without_colons(tmp_path):
    model = dataclasses.replace(shown_model())
    model.cell = dataclasses.replace(model.cell, model="m:no_gate")
    png, pdf = figures.diagnostics(model, tmp_path / "new")
    assert png.name == f"diagnostics_m_no_gate-seed0-{model.key[:12]}.png"
    assert png.read_bytes().startswith(b"\x89PNG") and pdf.read_bytes().startswith(b"%PDF")
    assert len(list((tmp_path / "new").iterdir())) == 2
    first = pdf.read_bytes()
    figures.diagnostics(model, tmp_path / "new")
    assert pdf.read_bytes() == first  # no date inside


def test_a_figure_leaves_the_settings_of_matplotlib_alone(drawn, tmp_path):
    before = dict(matplotlib.rcParams)
    drawn(figures.ablation, compare(six_rows(1)), tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_other_models_show_their_loss_alone_and_untrained_ones_nothing(drawn, tmp_path):
    curves = [{"stage": "train", "epoch": 1, "seconds": 1.0, "loss": 0.5, "NDCG@10": 0.2}]
    shown = {text for text in texts(drawn(figures.diagnostics, record("a", "A", curves=curves), tmp_path))}
    assert {"loss", "Validation NDCG@10", "epoch"} <= shown
    with pytest.raises(UserError, match="a seed 0: nothing was trained"):
        figures.diagnostics(record("a", "A"), tmp_path)
    with pytest.raises(UserError, match=r"a seed 0: it failed \(out of memory\)"):
        figures.diagnostics(failed(record("a", "A")), tmp_path)


def test_a_failed_variant_is_no_bar_and_a_failed_model_no_difference(drawn, tmp_path):
    rows = six_rows(1)
    broken = [failed(one) for one in rows]
    found = compare([*rows[:-1], broken[-1]])
    shown = {text for text in texts(drawn(figures.ablation, found, tmp_path))}
    assert "w/o Disent." not in shown and "w/o MEIE" in shown
    assert "| M w/o Disent. | failed |" in to_markdown(found) and "failed: out of memory" in to_markdown(
        found
    )
    found = compare([broken[0], *rows[1:]])
    assert found.differences == {} and found.p == {}
    with pytest.raises(UserError, match="no finished cell to draw"):
        figures.ablation(compare(broken), tmp_path)


def test_holm_runs_over_the_variants_alone_and_the_test_is_against_the_model():
    found = compare(six_rows())
    assert set(found.p) == {f"m:v{n}" for n in range(1, 6)}
    # the floor of the raw p-value is 1 / 10,001 draws; four variants differ, so Holm multiplies by 5, 4, 3, 2
    assert found.p["m:v1"] == pytest.approx(5 / 10_001) and found.p["m:v5"] == 1.0
    assert "against M, Holm-corrected over 5 variants" in notes(found)[-1]
    assert "significantly better" not in "".join(notes(found))


def test_the_tables_of_an_ablation_hold_differences():
    found = compare(six_rows(), ["HR@10"])
    change = found.differences["m:v4"]["HR@10"]
    assert f"| {change:+.4f} |" in to_markdown(found)
    assert f",{change}," in to_csv(found)
    text = to_latex(found)
    assert r"w/o Shared Expert & " in text and text.count("{") == text.count("}")


def test_labels_are_moved_apart_in_order_and_no_further_than_needed():
    np.testing.assert_allclose(spread(np.array([0.2, 0.9]), 0.1), [0.2, 0.9])
    np.testing.assert_allclose(spread(np.array([0.5, 0.5]), 0.1), [0.45, 0.55], atol=1e-5)
    moved = spread(np.array([0.31, 0.3, 0.9, 0.32]), 0.1)
    assert list(np.argsort(moved)) == [1, 0, 3, 2]
    assert np.diff(np.sort(moved)).min() > 0.0999 and moved[2] == pytest.approx(0.9)


@pytest.mark.parametrize("label", ["A$B$", "100%_x^2 $\\alpha"])
def test_dollars_in_a_label_are_letters(drawn, tmp_path, label):
    base = np.arange(1, 41)
    records = [record("m", label, base), record("m:v", f"{label} w/o X", base + 3)]
    figure = drawn(figures.ablation, compare(records), tmp_path)
    assert any(label in text.get_text() for text in figure.findobj(Text))
    figure = drawn(figures.diagnostics, dataclasses.replace(shown_model(), label=label), tmp_path)
    assert any(label in text.get_text() for text in figure.findobj(Text))


def test_latex_escapes_what_it_reads_as_commands():
    assert latex_text("100%_x^2$") == r"100\%\_x\^{}2\$"
