"""Xu et al.: CMCLRec: Cross-modal Contrastive Learning for User Cold-start Sequential Recommendation. SIGIR
2024, doi:10.1145/3626772.3657839. A reconstruction: no code was found and the abstract alone could be read.

"Cross-modal" means user features and behavior. On warm users a mapping between the two is learned by
contrast; for a user with few events it finds warm users whose behavior fits the features, and a sequence
simulated from theirs is put in front of the few real events. Any sequential model can read it; here it is
SASRec's stack over item vectors of id, image and text.

Letters: B users, L history length, N items, D width.

Readings taken
- Features of a user are what the events shown tell (`features`); data sets here have no others.
- Stages: the backbone on all windows; the mapping on random prefixes of windows with events enough, the
  backbone at rest; both together on windows of which a share is cut to a short, filled-up history.
- For users with many events the model is its backbone. `cmclrec-backbone` is that row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.cmclrec.config import CMCLRecConfig
from bench.baselines.cmclrec.cuts import cut_short, random_prefix
from bench.baselines.cmclrec.features import UserFeatures
from bench.baselines.cmclrec.simulator import Simulator, warm_threshold
from bench.cards import Card
from bench.interface import Batch, Causal, DatasetInfo, Recommender, Stage, TrainingEvents
from bench.nn.content import LinearContent, held_modalities
from bench.nn.dropout import Dropout
from bench.nn.scoring import dot_scores
from bench.nn.softmax import ItemSoftmax
from bench.nn.transformer import TransformerBlock, attention_mask

CARDS = (
    Card(
        name="cmclrec",
        label="CMCLRec",
        model="CMCLRec",
        family="multimodal",
        paper="Xu et al.: CMCLRec: Cross-modal Contrastive Learning for User Cold-start Sequential "
        "Recommendation. SIGIR 2024, doi:10.1145/3626772.3657839",
        year=2024,
        inputs="item ids, image and text of all behaviors in time order; user features from events shown; "
        "causal view; without images or texts these terms are left out",
        deviations=(
            "user features are made from a user's own events: there are no demographics",
            "the simulator votes among neighbors; nothing is known of the paper's generator",
            "tuning ends by validation, as all training does; 20 epochs were 140 steps on a small data set",
            "the mapping ends when recall@10 of users among users stops rising for three epochs",
            "a user is warm from 10 events on, or from as many as a fifth of the users have; `warm_users` in "
            "the record says how many are",
            "over more than 100,000 items a sampled softmax",
        ),
        reconstruction=True,
        notes="Where every test user has ten events or more, the scores are those of the tuned backbone.\n"
        "Tunes on 24,300 targets per second and core where SASRec trains on 92,800 (ml-100k, texts alone).",
        search={
            "learning_rate": (0.0003, 0.001, 0.003),
            "hidden_size": (64, 128, 256),
            "dropout": (0.1, 0.2, 0.5),
            "temperature": (0.05, 0.1, 0.2),
            "loss_weight_contrast": (0.01, 0.1, 0.5),
            "num_neighbors": (10, 20, 50),
        },
    ),
    Card(
        name="cmclrec-backbone",
        label="CMCLRec (sim off)",
        model="CMCLRec",
        family="multimodal",
        paper="the backbone of CMCLRec alone: SASRec over item vectors of id, image and text",
        year=2024,
        inputs="item ids, image and text of all behaviors in time order; causal view",
        deviations=("no user features, no simulator: what CMCLRec has to beat",),
        options={"simulator": False},
        reconstruction=True,
        search={
            "learning_rate": (0.0003, 0.001, 0.003),
            "hidden_size": (64, 128, 256),
            "dropout": (0.1, 0.2, 0.5),
        },
    ),
)

RECALL_AT, RECALL_PATIENCE = 10, 3


def user_contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE of two views (B, D) of the same users, unit vectors, natural log."""
    logits = first @ second.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class CMCLRec(Recommender):
    """Cross-modal contrastive learning for users with few events."""

    Config = CMCLRecConfig
    config: CMCLRecConfig

    def __init__(self, config: CMCLRecConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, c = config.hidden_size, config
        self.max_history = c.max_history
        self.items = nn.Embedding(info.num_items + 1, size, padding_idx=0)
        held = held_modalities(info.content)
        self.content = nn.ModuleList(LinearContent(info.content, name, size, bias=False) for name in held)
        self.positions = nn.Parameter(torch.empty(c.max_history, size))
        self.blocks = nn.ModuleList(
            TransformerBlock(size, c.num_heads, c.dropout, c.dropout, inner_size=size, norm="pre")
            for _ in range(c.num_layers)
        )
        self.last_norm, self.dropout = nn.LayerNorm(size), Dropout(c.dropout)
        self.softmax = ItemSoftmax(info.num_items)
        self.threshold = 0
        self.recall: list[float] = []
        self.hits: list[Tensor] = []
        if c.simulator:
            self.features = UserFeatures(info, self.content)
            self.behavior_tower = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
            self.feature_tower = nn.Sequential(
                nn.Linear(self.features.size, 2 * size), nn.GELU(), Dropout(c.dropout),
                nn.LayerNorm(2 * size), nn.Linear(2 * size, size),
            )  # fmt: skip
            self.simulated = nn.Parameter(torch.zeros(size))
            self.simulator = Simulator(info.num_users, info.num_items, size, c.max_history)
        self.initialize()

    def initialize(self) -> None:
        """Draw tables and maps from N(0, 0.02); the vector of simulated events starts at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.zeros_(self.items.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the backbone's stage, and with a simulator those of the mapping and the tuning."""
        c = self.config
        backbone = Stage(
            Causal(c.max_history), c.learning_rate, c.batch_size, "backbone", epochs=c.epochs,
            patience=c.patience, frozen=("behavior_tower.", "feature_tower.", "features.", "simulated"),
        )  # fmt: skip
        if not c.simulator:
            return (backbone,)
        rest = ("items.", "content.", "positions", "blocks.", "last_norm.", "simulated")
        mapping = Stage(
            Causal(c.max_history), c.learning_rate, 8 * c.batch_size, "mapping",
            epochs=c.mapping_epochs, frozen=rest, own_end=True,
        )  # fmt: skip
        tuning = Stage(
            Causal(c.max_history), c.learning_rate / 10, c.batch_size, "tuning", epochs=c.tuning_epochs,
            patience=c.patience,
        )  # fmt: skip
        return backbone, mapping, tuning

    def set_up(self, events: TrainingEvents) -> None:
        """Note how often items are targets, who is warm, and their sequences."""
        self.softmax.set_up(events.item_counts())
        if self.config.simulator:
            wanted, users = self.config.warm_events, self.info.num_users
            self.threshold, counts = warm_threshold(events, users, wanted)
            self.simulator.set_up(events, (counts >= self.threshold).nonzero()[0])

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Encode the warm users anew: the bank of behavior vectors."""
        self.hits = []
        if self.stage_name == "mapping" and epoch == 0:
            self.recall = []
        if self.stage_name == "tuning":
            self.fill_bank()

    @torch.no_grad()
    def fill_bank(self) -> None:
        """Write the behavior vectors of all warm users into the bank."""
        training = self.training
        self.eval()
        for start in range(0, len(self.simulator.warm), 1024):
            users = self.simulator.warm[start : start + 1024]
            states = self.states(self.vectors(self.simulator.items[start : start + 1024]),
                                 self.simulator.items[start : start + 1024] > 0)  # fmt: skip
            self.simulator.bank[users] = self.behavior_view(states[:, -1])
        self.simulator.filled.fill_(True)
        self.train(training)

    def stage_is_over(self) -> bool:
        """Return whether recall of users among users has not risen for some epochs of the mapping."""
        if not self.hits:
            return True
        self.recall.append(float(torch.cat(self.hits).float().mean()))
        best = self.recall.index(max(self.recall))
        return len(self.recall) - 1 - best >= RECALL_PATIENCE

    def vectors(self, items: Tensor, content: Tensor | None = None) -> Tensor:
        """Return q (..., D) of items (...); content (...) of 0 and 1 says where image and text count."""
        rows: Tensor = self.items(items)
        for table in self.content:
            part = table(items)
            rows = rows + (part if content is None else part * content[..., None])
        return rows

    def states(self, x: Tensor, real: Tensor) -> Tensor:
        """Return the backbone's states (B, L, D) of item vectors (B, L, D), real (B, L) bool."""
        x = self.dropout(x + self.positions[len(self.positions) - x.shape[1] :]) * real[..., None]
        allowed = attention_mask(real, causal=True)
        for block in self.blocks:
            x = block(x, allowed) * real[..., None]
        states: Tensor = self.last_norm(x)
        return states

    def behavior_view(self, state: Tensor) -> Tensor:
        """Return b (B, D), unit vectors, from the backbone's last state (B, D)."""
        return F.normalize(self.behavior_tower(state), dim=1)

    def feature_view(self, history: Tensor, behavior: Tensor, timestamp: Tensor) -> Tensor:
        """Return a (B, D), unit vectors, from a history's columns (B, L) each."""
        return F.normalize(self.feature_tower(self.features(history, behavior, timestamp)), dim=1)

    def contrast(self, batch: Batch) -> Tensor:
        """Return the contrast of two views of a random prefix of each window that has events enough; 0 for
        fewer than two of these.
        """
        batch = random_prefix(batch, self.threshold)
        if len(batch) < 2:
            return torch.stack([p.sum() for p in self.feature_tower.parameters()]).sum() * 0
        half, content = batch.mask, None
        if self.config.split_views and self.training:
            half = batch.mask & (torch.rand(batch.history.shape, device=half.device) < 0.5)
            content = (torch.rand(batch.history.shape, device=half.device) < 0.5).to(self.positions.dtype)
        shown = [column * half for column in (batch.history, batch.behavior, batch.timestamp)]
        first = self.feature_view(*shown)
        second = self.behavior_view(self.states(self.vectors(batch.history, content), batch.mask)[:, -1])
        place = (first.detach() @ second.detach().T).argsort(1, descending=True)
        own = torch.arange(len(batch), device=place.device)[:, None]
        self.hits.append((place[:, :RECALL_AT] == own).any(1))
        return user_contrast(first, second, self.config.temperature)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the present stage and its terms."""
        if self.stage_name == "mapping":
            return {"loss": self.contrast(batch)}
        assert batch.labels is not None and batch.label_behavior is not None
        if self.stage_name != "tuning":
            return {"loss": self.prediction(self.vectors(batch.history), batch)}
        cut = torch.rand(len(batch), device=batch.history.device) < self.config.cut_share
        cut &= (batch.labels > 0).any(1)
        whole = batch.rows((~cut).nonzero()[:, 0])
        count = (batch.labels > 0).sum().clamp(min=1)
        left = whole.labels.count_nonzero() if whole.labels is not None else count
        parts = [self.prediction(self.vectors(whole.history), whole) * left / count]
        if cut.any():
            short, real, x = self.filled(cut_short(batch.rows(cut.nonzero()[:, 0])))
            parts.append(self.prediction(x, short, real) * (count - left) / count)
        terms = {"prediction": torch.stack(parts).sum()}
        terms["contrast"] = self.config.loss_weight_contrast * self.contrast(batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def prediction(self, x: Tensor, batch: Batch, real: Tensor | None = None) -> Tensor:
        """Return the loss of the labelled positions, from item vectors x (B, L, D)."""
        assert batch.labels is not None and batch.label_behavior is not None
        c = self.config
        states = self.states(x, batch.mask if real is None else real)
        row, column = torch.nonzero(batch.labels, as_tuple=True)
        labels, kind = batch.labels[row, column], batch.label_behavior[row, column]
        weights = torch.where(kind == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary)
        columns = self.softmax.columns(labels)
        return self.softmax.loss(states[row, column], columns, self.vectors(columns[0]), labels, weights)

    def filled(self, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        """Return a batch with simulated events in front of its real ones, which positions hold an event
        (B, L), and the item vectors (B, L, D); labels stay where they are.
        """
        c, history = self.config, batch.history
        view = self.feature_view(history, batch.behavior, batch.timestamp)
        made = self.simulator.simulate(
            batch.user, view, history, c.max_simulated, c.num_neighbors, c.simulator_temperature
        )
        length, most = c.max_history, c.max_simulated
        count = batch.mask.sum(1, keepdim=True)  # (B, 1)
        joined = F.pad(history[:, -length:], (max(length - history.shape[1], 0), 0))  # (B, L)
        column = torch.arange(length, device=history.device)
        source = column - (length - count - most)  # (B, L) where a simulated event would come from
        inside = (source >= 0) & (source < most)
        extra = made.gather(1, source.clamp(0, most - 1)) * inside  # (B, L)
        nobody = (joined == 0) & (extra > 0)
        joined = joined + extra * nobody
        x = self.vectors(joined) + self.simulated * nobody[..., None]
        # a simulated history without any real event is read at its last position
        widened = {
            name: F.pad(value[:, -length:], (max(length - value.shape[1], 0), 0))
            for name in ("behavior", "timestamp", "labels", "label_behavior")
            if (value := getattr(batch, name)) is not None
        }
        whole = Batch(user=batch.user, history=joined, **widened)
        return whole, joined > 0, x

    def encode(self, batch: Batch) -> Tensor:
        """Return the state after the newest event, (B, D), short histories filled up."""
        state = self.states(self.vectors(batch.history), batch.mask)[:, -1]
        short = (batch.mask.sum(1) < self.threshold).nonzero()[:, 0]
        if self.config.simulator and self.simulator.filled and len(short):
            _, real, x = self.filled(batch.rows(short))
            state = state.index_copy(0, short, self.states(x, real)[:, -1])
        return state

    def encode_items(self) -> Tensor:
        """Return the vectors of all items, (N + 1, D)."""
        return self.vectors(torch.arange(self.info.num_items + 1, device=self.positions.device))

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products, (B, C)."""
        return dot_scores(encoded, items, candidates)

    def extra_terms(self) -> dict[str, float]:
        """Return how many users are warm, and from how many events on."""
        if not self.config.simulator:
            return {}
        return {"warm_users": float(len(self.simulator.warm)), "warm_events": float(self.threshold)}
