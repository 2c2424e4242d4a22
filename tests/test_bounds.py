"""Bounds of options, said once, and the defaults of everything inside them."""

import math
from pathlib import Path

import pytest

from bench import registry
from bench.bounds import RENAMED, bounds_of, fault
from bench.config import (
    ProtocolOptions,
    TrainingOptions,
    build_options,
    flatten,
    model_overrides,
    parse_settings,
)
from bench.data.preparation.encoders import EncoderOptions
from bench.data.preparation.prepare import PrepareOptions
from bench.errors import UserError


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("batch_size", 0, "at least 1"), ("patience", -3, "at least 1"), ("epochs", -1, "at least 0"),
        ("learning_rate", 0.0, "above 0"), ("dropout", 1.0, "at least 0 and below 1"),
        ("meie.dropout_attention", -0.1, "at least 0 and below 1"), ("max_minutes", math.nan, "above 0"),
        ("max_minutes", math.inf, "above 0"), ("candidates_seed", -1, "at least 0"),
        ("loss_weight_contrast", -1, "at least 0"), ("anything", math.nan, "a finite number"),
        ("anything", -5, ""), ("learning_rate", 1e-3, ""), ("dropout", 0, ""), ("candidates", "full", ""),
        ("num_negatives", None, ""), ("early", True, ""), ("rates", (1.0, math.nan), "a finite number"),
    ],
)  # fmt: skip
def test_a_value_outside_is_told_what_it_should_have_been(option, value, expected):
    assert fault(option, value) == expected


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (TrainingOptions, "max_minutes", "nan"), (TrainingOptions, "epochs", "-1"),
        (TrainingOptions, "evaluation_batch", "0"), (ProtocolOptions, "candidates_seed", "-1"),
        (PrepareOptions, "keep_last", "0"), (EncoderOptions, "batch_size", "-2"),
    ],
)  # fmt: skip
def test_options_of_the_harness_are_refused_with_their_bounds(kind, option, value):
    with pytest.raises(UserError, match=f"here: {option} = '{value}': expected .*(at least|above)"):
        build_options(kind, {option: value}, "here")


def test_options_of_models_are_refused_with_their_bounds():
    wrong = {"batch_size": "0", "patience": "-3", "learning_rate": "nan", "dropout": "1"}
    for option, value in wrong.items():
        (entry,) = registry.select("sasrec")
        with pytest.raises(UserError, match=f"model sasrec: {option} = '{value}': expected a.*number"):
            build_options(entry.load().Config, {option: value}, "model sasrec")


def test_the_defaults_of_every_model_lie_inside():
    for name, entry in registry.entries().items():
        options = flatten(build_options(entry.load().Config, entry.card.options, name))
        assert {key: fault(key, value) for key, value in options.items() if fault(key, value)} == {}, name


def test_an_option_without_bounds_of_its_own_has_to_be_finite():
    assert bounds_of("shift").text() == "a finite number"


def test_no_model_has_an_option_under_an_old_name():
    """One spelling in all models; the list stands in CONTRIBUTING.md."""
    for name, entry in registry.entries().items():
        options = flatten(build_options(entry.load().Config, entry.card.options, name))
        old = [option for option in options if option.rpartition(".")[2] in RENAMED]
        assert not old, f"{name}: {old}"


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        ("din", "negatives", "num_negatives"), ("gru4rec", "num_samples", "num_negatives"),
        ("m3bsr", "cdmd_m.steps", "cdmd_m.diffusion_steps"), ("m3bsr", "disent.weight", "disent.loss_weight"),
        ("diff_msin", "steps", "diffusion_steps"), ("m3bsr", "meie.layers", "meie.num_layers"),
    ],
)  # fmt: skip
def test_an_old_name_is_refused_with_the_new_one(model, old, new):
    (entry,) = registry.select(model)
    with pytest.raises(UserError, match=f"no option '{old}'; it is '{new}' now"):
        build_options(entry.load().Config, {old: "1"}, f"model {model}")
    with pytest.raises(UserError, match=f"it is '{new}' now"):
        model_overrides(parse_settings([f"{old}=1"]), [entry])


def test_the_names_in_use_are_listed_for_contributors():
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in ("hidden_size", "embedding_size", "diffusion_steps", "loss_weight_*", *set(RENAMED.values())):
        assert f"`{name}`" in text, name
