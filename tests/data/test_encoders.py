import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from bench import cli
from bench.data import library
from bench.data.preparation import encoders, words
from bench.data.preparation.encoders import EncoderOptions, chosen_encoders, encode_images, encode_titles
from bench.data.preparation.features import Source
from bench.data.preparation.prepare import PrepareOptions, prepare
from bench.data.preparation.runs import silent
from bench.data.schema import RawData
from bench.data.storage import load
from bench.errors import UserError

TITLES = ["red shoe", "blue shoe", None, "red hat", "", "  ", "...", "a 7", "red shoe"]


class Table:
    """All vectors of a source, (n, D) with zeros where absent, and which rows are present."""

    def __init__(self, source: Source, count: int) -> None:
        blocks = list(source.blocks())
        width = blocks[0][1].shape[1] if blocks else 0
        self.vectors, self.present = np.zeros((count, width), np.float16), np.zeros(count, bool)
        for rows, vectors in blocks:
            assert vectors.dtype == np.float16 and not self.present[rows].any()
            self.vectors[rows], self.present[rows] = vectors, True
        self.name, self.hash = source.name, source.hash


def titles(texts: Sequence[str | None], options: EncoderOptions, cache: Path = Path("unused")) -> Table:
    return Table(encode_titles(texts, options, cache, silent), len(texts))


def images(paths: Sequence[str | None], options: EncoderOptions, cache: Path = Path("unused")) -> Table:
    return Table(encode_images(paths, options, cache, silent), len(paths))


def test_titles_without_a_word_are_absent():
    encoded = titles(TITLES, EncoderOptions(text_size=16))
    assert encoded.present.tolist() == [True, True, False, True, False, False, False, True, True]
    assert encoded.vectors.shape == (9, 16)
    assert np.linalg.norm(encoded.vectors[encoded.present].astype(float), axis=1) == pytest.approx(
        np.ones(5), abs=2e-3
    )


def test_cosines_of_untruncated_vectors_are_those_of_tf_idf_by_the_formula():
    texts = ["red red shoe", "blue shoe", "red hat", "x"]
    terms = ["red", "shoe", "blue", "hat", "x"]
    table = np.zeros((4, 5))
    for row, title in enumerate(texts):
        for column, word in enumerate(terms):
            count, holding = title.split().count(word), sum(word in other.split() for other in texts)
            table[row, column] = (1 + math.log(count)) * (1 + math.log(5 / (1 + holding))) if count else 0
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    vectors = titles(texts, EncoderOptions(text_size=12)).vectors.astype(float)
    assert vectors @ vectors.T == pytest.approx(table @ table.T, abs=2e-3)
    assert not vectors[:, 4:].any()  # the width is constant: four titles span four dimensions


def test_few_dimensions_keep_the_larger_group_apart_from_the_smaller():
    texts = [f"apple pear w{n % 3}" for n in range(12)] + [f"bolt screw v{n % 3}" for n in range(8)]
    vectors = titles(texts, EncoderOptions(text_size=2)).vectors.astype(float)
    cosines = vectors @ vectors.T
    assert cosines[:12, :12].min() > 0.9
    assert cosines[12:, 12:].min() > 0.9
    assert np.abs(cosines[:12, 12:]).max() < 0.1


@pytest.mark.parametrize("texts", [["one"], ["same", "same"], [None, "one"], [None], []])
def test_very_few_titles_can_be_encoded(texts, recwarn):
    encoded = titles(texts, EncoderOptions())
    assert encoded.vectors.shape == (len(texts), 512 if any(texts) else 0)
    assert encoded.present.tolist() == [text is not None for text in texts]
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_titles_come_in_blocks(monkeypatch):
    monkeypatch.setattr(words, "CHUNK", 2)
    source = encode_titles(TITLES, EncoderOptions(text_size=4), Path("unused"), silent)
    assert [rows.tolist() for rows, _ in source.blocks()] == [[0, 1], [3, 7], [8]]


