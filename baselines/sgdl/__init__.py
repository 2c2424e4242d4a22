"""Gao, Du, Hu, Chen, Zhu, Fang, Zheng: Self-Guided Learning to Denoise for Robust Recommendation. SIGIR 2022,
doi:10.1145/3477495.3532059, arXiv:2204.06832.

A graph recommender (LightGCN) over distinct user-item pairs. A model memorises clean pairs first, so the
first stage trains it plainly, notes which pairs it ranks well, and ends when their share reaches the
estimated share of clean pairs. In the second stage every pair's loss is weighed by a small network, which is
learned on the memorised pairs: after a trial step on the weighed batch, their loss should be low. A scheduler
learns which memorised pairs to ask. It reads users and items alone: no behavior type, order or content.

Letters: U users, N items, D width, B pairs of a batch, P distinct training pairs, h epochs remembered.

The trial steps need no second pass through the graph: propagation X -> (X + A X + ... + A^K X) / (K + 1) is
linear and symmetric, and the gradient of a pair's loss in the propagated vectors is known, so a gradient in
the tables is a sparse sum of such vectors, propagated once.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.sgdl.config import SGDLConfig
from bench.baselines.sgdl.parts import (
    LossWeight,
    Scheduler,
    clean_share,
    in_upper_half,
    pair_gradients,
    pair_loss,
)
from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Pairs, Recommender, Stage, TrainingEvents
from bench.nn.graph import BipartiteGraph, propagate
from bench.nn.negatives import UntouchedItems

ROWS = 2**18
"""Pairs scored at a time."""

CARD = Card(
    name="sgdl",
    label="SGDL",
    model="SGDL",
    family="multibehavior",
    paper="Gao et al.: Self-Guided Learning to Denoise for Robust Recommendation. SIGIR 2022, "
    "doi:10.1145/3477495.3532059",
    year=2022,
    inputs="distinct user-item pairs of all behaviors; no behavior type, order or modality; pairs view",
    deviations=(
        "scheduler reads gradients in the propagated vectors (scheduler_grad=final); exact ones cost two "
        "passes per pair",
        "one optimizer step moves model, weights and scheduler; the authors step the weights just before",
        "optimizers and scheduler live on; the release makes them anew each epoch (faithful_reset)",
        "learning rate 5e-3 instead of 5e-4, chosen on validation",
        "one graph layer (chosen on validation) and batches of 1,024 instead of three and 128",
        "pairs of the whole training part; the first stage has at most 50 epochs",
    ),
    notes="Trains on 19,500 targets per second and core where SASRec does on 92,800.",
    search={
        "learning_rate": (0.0005, 0.002, 0.005, 0.01),
        "embedding_size": (32, 64, 128),
        "num_layers": (0, 1, 2, 3),
        "input": ("union", "target"),
    },
)


class SGDL(Recommender):
    """Self-guided denoising over LightGCN."""

    Config = SGDLConfig
    max_history = 1
    config: SGDLConfig
    bits: Tensor
    noted: Tensor
    clean: Tensor
    degree: Tensor
    known: Tensor

    def __init__(self, config: SGDLConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.tables = nn.Parameter(
            torch.randn(info.num_users + info.num_items + 1, config.embedding_size) * 0.1
        )
        self.weigh, self.scheduler = LossWeight(config.weight_hidden_size), Scheduler()
        self.register_buffer("bits", torch.zeros(config.memory_epochs, 0, dtype=torch.bool))  # (h, P)
        self.register_buffer("noted", torch.zeros((), dtype=torch.int64))  # epochs noted so far
        self.register_buffer("clean", torch.ones(()))  # estimated share of clean pairs
        self.register_buffer("degree", torch.zeros(info.num_items + 1))
        self.register_buffer("known", torch.zeros(info.num_users, dtype=torch.bool))
        self.graph: Tensor | None = None
        self.pairs = self.memory = torch.zeros(2, 0, dtype=torch.int64)  # (2, P) and (2, M): users, items
        self.untouched: UntouchedItems | None = None

    @property
    def behaviors(self) -> tuple[int, ...] | None:
        """Behavior ids whose pairs are read; None for all."""
        deepest = len(self.info.behaviors)
        if self.config.input == "target":
            return (deepest,)
        return tuple(range(1, deepest)) if self.config.input == "auxiliary" and deepest > 1 else None

    def set_up(self, events: TrainingEvents) -> None:
        """Build graph and pairs."""
        device, users, items = self.tables.device, self.info.num_users, self.info.num_items
        kind = torch.from_numpy(events.behavior).long()
        chosen = torch.isin(kind, torch.tensor(self.behaviors or range(1, len(self.info.behaviors) + 1)))
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        self.untouched = UntouchedItems(user, item, users, items).to(device)
        keys = torch.unique((user * (items + 1) + item)[chosen])
        self.pairs = torch.stack([keys // (items + 1), keys % (items + 1)]).to(device)
        graph = BipartiteGraph(self.pairs[0], self.pairs[1], users, items)
        self.graph = graph.matrix(graph.normalised())
        self.bits = torch.zeros(
            self.config.memory_epochs, self.pairs.shape[1], dtype=torch.bool, device=device
        )
        self.degree.copy_(torch.bincount(self.pairs[1], minlength=items + 1))
        self.known[self.pairs[0]] = True

    def stages(self) -> tuple[Stage, ...]:
        """Return memorisation, which ends by itself, and guided learning."""
        c = self.config
        memory = Stage(
            Pairs(self.behaviors, negatives=1, distinct=True),
            c.learning_rate / 5,
            c.batch_size,
            "memory",
            epochs=c.memory_stage_epochs,
            own_end=True,
            clip_norm=None,
            frozen=("weigh.", "scheduler."),
        )
        rates = (("weigh.", c.learning_rate_weights), ("scheduler.", c.learning_rate_scheduler))
        # over sequences of length 1 a recurrent matrix is never read
        unread = ("scheduler.cosines.weight_hh", "scheduler.loss.weight_hh")
        guided = replace(memory, name="guided", learning_rate=c.learning_rate, epochs=c.epochs, frozen=unread)
        guided = replace(guided, own_end=False, patience=c.patience, rates=rates)
        return memory, replace(guided, new_optimizer=c.faithful_reset)

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Choose the memorised pairs; make the scheduler anew where the release does."""
        if self.stage_name == "guided":
            self.memory = self.pairs[:, self.memorised()]
            if self.config.faithful_reset:
                self.scheduler.reset()

    def memorised(self) -> Tensor:
        """Return (P,) bool, the pairs memorised in half of the last h epochs or more; where they are fewer
        than a batch, the fifth that was memorised most often.
        """
        times = self.bits.sum(0)
        chosen = 2 * times >= self.config.memory_epochs
        if int(chosen.sum()) >= min(self.config.batch_size, len(times)):
            return chosen
        often = times.argsort(descending=True, stable=True)[: max(len(times) // 5, 1)]
        return torch.zeros_like(chosen).index_fill_(0, often, True)

    def stage_is_over(self) -> bool:
        """Note the pairs memorised now; True where their share has reached that of clean pairs."""
        with torch.no_grad():
            vectors = self.propagated()
            positive, negative = (self.pair_scores(vectors, items) for items in (self.pairs[1], self.drawn()))
            self.bits[int(self.noted) % len(self.bits)] = in_upper_half(self.pairs[0], positive, negative)
            self.noted += 1
            again = self.pair_scores(vectors, self.drawn())
            self.clean.fill_(clean_share(self.pairs[0], F.softplus(again - positive)))
        share = (2 * self.bits.sum(0) >= self.config.memory_epochs).float().mean()
        return bool(share >= self.clean)

    def drawn(self) -> Tensor:
        """Return (P,) an untouched item for every pair."""
        assert self.untouched is not None
        return self.untouched.draw(self.pairs[0], (1,))[:, 0]

    def pair_scores(self, vectors: Tensor, items: Tensor) -> Tensor:
        """Return (P,) scores of the users of all pairs for items (P,)."""
        parts = zip(self.pairs[0].split(ROWS), (items + self.info.num_users).split(ROWS), strict=True)
        return torch.cat([(vectors[user] * vectors[item]).sum(1) for user, item in parts])

    def propagated(self, tables: Tensor | None = None) -> Tensor:
        """Return (U + N + 1, D), the mean over layers of the tables, or of other values of their shape."""
        tables = self.tables if tables is None else tables
        if self.graph is None or not self.config.num_layers:
            return tables
        return propagate(self.graph, tables, self.config.num_layers)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the BPR loss of the first stage, or the weighed one and the meta loss of the second."""
        assert batch.target is not None and batch.negatives is not None
        nodes = self.nodes(batch.user, batch.target, batch.negatives[:, 0])
        vectors = self.propagated()
        each = pair_loss(vectors, nodes)
        if self.stage_name != "guided":
            return {"loss": each.mean()}
        weights = self.weigh(each)
        meta = self.meta_loss(vectors.detach(), nodes, weights)
        weighed = (weights.detach() * each).mean()
        return {"loss": weighed + meta, "weighed": weighed, "meta": meta}

    def nodes(self, user: Tensor, item: Tensor, negative: Tensor) -> Tensor:
        """Return (3, B) rows of the tables."""
        return torch.stack([user, item + self.info.num_users, negative + self.info.num_users])

    def meta_loss(self, vectors: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of chosen memorised pairs after a trial step on the batch.

        Its gradient reaches the weights (through the step) and the scheduler (through the choice) alone.

        Args:
            vectors: propagated, (U + N + 1, D), without gradient.
            nodes: (3, B) of the batch.
            weights: (B,) of the batch.
        """
        assert self.untouched is not None
        chosen = torch.randint(self.memory.shape[1], (nodes.shape[1],), device=nodes.device)
        user, item = self.memory[:, chosen]
        asked = self.nodes(user, item, self.untouched.draw(user, (1,))[:, 0])
        with torch.no_grad():
            before = pair_loss(vectors, asked)
            tried = self.after_step(vectors, asked, self.weigh(before))
            cosines = self.cosines(vectors, tried, asked)
        log_share = self.scheduler(before, cosines)
        after = self.after_step(vectors, nodes, weights)[asked]  # (3, B, D)
        if self.config.selection == "gumbel":
            logits = log_share.expand(len(log_share), -1)
            select = F.gumbel_softmax(logits, self.config.temperature, hard=True)  # (B, B), rows one-hot
            user, item, negative = select @ after
            return F.softplus((user * (negative - item)).sum(-1)).mean()
        draws = torch.multinomial(log_share.detach().exp(), len(log_share), replacement=True)
        user, item, negative = after[:, draws]
        value = F.softplus((user * (negative - item)).sum(-1)).mean()
        policy = log_share[draws].sum() * value.detach()
        return value + policy - policy.detach()

    def after_step(self, vectors: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
        """Return the propagated vectors after a plain gradient step on the weighed loss of pairs (3, B)."""
        gradients = pair_gradients(vectors, nodes) * weights[:, None] / len(weights)  # (3, B, D)
        total = torch.zeros_like(vectors).index_add(0, nodes.flatten(), gradients.flatten(0, 1))
        return vectors - self.config.learning_rate * self.propagated(self.propagated(total))

    def cosines(self, before: Tensor, after: Tensor, nodes: Tensor) -> Tensor:
        """Return (B, 2) cosines of each pair's gradients before and after a step, of users and of items."""
        first, second = (self.parts_of(pair_gradients(vectors, nodes), nodes) for vectors in (before, after))
        return torch.stack([F.cosine_similarity(a, b, dim=1) for a, b in zip(first, second, strict=True)], 1)

    def parts_of(self, gradients: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared of gradients (3, B, D): those of users and those of items, (B, ...)."""
        if self.config.scheduler_grad == "exact":
            return self.table_gradients(gradients, nodes)
        return gradients[0], gradients[1:].transpose(0, 1).flatten(1)

    def table_gradients(self, gradients: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return each pair's gradients in the whole user table (B, U D) and item table (B, (N + 1) D)."""
        rows = []
        for pair in range(nodes.shape[1]):
            total = torch.zeros_like(self.tables).index_add(0, nodes[:, pair], gradients[:, pair])
            rows.append(self.propagated(total))
        tables = torch.stack(rows)  # (B, U + N + 1, D)
        users = self.info.num_users
        return tables[:, :users].flatten(1), tables[:, users:].flatten(1)

    def encode(self, batch: Batch) -> Tensor:
        """Return (B,) user ids: nothing else of a batch is read."""
        return batch.user

    def encode_items(self) -> Tensor:
        """Return the propagated vectors of users and items, (U + N + 1, D)."""
        return self.propagated()

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products, (B, C); for users without a training pair the degree of the item."""
        user, table = items[encoded], items[self.info.num_users :]
        if candidates.dim() == 1:
            scores = user @ table[candidates].T
        else:
            scores = torch.einsum("bd,bcd->bc", user, table[candidates])
        return torch.where(self.known[encoded][:, None], scores, self.degree[candidates])
