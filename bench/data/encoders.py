"""Titles and pictures to vectors: TF-IDF with SVD, which needs nothing, or CLIP. The only user of open_clip.

All vectors are float16 with unit length. Rounding hides nearly all of what machines, threads and batch sizes
change in the last bits, and with it in the fingerprint of a data set. CLIP vectors are kept by content in a
folder: a second preparation, or one after an interruption, encodes only what is new.

CLIP: A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.images import read_image
from bench.data.shelf import Encode, Vectors, encode_missing
from bench.data.words import FITTED_TITLES, VOCABULARY, encode_words, unit
from bench.errors import UserError, hint

RANDOM = "random"
RANDOM_ALLOWED = "M3BENCH_ALLOW_RANDOM_CLIP"


@dataclass(frozen=True)
class EncoderOptions:
    """How titles and pictures become vectors. Ready-made vectors of a data set are never encoded again."""

    text: Literal["tfidf-svd", "clip", "none"] = "tfidf-svd"
    """Encoder of titles."""
    image: Literal["clip", "none"] = "none"
    """Encoder of pictures."""
    clip_model: str = "ViT-B-32"
    """Name of an open_clip model; 512 wide are ViT-B-32, ViT-B-16, RN101 and others."""
    clip_weights: str = ""
    """Path of a checkpoint file, or a tag such as laion2b_s34b_b79k that open_clip downloads."""
    text_size: int = 512
    """Width of the TF-IDF vectors; where the titles span less, the rest is zero, so the width is constant."""
    batch_size: int = 64
    """Titles or pictures that CLIP encodes at once."""
    device: str = "auto"
    """Device of CLIP: `auto`, `cpu`, `cuda`."""

    def __post_init__(self) -> None:
        if self.text_size < 1 or self.batch_size < 1:
            raise ValueError("text_size and batch_size must be 1 or more")


@dataclass(frozen=True)
class Encoded:
    """Vectors of one modality."""

    vectors: Vectors
    """(n, D) float16, unit length where present, else zero; D is 0 where nothing is present."""
    present: NDArray[np.bool_]
    """(n,)."""
    name: str
    """Encoder and weights, in words."""
    hash: str
    """SHA-256 over the encoder, its options and the contents encoded."""


def encode_titles(titles: Sequence[str | None], options: EncoderOptions, cache: Path | None) -> Encoded:
    """Encode titles; an empty one, or one without a word, is absent.

    Args:
        titles: n texts, None where there is none.
        options: `text` chooses the encoder.
        cache: folder of CLIP vectors found again; None keeps none.

    Raises:
        UserError: CLIP or its weights cannot be had.
    """
    texts = [(title or "").strip() for title in titles]
    if options.text == "tfidf-svd":
        vectors, name = encode_words(texts, options.text_size), f"tfidf-svd {options.text_size}"
        return Encoded(
            vectors, np.asarray(vectors.any(axis=1)), name, _hash(name, [VOCABULARY, FITTED_TITLES], texts)
        )
    keys = (hashlib.sha256(text.encode()).digest() if text else None for text in texts)
    return _encode_by_content(keys, "text", texts, options, cache)


def encode_images(paths: Sequence[str | None], options: EncoderOptions, cache: Path | None) -> Encoded:
    """Encode picture files by CLIP; an item without a path is absent.

    Args:
        paths: n files, None where there is none.
        options: model and weights.
        cache: folder of CLIP vectors found again; None keeps none.

    Raises:
        UserError: CLIP or its weights cannot be had, a file is missing or cannot be decoded.
    """
    files = [path or "" for path in paths]
    keys = (_digest_of_file(path, "image") if path else None for path in files)
    return _encode_by_content(keys, "image", files, options, cache)


def _digest_of_file(path: str, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path}: no such {what} file; correct the path or leave it out") from error


def _hash(name: str, options: Any, contents: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([name, options]).encode())
    for content in contents:
        digest.update(f"{len(content)}:{content}".encode())
    return digest.hexdigest()


def _encode_by_content(
    digests: Iterable[bytes | None],
    modality: str,
    contents: list[str],
    options: EncoderOptions,
    cache: Path | None,
) -> Encoded:
    """Encode each distinct content once and spread the vectors over the rows."""
    label, weights = _weights(options)
    keys = list(digests)  # reads every picture, so only once the weights are known to be there
    place: dict[bytes, int] = {}
    row_of = np.array([-1 if key is None else place.setdefault(key, len(place)) for key in keys], np.int64)
    first = np.full(len(place), len(keys))
    np.minimum.at(first, row_of[row_of >= 0], np.flatnonzero(row_of >= 0))
    shelf = cache and cache / f"{modality}-{_hash(options.clip_model, weights, [])[:24]}"
    open_encoder = partial(_clip_encoder, modality, contents, options)
    table = encode_missing(list(place), first, shelf, open_encoder, options.batch_size)  # (contents, D)
    vectors = np.zeros((len(keys), table.shape[1]), np.float16)
    present = row_of >= 0
    vectors[present] = table[row_of[present]]
    name = f"clip {options.clip_model} {label}"
    contents_hash = _hash(name, weights, ["" if key is None else key.hex() for key in keys])
    return Encoded(vectors, present, name, contents_hash)


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
        return Path(given).name, _digest_of_file(given, "checkpoint").hex()
    return given, f"tag {given}"


def _clip_encoder(modality: str, contents: list[str], options: EncoderOptions) -> Encode:
    """Open the model and return the function that encodes rows of `contents`, files or titles."""
    import torch

    model, prepare, tokenize = _open_clip_model(options)
    device = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device
    device = "cpu" if device == "auto" else device
    try:
        model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device = {device}: not available here; set data.device to auto or cpu") from error

    def encode(rows: list[int]) -> Vectors:
        chosen = [contents[row] for row in rows]
        with torch.inference_mode():
            if modality == "text":
                vectors = model.encode_text(tokenize(chosen).to(device))
            else:
                with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                    images = list(pool.map(lambda path: prepare(read_image(path)), chosen))
                vectors = model.encode_image(torch.stack(images).to(device))
        return unit(vectors.float().cpu().numpy()).astype(np.float16)

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
