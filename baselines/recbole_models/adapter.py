"""Zhao et al.: RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
Algorithms, CIKM 2021, arXiv:2011.01731: the classes of its version 1.2.1 behind the interface of m3bench.

`recbole:NAME` is RecBole's own class with its own options. It is trained by the loop of m3bench on the split,
histories and negatives that all models have, and ranked by the evaluator of m3bench: rows can be compared.
Nothing else of RecBole runs: no configuration, data set, sampler, trainer, logger or evaluator of it.

Repairs, all here: names that NumPy 2 and SciPy dropped are put back for RecBole's files; representations
that a graph model keeps from an earlier evaluation are dropped before the next one; RecBole draws from the
generators of Python and NumPy, which are seeded from torch's.
"""

import importlib
import logging
import random
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bench.baselines.recbole_models import ATTRIBUTES, Found, found
from bench.baselines.recbole_models.log import (
    ITEM,
    LABEL,
    LENGTH,
    NEGATIVE,
    SEQUENCE,
    USER,
    Log,
    settings,
)
from bench.errors import UserError
from bench.interface import Batch, Causal, DatasetInfo, Next, Pairs, Recommender, Stage, TrainingEvents
from bench.nn.negatives import UntouchedItems

WHOLE = 10**9
"""Window that holds any history."""
MASKED = "MASK_INDEX"
"""Column of the masked events of a history, 0 where there are fewer."""
KEPT = ("restore_user_e", "restore_item_e")
"""Attributes in which graph models keep representations for scoring."""
PAIRS_ALONE = ("FISM", "NAIS")
"""Models whose scores of all items are computed user by user, by an index that PyTorch 2 refuses."""
BY_USER = ("CDAE", "DiffRec", "ENMF", "MacridVAE", "MultiDAE", "MultiVAE")
"""Models whose sample is a user with all items."""


@cache
def class_of(name: str) -> type[Recommender]:
    """Return the class of a RecBole model by its RecBole name."""
    model = found()[name]
    base = Sequential if model.kind == "sequential" else General
    return type(name, (base,), {"Config": _config_of(model), "model": model, "__module__": __name__})


def _config_of(model: Found) -> type:
    """Return the options of a model as a frozen dataclass: those of training, then RecBole's own."""
    usual: dict[str, Any] = {
        "learning_rate": 1e-3,
        "batch_size": 512 if model.name in BY_USER else 2048,
        "max_history": 50,
        "epochs": 300,
        "patience": 10,
    }
    own = {name.replace("-", "_"): value for name, value in model.options.items()}
    parts = []
    for name, value in {**usual, **own}.items():
        if isinstance(value, list):
            member: Any = type(value[0]) if value else int
            kind: Any = tuple[member, ...]
            parts.append((name, kind, field(default=tuple(value))))
        else:
            parts.append((name, type(value), field(default=value)))
    return make_dataclass(f"{model.name}Options", parts, frozen=True)


def _import(module: str) -> Any:
    """Import a module of RecBole with the names that NumPy 2 and SciPy dropped."""
    old: dict[str, Any] = {
        "bool": bool,
        "int": int,
        "float": float,
        "object": object,
        "str": str,
        "long": np.int64,
    }
    old |= {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "Inf": np.inf}
    for name, kind in old.items():
        if name not in np.__dict__:
            setattr(np, name, kind)
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda matrix, cells: matrix._dict.update(cells)
    slow = torch.is_anomaly_enabled()
    try:
        return importlib.import_module(module)
    finally:  # its files switch on the search for anomalies, for the whole process: twice as slow
        torch.autograd.set_detect_anomaly(slow)


