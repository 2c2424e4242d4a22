"""Liang et al.: MMMLP: Multi-modal Multilayer Perceptron for Sequential Recommendations. WWW 2023,
doi:10.1145/3543507.3583378.

A feature mixer per modality (item ids, image, text) mixes the history over time and over channels, a fusion
mixer joins them, and the last position meets the item table. There is no attention: order lies in the fixed
weights of the token mixing, so weight j means "j events ago" and histories are always L long.

Letters: B histories, L history length, D width, M streams.

Readings taken
- Token mixing in the paper sees every position of its history, so that a position cannot predict its
  successor and one history gives one target (`reading="prefix"`). `"causal"`, the default, masks the two maps
  of the token mixing as MADE does (Germain et al., ICML 2015): hidden unit h belongs to a position, reads
  what came up to it and is read by positions from it on. The newest position reads all hidden units, as
  before, and every position of a window has a target of its own.
- The release computes less than the paper names (no fusion mixer, depth without effect) and does not run.
  `variant="paper"` has a stack of feature mixers per modality and a fusion mixer; `"release"` is what the
  code computes.
- Where only the last position is predicted from, the last block computes that one alone; nothing else
  changes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cards import Card
from bench.interface import Batch, Causal, DatasetInfo, Next, Recommender, Stage, TrainingEvents
from bench.nn.content import LinearContent, has_content, held_modalities
from bench.nn.dropout import Dropout
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores
from bench.nn.softmax import ItemSoftmax

CARD = Card(
    name="mmmlp",
    label="MMMLP",
    model="MMMLP",
    family="multimodal",
    paper="Liang et al.: MMMLP: Multi-modal Multilayer Perceptron for Sequential Recommendations. WWW 2023, "
    "doi:10.1145/3543507.3583378",
    year=2023,
    inputs="item ids, image and text of all behaviors in time order, behavior type dropped; causal view; "
    "without images or texts the stream is left out",
    deviations=(
        "token mixing is masked to be causal, so that every position of a window has a target; the paper "
        "mixes whole histories, one target each (reading=prefix)",
        "three stacked feature mixers and a fusion mixer as the abstract names them; the release has one "
        "effective layer and no fusion mixer (variant=release)",
        "one linear map per modality from ready features; the release builds a mixer over raw pixels that it "
        "never calls",
        "histories are padded on the left, so that a weight means a number of events ago; padding is zero "
        "before and after each mixing",
        "reading=prefix: at most ten targets per user and epoch, drawn at random",
        "D = 64 instead of 128, learning rate 1e-3 instead of 1e-4, dropout 0.2 (not released)",
        "over more than 100,000 items a sampled softmax",
    ),
    notes="Trains on 13,600 targets per second and core where SASRec does on 92,800 (ml-100k, texts alone); "
    "in another run on 11,400, and on 440 with prefixes.",
    variants={
        "prefix": ("prefixes", {"reading": "prefix", "batch_size": 256}),
        "release": ("released layers", {"variant": "release"}),
    },
    search={
        "learning_rate": (0.0003, 0.001, 0.003),
        "hidden_size": (64, 128, 256),
        "num_layers": (1, 2, 4),
        "num_fusion_layers": (1, 2),
        "token_expansion": (1, 2, 4),
        "dropout": (0.1, 0.2, 0.3, 0.5),
    },
)


@dataclass(frozen=True)
class MMMLPConfig:
    """Options of MMMLP."""

    variant: Literal["paper", "release"] = "paper"
    """Stacked feature mixers and a fusion mixer, or what the released code computes."""
    reading: Literal["causal", "prefix"] = "causal"
    """A target at every position under masked token mixing, or one per history under the paper's."""
    hidden_size: int = 64
    """D, width of one stream."""
    num_layers: int = 2
    """Feature mixers per modality; in the release: times that the one mixer of the ids is applied."""
    num_fusion_layers: int = 1
    """Fusion mixers; the release has none."""
    token_expansion: int = 4
    """Hidden width of the token mixing relative to L."""
    token_hidden: int | None = None
    """Hidden width of the token mixing, instead of the expansion: cost linear in L."""
    channel_expansion: int = 4
    """Hidden width of the channel mixing relative to its width."""
    dropout: float = 0.2
    """On inputs and inside the mixers, fraction."""
    candidate_content: bool = False
    """Candidates too are ids, image and text together, instead of ids alone."""
    loss: Literal["ce", "bpr"] = "ce"
    """Softmax over the items, or pairs with one untouched item."""
    targets: Literal["target", "all"] = "all"
    """Events to predict."""
    max_targets_per_user: int | None = 10
    """`prefix`: targets drawn per user and epoch; None takes all."""
    loss_weight_target: float = 1.0
    """Weight of targets of the target behavior."""
    loss_weight_auxiliary: float = 1.0
    """Weight of other targets."""
    max_history: int = 50
    """L; token weights are bound to it."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    batch_size: int = 32
    """Windows (`prefix`: histories) per step."""
    epochs: int = 200
    """Most epochs."""
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""


class Mixer(nn.Module):
    """Token mixing over time, then channel mixing, each behind a norm and with a residual.

    Under the causal reading hidden unit h of H belongs to position floor(h L / H); the masks cut what would
    carry a later event to an earlier position.
    """

    mask_in: Tensor
    mask_out: Tensor

    def __init__(self, config: MMMLPConfig, width: int) -> None:
        super().__init__()
        length = config.max_history
        hidden = config.token_hidden or config.token_expansion * length
        wide = config.channel_expansion * width
        self.token_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_in, self.token_out = nn.Linear(length, hidden), nn.Linear(hidden, length)
        self.channel_in, self.channel_out = nn.Linear(width, wide), nn.Linear(wide, width)
        self.dropout = Dropout(config.dropout)
        position, unit = torch.arange(length), torch.arange(hidden) * length // hidden
        mask_in, mask_out = position <= unit[:, None], unit <= position[:, None]  # (H, L), (L, H)
        whole = config.reading == "prefix"
        self.register_buffer("mask_in", (mask_in | whole).float(), persistent=False)
        self.register_buffer("mask_out", (mask_out | whole).float(), persistent=False)

    def forward(self, x: Tensor, real: Tensor, last: bool = False) -> Tensor:
        """Return (B, L, width) from x (B, L, width) and real (B, L, 1) of 0 and 1, or the last position,
        (B, 1, width).
        """
        over_time = (self.token_norm(x) * real).transpose(1, 2)  # (B, width, L)
        maps = self.token_in.weight * self.mask_in, self.token_out.weight * self.mask_out
        hidden = self.dropout(F.gelu(F.linear(over_time, maps[0], self.token_in.bias)))
        if last:  # the output layer's last row alone
            mixed = F.linear(hidden, maps[1][-1:], self.token_out.bias[-1:])
            x, real = x[:, -1:], real[:, -1:]
        else:
            mixed = F.linear(hidden, maps[1], self.token_out.bias)
        y = (x + self.dropout(mixed).transpose(1, 2)) * real
        network = self.channel_out(self.dropout(F.gelu(self.channel_in(self.channel_norm(y)))))
        return (y + self.dropout(network)) * real


class MMMLP(Recommender):
    """Multi-modal multilayer perceptron."""

    Config = MMMLPConfig
    config: MMMLPConfig

    def __init__(self, config: MMMLPConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, paper = config.hidden_size, config.variant == "paper"
        self.max_history = config.max_history
        self.items = nn.Embedding(info.num_items + 1, size, padding_idx=0)
        held = held_modalities(info.content, ("text", "image"))
        self.content = nn.ModuleList(LinearContent(info.content, name, size) for name in held)
        streams = 1 + len(held)
        self.input_norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(streams))
        depth = config.num_layers if paper else 1
        self.features = nn.ModuleList(
            nn.ModuleList(Mixer(config, size) for _ in range(depth)) for _ in range(streams)
        )
        width = streams * size
        self.fusion = nn.ModuleList(
            Mixer(config, width) for _ in range(config.num_fusion_layers if paper else 0)
        )
        self.fusion_norm, self.join = nn.LayerNorm(width), nn.Linear(width, size)
        self.output_norm = nn.LayerNorm(size) if paper else None
        self.dropout = Dropout(config.dropout)
        self.softmax = ItemSoftmax(info.num_items)
        self.untouched: UntouchedItems | None = None
        self.initialize()

    def initialize(self) -> None:
        """Draw tables and maps from N(0, 0.02), token mixing by PyTorch's default, as in the release."""
        token = {id(m) for mixer in self.modules() if isinstance(mixer, Mixer)
                 for m in (mixer.token_in, mixer.token_out)}  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Linear) and id(module) not in token:
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.zeros_(self.items.weight[0].detach())

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage."""
        c = self.config
        prefix = Next(c.max_history, c.targets, c.max_targets_per_user)
        view = prefix if c.reading == "prefix" else Causal(c.max_history)
        return (Stage(view, c.learning_rate, c.batch_size, epochs=c.epochs, patience=c.patience),)

    def set_up(self, events: TrainingEvents) -> None:
        """Note how often items are targets, and what users have touched, for negatives."""
        self.softmax.set_up(events.item_counts())
        if self.config.loss == "bpr":
            user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
            sampler = UntouchedItems(user, item, self.info.num_users, self.info.num_items)
            self.untouched = sampler.to(self.items.weight.device)

    def mixed(self, stream: int, x: Tensor, history: Tensor, real: Tensor, last: bool) -> Tensor:
        """Return a stream (B, L, D) behind its mixers, or its last position where that is all that counts."""
        x = self.dropout(self.input_norms[stream](x)) * real
        if stream:  # an absent image or text stays zero behind the norm's bias
            x = x * has_content(self.content[stream - 1], history)[..., None]
        mixers = self.features[stream]
        assert isinstance(mixers, nn.ModuleList)
        repeats = self.config.num_layers if self.config.variant == "release" and not stream else 1
        stack = [*mixers] * repeats
        for place, mixer in enumerate(stack):
            x = mixer(x, real, last=last and not len(self.fusion) and place == len(stack) - 1)
        return x

    def hidden(self, history: Tensor, last: bool = True) -> Tensor:
        """Return u at the newest event, (B, D), or at every position, (B, L, D), from item ids (B, any)."""
        history = self._whole(history)
        real = (history > 0)[..., None].to(self.items.weight.dtype)  # (B, L, 1)
        inputs = [self.items(history), *(table(history) for table in self.content)]
        streams = [self.mixed(index, x, history, real, last) for index, x in enumerate(inputs)]
        joined = torch.cat(streams, -1)  # (B, L, M D), or its last position
        for place, mixer in enumerate(self.fusion):
            joined = mixer(joined, real, last=last and place == len(self.fusion) - 1)
        fused = self.join(self.fusion_norm(joined[:, -1] if last else joined))
        norm = self.input_norms[0] if self.output_norm is None else self.output_norm
        return norm(fused)

    def _whole(self, columns: Tensor) -> Tensor:
        """Return columns (B, any) of a window as (B, L): the newest, padded on the left."""
        length = self.config.max_history
        columns = columns[:, -length:]
        return F.pad(columns, (length - columns.shape[1], 0))

    def vectors(self, items: Tensor) -> Tensor:
        """Return the vectors (..., D) of candidates (...)."""
        rows: Tensor = self.items(items)
        if self.config.candidate_content:
            for table in self.content:
                rows = rows + table(items)
        return rows

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the batch's targets."""
        c = self.config
        if c.reading == "prefix":
            assert batch.target is not None and batch.target_behavior is not None
            user, label, behavior = batch.user, batch.target, batch.target_behavior
            hidden = self.hidden(batch.history)
        else:
            assert batch.labels is not None and batch.label_behavior is not None
            labels, behaviors = self._whole(batch.labels), self._whole(batch.label_behavior)
            wanted = behaviors == len(self.info.behaviors) if c.targets == "target" else labels > 0
            row, position = wanted.nonzero(as_tuple=True)
            user, label, behavior = batch.user[row], labels[row, position], behaviors[row, position]
            hidden = self.hidden(batch.history, last=False)[row, position]  # (n, D)
        weights = torch.where(
            behavior == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary
        )
        if c.loss == "bpr":
            assert self.untouched is not None
            pairs = torch.cat([label[:, None], self.untouched.draw(user, (1,))], 1)
            gap = torch.einsum("bd,bcd->bc", hidden, self.vectors(pairs)) @ hidden.new_tensor([-1.0, 1.0])
            return {"loss": (weights * F.softplus(gap)).sum() / weights.sum().clamp(min=1e-9)}
        columns = self.softmax.columns(label)
        return {"loss": self.softmax.loss(hidden, columns, self.vectors(columns[0]), label, weights)}

    def encode(self, batch: Batch) -> Tensor:
        """Return u at the newest event, (B, D)."""
        return self.hidden(batch.history)

    def encode_items(self) -> Tensor:
        """Return the vectors of all items, (N + 1, D)."""
        return self.vectors(torch.arange(self.info.num_items + 1, device=self.items.weight.device))

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return dot products, (B, C)."""
        return dot_scores(encoded, items, candidates)
