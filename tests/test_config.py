from dataclasses import dataclass, field
from typing import Literal

import pytest

from bench.cards import Card
from bench.config import (
    ProtocolOptions,
    TrainingOptions,
    build_options,
    flatten,
    join_list,
    model_overrides,
    option_names,
    parse_settings,
    split_list,
)
from bench.errors import UserError


@dataclass(frozen=True)
class Denoiser:
    steps: int = 10
    """T, diffusion steps."""
    scale: float | None = 1.0
    """Of the noise."""


@dataclass(frozen=True)
class Options:
    hidden_size: int = 64
    """d, width of all
    vectors."""
    num_heads: int = 4
    """Must divide hidden_size."""
    loss: Literal["bce", "ce"] = "bce"
    """What is minimised."""
    shared: bool = True
    sizes: tuple[int, ...] = (1, 2)
    """Of the layers."""
    cdmd_m: Denoiser = field(default_factory=Denoiser)
    """Modality denoiser."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError("num_heads must divide hidden_size")


class Model:
    Config = Options


class Other:
    @dataclass(frozen=True)
    class Config:
        neighbors: int = 5


class FakeEntry:
    def __init__(self, name, kind, base="", changed=None, **options):
        self.changed = changed or {}
        self.card = Card(name, name, "Model", "sequential", "", 2020, "", options={**options, **self.changed})
        self.kind, self.base = kind, base
        self.loaded = False

    def load(self):
        self.loaded = True
        return self.kind


def test_text_becomes_the_type_of_the_option():
    options = build_options(
        Options,
        {"hidden_size": "128", "loss": "ce", "shared": "false", "sizes": "3,4,5", "cdmd_m.steps": "5"},
        "model m",
    )
    assert options == Options(128, 4, "ce", False, (3, 4, 5), Denoiser(5))


def test_typed_values_are_taken_as_they_are():
    assert build_options(Options, {"sizes": (7,), "cdmd_m.scale": 2}, "m") == Options(
        sizes=(7,), cdmd_m=Denoiser(scale=2.0)
    )


@pytest.mark.parametrize("text", ["null", "none", "None"])
def test_null_is_none_where_the_option_may_be_none(text):
    assert build_options(Options, {"cdmd_m.scale": text}, "m").cdmd_m.scale is None


def test_none_stays_text_where_it_is_a_choice():
    assert (
        build_options(ProtocolOptions, {"drop_target_click": "none"}, "protocol").drop_target_click == "none"
    )


def test_null_is_refused_where_the_option_must_have_a_value():
    with pytest.raises(UserError, match="steps = 'null': expected a whole number$"):
        build_options(Options, {"cdmd_m.steps": "null"}, "m")


def test_an_unknown_option_names_the_place_and_the_closest_one():
    with pytest.raises(UserError, match=r"model m: no option 'hiden_size'; did you mean 'hidden_size'\?"):
        build_options(Options, {"hiden_size": "1"}, "model m")


def test_an_unknown_nested_option_names_the_closest_one():
    with pytest.raises(UserError, match=r"no option 'cdmd_m.step'; did you mean 'cdmd_m.steps'"):
        build_options(Options, {"cdmd_m.step": "1"}, "model m")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hidden_size", "1.5", "hidden_size = '1.5': expected a whole number"),
        ("loss", "mse", "loss = 'mse': expected one of bce, ce"),
        ("shared", "maybe", "shared = 'maybe': expected true or false"),
        ("sizes", "1,x", "sizes = '1,x': expected a list a,b,... of a whole number"),
        ("cdmd_m.scale", "big", "cdmd_m: scale = 'big': expected a number or null"),
    ],
)
def test_a_bad_value_names_key_value_and_what_was_expected(key, value, expected):
    with pytest.raises(UserError, match="model m: ") as error:
        build_options(Options, {key: value}, "model m")
    assert expected in str(error.value)


def test_options_that_fit_only_together_may_be_set_together():
    assert build_options(Options, {"hidden_size": "15", "num_heads": "5"}, "m").hidden_size == 15
    with pytest.raises(UserError, match="num_heads must divide hidden_size"):
        build_options(Options, {"hidden_size": "15"}, "m")


def test_a_negative_time_limit_is_refused():
    with pytest.raises(UserError, match="max_minutes = .-1.: expected a number or null, above 0"):
        build_options(TrainingOptions, {"max_minutes": "-1"}, "training")


def test_flatten_lists_nested_options_by_dotted_names():
    assert list(flatten(Options())) == [
        "hidden_size", "num_heads", "loss", "shared", "sizes", "cdmd_m.steps", "cdmd_m.scale",
    ]  # fmt: skip


def test_doc_lines_are_read_from_the_source():
    names = option_names(Options)
    assert names["hidden_size"] == "d, width of all vectors."
    assert names["cdmd_m.steps"] == "T, diffusion steps."
    assert names["shared"] == ""
    assert names.keys() == flatten(Options()).keys()


def test_every_option_of_a_run_is_documented():
    assert all(option_names(ProtocolOptions).values()) and all(option_names(TrainingOptions).values())


def test_settings_are_sorted_by_what_they_are_for():
    pairs = ["data.min_events=3", "protocol.history=target", "training.device=cpu", "sasrec.dropout=0.1",
             "cdmd_m.steps=5", "hidden_size = 128", "hidden_size=64", "name=a=b"]  # fmt: skip
    settings = parse_settings(pairs, ["sasrec"])
    assert settings.data == {"min_events": "3"}
    assert settings.protocol == {"history": "target"}
    assert settings.training == {"device": "cpu"}
    assert settings.models == {"sasrec": {"dropout": "0.1"}}
    assert settings.shared == {"cdmd_m.steps": "5", "hidden_size": "64", "name": "a=b"}


@pytest.mark.parametrize("pair", ["hidden_size", "=5", ".x=5"])
def test_a_malformed_pair_is_refused(pair):
    with pytest.raises(UserError, match="expected key=value"):
        parse_settings([pair])


def test_a_shared_option_goes_to_the_models_that_have_it():
    entries = [FakeEntry("a", Model), FakeEntry("b", Other)]
    settings = parse_settings(["cdmd_m.steps=5", "b.neighbors=9"], ["a", "b"])
    assert model_overrides(settings, entries) == {"a": {"cdmd_m.steps": 5}, "b": {"neighbors": 9}}


def test_an_option_set_to_its_usual_value_names_the_same_cell():
    entries = [FakeEntry("plain", Model), FakeEntry("preset", Model, loss="ce")]
    overrides = model_overrides(parse_settings(["loss=ce", "hidden_size=64"]), entries)
    assert overrides == {"plain": {"loss": "ce"}, "preset": {}}


def test_an_option_that_no_model_has_is_refused_with_a_hint():
    with pytest.raises(
        UserError, match=r"--set neighbours: no chosen model has this option; did you mean 'neighbors'"
    ):
        model_overrides(parse_settings(["neighbours=3"]), [FakeEntry("a", Model), FakeEntry("b", Other)])


def test_an_option_of_a_model_that_is_not_chosen_is_refused():
    with pytest.raises(UserError, match="b is not among the chosen models"):
        model_overrides(parse_settings(["b.neighbors=3"], ["a", "b"]), [FakeEntry("a", Model)])


def test_no_model_is_loaded_where_nothing_is_set():
    entry = FakeEntry("a", Model)
    assert model_overrides(parse_settings(["protocol.history=target"]), [entry]) == {"a": {}}
    assert not entry.loaded


def test_options_of_a_model_and_of_all_reach_a_variant_except_those_that_make_it():
    variant = FakeEntry("a:no_noise", Model, base="a", changed={"cdmd_m.scale": 0.0})
    names = ["a", "a:no_noise"]

    def chosen(*pairs):
        return model_overrides(parse_settings(pairs, names), [FakeEntry("a", Model), variant])["a:no_noise"]

    assert chosen("a.hidden_size=8", "cdmd_m.steps=5") == {"hidden_size": 8, "cdmd_m.steps": 5}
    assert chosen("a.cdmd_m.scale=2", "cdmd_m.scale=3") == {}
    assert chosen("a.hidden_size=8", "a:no_noise.hidden_size=16") == {"hidden_size": 16}
    assert chosen("a:no_noise.cdmd_m.scale=0.5") == {"cdmd_m.scale": 0.5}


def test_options_of_a_model_may_be_given_where_its_variant_alone_is_chosen():
    variant = FakeEntry("a:small", Model, base="a", changed={"hidden_size": 8})
    settings = parse_settings(["a.loss=ce"], ["a", "a:small"])
    assert model_overrides(settings, [variant]) == {"a:small": {"loss": "ce"}}
    settings = parse_settings(["a:smal.loss=ce"], ["a", "a:small"])
    with pytest.raises(UserError, match="a:smal is not among the chosen models; did you mean 'a:small'"):
        model_overrides(settings, [variant])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("title,price (USD)", ("title", "price (USD)")),
        ("(a,b)", ("a", "b")),
        ("[a, b ]", ("a", "b")),
        ("a[1],b", ("a[1]", "b")),
        ("[a],[b]", ("[a]", "[b]")),
        ('"size, EU",b', ("size, EU", "b")),
        ('a,"say ""x"""', ("a", 'say "x"')),
        ("", ()),
    ],
)
def test_lists_keep_brackets_spaces_and_quoted_commas(text, parts):
    assert split_list(text) == parts
    assert split_list(join_list(parts)) == parts


def test_a_list_without_special_letters_is_written_plainly():
    assert join_list(("a", "b c")) == "a,b c"


def test_a_model_name_may_hold_a_dot():
    pairs = ["net-v1.5.hidden_size=3", "net-v1.5:no_x.size=4", "net.size=5", "data.net-v1.5=6"]
    settings = parse_settings(pairs, ["net", "net-v1.5"])
    assert settings.models == {
        "net-v1.5": {"hidden_size": "3"}, "net-v1.5:no_x": {"size": "4"}, "net": {"size": "5"}
    }  # fmt: skip
    assert settings.data == {"net-v1.5": "6"}