def test_the_same_titles_give_the_same_bytes_and_hash_and_others_do_not():
    options = EncoderOptions(text_size=16)
    first, again = (titles(TITLES, options) for _ in range(2))
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert first.hash == again.hash
    assert titles([*TITLES[:-1], "green"], options).hash != first.hash
    assert titles(TITLES, replace(options, text_size=17)).hash != first.hash


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ("efficientnet", {"image": "efficientnet"}),
        ("tfidf-svd", {"text": "tfidf-svd"}),
        ("tfidf-svd, efficientnet", {"text": "tfidf-svd", "image": "efficientnet"}),
        ("ViT-B-32", {"text": "clip", "image": "clip", "clip_model": "ViT-B-32"}),
        ("RN50,tfidf-svd", {"text": "tfidf-svd", "image": "clip", "clip_model": "RN50"}),
        ("efficientnet,RN50", {"text": "clip", "image": "efficientnet", "clip_model": "RN50"}),
    ],
)
def test_a_named_encoder_stands_for_options(names, options):
    assert chosen_encoders(names) == options
    EncoderOptions(**options)


@pytest.mark.parametrize(
    "names", ["", "none", "RN50,ViT-B-32", "tfidf-svd,tfidf-svd", "RN50,", "RN50,efficientnet,tfidf-svd"]
)
def test_two_encoders_of_one_thing_are_refused(names):
    with pytest.raises(UserError, match="expected one encoder of titles and one of pictures"):
        chosen_encoders(names)


def test_a_misspelt_encoder_is_not_taken_for_a_model_of_open_clip():
    with pytest.raises(UserError, match="no such encoder; did you mean 'efficientnet'"):
        chosen_encoders("efficentnet")


def test_the_named_encoder_reaches_the_preparation_and_a_set_option_wins(tmp_path, monkeypatch):
    given: dict[str, str] = {}

    def taken(reader: str, *, overrides: dict[str, str], **other: object) -> Path:
        given.update(overrides)
        raise UserError("enough")

    monkeypatch.setattr(library, "prepare_named", taken)
    words = ["data", "prepare", "movielens", "--raw", str(tmp_path), "--encoder", "RN50,tfidf-svd"]
    CliRunner().invoke(cli.app, [*words, "--set", "image=none", "--set", "data.clip_weights=x.pt"])
    assert given == {"text": "tfidf-svd", "image": "none", "clip_model": "RN50", "clip_weights": "x.pt"}


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="must be 1 or more"):
        EncoderOptions(text_size=0)


def test_clip_without_weights_says_how_to_give_them():
    with pytest.raises(UserError, match=r"clip_weights is empty.*checkpoint file of ViT-B-32 or a tag"):
        titles(["x"], EncoderOptions(text="clip"))


def test_random_weights_are_refused(monkeypatch):
    monkeypatch.delenv(encoders.RANDOM_ALLOWED, raising=False)
    with pytest.raises(UserError, match=r"clip_weights = random: untrained weights say nothing"):
        images([None], EncoderOptions(image="clip", clip_weights="random"))


