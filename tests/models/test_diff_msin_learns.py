"""Diff-MSIN fits: pairs by heart, and a planted preference that it has to carry over to new users."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.model import DiffMSIN

N, CLUSTERS, L, USERS = 60, 6, 6, 300


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def build(**options):
    """Items 1..60 lie in six clusters, shown by image and text with noise."""
    rng = np.random.default_rng(0)
    cluster = np.eye(CLUSTERS)[np.arange(N + 1) % CLUSTERS]
    features = {
        name: (cluster + 0.3 * rng.standard_normal(cluster.shape)).astype(np.float32)
        for name in ("image", "text")
    }
    present = {name: np.arange(N + 1) > 0 for name in features}
    torch.manual_seed(0)
    config = DiffMSINConfig(
        hidden_size=16,
        max_history=L,
        attention_hidden=(16,),
        head_hidden=(32, 16),
        diffusion_steps=3,
        **options,
    )
    return DiffMSIN(config, DatasetInfo(USERS, N, ("click", "favor"), ItemContent(N, features, present, {})))


def planted(rng, rows, negatives):
    """Histories and positives from one cluster each, negatives from the others; never an item twice."""
    chosen = rng.integers(0, CLUSTERS, rows)
    order = rng.permuted(np.tile(np.arange(N // CLUSTERS), (rows, 1)), axis=1)
    of_user = (
        order * CLUSTERS + np.where(chosen == 0, CLUSTERS, chosen)[:, None]
    )  # (rows, 10) items of the cluster
    others = (
        np.argsort(rng.random((rows, N)) + ((np.arange(1, N + 1) % CLUSTERS) == chosen[:, None]), axis=1) + 1
    )
    shown = np.concatenate([of_user[:, L : L + 1], others[:, :negatives]], 1)
    return torch.from_numpy(of_user[:, :L].copy()), torch.from_numpy(shown)


def rows_of(history, shown):
    k = shown.shape[1]
    label = torch.zeros(shown.shape)
    label[:, 0] = 1
    user = torch.arange(len(history)).repeat_interleave(k)
    wide = history.repeat_interleave(k, 0)
    return Batch(
        user,
        wide,
        torch.ones_like(wide),
        torch.zeros_like(wide),
        target=shown.flatten(),
        label=label.flatten(),
    )


def fit(model, draw, steps):
    optimizer = torch.optim.Adam(model.train().parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(draw())["loss"].backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("options", [{}, {"fdaf": "gated_cross"}])
def test_64_pairs_are_learned_by_heart(options):
    rng = np.random.default_rng(1)
    history, shown = (
        torch.from_numpy(rng.integers(1, N + 1, (16, L))),
        torch.from_numpy(rng.integers(1, N + 1, (16, 4))),
    )
    pairs = rows_of(history, shown)
    model = fit(build(**options), lambda: pairs, 60)
    with torch.no_grad():
        scores = model.score(Batch(torch.arange(16), history, torch.ones_like(history), history), shown)
    assert len(pairs) == 64 and roc_auc_score(pairs.label, scores.flatten()) > 0.99


@pytest.mark.parametrize("objective", ["bce", "softmax"])
def test_a_planted_preference_is_ranked_first_for_new_users(objective):
    rng = np.random.default_rng(2)
    model = fit(build(objective=objective), lambda: rows_of(*planted(rng, 64, 4)), 60)
    history, shown = planted(rng, USERS, 49)
    with torch.no_grad():
        scores = model.score(Batch(torch.arange(USERS), history, torch.ones_like(history), history), shown)
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)
    assert (ranks <= 10).float().mean() > 0.9  # chance is 0.2
