# ruff: noqa: F811 - `rooms` is a fixture of the registry's tests
import pickle

import pytest
from test_registry import card, rooms  # noqa: F401

from bench import registry
from bench.config import build_options
from bench.errors import UserError

VARIANTS = (
    ', options={"width": 4}, variants={"no_b": ("w/o B", {"b": 0}), "no_a": ("w/o A", {"a.on": False})}'
)


@pytest.fixture
def varied(rooms):
    """Three models, the middle one with two variants."""
    for name, year, rest in (("one", 2019, ""), ("two", 2020, VARIANTS), ("three", 2021, "")):
        (rooms / "models" / f"{name}.py").write_text("CARD = " + card(name, year=year, rest=rest))
    return rooms


def names(spec):
    return [entry.card.name for entry in registry.select(spec)]


def test_a_variant_is_its_model_with_a_name_a_label_and_options_of_its_own(varied):
    (model,) = registry.select("two")
    (variant,) = registry.select("two:no_a")
    assert (variant.card.name, variant.card.label, variant.base) == ("two:no_a", "M w/o A", "two")
    assert variant.card.options == {"width": 4, "a.on": False} and variant.changed == {"a.on": False}
    assert variant.card.variants == {} and model.card.options == {"width": 4}
    assert (variant.module, variant.path, variant.card.model) == (model.module, model.path, model.card.model)
    assert variant.code_hash() == model.code_hash()
    assert pickle.loads(pickle.dumps(variant)) == variant


def test_variants_stand_right_after_their_model_in_the_order_of_the_card(varied):
    assert names("three,two:no_a,one,two:no_b,two") == ["one", "two", "two:no_b", "two:no_a", "three"]
    assert names("three,two:no_a,one") == ["one", "two:no_a", "three"]
    assert list(registry.table_order()) == ["one", "two", "two:no_b", "two:no_a", "three"]


def test_variants_are_no_part_of_all_or_of_a_family(varied):
    assert names("all") == names("sequential") == list(registry.entries()) == ["one", "two", "three"]


def test_an_unknown_variant_gets_a_hint(varied):
    for spec, message in (
        ("two:no_aa", "--models two:no_aa: no such variant of two; did you mean 'no_a'"),
        ("one:no_a", "--models one:no_a: no such variant of one; it declares none"),
        ("twoo:no_a", "--models twoo:no_a: no such model or family; did you mean 'two'"),
    ):
        with pytest.raises(UserError, match=message):
            registry.select(spec)


def test_variants_of_a_given_file_are_chosen_by_its_path(rooms, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("CARD = " + card("mine", rest=VARIANTS) + "OTHER = " + card("plain"))
    assert names(f"{path}:no_a,{path}") == ["mine", "mine:no_a", "plain"]
    assert registry.select(f"{path}:no_a")[0].spec == str(path)


@pytest.mark.parametrize(
    "variants",
    ['{"No A": ("w/o A", {})}', '{"no_a": "w/o A"}', '{"no_a": ("w/o A", ["a"])}', '{"a:b": ("", {})}'],
)
def test_a_malformed_variant_names_the_file(rooms, variants):
    (rooms / "models" / "x.py").write_text("CARD = " + card("x", rest=f", variants={variants}"))
    with pytest.raises(UserError, match="models/x.py: card not readable: variant '.*' of 'x': expected"):
        registry.entries()


def test_every_variant_of_every_registered_model_has_options_that_the_model_knows():
    for entry in registry.entries().values():
        for variant in registry.variants(entry):
            options = build_options(variant.load().Config, variant.card.options, variant.card.name)
            plain = build_options(entry.load().Config, entry.card.options, entry.card.name)
            assert options != plain, variant.card.name
