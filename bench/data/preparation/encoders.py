"""Titles and pictures to vectors: TF-IDF with SVD and EfficientNet-Lite0, which download nothing, or CLIP.

The only user of open_clip.

All vectors are float16 with unit length. Rounding hides nearly all of what machines, threads and batch sizes
change in the last bits, not all: pictures encoded on another processor give another fingerprint. Vectors of
networks are kept by content in a folder: a second preparation, or one after an interruption, encodes only
what is new.

CLIP: A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.data.preparation import efficientnet
from bench.data.preparation.features import Source
from bench.data.preparation.images import decoded_ahead, read_image, survey
from bench.data.preparation.runs import Watch
from bench.data.preparation.shelf import Encoder, Vectors, encode_by_content
from bench.data.preparation.words import FITTED_TITLES, VOCABULARY, encode_words, grams_form, unit
from bench.data.readers.log import OnBadRow
from bench.errors import UserError, hint

RANDOM = "random"
RANDOM_ALLOWED = "M3BENCH_ALLOW_RANDOM_CLIP"
OFFLINE = {"tfidf-svd": "text", "efficientnet": "image"}
"""Encoders that download nothing -> what they encode."""


@dataclass(frozen=True)
class EncoderOptions:
    """How titles and pictures become vectors. Ready-made vectors of a data set are never encoded again."""

    text: Literal["tfidf-svd", "clip", "none"] = "tfidf-svd"
    """Encoder of titles."""
    image: Literal["efficientnet", "clip", "none"] = "none"
    """Encoder of pictures; `efficientnet` needs the extra [offline-image], `clip` the extra [clip]."""
    clip_model: str = "ViT-B-32"
    """Name of an open_clip model; 512 wide are ViT-B-32, ViT-B-16, RN101 and others."""
    clip_weights: str = ""
    """Path of a checkpoint file, or a tag such as laion2b_s34b_b79k that open_clip downloads."""
    text_size: int = 512
    """Width of the TF-IDF vectors; where the titles span less, the rest is zero, so the width is constant."""
    batch_size: int = 64
    """Titles or pictures that CLIP or EfficientNet reads, and encodes, at once."""
    device: str = "auto"
    """Device of CLIP and EfficientNet: `auto` (a GPU where there is one), `cpu`, `cuda`."""
    on_bad_row: OnBadRow = "error"
    """A broken picture: `error` names the first ones and stops, `skip` counts the item as without."""

    def __post_init__(self) -> None:
        if self.text_size < 1 or self.batch_size < 1:
            raise ValueError("text_size and batch_size must be 1 or more")


def chosen_encoders(names: str) -> dict[str, str]:
    """Return the options that stand for what `--encoder` names.

    Args:
        names: `efficientnet` (pictures), `tfidf-svd` (titles), or a model of open_clip, which encodes both
            unless the other name takes one of them; a comma joins two.

    Raises:
        UserError: nothing, or two encoders for one thing, are named, or a name is misspelt.
    """
    parts = [name.strip() for name in names.split(",")]
    models = [name for name in parts if name not in OFFLINE]
    for name in models:
        if (near := hint(name, OFFLINE)).startswith("did"):  # no model of open_clip is called nearly so
            raise UserError(f"--encoder {name}: no such encoder; {near}")
    if not all(parts) or "none" in parts or not len(set(parts)) == len(parts) <= 2 or len(models) > 1:
        fix = "give efficientnet, tfidf-svd, a model of open_clip such as ViT-B-32, or one of each kind"
        raise UserError(f"--encoder {names}: expected one encoder of titles and one of pictures; {fix}")
    chosen = {"text": "clip", "image": "clip", "clip_model": models[0]} if models else {}
    return chosen | {OFFLINE[name]: name for name in parts if name in OFFLINE}


def encode_titles(titles: Sequence[str | None], options: EncoderOptions, cache: Path, watch: Watch) -> Source:
    """Encode titles; an empty one, or one without a word, is absent.

    Args:
        titles: n texts, None where there is none.
        options: `text` chooses the encoder.
        cache: folder of CLIP vectors found again.
        watch: progress callback (stage, done, total).

    Returns:
        Vectors of unit length.

    Raises:
        UserError: CLIP or its weights are not installed.
    """
    texts = [(title or "").strip() for title in titles]
    if options.text == "tfidf-svd":
        name = f"tfidf-svd {options.text_size}"
        digest = hashlib.sha256(json.dumps([name, VOCABULARY, FITTED_TITLES]).encode())
        digest.update(grams_form(texts))
        for text in texts:
            digest.update(f"{len(text)}:{text}".encode())
        return Source(partial(encode_words, texts, options.text_size, watch), name, digest.hexdigest())
    keys = [hashlib.sha256(text.encode()).digest() if text else None for text in texts]
    return encode_by_content(keys, texts, _clip("text", options), "text", cache, watch)


def encode_images(paths: Sequence[str | None], options: EncoderOptions, cache: Path, watch: Watch) -> Source:
    """Encode picture files; an item without a path, or with a broken picture that is skipped, is absent.

    Args:
        paths: n files, None where there is none.
        options: `image` chooses the encoder, `on_bad_row` says what becomes of broken pictures.
        cache: folder of vectors found again.
        watch: progress callback (stage, done, total).

    Returns:
        Vectors of unit length, with the broken pictures that were skipped.

    Raises:
        UserError: the encoder or its weights are not installed, a file is missing or cannot be decoded.
    """
    if options.image == "clip":
        encoder = _clip("image", options)
    else:
        encoder = efficientnet.encoder(options.batch_size, partial(_move, options.device))
    seen = survey(paths, options.on_bad_row, watch)  # after the encoder: it reads every picture
    contents = [path or "" for path in paths]
    source = encode_by_content(seen.digests, contents, encoder, "image", cache, watch)
    return replace(source, broken=seen.broken)


def _move(wanted: str, model: Any) -> str:
    """Put a model on its device and return the device's name."""
    import torch

    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = automatic if wanted == "auto" else wanted
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device = {device}: not available here; set data.device to auto or cpu") from error
    return device


