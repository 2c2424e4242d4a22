"""Options that exclude each other, the ablations (point 12 of the checklist) and the two cards."""

import math
from pathlib import Path

import pytest
import torch
from m3bsr_cases import batch, build, loss_of, scores, size

from bench.config import build_options, option_names
from bench.errors import UserError
from bench.models import m3bsr
from bench.models.m3bsr import CARDS
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.layout import layout
from bench.registry import entries

REPAIRED, PRINTED = CARDS
VARIANTS = {name: options for name, (_, options) in REPAIRED.variants.items()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden_size": 18}, "cdmd_m.num_heads=4 does not divide hidden_size=18"),
        ({"hidden_size": 15}, "must be even"),
        ({"cdmd_b.diffusion_steps": 0}, "diffusion_steps >= 1"),
        ({"cdmd_m.beta_first": 0.2}, "beta_first <= beta_last"),
        ({"cdmd_m.reverse_steps": 11}, "reverse_steps must lie in 1..diffusion_steps (10)"),
        ({"cdmd_m.grad_last": 0}, "grad_last must lie in 1..diffusion_steps (10)"),
        ({"cdmd_m.loss": "trajectory", "cdmd_m.train_start": "clean"}, "needs train_start=noised"),
        ({"cdmd_b.loss": "printed", "cdmd_b.reverse_steps": 5}, "reverse_steps=null"),
        ({"cdmd_b.loss": "printed", "cdmd_b.sampler": "ancestral"}, "sampler=mean"),
        ({"disent.temperature": 0.0}, "above 0"),
        ({"meie.num_layers": 0}, "num_layers >= 1"),
        ({"fusion": "sum"}, "one of project, mean, tile"),
    ],
)
def test_options_that_cannot_run_are_refused_in_one_line(options, said):
    with pytest.raises(UserError) as error:
        build_options(M3BSRConfig, options, "model m3bsr")
    line = str(error.value)
    assert said in line and "\n" not in line and line.startswith("model m3bsr")


def test_an_id_field_that_the_data_set_lacks_is_refused_with_a_hint():
    with pytest.raises(UserError, match=r"id_fields=brant: .*did you mean 'brand'"):
        build({"id_fields": ("brant",)})


def test_every_option_has_its_doc_line():
    assert all(option_names(M3BSRConfig).values())


def parts(model):
    return {name: size(module) for name, module in model.named_children() if size(module)}


def terms(options):
    return set(loss_of(build(options), batch()))


ALL_TERMS = {"loss", "main", "contrast", "modality", "behavior"}


@pytest.mark.parametrize(
    ("variant", "gone", "resized", "lost"),
    [
        ("no_cdmd_m", {"cdmd_m"}, set(), {"modality"}),
        ("no_cdmd_b", {"cdmd_b"}, set(), {"behavior"}),
        ("no_meie", {"shared", "unique"}, {"fusion"}, {"contrast"}),
        ("no_shared", {"shared"}, {"fusion"}, set()),
        ("no_disent", set(), set(), set()),
    ],
)
def test_an_ablation_removes_what_it_names_and_nothing_else(variant, gone, resized, lost):
    full, cut = parts(build()), parts(build(VARIANTS[variant]))
    assert set(full) - set(cut) == gone and not set(cut) - set(full)
    assert {name for name in cut if cut[name] != full[name]} == resized
    assert ALL_TERMS - terms(VARIANTS[variant]) == lost


def test_the_card_declares_the_ablations_of_the_paper_and_the_prefix_reading():
    assert set(VARIANTS) == {"no_cdmd_m", "mlp", "no_cdmd_b", "no_meie", "no_shared", "no_disent", "prefix"}


