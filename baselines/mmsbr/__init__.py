"""Zhang et al.: Beyond Co-occurrence: Multi-modal Session-based Recommendation. TKDE 36(4), 2024,
doi:10.1109/TKDE.2023.3309995, arXiv:2309.17037.

Image and text of an item meet through learned pivots (`pivots`), refined by contrast with pseudo vectors made
from the other modality (`pseudo`); a session is a sum of its items, weighted by a network that sees their
mean. Where items have a price, a Gaussian of prices modulates the score (`price`).

Letters: B windows, L length, N items, S items of a step, D width, n rows.

Readings taken
- Every prefix of a window is a session. The weight of an event depends on the mean of its prefix alone, so
  all prefixes of a window are computed in one pass; nothing is approximated. The price's attention is causal
  for the same reason: its last position is read.
- The order of a session does not count: the release makes position vectors and does not use them.
- Item vectors of a step are computed once, for history and softmax together.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.baselines.mmsbr.config import MMSBRConfig
from bench.baselines.mmsbr.pivots import PivotTransformer, Views
from bench.baselines.mmsbr.price import PriceBranch, levels_of, squared
from bench.baselines.mmsbr.pseudo import components, projected, pseudo_vectors
from bench.cards import Card
from bench.errors import UserError, hint
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.content import held_modalities
from bench.nn.dropout import Dropout
from bench.nn.scoring import dot_scores, rows_of
from bench.nn.softmax import WHOLE_CATALOG, ItemSoftmax
from bench.nn.transformer import attention_mask

LOGITS_AT_ONCE = 2**20
CONTRASTED = 4096
"""Most items of a step that are contrasted."""
ITEMS_AT_ONCE = 256
"""Items computed at a time: so many stay in the cache, which makes a step 1.3 times as fast."""

CARD = Card(
    name="mmsbr",
    label="MMSBR",
    model="MMSBR",
    family="multimodal",
    paper="Zhang et al.: Beyond Co-occurrence: Multi-modal Session-based Recommendation. TKDE 36(4), 2024, "
    "doi:10.1109/TKDE.2023.3309995",
    year=2024,
    inputs="item ids (pivots), image, text, and a price where the data have one, of all behaviors, behavior "
    "type dropped; order of events not read; causal view; without images and texts the pivots are left",
    deviations=(
        "the numerical branch is off where no item has a price (`numeric_branch` in the record says so)",
        "pseudo vectors by retrieval or regression from the other modality; the authors draw pictures with "
        "DALL-E and read labels off images",
        "principal components keep their values at the start; the release overwrites them (init=release)",
        "contrast over a step's items, unit vectors, temperature 0.1; the release sums over N x N (con=code)",
        "a near price raises the score; the release has a larger distance do so (price_sign=code)",
        "trained with dropout throughout; the release stays in evaluation mode from the second epoch on",
        "dropout 0.1 and 0 instead of 0.6 and 0.2, learning rate 3e-3 instead of 1e-3: chosen on validation",
        "over 4,096 items: a sampled softmax, as each of its items costs a pass of the pivot transformer",
        "over 100,000 items: shared pivots and frozen features",
    ),
    notes="Trains on 6,900 targets per second and core where SASRec does on 92,800 (ml-100k, texts alone); "
    "the pivot transformer runs over all items of a step.",
    variants={
        "no_contrast": ("w/o pseudo-modality contrast", {"pseudo": "off"}),
        "no_price": ("w/o numerical branch", {"numeric": "off"}),
    },
    search={
        "learning_rate": (0.0003, 0.001, 0.003),
        "hidden_size": (64, 128),
        "num_rounds": (1, 2, 3),
        "dropout": (0.1, 0.2, 0.4, 0.6),
        "item_dropout": (0.0, 0.2),
        "loss_weight_contrast": (0.001, 0.01, 0.1),
    },
)


class MMSBR(Recommender):
    """Multi-modal session-based recommendation."""

    Config = MMSBRConfig
    config: MMSBRConfig

    def __init__(self, config: MMSBRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        c, size, rows = config, config.hidden_size, info.num_items + 1
        self.max_history = c.max_history
        self.held = held_modalities(info.content, ("text", "image"))
        self.shared = c.pivot == "shared" or (c.pivot == "auto" and info.num_items > WHOLE_CATALOG)
        self.pivots = nn.Parameter(torch.empty(1 if self.shared else rows, c.num_pivots, size))
        self.ids = nn.Embedding(rows, size) if self.shared else None
        self.contrasted = c.pseudo != "off" and len(self.held) > 1
        self.tables = nn.ParameterList()
        """(N + 1, D) of each modality, then of its pseudo form."""
        for _ in range(len(self.held) * (2 if self.contrasted else 1)):
            self.tables.append(nn.Parameter(torch.zeros(rows, size), requires_grad=not self.shared))
        maps = len(self.held) if self.shared else 0
        self.adapters = nn.ModuleList(nn.Linear(size, size) for _ in range(maps))
        for place, name in enumerate(self.held):
            mask = torch.from_numpy(info.content.present[name].copy())
            self.register_buffer(f"present_{place}", mask, persistent=False)
        self.transformer = PivotTransformer(c, len(self.held))
        self.event, self.session = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.level = nn.Linear(size, 1)
        self.item_dropout = Dropout(c.item_dropout)
        self.price = self.price_branch()
        self.softmax = ItemSoftmax(info.num_items, config.whole_catalog)
        self.initialize()

    def price_branch(self) -> PriceBranch | None:
        """Return the numerical branch where it is on.

        Raises:
            UserError: it is asked for and the data have no such number.
        """
        c, content = self.config, self.info.content
        known = c.number in content.numbers and bool(np.isfinite(content.numbers[c.number]).any())
        if c.numeric == "on" and not known:
            there = hint(c.number, tuple(content.numbers)) if content.numbers else "it has no numbers"
            raise UserError(f"mmsbr: numeric=on, but the data set has no number '{c.number}'; {there}")
        if c.numeric == "off" or not known:
            return None
        nothing = np.zeros(content.num_items + 1, np.int32)
        category = content.attributes.get("category", nothing)
        levels = levels_of(content.numbers[c.number].astype(np.float64), category, c.num_levels)
        return PriceBranch(c, levels, category)

    def initialize(self) -> None:
        """Draw maps, pivots and tables uniformly within 1 / sqrt(D); norms and features stay."""
        bound = self.config.hidden_size**-0.5
        drawn: list[Tensor] = [self.pivots]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                drawn += [part for part in (module.weight, module.bias) if part is not None]
            elif isinstance(module, nn.Embedding):
                drawn.append(module.weight)
            elif isinstance(module, Views):
                drawn += [*module.weights, *module.biases]
        for part in drawn:
            nn.init.uniform_(part, -bound, bound)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c, frozen = self.config, ("tables.",) if self.shared else ()
        return (
            Stage(Causal(c.max_history), c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience,
                  frozen=frozen),
        )  # fmt: skip

    def set_up(self, events: TrainingEvents) -> None:
        """Fit principal components and pseudo vectors on the items of the training part."""
        self.softmax.set_up(events.item_counts())
        c, content, size = self.config, self.info.content, self.config.hidden_size
        trained = events.item_counts() > 0  # (N + 1,)
        maps = {}
        for place, name in enumerate(self.held):
            features, mask = content.features[name], content.present[name]
            maps[name] = components(features, (trained & mask).nonzero()[0], size)
            self.write(place, projected(features, mask, *maps[name]))
        if not self.contrasted:
            return
        masks = [content.present[name] for name in self.held]
        both = (trained & masks[0] & masks[1]).nonzero()[0]
        small = self.info.num_items <= WHOLE_CATALOG
        way = ("retrieval" if small else "ridge") if c.pseudo == "auto" else c.pseudo
        for place, name in enumerate(self.held):
            other = self.held[1 - place]
            vectors, known = pseudo_vectors(
                content.features[other], content.features[name], (masks[1 - place], masks[place]), both,
                way, c.num_retrieved,
            )  # fmt: skip
            self.write(len(self.held) + place, projected(vectors, known, *maps[name]))

    def write(self, place: int, values: np.ndarray) -> None:
        """Set a table (N + 1, D), or draw it at random where the release's start is asked for."""
        table = self.tables[place]
        with torch.no_grad():
            if self.config.init == "release":
                table.uniform_(-(self.config.hidden_size**-0.5), self.config.hidden_size**-0.5)
            else:
                table.copy_(torch.from_numpy(values))

    def exchange_content(self, owner: Mapping[str, Tensor]) -> None:
        """Exchange the rows of the tables as they were trained, pseudo forms too."""
        for place, name in enumerate(self.held):
            if name in owner:
                rows = owner[name]
                for table in (place, *([place + len(self.held)] if self.contrasted else [])):
                    self.tables[table].data = self.tables[table].data[rows]
                self.get_buffer(f"present_{place}").copy_(self.get_buffer(f"present_{place}")[rows])

    def modality(self, place: int, items: Tensor, pseudo: bool = False) -> Tensor:
        """Return (..., D) image or text of items (...), or its pseudo form."""
        rows = self.tables[place + len(self.held) * pseudo][items]
        return self.adapters[place](rows) if self.shared else rows

    def present(self, place: int, items: Tensor) -> Tensor:
        """Return (...,) bool, whether items (...) have a modality."""
        return self.get_buffer(f"present_{place}")[items]

    def vectors(self, items: Tensor) -> Tensor:
        """Return h (S, D) of items (S,)."""
        return torch.cat([self.some_vectors(part) for part in items.split(ITEMS_AT_ONCE)])

    def some_vectors(self, items: Tensor) -> Tensor:
        """Return h (S, D) of items (S,), computed at once."""
        pivots = self.pivots.expand(len(items), -1, -1) if self.shared else self.pivots[items]
        if self.ids is not None:
            pivots = torch.cat([pivots[:, :1] + self.ids(items)[:, None], pivots[:, 1:]], 1)
        places = range(len(self.held))
        content = [self.modality(place, items) for place in places]
        return self.transformer(pivots, content, [self.present(place, items) for place in places])

    def interest(self, h: Tensor, mask: Tensor, last: bool = False) -> Tensor:
        """Return u (B, L, D) of all prefixes, or of the whole (B, 1, D), from item vectors h (B, L, D)."""
        h = h * mask[..., None]
        count = mask.cumsum(1).clamp(min=1)[..., None]
        mean = h.cumsum(1) / count  # (B, L, D)
        earlier = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).tril()
        if last:
            mean, earlier = mean[:, -1:], earlier[-1:]
        gate = torch.sigmoid(self.event(h)[:, None] + self.session(mean)[:, :, None])  # (B, L, L, D)
        weight = self.level(gate)[..., 0] * (mask[:, None, :] & earlier)
        return weight @ h

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss over all labelled positions and its terms."""
        assert batch.labels is not None and batch.label_behavior is not None
        c, history = self.config, batch.history
        row, column = torch.nonzero(batch.labels, as_tuple=True)
        labels, kind = batch.labels[row, column], batch.label_behavior[row, column]
        weights = torch.where(kind == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary)
        columns = self.softmax.columns(labels)
        items = torch.unique(torch.cat([columns[0], history[history > 0]]))  # (S,)
        h = self.vectors(items)
        inside = h[torch.searchsorted(items, history).clamp(max=len(items) - 1)]
        u = self.interest(inside, batch.mask)[row, column]
        wanted = h[torch.searchsorted(items, columns[0])]
        if self.price is None:
            terms = {"prediction": self.softmax.loss(u, columns, wanted, labels, weights)}
        else:
            session = self.price.session(history, attention_mask(batch.mask, causal=True))[row, column]
            terms = {"prediction": self.priced(u, session, wanted, columns, labels, weights)}
        if self.contrasted:
            terms["contrast"] = c.loss_weight_contrast * self.contrast(history, labels)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def priced(
        self,
        u: Tensor,
        session: Tensor,
        wanted: Tensor,
        columns: tuple[Tensor, Tensor | None],
        labels: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """Return the softmax loss where prices modulate the scores, a few rows at a time."""
        assert self.price is not None
        prices, place = self.price.items(columns[0]), torch.searchsorted(columns[0], labels)
        size = max(LOGITS_AT_ONCE // len(wanted), 1)

        def part(own: Tensor, asked: Tensor, label: Tensor, share: Tensor) -> Tensor:
            logits = own @ wanted.T * self.factor(squared(asked, prices))
            logits = logits if columns[1] is None else logits + columns[1]
            return (F.cross_entropy(logits, label, reduction="none") * share).sum()

        rows = zip(*(x.split(size) for x in (u, session, place, weights)), strict=True)
        losses = [checkpoint(part, *one, use_reentrant=False) for one in rows]
        return torch.stack(losses).sum() / weights.sum().clamp(min=1e-9) if losses else u.sum()

    def factor(self, distance: Tensor) -> Tensor:
        """Return what a price distance (...) multiplies a score by."""
        if self.config.price_sign == "code":
            return 1 + distance
        return 1 + torch.exp(-distance / (self.config.price_temperature * 2 * self.config.hidden_size))

    def contrast(self, history: Tensor, labels: Tensor) -> Tensor:
        """Return how far image and text are from their own pseudo forms, among those of other items."""
        c, code = self.config, self.config.con == "code"
        seen = torch.unique(torch.cat([history.flatten(), labels]))
        if code:
            seen = torch.arange(self.info.num_items + 1, device=history.device)
        items = seen[(seen > 0) & self.present(0, seen) & self.present(1, seen)]
        if not code:
            items = items[torch.randperm(len(items), device=items.device)[:CONTRASTED]]
        if not len(items):
            return self.level.weight.sum() * 0
        pairs = [(self.modality(place, items), self.modality(place, items, True)) for place in (0, 1)]
        return torch.stack(
            [modality_contrast(*pair, c.temperature, c.num_hard, code) for pair in pairs]
        ).sum()

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return u (B, D) at the newest event, and the price asked for (B, 2 D), empty without one."""
        history, mask = batch.history[:, -self.max_history :], batch.mask[:, -self.max_history :]
        items = torch.unique(history)
        h = self.vectors(items)
        u = self.interest(h[torch.searchsorted(items, history)], mask, last=True)[:, 0]
        if self.price is None:
            return u, u[:, :0]
        return u, self.price.session(history, attention_mask(mask, causal=True))[:, -1]

    def encode_items(self) -> tuple[Tensor, Tensor]:
        """Return h (N + 1, D) and prices (N + 1, 2 D), the latter empty without a numerical branch."""
        rows = torch.arange(self.info.num_items + 1, device=self.pivots.device)
        h = self.vectors(rows)
        return h, h[:, :0] if self.price is None else self.price.items(rows)

    def score_encoded(
        self, encoded: tuple[Tensor, Tensor], candidates: Tensor, items: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the scores of the candidates, (B, C)."""
        interest = dot_scores(encoded[0], items[0], candidates)
        if self.price is None:
            return interest
        if candidates.dim() == 1:
            return interest * self.factor(squared(encoded[1], rows_of(items[1], candidates)))
        return interest * self.factor(squared(encoded[1][:, None], items[1][candidates])[:, 0])

    def extra_terms(self) -> dict[str, float]:
        """Return whether the numerical branch and the contrast are on."""
        return {"numeric_branch": float(self.price is not None), "contrast": float(self.contrasted)}


def modality_contrast(real: Tensor, pseudo: Tensor, temperature: float, hard: int, code: bool) -> Tensor:
    """Return the contrast of real vectors (n, D) with their pseudo forms (n, D).

    The mean over items of log(e^(v v~ / tau) + sum over the hardest others) - v v~ / tau with unit vectors;
    or as released: raw products at tau 1, base 10, the largest of all in the denominator, summed over items.
    """
    if code:
        logits = real @ pseudo.T
        top = logits.topk(min(hard, len(logits)), 1).values
        gap: Tensor = (torch.logsumexp(top, 1) - logits.diagonal()) / np.log(10)
        return gap.sum()
    logits = F.normalize(real, dim=1) @ F.normalize(pseudo, dim=1).T / temperature
    own = logits.diagonal()
    others = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool, device=logits.device), -torch.inf)
    top = others.topk(min(hard, max(len(logits) - 1, 1)), 1).values
    loss: Tensor = (torch.logsumexp(torch.cat([own[:, None], top], 1), 1) - own).mean()
    return loss