def test_a_missing_open_clip_names_the_command(monkeypatch, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    options = EncoderOptions(text="clip", clip_weights=str(tmp_path / "weights.pt"))
    with pytest.raises(UserError, match=re.escape('pip install "m3bench[clip]"')):
        titles(["x"], options, tmp_path / "kept")


def test_clip_images_equal_a_direct_call(tiny_clip, pictures, on_white, tmp_path):
    import torch

    model, transform, _, options = tiny_clip
    encoded = images(pictures, options, tmp_path / "kept")
    assert encoded.present.tolist() == [True, False, True, True, True]
    assert encoded.name == "clip tiny-clip tiny.pt"
    with torch.inference_mode():
        inputs = torch.stack([transform(on_white(path)) for path in pictures if path])
        expected = model.encode_image(inputs, normalize=True).numpy()
    assert encoded.vectors[encoded.present].astype(np.float32) == pytest.approx(expected, abs=1e-3)
    assert not encoded.vectors[1].any()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2  # two pictures are told apart


def test_clip_titles_equal_a_direct_call(tiny_clip, tmp_path):
    import torch

    model, _, tokenize, options = tiny_clip
    encoded = titles(["red shoe", None, "blue hat", " ", "red shoe "], options, tmp_path / "kept")
    assert encoded.present.tolist() == [True, False, True, False, True]
    with torch.inference_mode():
        expected = model.encode_text(tokenize(["red shoe", "blue hat", "red shoe"]), normalize=True).numpy()
    assert encoded.vectors[encoded.present].astype(np.float32) == pytest.approx(expected, abs=1e-3)
    assert encoded.vectors.shape == (5, 24)


def test_a_second_call_does_not_open_the_model(tiny_clip, pictures, tmp_path, monkeypatch):
    options = tiny_clip[-1]
    first = [
        images(pictures, options, tmp_path / "kept"),
        titles(["x", "y"], options, tmp_path / "kept"),
    ]
    monkeypatch.setattr(encoders, "_open_clip_model", lambda options: pytest.fail("the model was opened"))
    again = [
        images(pictures, options, tmp_path / "kept"),
        titles(["x", "y"], options, tmp_path / "kept"),
    ]
    for one, other in zip(first, again, strict=True):
        assert one.vectors.tobytes() == other.vectors.tobytes()
        assert one.hash == other.hash


def test_other_weights_do_not_find_the_vectors_of_these(tiny_clip, tmp_path):
    import torch

    model, _, _, options = tiny_clip
    weights = {name: value + 0.1 for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "tiny.pt")
    other = replace(options, clip_weights=str(tmp_path / "tiny.pt"))
    one, two = (titles(["red shoe"], chosen, tmp_path / "kept") for chosen in (options, other))
    assert one.name == two.name  # the same file name
    assert one.hash != two.hash
    assert np.abs(one.vectors - two.vectors).max() > 1e-3


def test_random_weights_are_repeatable_and_say_so(tiny_clip, monkeypatch, tmp_path):
    monkeypatch.setenv(encoders.RANDOM_ALLOWED, "1")
    options = replace(tiny_clip[-1], clip_weights="random")
    first, again = (titles(["red shoe"], options, tmp_path / name) for name in ("a", "b"))
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert "untrained random weights" in first.name


def test_an_unknown_model_or_weights_that_do_not_fit_are_said_in_one_line(tiny_clip, tmp_path):
    import torch

    options = tiny_clip[-1]
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    for changed, message in (
        ({"clip_model": "ViT-B-33"}, "clip_model = ViT-B-33: open_clip has no such model; did you mean"),
        ({"clip_weights": str(tmp_path / "other.pt")}, "other.pt: cannot be opened"),
        ({"clip_weights": str(tmp_path / "absent.pt")}, "absent.pt: cannot be opened"),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            titles(["x"], replace(options, **changed), tmp_path / "kept")
        assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_named(tiny_clip, tmp_path):
    with pytest.raises(UserError, match=r"device = cuda:99: not available here"):
        titles(["x"], replace(tiny_clip[-1], device="cuda:99"), tmp_path)


def test_a_picture_that_cannot_be_decoded_is_named(tiny_clip, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for name, message in (
        ("broken.jpg", "the image cannot be decoded"),
        ("absent.jpg", "no such image file"),
    ):
        with pytest.raises(UserError, match=rf"{name}: {message}"):
            images([*pictures, str(tmp_path / name)], tiny_clip[-1], tmp_path / "kept")


def test_a_data_set_is_prepared_with_clip_and_found_again(tiny_clip, pictures, tmp_path, monkeypatch):
    events = pl.DataFrame(
        {
            "user": [1] * 5,
            "item": range(5),
            "behavior": ["click", "favor"] * 2 + ["favor"],
            "timestamp": range(5),
        }
    )
    items = pl.DataFrame({"item": range(5), "image": pictures, "title": ["a", "b", None, "c", "d"]})
    raw = RawData(events, ("click", "favor"), "", items=items)
    first = load(prepare(raw, "x", tmp_path / "home" / "x", PrepareOptions(), tiny_clip[-1], {}))
    monkeypatch.setattr(encoders, "_open_clip_model", lambda options: pytest.fail("the model was opened"))
    again = load(prepare(raw, "y", tmp_path / "home" / "y", PrepareOptions(), tiny_clip[-1], {}))
    assert first.fingerprint == again.fingerprint
    assert first.content.features["image"].shape == first.content.features["text"].shape == (6, 24)
    assert first.content.coverage() == {"image": 0.8, "text": 0.8}
    assert first.metadata["encoders"]["image"]["name"] == "clip tiny-clip tiny.pt"