def seed_from_torch(seed: int | None = None) -> None:
    """Seed Python's and NumPy's global generators, which RecBole draws from, by a draw of torch's."""
    drawn = int(torch.randint(2**31, (1,))) if seed is None else seed
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 (the generator that RecBole's files use)


class RecBoleModel(Recommender):
    """A model of RecBole: built in `set_up`, since its class reads the training part at once."""

    model: Found
    anchor: Tensor

    def __init__(self, config: Any, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.max_history = config.max_history
        self.inner: Any = None
        self.untouched: UntouchedItems | None = None
        self.register_buffer("anchor", torch.zeros(0), persistent=False)
        if self.model.name in ATTRIBUTES and not info.content.attributes:
            raise UserError(
                f"recbole:{self.model.name}: needs categorical attributes of items, and there are none"
            )

    def set_up(self, events: TrainingEvents) -> None:
        """Build RecBole's model on the training part."""
        device = self.anchor.device
        kind = getattr(_import(self.model.module), self.model.name)
        self.interaction = _import("recbole.data.interaction").Interaction
        options = {name: getattr(self.config, name) for name in self.config.__dataclass_fields__}
        if self.model.name in ATTRIBUTES:
            options["selected_features"] = list(self.info.content.attributes)
        config = settings(options, device)
        log = Log(self.info, events, config, self.interaction)
        token = _import("recbole.utils").FeatureType.TOKEN
        log.field2type = dict.fromkeys(self.info.content.attributes, token)
        config["MODEL_TYPE"], config["MODEL_INPUT_TYPE"] = kind.type, getattr(kind, "input_type", None)
        self.kind, self.log, self.options = kind, log, config
        self.prepare()
        seed_from_torch(0 if self.model.name in COMPUTED else None)
        logging.disable()  # FISM and NAIS warn whenever they are built
        try:
            self.inner = kind(config, log).to(device)
        finally:
            logging.disable(logging.NOTSET)
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        self.untouched = UntouchedItems(user, item, self.info.num_users, self.info.num_items).to(device)
        self.counted(events)

    def prepare(self) -> None:
        """Change the configuration before the model is built."""

    def counted(self, events: TrainingEvents) -> None:
        """Let a model without training see the training part."""

    def of(self, **columns: Tensor) -> Any:
        """Return columns as RecBole's interaction."""
        return self.interaction(columns)

    def total(self, interaction: Any) -> dict[str, Tensor]:
        """Return RecBole's loss of an interaction, the sum of its terms where there are several."""
        seed_from_torch()
        loss = self.inner.calculate_loss(interaction)
        terms = loss if isinstance(loss, tuple) else (loss,)
        return {
            "loss": torch.stack([term.sum() for term in terms]).sum()
        }  # of one element each, in any shape

    def encode_items(self) -> None:
        """Forget what an evaluation before kept: the weights may be others now."""
        for name in KEPT:
            if getattr(self.inner, name, None) is not None:
                setattr(self.inner, name, None)

    def row(self, batch: Batch) -> dict[str, Tensor]:
        """Return what RecBole is asked for the users of a batch."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Return the batch and the scores (B, N + 1) of all items, None where RecBole scores pairs alone."""
        if self.model.name in PAIRS_ALONE:
            return batch, None
        try:
            scores: Tensor = self.inner.full_sort_predict(self.of(**self.row(batch)))
        except NotImplementedError:
            return batch, None
        scores = torch.as_tensor(scores, dtype=torch.float32, device=batch.user.device)
        return batch, scores.reshape(len(batch), -1)[:, : self.info.num_items + 1]

    def score_encoded(self, encoded: tuple[Batch, Tensor | None], candidates: Tensor, items: None) -> Tensor:
        """Return the scores of candidates, (B, C)."""
        batch, scores = encoded
        shared = candidates.expand(len(batch), -1) if candidates.dim() == 1 else candidates
        if scores is not None:
            return scores.gather(1, shared)
        rows = {name: value.repeat_interleave(shared.shape[1], 0) for name, value in self.row(batch).items()}
        flat = self.inner.predict(self.of(**rows, **{ITEM: shared.reshape(-1)}))
        return torch.as_tensor(flat, dtype=torch.float32, device=batch.user.device).view(shared.shape)


class General(RecBoleModel):
    """User and item ids alone."""

    def stages(self) -> tuple[Stage, ...]:
        """Return one stage over distinct pairs or over users; none for a model that is computed at once."""
        if self.model.name in COMPUTED:
            return ()
        c, by_user = self.config, self.model.name in BY_USER
        view = Causal(WHOLE) if by_user else Pairs(negatives=1, distinct=True)
        return (
            Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience, clip_norm=None),
        )

    def counted(self, events: TrainingEvents) -> None:
        """Show a model that counts all distinct pairs, once."""
        if self.model.name in COMPUTED:
            user, item = (torch.from_numpy(part).to(self.anchor.device) for part in self.log.pairs)
            self.inner.calculate_loss(self.of(**{USER: user, ITEM: item}))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return RecBole's loss: pairs with a negative each, pairs with labels, or users."""
        if self.model.name in BY_USER:
            return self.total(self.of(**{USER: batch.user + 1}))
        assert batch.target is not None and batch.negatives is not None
        user, negative = batch.user + 1, batch.negatives[:, 0]
        if self.kind.input_type.name == "PAIRWISE":
            return self.total(self.of(**{USER: user, ITEM: batch.target, NEGATIVE: negative}))
        label = torch.arange(2, device=user.device).flip(0).repeat_interleave(len(user)).float()
        both = {USER: user.repeat(2), ITEM: torch.cat([batch.target, negative]), LABEL: label}
        return self.total(self.of(**both))

    def row(self, batch: Batch) -> dict[str, Tensor]:
        """Return the users."""
        return {USER: batch.user + 1}


COMPUTED = ("ADMMSLIM", "AsymKNN", "EASE", "ItemKNN", "NCEPLRec", "Pop", "Random", "SLIMElastic")
"""Models that are computed from the training part at once."""


class Sequential(RecBoleModel):
    """A history and one target, for every event of the training part but the first of each user."""

    masked: int | None = None
    """Targets of the latest batch, of a model that masks events."""

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        view = Next(c.max_history, "all", None)
        return (
            Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience, clip_norm=None),
        )

    def prepare(self) -> None:
        """Build RecBole's change of sequences (masks, inversion), which adds fields to the configuration."""
        self.change = _import("recbole.data.transform").construct_transform(self.options)

    def row(self, batch: Batch) -> dict[str, Tensor]:
        """Return users and histories, (B, L), padded on the right; an empty history is one padding."""
        size, length = batch.history.shape
        width = self.config.max_history
        number = batch.mask.sum(1).clamp(max=width)  # (B,)
        place = torch.arange(width, device=batch.user.device).expand(size, -1)  # (B, L)
        history = batch.history.gather(1, (length - number[:, None] + place).clamp(max=length - 1))
        return {
            USER: batch.user + 1,
            SEQUENCE: history * (place < number[:, None]),
            LENGTH: number.clamp(min=1),
        }

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return RecBole's loss of the batch's targets, with an untouched item each where it asks for one."""
        assert batch.target is not None and self.untouched is not None
        columns = {**self.row(batch), ITEM: batch.target}
        if self.options["loss_type"] != "CE":
            columns[NEGATIVE] = self.untouched.draw(batch.user, (1,))[:, 0]
        changed = self.change(self.log, self.of(**columns))
        if MASKED in changed.columns:
            self.masked = int((changed[MASKED] > 0).sum())
        return self.total(changed)

    def targets_in(self, batch: Batch) -> int:
        """Return the masked events that RecBole's loss counts (never the oldest), or the histories."""
        return len(batch) if self.masked is None else self.masked

    def encode(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Return the batch and the scores of all items."""
        if self.options["transform"] is None or self.model.name == "BERT4Rec":
            return super().encode(batch)
        changed = self.change(self.log, self.of(**self.row(batch)))
        return batch, self.inner.full_sort_predict(changed)[:, : self.info.num_items + 1]