def _clip(modality: str, options: EncoderOptions) -> Encoder:
    """Return CLIP's encoder of titles or pictures; the model is opened later.

    Raises:
        UserError: no weights are named, or random ones are, outside tests.
    """
    label, weights = _weights(options)
    identity = json.dumps([options.clip_model, weights])
    opened = partial(_opened_clip, modality, options)
    return Encoder(f"clip {options.clip_model} {label}", identity, opened)


def _weights(options: EncoderOptions) -> tuple[str, str]:
    """Return what to call the weights, and a digest or tag that stands for their content.

    Raises:
        UserError: none are named, or random ones are, outside tests.
    """
    given = options.clip_weights
    if not given:
        raise UserError(
            "clip_weights is empty, and untrained weights would say nothing: set data.clip_weights to a "
            f"checkpoint file of {options.clip_model} or a tag that open_clip downloads (laion2b_s34b_b79k)"
        )
    if given == RANDOM:
        if os.environ.get(RANDOM_ALLOWED) != "1":
            fix = "give a checkpoint file or a tag"
            raise UserError(f"clip_weights = {given}: untrained weights say nothing; {fix}")
        return "untrained random weights", RANDOM
    if Path(given).is_file():
        with Path(given).open("rb") as file:
            return Path(given).name, hashlib.file_digest(file, "sha256").hexdigest()
    return given, f"tag {given}"


def _opened_clip(modality: str, options: EncoderOptions) -> Callable[[list[str]], Iterator[Vectors]]:
    """Open the model and return what encodes titles or files, in batches."""
    import torch

    model, prepare, tokenize = _open_clip_model(options)
    device, size = _move(options.device, model.eval()), options.batch_size

    def inputs(contents: list[str]) -> Iterator[Any]:
        if modality == "text":
            yield from (tokenize(contents[row : row + size]) for row in range(0, len(contents), size))
        else:
            batches = decoded_ahead(contents, size, lambda path: prepare(read_image(path)))
            yield from map(torch.stack, batches)

    def encode(contents: list[str]) -> Iterator[Vectors]:
        forward = model.encode_text if modality == "text" else model.encode_image
        for batch in inputs(contents):
            with torch.inference_mode():
                vectors = forward(batch.to(device)).float().cpu().numpy()
            yield unit(vectors).astype(np.float16)

    return encode


def _open_clip_model(options: EncoderOptions) -> tuple[Any, Any, Any]:
    """Return model, image transform and tokenizer.

    Raises:
        UserError: open_clip is missing, or there is no such model or checkpoint, or they do not fit.
    """
    open_clip = _import_open_clip()
    name, given = options.clip_model, options.clip_weights
    if name not in open_clip.list_models():
        known = hint(name, open_clip.list_models())
        raise UserError(f"clip_model = {name}: open_clip has no such model; {known}")
    pretrained = None if given == RANDOM else given
    logging.disable(logging.ERROR)  # open_clip logs what it then raises; the user reads it once
    try:
        import torch

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(0)
            warnings.filterwarnings("error", message="QuickGELU mismatch")  # weights of another activation
            model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=pretrained)
            return model, prepare, open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the network raise errors of many classes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        fix = "give a checkpoint file of this model, or one of the tags of `open_clip.list_pretrained()`"
        given = f"clip_model = {name}, clip_weights = {given}"
        raise UserError(f"{given}: cannot be opened ({reason}); {fix}") from error
    finally:
        logging.disable(logging.NOTSET)


_declared: list[Any] = []  # keeps the operators below alive


def _import_open_clip() -> Any:
    """Import open_clip, also where torchvision was built for another torch.

    The torchvision wheel for CUDA does not import beside a CPU torch, because two operators that only
    detection models need are not registered. Once they are declared it imports, and its transforms work.
    """
    try:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            from torch.library import Library

            library = Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
        import open_clip
    except ImportError as error:
        fix = 'pip install "m3bench[clip]"'
        raise UserError(f"CLIP needs open_clip, which cannot be imported ({error}); {fix}") from error
    return open_clip
