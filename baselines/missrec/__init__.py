"""Wang et al.: MISSRec: Pre-training and Transferring Multi-modal Interest-aware Sequence Representation for
Recommendation. ACM MM 2023, doi:10.1145/3581783.3611967, arXiv:2308.11175.

Image and text vectors of all items are clustered into interests; the distinct interests of a history go
through a transformer encoder, and a decoder over the events attends to them. Candidates are compared by the
cosines of their id, image and text, the latter two mixed by a softmax that depends on the user.

Letters: B windows, L length, Q interests of a history, N items, D width, n rows.

Readings taken
- One decoder layer: what its last position says depends on its own query and the events before it. So
  `reading="causal"` predicts at every position in one pass what prefixes would, but for the interests, which
  see those that came up before them instead of the whole set. `reading="prefix"` has the set.
- Interests are searched before every epoch, without gradient, and belong to the state.
- A candidate without image or text is compared by what it has.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.baselines.missrec.config import MISSRecConfig
from bench.baselines.missrec.interests import distinct_interests, find_interests
from bench.baselines.missrec.layers import Decoder
from bench.baselines.missrec.scores import Items, scores
from bench.cards import Card
from bench.errors import UserError
from bench.interface import Batch, Causal, DatasetInfo, Next, Recommender, Stage, TrainingEvents
from bench.nn.content import LinearContent, has_content, held_modalities
from bench.nn.dropout import Dropout
from bench.nn.scoring import rows_of
from bench.nn.softmax import ItemSoftmax
from bench.nn.transformer import TransformerBlock

LOGITS_AT_ONCE = 2**20
ROWS_OF_PRETRAINING = 1024
"""Most positions of a step that the contrastive stage learns from."""
KEEP, DROP_ITEMS, FEATURE_DROPOUT = 0.8, 0.9, 0.2
"""Share of events kept, chance that events are dropped and not features, share of features dropped."""

CARD = Card(
    name="missrec",
    label="MISSRec",
    model="MISSRec",
    family="multimodal",
    paper="Wang et al.: MISSRec: Pre-training and Transferring Multi-modal Interest-aware Sequence "
    "Representation for Recommendation. ACM MM 2023, arXiv:2308.11175",
    year=2023,
    inputs="item ids, image and text of all behaviors in time order, behavior type dropped; causal view; "
    "without images and texts there are no interests, and a one-layer transformer over ids is left",
    deviations=(
        "no cross-domain pre-training, an official configuration; pretrain=in_domain has the same losses on "
        "the training part",
        "causal reading: an interest sees those before it, not the whole set (reading=prefix)",
        "density peaks as named in the paper, over distinct vectors; the release calls k-means (clustering)",
        "diversity of interests over real ones, mean over the batch; the release sums over padding (reg)",
        "an absent image or text is left out of sum and mixture; the release lets the adapter's bias in",
        "D = 64 and dropout 0.2 instead of 300 and 0.5; batches of 128 windows instead of 512 prefixes",
        "over more than 100,000 items a sampled softmax",
    ),
    notes="Trains on 30,000 targets per second and core where SASRec does on 92,800 (ml-100k, texts alone).",
    variants={
        "prefix": ("prefixes", {"reading": "prefix"}),
        "pretrained": ("in-domain pre-training", {"pretrain": "in_domain"}),
        "inductive": ("w/o ids", {"inductive": True}),
        "static": ("static fusion", {"fusion": "static"}),
    },
    search={
        "learning_rate": (0.0003, 0.001, 0.003),
        "hidden_size": (64, 128, 256),
        "dropout": (0.1, 0.2, 0.5),
        "loss_weight_interest": (0.005, 0.05),
        "interest_ratio": (0.1, 0.3, 0.5),
        "temperature": (0.05, 0.07, 0.1, 0.2),
    },
)


class MISSRec(Recommender):
    """Multi-modal interest-aware sequence representation."""

    Config = MISSRecConfig
    config: MISSRecConfig
    centroids: Tensor
    codes: Tensor

    def __init__(self, config: MISSRecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        c, size = config, config.hidden_size
        self.max_history = c.max_history
        held = held_modalities(info.content, ("text", "image"))
        if c.inductive and not held:
            raise UserError("missrec: inductive=true, but no item has an image or a text")
        self.items = None if c.inductive else nn.Embedding(info.num_items + 1, size, padding_idx=0)
        self.positions = nn.Embedding(c.max_history, size)
        self.input_norm, self.dropout = nn.LayerNorm(size), Dropout(c.dropout)
        self.encoder = TransformerBlock(
            size, c.num_heads, c.dropout, 0.0, inner_size=c.inner_size, eps=1e-5
        ) if held else None  # fmt: skip
        self.encoder_norm = nn.LayerNorm(size) if held else None
        self.decoder = Decoder(size, c.num_heads, c.inner_size, c.dropout, bool(held))
        self.initialize()
        self.content = nn.ModuleList(LinearContent(info.content, name, size) for name in held)
        dynamic = len(held) > 1 and c.fusion != "static"
        count = info.num_items + 1 if c.fusion == "dynamic_instance" else 1
        self.level = nn.Parameter(torch.zeros(count, 1)) if dynamic else None
        tokens = sum(int(info.content.present[name].sum()) for name in held)
        self.num_interests = min(max(1, math.ceil(c.interest_ratio * tokens)), c.max_interests)
        self.register_buffer("centroids", torch.zeros(self.num_interests + 1, size))
        self.register_buffer("codes", torch.zeros(info.num_items + 1, len(held), dtype=torch.int64))
        self.softmax = ItemSoftmax(info.num_items)

    def initialize(self) -> None:
        """Draw linear maps and tables from N(0, 0.02); the adapters, made later, keep PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        if self.items is not None:
            nn.init.zeros_(self.items.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the stage on everything, after a contrastive one without ids where it is asked for."""
        c = self.config
        prefix = Next(c.max_history, c.targets, c.max_targets_per_user)
        view = Causal(c.max_history) if c.reading == "causal" else prefix
        last = Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience)
        if c.pretrain == "none" or not len(self.content):
            return (last,)
        first = Stage(
            Causal(c.max_history), c.learning_rate, c.batch_size, "pretrain", epochs=c.pretrain_epochs,
            patience=c.patience, frozen=("items.",),
        )  # fmt: skip
        return first, last

    def set_up(self, events: TrainingEvents) -> None:
        """Note how often items are targets; find interests for the first time."""
        self.softmax.set_up(events.item_counts())
        self.search_interests()

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Find the interests anew, with the adapters as they are."""
        if epoch % self.config.recluster_every == 0:
            self.search_interests()

    @torch.no_grad()
    def search_interests(self) -> None:
        """Cluster the vectors of all items and note the interests of each."""
        if not len(self.content):
            return
        c, rows = self.config, torch.arange(self.info.num_items + 1, device=self.centroids.device)
        owners, vectors = [], []
        for table in self.content:
            assert isinstance(table, LinearContent)
            owners.append(rows[table.present])
            vectors.append(torch.cat([table(part) for part in owners[-1].split(65_536)]))
        centers, member = find_interests(
            torch.cat(vectors),
            self.num_interests,
            c.clustering,
            c.num_density_neighbors,
            c.max_cluster_tokens,
        )
        self.centroids.zero_()
        self.centroids[1 : len(centers) + 1] = centers
        self.codes.zero_()
        for place, (own, codes) in enumerate(
            zip(owners, member.split([len(own) for own in owners]), strict=True)
        ):
            self.codes[own, place] = codes + 1

    def exchange_content(self, owner: Mapping[str, Tensor]) -> None:
        """Exchange vectors, and the interests that they belong to."""
        super().exchange_content(owner)
        for place, table in enumerate(self.content):
            assert isinstance(table, LinearContent)
            if table.modality in owner:
                self.codes[:, place] = self.codes[owner[table.modality], place]

    def interests(self, history: Tensor, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return encoded interests H (B, Q, D) of items (B, L), which are real (B, Q) bool, and the position
        (B, Q) of the event that brings each.
        """
        assert self.encoder is not None and self.encoder_norm is not None
        found, since = distinct_interests(self.codes[history])
        real = found > 0
        allowed = real[:, None, :].expand(-1, found.shape[1], -1)
        if causal:
            allowed = allowed & (since[:, None, :] <= since[:, :, None])
        eye = torch.eye(found.shape[1], dtype=torch.bool, device=found.device)
        hidden = self.encoder_norm(self.encoder(self.centroids[found], (allowed | eye)[:, None]))
        return hidden, real, since

    def events(self, history: Tensor, words: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder's queries (B, L, D), its keys (B, K, D), and which keys each query may see
        (B, 1, L, K), from items (B, L); `words` is the share of text features dropped.
        """
        mask = history > 0
        place = (mask.cumsum(1) - 1).clamp(min=0)  # from the oldest event
        common = self.positions(place)
        if self.items is not None and self.stage_name != "pretrain":
            common = common + self.items(history)
        parts = [table(history) for table in self.content]
        if words and parts:
            parts[0] = F.dropout(parts[0], words)
        length = history.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        eye = torch.eye(length, dtype=torch.bool, device=mask.device)
        if self.config.sequence == "stack" and len(parts) > 1:
            keys = [self.dropout(self.input_norm(part + common)) for part in parts]
            seen = [
                (has_content(table, history) & mask)[:, None, :] & earlier
                | (eye if not stream else eye & False)
                for stream, table in enumerate(self.content)
            ]
            return keys[0], torch.cat(keys, 1), torch.cat(seen, -1)[:, None]
        x = self.dropout(self.input_norm(torch.stack([common, *parts]).sum(0)))
        return x, x, ((mask[:, None, :] & earlier) | eye)[:, None]

    def states(self, history: Tensor, causal: bool, words: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return z (B, L, D), unit vectors, or at the last position alone (B, 1, D) where not `causal`, and
        the diversity of the interests ().
        """
        query, keys, allowed = self.events(history, words)
        length = history.shape[1]
        where = torch.arange(length, device=history.device)
        if not causal:
            query, allowed, where = query[:, -1:], allowed[:, :, -1:], where[-1:]
        memory, seen, diversity = None, allowed[:, 0, :, :0], query.new_zeros(())
        if len(self.content):
            memory, real, since = self.interests(history, causal)
            seen = real[:, None, :] & (since[:, None, :] <= where[:, None])
            diversity = self.diversity(memory, real)
        return F.normalize(self.decoder(query, keys, allowed, memory, seen), dim=-1), diversity

    def diversity(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Return 1 / D |sum of the interests|^2 of H (B, Q, D), real (B, Q): small where they differ."""
        if self.config.reg == "code":
            share = real.to(hidden.dtype).mean(1, keepdim=True)
            return (share * hidden.sum(1)).square().sum() / hidden.shape[-1] / 512
        total = (hidden * real[..., None]).sum(1)
        return total.square().sum() / hidden.shape[-1] / len(hidden)

    def described(self, items: Tensor, ids: bool = True) -> Items:
        """Return the unit vectors of items (C,), with or without ids."""
        parts = tuple(F.normalize(table(items), dim=-1) for table in self.content)
        none = torch.zeros(len(items), 0, dtype=torch.bool, device=items.device)
        present = torch.stack([has_content(table, items) for table in self.content], -1) if parts else none
        own = F.normalize(self.items(items), dim=-1) if self.items is not None and ids else None
        level = self.centroids.new_zeros(1, 1) if self.level is None else self.level
        return Items(own, parts, present, level[items] if len(level) > 1 else level)

    def prediction(self, z: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return the softmax loss of z (n, D) for labels (n,), a weighted mean."""
        columns = self.softmax.columns(labels)
        items = self.described(columns[0])
        if (vectors := items.single()) is not None:
            return self.softmax.loss(z / self.config.temperature, columns, vectors, labels, weights)
        place = torch.searchsorted(columns[0], labels.contiguous())
        rows = max(LOGITS_AT_ONCE // len(columns[0]), 1)

        def part(own: Tensor, wanted: Tensor, share: Tensor) -> Tensor:
            logits = scores(own, items) / self.config.temperature
            logits = logits if columns[1] is None else logits + columns[1]
            return (F.cross_entropy(logits, wanted, reduction="none") * share).sum()

        parts = zip(z.split(rows), place.split(rows), weights.split(rows), strict=True)
        losses = [checkpoint(part, *one, use_reentrant=False) for one in parts]
        return torch.stack(losses).sum() / weights.sum().clamp(min=1e-9) if losses else z.sum()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the present stage and its terms."""
        c = self.config
        if self.stage_name == "pretrain":
            return self.pretraining(batch)
        states, diversity = self.states(batch.history, batch.labels is not None)
        if batch.labels is None:
            assert batch.target is not None and batch.target_behavior is not None
            z, labels, kind = states[:, -1], batch.target, batch.target_behavior
        else:
            assert batch.label_behavior is not None
            row, column = torch.nonzero(batch.labels, as_tuple=True)
            z, labels, kind = (
                states[row, column],
                batch.labels[row, column],
                batch.label_behavior[row, column],
            )
        weights = torch.where(kind == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary)
        terms = {"prediction": self.prediction(z, labels, weights)}
        if len(self.content):
            terms["diversity"] = c.loss_weight_interest * diversity
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def pretraining(self, batch: Batch) -> dict[str, Tensor]:
        """Return the contrastive losses without ids: context and item, two views of a history, diversity."""
        assert batch.labels is not None
        c = self.config
        states, first = self.states(batch.history, True)
        row, column = torch.nonzero(batch.labels, as_tuple=True)
        chosen = torch.randperm(len(row), device=row.device)[:ROWS_OF_PRETRAINING]
        row, column = row[chosen], column[chosen]
        items, place = torch.unique(batch.labels[row, column], return_inverse=True)
        logits = scores(states[row, column], self.described(items, ids=False)) / c.temperature
        terms = {"item": F.cross_entropy(logits, place) if len(row) else states.sum() * 0}
        dropping = bool(torch.rand(()) < DROP_ITEMS)
        other, second = self.states(
            drop_events(batch.history) if dropping else batch.history,
            True,
            0.0 if dropping else FEATURE_DROPOUT,
        )
        wanted = batch.labels[:, -1]
        pairs = states[:, -1] @ other[:, -1].T / c.temperature
        own = torch.arange(len(pairs), device=pairs.device)
        same = (wanted == wanted[:, None]) & (wanted > 0) & (own != own[:, None])
        terms["views"] = c.loss_weight_sequence * F.cross_entropy(pairs.masked_fill(same, -torch.inf), own)
        terms["diversity"] = c.loss_weight_interest * (first + second)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def encode(self, batch: Batch) -> Tensor:
        """Return z at the newest event, (B, D)."""
        states, _ = self.states(batch.history[:, -self.max_history :], self.config.reading == "causal")
        return states[:, -1]

    def encode_items(self) -> Items:
        """Return the unit vectors of all items."""
        rows = torch.arange(self.info.num_items + 1, device=self.centroids.device)
        return self.described(rows, self.stage_name != "pretrain")

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Items) -> Tensor:
        """Return the scores of the candidates, (B, C)."""
        if candidates.dim() == 1:
            ids = None if items.ids is None else rows_of(items.ids, candidates)
            content = tuple(rows_of(part, candidates) for part in items.content)
            level = items.level[candidates] if len(items.level) > 1 else items.level
            return scores(encoded, Items(ids, content, items.present[candidates], level))
        return scores(encoded, items.of(candidates.flatten()), own=True)


def drop_events(history: Tensor) -> Tensor:
    """Return items (B, L) of which each event is kept with chance 0.8, the first of a history always."""
    real = history > 0
    oldest = real & (real.cumsum(1) == 1)
    kept = real & ((torch.rand(history.shape, device=history.device) < KEEP) | oldest)
    order = torch.argsort(kept.to(torch.int8), dim=1, stable=True)
    return history.gather(1, order) * kept.gather(1, order)
