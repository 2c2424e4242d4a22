"""Thirty percent of the images removed: masks decide, whatever the rows hold, in training and scoring."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.config import build_options
from bench.contract import events, training_batches
from bench.example import ITEMS, example_batch, example_info
from bench.interface import DatasetInfo, Recommender
from bench.registry import entries
from bench.training.loop import start_stage
from bench.training.step import make_optimizer, train_step

MODELS = ("missrec", "mmsbr", "mmmlp", "m3srec", "cmclrec", "m3bsr", "diff_msin")


def without_images(seed: int, noise: float) -> tuple[DatasetInfo, np.ndarray]:
    """Return the example less 30 % of all images, the rows of the removed ones filled with noise."""
    info, rng = example_info(), np.random.default_rng(seed)
    present = {name: mask.copy() for name, mask in info.content.present.items()}
    features = {name: np.array(rows, np.float32) for name, rows in info.content.features.items()}
    gone = np.random.default_rng(3).choice(np.arange(1, ITEMS + 1), round(0.3 * ITEMS), replace=False)
    present["image"][gone] = False
    features["image"][gone] = noise * rng.standard_normal((len(gone), features["image"].shape[1]))
    return replace(info, content=replace(info.content, features=features, present=present)), gone


def trained(name: str, info: DatasetInfo) -> Recommender:
    """Return a model after a step of each of its stages."""
    entry = entries()[name]
    kind = entry.load()
    torch.manual_seed(0)
    model: Recommender = kind(build_options(kind.Config, entry.card.options, name), info)
    model.set_up(events())
    for stage in model.stages():
        start_stage(model, stage, events())
        optimizer = make_optimizer(model.train(), stage)
        model.start_epoch(0, events())
        terms = train_step(model, next(training_batches(stage, 0)), stage, optimizer)
        assert np.isfinite(list(terms.values())).all()
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_in_the_row_of_an_absent_image_changes_nothing(name: str) -> None:
    torch.set_num_threads(1)
    (first, gone), (second, _) = without_images(1, 1.0), without_images(2, 50.0)
    batch = example_batch()
    candidates = torch.arange(1, ITEMS + 1).repeat(len(batch), 1)
    models = [trained(name, info) for info in (first, second)]
    with torch.no_grad():
        scores = [model.score(batch, candidates) for model in models]
    assert torch.isfinite(scores[0]).all() and torch.equal(*scores)
    whole = trained(name, example_info())
    with torch.no_grad():
        assert not torch.allclose(whole.score(batch, candidates), scores[0], atol=1e-6)
    assert len(gone) == 9
