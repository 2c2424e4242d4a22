import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from bench.data import encoders
from bench.data.encoders import EncoderOptions, encode_images, encode_titles
from bench.data.prepare import PrepareOptions, prepare
from bench.data.schema import RawData
from bench.errors import UserError

TITLES = ["red shoe", "blue shoe", None, "red hat", "", "  ", "...", "a 7", "red shoe"]


def test_titles_without_a_word_are_absent_and_zero():
    encoded = encode_titles(TITLES, EncoderOptions(text_size=16), None)
    assert encoded.present.tolist() == [True, True, False, True, False, False, False, True, True]
    assert encoded.vectors.shape == (9, 16)
    assert not encoded.vectors[~encoded.present].any()
    assert np.linalg.norm(encoded.vectors[encoded.present].astype(float), axis=1) == pytest.approx(
        np.ones(5), abs=2e-3
    )


def test_cosines_of_untruncated_vectors_are_those_of_tf_idf_by_the_formula():
    titles = ["red red shoe", "blue shoe", "red hat", "x"]
    words = ["red", "shoe", "blue", "hat", "x"]
    table = np.zeros((4, 5))
    for row, title in enumerate(titles):
        for column, word in enumerate(words):
            count, holding = title.split().count(word), sum(word in other.split() for other in titles)
            table[row, column] = (1 + math.log(count)) * (1 + math.log(5 / (1 + holding))) if count else 0
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    vectors = encode_titles(titles, EncoderOptions(text_size=12), None).vectors.astype(float)
    assert vectors @ vectors.T == pytest.approx(table @ table.T, abs=2e-3)
    assert not vectors[:, 4:].any()  # the width is constant: four titles span four dimensions


def test_few_dimensions_keep_the_larger_group_apart_from_the_smaller():
    titles = [f"apple pear w{n % 3}" for n in range(12)] + [f"bolt screw v{n % 3}" for n in range(8)]
    vectors = encode_titles(titles, EncoderOptions(text_size=2), None).vectors.astype(float)
    cosines = vectors @ vectors.T
    assert cosines[:12, :12].min() > 0.9
    assert cosines[12:, 12:].min() > 0.9
    assert np.abs(cosines[:12, 12:]).max() < 0.1


@pytest.mark.parametrize("titles", [["one"], ["same", "same"], [None], []])
def test_very_few_titles_can_be_encoded(titles, recwarn):
    encoded = encode_titles(titles, EncoderOptions(), None)
    assert encoded.vectors.shape == (len(titles), 512)
    assert encoded.present.tolist() == [title is not None for title in titles]
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_the_same_titles_give_the_same_bytes_and_hash_and_others_do_not():
    options = EncoderOptions(text_size=16)
    first, again = (encode_titles(TITLES, options, None) for _ in range(2))
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert first.hash == again.hash
    assert encode_titles([*TITLES[:-1], "green"], options, None).hash != first.hash
    assert encode_titles(TITLES, replace(options, text_size=17), None).hash != first.hash


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="must be 1 or more"):
        EncoderOptions(text_size=0)


def test_clip_without_weights_says_how_to_give_them():
    with pytest.raises(UserError, match=r"clip_weights is empty.*checkpoint file of ViT-B-32 or a tag"):
        encode_titles(["x"], EncoderOptions(text="clip"), None)


def test_random_weights_are_refused(monkeypatch):
    monkeypatch.delenv(encoders.RANDOM_ALLOWED, raising=False)
    with pytest.raises(UserError, match=r"clip_weights = random: untrained weights say nothing"):
        encode_images([None], EncoderOptions(image="clip", clip_weights="random"), None)


def test_a_missing_open_clip_names_the_command(monkeypatch, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    options = EncoderOptions(text="clip", clip_weights=str(tmp_path / "weights.pt"))
    with pytest.raises(UserError, match=re.escape('pip install "m3bench[clip]"')):
        encode_titles(["x"], options, None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any, EncoderOptions]:
    """Return a CLIP of one layer, its transform and tokenizer, and the options that open its checkpoint."""
    try:
        open_clip = encoders._import_open_clip()
    except UserError as error:
        pytest.skip(str(error))
    import torch

    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(11)
    model, _, transform = open_clip.create_model_and_transforms("tiny-clip")
    torch.save(model.state_dict(), folder / "tiny.pt")
    options = EncoderOptions("clip", "clip", "tiny-clip", str(folder / "tiny.pt"), batch_size=2, device="cpu")
    return model.eval(), transform, open_clip.get_tokenizer("tiny-clip"), options


@pytest.fixture
def pictures(tmp_path: Path) -> list[str | None]:
    """Return five paths: three pictures, one of them twice, and none."""
    rng, paths = np.random.default_rng(0), []
    for name, mode in (("a.png", "RGB"), ("b.jpg", "L"), ("c.png", "RGBA")):
        size = (40, 50) if mode == "L" else (40, 50, len(mode))
        path = tmp_path / name
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8), mode).save(path)
        paths.append(str(path))
    return [paths[0], None, paths[1], paths[2], paths[0]]


