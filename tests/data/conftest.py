"""Training batches of a log and their rows in plain numbers; a CLIP and pictures small enough for tests."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from bench.data.batches.histories import DropTargetClick
from bench.data.batches.loader import TrainingBatches
from bench.data.preparation import encoders
from bench.data.preparation.encoders import EncoderOptions
from bench.data.protocol.split import split
from bench.data.schema import Interactions
from bench.errors import UserError
from bench.interface import Batch, View


@pytest.fixture
def batches_of() -> Callable[..., TrainingBatches]:
    """Return a function (log, view, rule, num_items, target behavior) -> training batches."""

    def build(
        log: Interactions,
        view: View,
        rule: DropTargetClick = "same_timestamp",
        num_items: int = 9,
        target: int = 2,
    ) -> TrainingBatches:
        return TrainingBatches(log, split(log, target), view, num_items, target, rule, seed=3)

    return build


@pytest.fixture
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    """Return a function (batches, *fields) -> (user, field, ...) of every row, padding cut off, sorted."""

    def collect(batches: Iterable[Batch], *fields: str) -> list[tuple[Any, ...]]:
        found = []
        for batch in batches:
            for row in range(len(batch)):
                real = batch.mask[row]
                values = [getattr(batch, field)[row] for field in fields]
                found.append((int(batch.user[row]), *(_plain(value, real) for value in values)))
        return sorted(found)

    return collect


def _plain(value: Tensor, real: Tensor) -> Any:
    return tuple(value[real].tolist()) if value.shape == real.shape else value.tolist()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any, EncoderOptions]:
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
def on_white() -> Callable[[str], Image.Image]:
    """Return a function path -> picture of 8 bits with its transparent places white, by the formula."""

    def laid(path: str) -> Image.Image:
        colors = np.asarray(Image.open(path).convert("RGBA")).astype(float)
        alpha = colors[..., 3:] / 255
        return Image.fromarray(np.rint(colors[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))

    return laid


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
