"""Bian et al.: Multi-modal Mixture of Experts Representation Learning for Sequential Recommendation. CIKM
2023, doi:10.1145/3583780.3614978. A reconstruction: the authors' repository holds a README, and the method
section could not be read.

The id, image and text of every event are tokens of one sequence. A layer of shared attention is followed by
experts of each modality, another by one pool of experts for all; a small attention joins the modalities of an
event. Candidates are joined in the same way and compared by cosine. A first stage trains on image and text
alone: the context against the content of the next item, across modalities too, and image against text of an
item.

Letters: B windows, M modalities, L length, N items, D width, n rows.

Readings taken
- Causal by the time of events: every position predicts the next item, and no token sees a later event.
- The first stage ends by validation NDCG@10 of scores by content alone.
- Experts run on the tokens that are sent to them; the sum is that of the dense form with its zero gates.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.m3srec.config import M3SRecConfig
from bench.baselines.m3srec.experts import Layer, ModalityAttention, token_mask
from bench.cards import Card
from bench.errors import UserError
from bench.interface import Batch, Causal, DatasetInfo, Diagnostic, Recommender, Stage, TrainingEvents
from bench.nn.content import LinearContent, has_content, held_modalities
from bench.nn.dropout import Dropout
from bench.nn.scoring import dot_scores
from bench.nn.softmax import ItemSoftmax

RANDOM_POSITIONS = 4
"""Positions of a window that the first stage learns from, beside the last."""
ALIGNED = 1024
"""Most items of a step whose image and text are contrasted."""

CARD = Card(
    name="m3srec",
    label="M3SRec",
    model="M3SRec",
    family="multimodal",
    paper="Bian et al.: Multi-modal Mixture of Experts Representation Learning for Sequential "
    "Recommendation. CIKM 2023, doi:10.1145/3583780.3614978",
    year=2023,
    inputs="item ids, image and text of all behaviors in time order, behavior type dropped; causal view; "
    "without images and texts one stream of ids, and no pre-training",
    deviations=(
        "number and form of experts, gates and losses are a reconstruction from the abstract",
        "item ids are a modality beside image and text",
        "pre-training on the training part; it ends by validation NDCG@10 of scores by content alone",
        "over more than 100,000 items a sampled softmax",
    ),
    reconstruction=True,
    notes="Trains on 12,000 targets per second and core where SASRec does on 92,800 (ml-100k, texts alone).",
    variants={
        "no_pretrain": ("w/o pre-training", {"pretrain": False}),
        "dense": ("dense experts", {"num_active": 4}),
        "no_id": ("w/o ids", {"use_id": False}),
    },
    search={
        "learning_rate": (0.0003, 0.001, 0.003),
        "hidden_size": (64, 128, 256),
        "num_heads": (2, 4),
        "num_experts": (4, 8),
        "num_active": (1, 2, 4),
        "dropout": (0.1, 0.2, 0.3, 0.5),
        "temperature": (0.05, 0.07, 0.1, 0.2),
    },
)


def contrast(first: Tensor, second: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE of rows (n, D) with the row of `second` (S, D) that each wants (n,), by cosine; 0 for no
    row.
    """
    if not len(first):
        return first.sum()
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    return F.cross_entropy(logits, wanted)