def test_replaced_denoising_passes_the_streams_through():
    model, data = build({"cdmd_m.replace": "identity", "cdmd_b.replace": "identity"}).eval(), batch()
    found = model.denoised(data, layout(data, 2))
    (content,) = model.inputs.content_streams(data.history)
    assert torch.equal(found.modality[1:], content)
    assert torch.equal(found.behavior, found.modality) and not found.errors


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize(
    ("stage", "others"),
    [("cdmd_m", {}), ("cdmd_m", {"space": "raw_standardized"}), ("cdmd_m", {"cdmd_m.predictor": "printed"}),
     ("cdmd_b", {}), ("cdmd_b", {"cdmd_b.cond": "all"})],
)  # fmt: skip
def test_a_network_in_the_place_of_denoising_has_as_many_parameters(stage, others, width):
    counts = [
        size(getattr(build({**others, "hidden_size": width, f"{stage}.replace": kind}), stage))
        for kind in ("none", "mlp")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_a_network_in_the_place_of_denoising_trains():
    model = build({"cdmd_m.replace": "mlp", "cdmd_b.replace": "mlp"})
    found = loss_of(model, batch())
    found["loss"].backward()
    assert set(found) == {"loss", "main", "contrast"}
    assert all(p.grad.abs().sum() > 0 for m in (model.cdmd_m, model.cdmd_b) for p in m.parameters())


def test_without_experts_y_is_a_projection_of_the_mean_streams():
    model, data = build(VARIANTS["no_meie"]).eval(), batch()
    events = layout(data, 2)
    streams = model.denoised(data, events).behavior
    y, vectors = model.interest(streams, events)
    means = []
    for behavior in (1, 2):
        kept = (data.behavior[4] == behavior).nonzero()[:, 0]
        means.append(streams[:, 4, kept].mean(1) if len(kept) else torch.zeros(3, 16))
    torch.testing.assert_close(y[4], model.fusion.project(torch.cat(means).flatten()))
    assert vectors is None


def test_without_the_shared_expert_y_projects_the_six_and_six_are_contrasted():
    model, data = build(VARIANTS["no_shared"]).eval(), batch()
    events = layout(data, 2)
    y, vectors = model.interest(model.denoised(data, events).behavior, events)
    assert len(vectors) == 6
    torch.testing.assert_close(y, model.fusion.project(torch.cat(vectors.unbind(0), -1)))


def test_without_weight_the_contrast_is_shown_but_not_minimised_and_the_graph_stays():
    found, full = (loss_of(build(options), batch()) for options in (VARIANTS["no_disent"], {}))
    total = found["main"] + 0.02 * found["modality"] + 0.02 * found["behavior"]
    torch.testing.assert_close(found["loss"], total)
    torch.testing.assert_close(found["contrast"], full["contrast"])


def test_the_printed_card_takes_every_printed_reading_and_trains():
    model = build(PRINTED.options)
    c = model.config
    stages = {c.cdmd_m.loss, c.cdmd_b.loss, c.cdmd_m.predictor, c.cdmd_b.predictor}
    assert stages | {c.disent.loss} == {"printed"}
    assert (c.cdmd_b.cond, c.fusion, c.head, c.targets) == ("image", "tile", "linear", "last_only")
    found = loss_of(model, batch())
    found["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.items.weight.shape == (31, 6 * 16)
    assert torch.isfinite(scores(model, batch())).all()


def test_both_cards_are_registered_with_options_that_exist():
    for card in CARDS:
        assert entries()[card.name].card == card
        build_options(M3BSRConfig, card.options, card.name)
        for _, options in card.variants.values():
            build_options(M3BSRConfig, {**card.options, **options}, card.name)


def test_the_notes_state_the_closed_forms_of_the_printed_equations():
    """Eq. 20's bound, twice too much noise, raw signal to noise, alpha read as beta, sqrt(abar) alone."""
    beta = [0.001 + 0.011 * step for step in range(10)]
    abar = math.prod(1 - b for b in beta)
    wrong = math.prod(beta)
    notes = Path(m3bsr.__file__).with_name("NOTES.md").read_text(encoding="utf-8")
    stated = {
        f"{7 * 6 * math.log(6):.3f}": "75.254",
        f"{math.sqrt((1 - abar) / 0.1):.2f}": "2.02",
        f"{abar / (1 - abar) / 512:.4f}": "0.0028",
        f"{wrong:.1e}": "1.1e-15",
        f"{wrong**-0.5:.1e}": "3.0e+07",
        f"{0.5 * (1 - math.sqrt(abar)) ** 2 + 0.5 * abar:.2f}": "0.32",
        f"{math.exp(-72_051 * 0.73 / 93_466):.2f}": "0.57",
        f"{-0.1 / math.sqrt((1 - abar) * 0.9):.3f}": "-0.165",
        f"{-math.sqrt(0.1 / 0.9):.3f}": "-0.333",
    }
    for computed, printed in stated.items():
        assert computed == printed and printed in notes