def test_clip_images_equal_a_direct_call(tiny, pictures):
    import torch

    model, transform, _, options = tiny
    encoded = encode_images(pictures, options, None)
    assert encoded.present.tolist() == [True, False, True, True, True]
    assert encoded.name == "clip tiny-clip tiny.pt"
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures if path])
        expected = model.encode_image(images, normalize=True).numpy()
    assert encoded.vectors[encoded.present].astype(np.float32) == pytest.approx(expected, abs=1e-3)
    assert not encoded.vectors[1].any()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2  # two pictures are told apart


def test_clip_titles_equal_a_direct_call(tiny):
    import torch

    model, _, tokenize, options = tiny
    encoded = encode_titles(["red shoe", None, "blue hat", " ", "red shoe "], options, None)
    assert encoded.present.tolist() == [True, False, True, False, True]
    with torch.inference_mode():
        expected = model.encode_text(tokenize(["red shoe", "blue hat", "red shoe"]), normalize=True).numpy()
    assert encoded.vectors[encoded.present].astype(np.float32) == pytest.approx(expected, abs=1e-3)
    assert encoded.vectors.shape == (5, 24)


def test_a_second_call_does_not_open_the_model(tiny, pictures, tmp_path, monkeypatch):
    options = tiny[-1]
    first = [
        encode_images(pictures, options, tmp_path / "kept"),
        encode_titles(["x", "y"], options, tmp_path / "kept"),
    ]
    monkeypatch.setattr(encoders, "_open_clip_model", lambda options: pytest.fail("the model was opened"))
    again = [
        encode_images(pictures, options, tmp_path / "kept"),
        encode_titles(["x", "y"], options, tmp_path / "kept"),
    ]
    for one, other in zip(first, again, strict=True):
        assert one.vectors.tobytes() == other.vectors.tobytes()
        assert one.hash == other.hash


def test_other_weights_do_not_find_the_vectors_of_these(tiny, tmp_path):
    import torch

    model, _, _, options = tiny
    weights = {name: value + 0.1 for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "tiny.pt")
    other = replace(options, clip_weights=str(tmp_path / "tiny.pt"))
    one, two = (encode_titles(["red shoe"], chosen, tmp_path / "kept") for chosen in (options, other))
    assert one.name == two.name  # the same file name
    assert one.hash != two.hash
    assert np.abs(one.vectors - two.vectors).max() > 1e-3


def test_random_weights_are_repeatable_and_say_so(tiny, monkeypatch):
    monkeypatch.setenv(encoders.RANDOM_ALLOWED, "1")
    options = replace(tiny[-1], clip_weights="random")
    first, again = (encode_titles(["red shoe"], options, None) for _ in range(2))
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert "untrained random weights" in first.name


def test_an_unknown_model_or_weights_that_do_not_fit_are_said_in_one_line(tiny, tmp_path):
    import torch

    options = tiny[-1]
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    for changed, message in (
        ({"clip_model": "ViT-B-33"}, "clip_model = ViT-B-33: open_clip has no such model; did you mean"),
        ({"clip_weights": str(tmp_path / "other.pt")}, "other.pt: cannot be opened"),
        ({"clip_weights": str(tmp_path / "absent.pt")}, "absent.pt: cannot be opened"),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            encode_titles(["x"], replace(options, **changed), None)
        assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_named(tiny):
    with pytest.raises(UserError, match=r"device = cuda:99: not available here"):
        encode_titles(["x"], replace(tiny[-1], device="cuda:99"), None)


def test_a_picture_that_cannot_be_decoded_is_named(tiny, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for name, message in (
        ("broken.jpg", "the image cannot be decoded"),
        ("absent.jpg", "no such image file"),
    ):
        with pytest.raises(UserError, match=rf"{name}: {message}"):
            encode_images([*pictures, str(tmp_path / name)], tiny[-1], None)


def test_a_data_set_is_prepared_with_clip_and_found_again(tiny, pictures, tmp_path, monkeypatch):
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
    first = prepare(raw, "x", tmp_path / "home" / "x", PrepareOptions(), tiny[-1], {})
    monkeypatch.setattr(encoders, "_open_clip_model", lambda options: pytest.fail("the model was opened"))
    again = prepare(raw, "y", tmp_path / "home" / "y", PrepareOptions(), tiny[-1], {})
    assert first.fingerprint == again.fingerprint
    assert first.content.features["image"].shape == first.content.features["text"].shape == (6, 24)
    assert first.content.coverage() == {"image": 0.8, "text": 0.8}
    assert first.metadata["encoders"]["image"]["name"] == "clip tiny-clip tiny.pt"