class M3SRec(Recommender):
    """Multi-modal mixture of experts for sequential recommendation."""

    Config = M3SRecConfig
    config: M3SRecConfig

    def __init__(self, config: M3SRecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, self.max_history = config.hidden_size, config.max_history
        held = held_modalities(info.content, ("text", "image"))
        if not config.use_id and not held:
            raise UserError("m3srec: use_id=false, but no item has an image or a text")
        self.names = ("id", *held)
        self.streams = list(range(0 if config.use_id else 1, len(self.names)))
        self.items = nn.Embedding(info.num_items + 1, size, padding_idx=0)
        self.content = nn.ModuleList(LinearContent(info.content, name, size) for name in held)
        self.content_norms = nn.ModuleList(nn.LayerNorm(size) for _ in held)
        self.positions = nn.Parameter(torch.empty(config.max_history, size))
        self.kinds = nn.Parameter(torch.empty(len(self.names), size))
        self.input_norm, self.dropout = nn.LayerNorm(size), Dropout(config.dropout)
        count = len(self.names)
        self.layers = nn.ModuleList(
            [Layer(config, count) for _ in range(config.num_specific_layers)]
            + [Layer(config, None) for _ in range(config.num_cross_layers)]
        )
        self.fusion, self.candidate_fusion = ModalityAttention(size), ModalityAttention(size)
        self.softmax = ItemSoftmax(info.num_items)
        self.initialize()

    def initialize(self) -> None:
        """Draw tables and maps from N(0, 0.02); the routers' noise starts at softplus(0)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(".noise"):
                nn.init.zeros_(module.weight)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.kinds, std=0.02)
        nn.init.zeros_(self.items.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the stage on content, where there is content, and the stage on everything."""
        c, view = self.config, Causal(self.config.max_history)
        last = Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience)
        if not (c.pretrain and len(self.content)):
            return (last,)
        first = Stage(
            view, c.learning_rate, c.batch_size, "pretrain", epochs=c.pretrain_epochs,
            patience=c.pretrain_patience, frozen=("items.", "candidate_fusion."),
        )  # fmt: skip
        return first, last

    def set_up(self, events: TrainingEvents) -> None:
        """Note how often items are targets."""
        self.softmax.set_up(events.item_counts())

    def vector(self, stream: int, items: Tensor) -> Tensor:
        """Return the vectors (..., D) of items (...) in a modality; 0 is the id."""
        if not stream:
            return self.items(items)
        vectors: Tensor = self.content_norms[stream - 1](self.content[stream - 1](items))
        return vectors

    def present(self, streams: list[int], items: Tensor) -> Tensor:
        """Return (..., M) bool, which of the modalities items (...) have."""
        real = items > 0
        parts = [
            real & has_content(self.content[stream - 1], items) if stream else real for stream in streams
        ]
        return torch.stack(parts, -1)

    def tokens(self, history: Tensor, streams: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (B, M, L, D) after all layers, (B, M, L) bool `present`, and the balance ()."""
        present = self.present(streams, history).permute(0, 2, 1)
        positions = self.positions[len(self.positions) - history.shape[1] :]
        x = torch.stack([self.vector(one, history) + self.kinds[one] for one in streams], 1) + positions
        x, balance = self.dropout(self.input_norm(x)), x.new_zeros(())
        allowed = token_mask(present)
        for layer in self.layers:
            x, own = layer(x, present, allowed, streams)
            balance = balance + own
        return x, present, balance

    def states(self, history: Tensor, streams: list[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return z (B, L, D) and the balance () from items (B, L), read in some modalities, or all."""
        x, present, balance = self.tokens(history, self.streams if streams is None else streams)
        return self.fusion(x.transpose(1, 2), present.transpose(1, 2))[0], balance

    def vectors(self, items: Tensor) -> Tensor:
        """Return q (..., D) of candidates (...), unit vectors over the temperature, or the rows of the id."""
        if self.config.score == "id":
            return self.items(items)
        x = torch.stack([self.vector(one, items) for one in self.streams], -2)
        q, _ = self.candidate_fusion(x, self.present(self.streams, items))
        return F.normalize(q, dim=-1) / self.config.temperature

    def content_vectors(self, items: Tensor) -> Tensor:
        """Return (..., D), the mean of the image and text that items (...) have, zeros where none."""
        streams = list(range(1, len(self.names)))
        present = self.present(streams, items)[..., None]
        x = torch.stack([self.vector(one, items) for one in streams], -2)
        return (x * present).sum(-2) / present.sum(-2).clamp(min=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the present stage and its terms."""
        assert batch.labels is not None and batch.label_behavior is not None
        c = self.config
        if self.stage_name == "pretrain":
            return self.pretraining(batch.history, batch.labels)
        states, balance = self.states(batch.history)
        row, column = torch.nonzero(batch.labels, as_tuple=True)
        labels, kind = batch.labels[row, column], batch.label_behavior[row, column]
        weights = torch.where(kind == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary)
        hidden = states[row, column]
        hidden = hidden if c.score == "id" else F.normalize(hidden, dim=-1)
        columns = self.softmax.columns(labels)
        terms = {"prediction": self.softmax.loss(hidden, columns, self.vectors(columns[0]), labels, weights)}
        terms["balance"] = c.loss_weight_balance * balance
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def pretraining(self, history: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the first stage on windows (B, L) and its terms; ids are not read."""
        c, both = self.config, list(range(1, len(self.names)))
        chance = torch.rand(labels.shape, device=labels.device) * (labels > 0)
        chance[:, -1] = torch.where(labels[:, -1] > 0, 2.0, 0.0)
        value, column = chance.topk(min(1 + RANDOM_POSITIONS, labels.shape[1]), 1)
        row = torch.arange(len(labels), device=labels.device)[:, None].expand_as(column)[value > 0]
        column = column[value > 0]
        wanted = labels[row, column]  # (n,)
        states, balance = self.states(history, both)
        terms = {
            "item": self.next_item(states[row, column], wanted, both),
            "balance": c.loss_weight_balance * balance,
        }
        if len(both) > 1:
            for own, other in ((1, 2), (2, 1)):
                alone, _ = self.states(history, [own])
                value = self.next_item(alone[row, column], wanted, [other])
                terms[f"{self.names[own]}_to_{self.names[other]}"] = c.loss_weight_cross * value
            terms["align"] = c.loss_weight_align * self.alignment(history)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def next_item(self, states: Tensor, wanted: Tensor, streams: list[int]) -> Tensor:
        """Return the contrast of states (n, D) with the content of the next items (n,) in some modalities;
        items that have none of these are left out, and equal items are one candidate.
        """
        has = self.present(streams, wanted).any(-1)
        items, place = torch.unique(wanted[has], return_inverse=True)
        vectors = self.content_vectors(items) if len(streams) > 1 else self.vector(streams[0], items)
        return contrast(states[has], vectors, place, self.config.temperature)

    def alignment(self, history: Tensor) -> Tensor:
        """Return the contrast of image and text of the items of windows (B, L), both ways."""
        items = torch.unique(history)
        items = items[self.present([1, 2], items).all(-1)]
        items = items[torch.randperm(len(items), device=items.device)[:ALIGNED]]
        own = torch.arange(len(items), device=items.device)
        text, image = self.vector(1, items), self.vector(2, items)
        tau = self.config.temperature
        return (contrast(text, image, own, tau) + contrast(image, text, own, tau)) / 2

    def encode(self, batch: Batch) -> Tensor:
        """Return z after the newest event, (B, D), a unit vector where candidates are compared by cosine."""
        content = self.stage_name == "pretrain"
        states, _ = self.states(batch.history, list(range(1, len(self.names))) if content else None)
        z = states[:, -1]
        return z if self.config.score == "id" and not content else F.normalize(z, dim=-1)

    def encode_items(self) -> Tensor:
        """Return the vectors of all items, (N + 1, D); in the first stage by content alone."""
        rows = torch.arange(self.info.num_items + 1, device=self.positions.device)
        if self.stage_name == "pretrain":
            return F.normalize(self.content_vectors(rows), dim=-1)
        return self.vectors(rows)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return the scores of the candidates, (B, C)."""
        return dot_scores(encoded, items, candidates)

    def diagnostics(self, batch: Batch) -> dict[str, Diagnostic]:
        """Return the weights of the modalities at the newest event and in the candidates seen."""
        x, present, _ = self.tokens(batch.history[:, -self.max_history :], self.streams)
        _, weight = self.fusion(x[:, :, -1], present[:, :, -1])
        has = present[:, :, -1].any(1)
        names = tuple(self.names[one] for one in self.streams)
        mean = weight[has].mean(0)[:, None]
        title = "weight of the modalities at the newest event"
        return {"modalities": Diagnostic(title, mean, names, ("weight",), "share", ("modality", ""), "bars")}
