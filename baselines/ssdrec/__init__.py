"""Zhang, Han, Chen, Zhao, Tang, Song: SSDRec: Self-Augmented Sequence Denoising for Sequential
Recommendation. ICDE 2024, arXiv:2403.04278; its last stage is HSD (Zhang et al., CIKM 2022).

A denoiser around a sequence model. Relation graphs of items and users give global vectors (`graphs`,
`relations`). In training two items are inserted around the item that fits worst, which may be taken out
again; then two gates that must agree drop what is noise (`denoise`), and a transformer or a GRU ranks on the
rest. It reads item ids in time order and users; no behavior type, no modality.

The gates read a whole history in both directions, so one history gives one target.

Letters: B prefixes of a batch, L history, D hidden size, N items, K items that may be inserted.

Readings taken
- Mask and length follow an insertion; the release keeps the old ones and loses the two newest events.
- The gates ask with the user in training as in ranking; the release asks with the item to predict, which the
  kept sequence then depends on (`gate_query`).
- In ranking an event is dropped where both gates have the larger logit for noise, never the newest one; the
  release draws there too.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.ssdrec.config import SSDRecConfig
from bench.baselines.ssdrec.denoise import (
    Gates,
    TwoWay,
    compact,
    inconsistency,
    insert,
    one_hot,
    real,
    to_left,
)
from bench.baselines.ssdrec.graphs import relation_graphs
from bench.baselines.ssdrec.relations import Maps, RelationEncoder
from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Next, Recommender, Stage, TrainingEvents
from bench.nn.dropout import Dropout
from bench.nn.lengths import by_length
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores
from bench.nn.transformer import TransformerBlock, attention_mask

WHOLE_CATALOG = 100_000
"""Most items for which the softmax is exact by default."""
CURRICULUM_EPOCHS = 10
ANNEAL_STEPS, ANNEAL_RATE, LEAST_TEMPERATURE = 40, 1e-3, 1e-3

CARD = Card(
    name="ssdrec",
    label="SSDRec",
    model="SSDRec",
    family="sequential",
    paper="Zhang et al.: SSDRec: Self-Augmented Sequence Denoising for Sequential Recommendation. ICDE 2024, "
    "arXiv:2403.04278",
    year=2024,
    inputs="item ids of all behaviors in time order, behavior type dropped, users; no modality; next view",
    deviations=(
        "defects of the release are mended: mask after an insertion, padding, gates, uninitialised matrices",
        "graphs are sparse: last 50 events of a user, 50 neighbors, two hops over the 50 strongest edges",
        "edges need more than 10 co-occurrences, or fewer where that leaves too few (min_cooc)",
        "20 targets per user and epoch, of all events; the authors take every prefix",
        "D = 64 and dropout 0.2 in the backbone instead of 100 and 0.5: one size for all models",
    ),
    notes="Trains on 830 targets per second of a core where SASRec does on 92,800"
    "; eight recurrent passes and one target per history.",
    search={
        "learning_rate": (0.0001, 0.001),
        "hidden_size": (64, 128),
        "dropout": (0.2, 0.3, 0.5),
        "temperature": (0.1, 0.5, 1.0),
        "backbone": ("sasrec", "gru4rec"),
    },
)


class SSDRec(Recommender):
    """Self-augmented sequence denoising."""

    Config = SSDRecConfig
    config: SSDRecConfig
    temperature: Tensor
    steps: Tensor

    def __init__(self, config: SSDRecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, self.max_history = config.hidden_size, config.max_history
        self.items = nn.Embedding(info.num_items + 1, size, padding_idx=0)
        self.users = nn.Embedding(info.num_users, size)
        for table in (self.items, self.users):
            nn.init.xavier_uniform_(table.weight)
        nn.init.zeros_(self.items.weight[0].detach())
        self.relations = RelationEncoder(size, config.dropout_graph)
        self.two_way = TwoWay(size)
        self.ends = nn.Parameter(torch.randn(2, size) * 0.02)  # what stands before and behind a sequence
        self.gates = Gates(size, config.max_history, config.dropout_embedding)
        self.make_backbone(config, size)
        self.register_buffer("temperature", torch.tensor(config.temperature))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.maps: Maps | None = None
        self.pool = torch.arange(1, info.num_items + 1)
        self.stale: tuple[Tensor, Tensor] | None = None
        self.untouched: UntouchedItems | None = None
        self.left_out = 0.0

    def make_backbone(self, config: SSDRecConfig, size: int) -> None:
        """Build what ranks on the cleaned sequence."""
        self.dropout = Dropout(config.dropout)
        if config.backbone == "gru4rec":
            self.recurrent = nn.GRU(size, size, config.num_layers, batch_first=True)
            return
        self.positions = nn.Parameter(torch.randn(config.max_history, size) * 0.02)
        self.norm = nn.LayerNorm(size, eps=1e-12)
        self.blocks = nn.ModuleList(
            TransformerBlock(size, config.num_heads, config.dropout, config.dropout)
            for _ in range(config.num_layers)
        )
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        view = Next(c.max_history, "all", c.max_targets_per_user)
        return (Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience),)

    def set_up(self, events: TrainingEvents) -> None:
        """Build the graphs; note what may be inserted and what each user has touched."""
        c, device = self.config, self.items.weight.device
        cold = (c.cold_item_ratio, c.cold_user_ratio)
        graphs, _ = relation_graphs(
            events, self.info.num_users, c.max_history, c.min_cooc, cold, c.num_neighbors
        )
        self.maps = Maps(graphs, device)
        counts = torch.from_numpy(events.item_counts())[1:]
        self.pool = (counts.argsort(descending=True, stable=True)[: c.item_pool] + 1).sort().values.to(device)
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        self.untouched = UntouchedItems(user, item, self.info.num_users, self.info.num_items).to(device)

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Set the share of the samples that is left out."""
        self.left_out = self.config.curriculum * max(1 - epoch / CURRICULUM_EPOCHS, 0.0)

    def global_vectors(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return H_u (m, D) and H_i (n, D) of users (m,) and items (n,), computed anew every `graph_refresh`
        steps.
        """
        assert self.maps is not None, "set_up comes first"
        tables = self.users.weight, self.items.weight
        if self.config.graph_refresh == 1:
            return self.relations(*tables, self.maps, (users, items))
        if self.stale is None or int(self.steps) % self.config.graph_refresh == 0:
            everything = [torch.arange(len(table), device=table.device) for table in tables]
            all_users, all_items = self.relations(*tables, self.maps, (everything[0], everything[1]))
            self.stale = all_users.detach(), all_items.detach()
            return all_users[users], all_items[items]
        return self.stale[0][users], self.stale[1][items]

    def augmented(self, items: Tensor, size: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors (B, L, D) of sequences with two items inserted, less what is taken out again,
        and their sizes (B,); sequences without room for two stay as they are.

        Args:
            items: (B, L) int64, padding behind.
            size: (B,).
            user: (B,).
        """
        x = self.items(items)
        rows = ((size > 0) & (size <= items.shape[1] - 2)).nonzero()[:, 0]
        if not len(rows):
            return x, size
        chosen, pool = items[rows], len(self.pool)
        needed, index = torch.cat([self.pool, chosen.flatten()]).unique(return_inverse=True)
        users, own = user[rows].unique(return_inverse=True)
        global_users, global_items = self.global_vectors(users, needed)
        tables = (global_users, global_items, global_items[index[:pool]])
        wide, wider = by_length(
            partial(self.widened, tables), size[rows], size[rows], chosen, index[pool:].view_as(chosen), own,
            padding="right", room=2,
        )  # fmt: skip
        return x.index_copy(0, rows, wide), size.index_copy(0, rows, wider)

    def widened(
        self, tables: tuple[Tensor, Tensor, Tensor], size: Tensor, items: Tensor, index: Tensor, user: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sequences with room for two items after the insertion, (b, w, D) and (b,).

        Args:
            tables: H_u (m, D), H_i (n, D) and H_i of the items that may be inserted (K, D).
            size: (b,).
            items: (b, w) int64.
            index: (b, w), their rows of H_i.
            user: (b,), rows of H_u.
        """
        tau, (global_users, global_items, vectors) = float(self.temperature), tables
        own = (global_users[user] / size[:, None])[:, None]
        x = global_items[index] + own
        before, after = self.two_way.around(x, size, *self.ends)
        spot = one_hot(inconsistency(x, size, (before, after)), tau, self.training)  # (b, w)
        queries = [torch.einsum("bl,bld->bd", spot, states) for states in (before, after)]
        left, right = (one_hot(query @ vectors.T, tau, self.training) for query in queries)  # (b, K)
        position, raw = spot.argmax(1), self.items.weight[self.pool]
        wide = insert(self.items(items), position, left @ raw, right @ raw)
        x = insert(global_items[index], position, left @ vectors, right @ vectors) + own
        size = size + 2
        logits = inconsistency(x, size, self.two_way.around(x, size, *self.ends))
        column = torch.arange(items.shape[1], device=items.device) - position[:, None]
        near = (column >= 0) & (column <= 2)  # the left item, the original, the right one
        return self.kept(wide, 1 - one_hot(logits, tau, self.training) * near, size)

    @staticmethod
    def kept(x: Tensor, keep: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kept items (B, L, D) one after the other, zeros behind, and their number (B,)."""
        keep = keep * real(size, x.shape[1])
        order = compact(keep > 0.5)[..., None]
        return (x * keep[..., None]).gather(1, order.expand_as(x)), (keep > 0.5).sum(1)

    def cleaned(self, x: Tensor, size: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the gates keep of sequences (B, L, D), its size, and their errors in decoding (B,)."""
        sequence, item, decoded = self.gates(x, size, query)
        keep = 1 - Gates.noise(sequence, item, float(self.temperature), self.training)
        mask = real(size, x.shape[1])
        newest = mask & (torch.arange(x.shape[1], device=x.device) == size[:, None] - 1)
        empty = ~((keep > 0.5) & mask).any(1, keepdim=True) if self.training else torch.ones_like(mask)
        keep = torch.where(newest & empty, 1.0, keep)
        error = ((decoded - x).square().sum(-1) * mask).sum(1) / size.clamp(min=1)
        return *self.kept(x, keep, size), error

    def ranked(self, x: Tensor, size: Tensor) -> Tensor:
        """Return r (B, D), what the backbone says after the last of the kept items (B, L, D)."""
        return by_length(self.last_state, size, size, x, padding="right")

    def last_state(self, size: Tensor, x: Tensor) -> Tensor:
        """Return the backbone's state at the last item of sequences, (b, D)."""
        last = (size - 1).clamp(min=0)
        if self.config.backbone == "gru4rec":
            return self.recurrent(self.dropout(x))[0][torch.arange(len(x), device=x.device), last]
        hidden = self.dropout(self.norm(x + self.positions[: x.shape[1]]))
        allowed = attention_mask(real(size, x.shape[1]), causal=True)
        *whole, final = self.blocks
        for block in whole:
            hidden = block(hidden, allowed)
        assert isinstance(final, TransformerBlock)
        return final.at(F.one_hot(last, x.shape[1]) > 0, hidden, allowed)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_ce + L_rec on the samples of the curriculum, plus L_user."""
        assert batch.target is not None and batch.target_behavior is not None
        c = self.config
        items, size = to_left(batch.history, c.max_history)
        if c.augment:
            x, kept = self.augmented(items, size, batch.user)
        else:
            x, kept = self.items(items), size
        query = self.items(batch.target) if c.gate_query == "target" else self.users(batch.user)
        x, kept, error = self.cleaned(x, kept, query)
        count = max(round((1 - self.left_out) * len(error)), 1)
        chosen = error.detach().argsort(stable=True)[:count]
        target = batch.target_behavior == len(self.info.behaviors)
        weights = torch.where(target, c.loss_weight_target, c.loss_weight_auxiliary)
        ce = self.cross_entropy(self.ranked(x, kept)[chosen], batch.target[chosen], weights[chosen])
        terms = {"ce": ce, "rec": error[chosen].mean(), "user": self.user_loss(items, batch.user)}
        self.anneal()
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def cross_entropy(self, hidden: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Return the softmax loss of targets (n,) under hidden (n, D), exact or over shared negatives."""
        table, number = self.items.weight, self.config.num_negatives
        if number is None and self.info.num_items <= WHOLE_CATALOG:
            return chunked_cross_entropy(hidden, table, target, weights)
        negatives = torch.randint(1, len(table), (number or 4096,), device=hidden.device)
        return sampled_cross_entropy(hidden, table, target, negatives, weights)

    def user_loss(self, items: Tensor, user: Tensor) -> Tensor:
        """Return the mean over sequences of the BPR losses of their items with the user and one negative; the
        largest ones are left out, a share that grows as the curriculum ends.
        """
        assert self.untouched is not None
        own, mask = self.users(user), items > 0
        negative = (self.items(self.untouched.draw(user, (1,))[:, 0]) * own).sum(1, keepdim=True)
        each = -F.logsigmoid(torch.einsum("bld,bd->bl", self.items(items), own) - negative) * mask
        number = ((self.config.curriculum - self.left_out) * mask.sum(1)).long()
        rank = each.detach().argsort(dim=1, descending=True, stable=True).argsort(1)  # 0 for the largest
        return (each * (rank >= number[:, None])).sum(1).mean()

    def anneal(self) -> None:
        """Count a step; lower the temperature at every fortieth."""
        self.steps += 1
        if int(self.steps) % ANNEAL_STEPS == 0:
            lower = float(self.temperature) * math.exp(-ANNEAL_RATE * int(self.steps))
            self.temperature.fill_(max(lower, LEAST_TEMPERATURE))

    def encode(self, batch: Batch) -> Tensor:
        """Return r after the newest event, (B, D)."""
        items, size = to_left(batch.history, self.config.max_history)
        x, kept, _ = self.cleaned(self.items(items), size, self.users(batch.user))
        return self.ranked(x, kept)

    def encode_items(self) -> Tensor:
        """Return the item table, (N + 1, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return the dot products with the candidates, (B, C)."""
        return dot_scores(encoded, items, candidates)
