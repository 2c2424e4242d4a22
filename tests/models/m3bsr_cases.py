"""A small catalog, batches with every kind of history, M3BSR in both readings, and its block alone."""

from dataclasses import replace

import numpy as np
import torch

from bench.config import build_options
from bench.interface import Batch, DatasetInfo, ItemContent
from bench.models.m3bsr import CARDS
from bench.models.m3bsr.config import Denoising, M3BSRConfig
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.layout import layout
from bench.models.m3bsr.model import M3BSR

N, USERS, L = 30, 9, 8
SIZE = 16  # of a denoising block alone
VARIANTS = {name: options for name, (_, options) in CARDS[0].variants.items() if name != "prefix"}
FORMS = {
    **VARIANTS,
    "default": {},
    "all_steps": {"cdmd_m.reverse_steps": None, "cdmd_b.reverse_steps": 3},
    "clicks_ask": {"meie.share": "click_to_favor"},
    "both_ask": {"meie.share": "both"},
    "tokens": {"meie.concat": "time"},
    "tokens_both": {"meie.concat": "time", "meie.share": "both"},
    "two_layers": {"meie.num_layers": 2, "meie.pool": "mean"},
    "tied": {"meie.tie_behaviors": True},
    "networks": {"cdmd_m.replace": "mlp", "cdmd_b.replace": "mlp"},
    "raw": {"space": "raw_standardized"},
    "all_modalities": {"cdmd_b.cond": "all"},
    "context": {"cdmd_m.cond": "context"},
    "tile": {"fusion": "tile", "head": "linear"},
    "noised": {"cdmd_m.infer_start": "noised"},
}


def content(image=True, text=True):
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((N + 1, 12)).astype(np.float32) for name in ("image", "text")}
    present = {name: rng.random(N + 1) > 0.2 for name in features}
    for name, kept in (("image", image), ("text", text)):
        if not kept:
            del features[name], present[name]
    return ItemContent(N, features, present, {"brand": rng.integers(0, 4, N + 1).astype(np.int32)})


def build(options=None, behaviors=("click", "favor"), seed=0, **modalities):
    """Return the model in the prefix reading."""
    return _built({**CARDS[0].variants["prefix"][1], **(options or {})}, behaviors, seed, modalities)


def causal(options=None, behaviors=("click", "favor"), seed=0, **modalities):
    """Return the model in its default reading, without dropout."""
    return _built({"meie.dropout": 0.0, **(options or {})}, behaviors, seed, modalities)


def _built(options, behaviors, seed, modalities):
    torch.manual_seed(seed)
    small = {"hidden_size": 16, "id_size": 4, "max_history": L, "micro_batch": 4}
    config = build_options(M3BSRConfig, {**small, **options}, "test")
    return M3BSR(config, DatasetInfo(USERS, N, behaviors, content(**modalities)))


def windows(seed=0, rows=6, behaviors=2):
    """Return the histories of `batch` with the event that follows each as its label."""
    data = batch(seed, rows, behaviors)
    real = data.mask
    labels = torch.cat([data.history[:, 1:], data.target[:, None]], 1) * real
    kinds = torch.cat([data.behavior[:, 1:], torch.full((rows, 1), behaviors)], 1) * real
    return replace(data, target=None, labels=labels, label_behavior=kinds)


def batch(seed=0, rows=6, behaviors=2):
    g = torch.Generator().manual_seed(seed)
    history = torch.randint(1, N + 1, (rows, L), generator=g)
    behavior = torch.randint(1, behaviors + 1, (rows, L), generator=g)
    start = torch.randint(0, L - 1, (rows, 1), generator=g)
    real = torch.arange(L) >= start
    behavior[0] = 1  # a user without favors, where there are two behaviors or more
    behavior[1] = behaviors  # a user with favors alone
    real[2] = False  # a user without any event
    history, behavior = history * real, behavior * real
    return Batch(torch.arange(rows), history, behavior, torch.zeros_like(history),
                 target=torch.randint(1, N + 1, (rows,), generator=g))  # fmt: skip


def with_other_item(data, behavior, row=3):
    """Return the batch with the newest item of a behavior changed in one row."""
    position = int((data.behavior[row] == behavior).nonzero()[-1])
    history = data.history.clone()
    history[row, position] = history[row, position] % N + 1
    return Batch(data.user, history, data.behavior, data.timestamp, target=data.target)


def scores(model, data, candidates=None):
    everything = torch.arange(1, N + 1).expand(len(data), -1)
    with torch.no_grad():
        return model.eval().score(data, everything if candidates is None else candidates)


def denoised(model, data):
    """Return Y and Z in inference."""
    with torch.no_grad():
        return model.eval().denoised(data, layout(data, model.target_behavior))


def loss_of(model, data, seed=5):
    torch.manual_seed(seed)
    return model.train().loss(data)


def size(module):
    return sum(p.numel() for p in module.parameters())


def block(groups=1, size=SIZE, **options):
    """Return a block whose errors are means over coordinates: no skill is 1."""
    torch.manual_seed(0)
    return ConditionalDenoising(groups, size, SIZE, Denoising(**{"norm": "mean", **options}))


def given(rows=5, length=4, groups=1, size=SIZE):
    """Return stream, mask, condition, what may be seen, and users."""
    g = torch.Generator().manual_seed(3)
    clean = torch.randn(groups, rows, length, size, generator=g)
    condition = torch.randn(groups, rows, 3, SIZE, generator=g)
    mask = torch.ones(rows, length, dtype=torch.bool)
    return clean, mask, condition, torch.ones(rows, 1, 3, dtype=torch.bool), torch.arange(rows)
