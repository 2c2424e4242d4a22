"""Han, Wang, Wang, Wu, Li, Guo, Liu, Lian, Chen: Efficient Noise-Decoupling for Multi-Behavior Sequential
Recommendation (END4Rec). WWW 2024, doi:10.1145/3589334.3645380, arXiv:2403.17603.

One time-ordered sequence of (item, behavior) events is encoded in the frequency domain by block-diagonal
networks (the Efficient Behavior Miner, EBM). Noise is split off twice: a hard eliminator drops whole events,
a soft filter takes away parts of what is left, by behavior. Contrastive terms want the target closer to the
clean part than to the original, and closer to that than to the noise. It reads no user, content or time.

A Fourier transform mixes all positions of its window, later ones into earlier ones too, so a position may not
predict its successor: one history gives one target, and every prefix of a user is a sample of its own.

Letters: B users, L history, D hidden size, F = L // 2 + 1 frequencies, A behaviors.

Readings taken where the paper's method is known from summaries and a release that does not run
- p of a behavior is 1 plus the mass of a Poisson distribution at its mean lambda: rarer behaviors are kept
  more readily. lambda is learned and starts at log(1 + events of the behavior per user).
- The encoder is followed by a second block over what both filters leave; its last position is the interest.
  In the stage that trains the eliminator alone the interest is the last event kept.
- Where nothing was dropped there is no noise to compare with, and that half of the term is left out.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.ebm.config import EBMConfig
from bench.baselines.ebm.parts import Block, HardEliminator, SoftFilter, compactness
from bench.cards import Card
from bench.interface import Batch, DatasetInfo, Diagnostic, Next, Recommender, Stage, TrainingEvents
from bench.nn.dropout import Dropout
from bench.nn.losses import bce, chunked_cross_entropy, sampled_cross_entropy
from bench.nn.negatives import UntouchedItems
from bench.nn.scoring import dot_scores

WHOLE_CATALOG = 100_000
"""Most items for which the softmax is exact; over more it is sampled."""

CARD = Card(
    name="ebm",
    label="EBM",
    model="EBM",
    family="multibehavior",
    paper="Han et al.: Efficient Noise-Decoupling for Multi-Behavior Sequential Recommendation. WWW 2024, "
    "doi:10.1145/3589334.3645380",
    year=2024,
    inputs="item ids and behavior types in time order; no modality; next view, one target per history",
    deviations=(
        "the release cannot run: its structure and constants are kept, its gradients are repaired",
        "complex weights on the whole spectrum; the release drops the imaginary part (mixer=real)",
        "residual and norm around a block, a second block after the filters: from the paper's figure",
        "auxiliary targets have half the weight; the reading it stands for trains on half of them",
        "D = 64 and dropout 0.2 instead of 128 and none: one size for all models",
        "stages end by validation NDCG@10, that of the hard eliminator after five epochs; the release trains "
        "3, 2, 2 and 3 epochs",
        "compactness has weight 1e-4 instead of 0.01, with which validation stayed at popularity",
        "exact softmax over up to 100,000 items instead of one negative (loss=bce), chosen on validation",
    ),
    notes="Trains on 2,800 targets per second and core in its last stage where SASRec does on 92,800; one "
    "target per history. At the end of three trainings on ml-100k the hard eliminator "
    "keeps 99.98 to 100 % of the events in ranking, so that it is a dropout of events in training.",
    search={
        "learning_rate": (0.0003, 0.001, 0.003),
        "hidden_size": (64, 128, 256),
        "num_layers": (1, 2),
        "loss_weight_contrast": (0.01, 0.1, 0.3),
        "loss_weight_compactness": (0.0, 0.0001, 0.001),
        "dropout": (0.1, 0.2, 0.5),
    },
)


@dataclass(frozen=True)
class Split:
    """What a history is taken apart into; each (B, L, D), zero where padded."""

    original: Tensor
    keep: Tensor
    """(B, L) of 0 and 1."""
    kept: Tensor
    dropped: Tensor
    clean: Tensor
    filtered: Tensor
    """What the soft filter took from `kept`."""


class EBM(Recommender):
    """Efficient behavior miner with hard and soft noise decoupling."""

    Config = EBMConfig
    config: EBMConfig

    def __init__(self, config: EBMConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, behaviors = config.hidden_size, len(info.behaviors)
        self.max_history = config.max_history
        self.items = nn.Embedding(info.num_items + 1, size, padding_idx=0)
        self.behaviors = nn.Embedding(behaviors + 1, size, padding_idx=0)
        self.positions = nn.Embedding(config.max_history, size)
        for table in (self.items, self.behaviors, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        for padded in (self.items, self.behaviors):
            nn.init.zeros_(padded.weight[0].detach())
        self.norm, self.dropout = nn.LayerNorm(size), Dropout(config.dropout)
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.hard, self.soft = HardEliminator(config, behaviors), SoftFilter(config, behaviors)
        self.output = Block(config)
        self.untouched: UntouchedItems | None = None

    def stages(self) -> tuple[Stage, ...]:
        """Return the four guided stages, or one."""
        c = self.config
        view = Next(c.max_history, c.targets, max_targets_per_user=None)
        last = Stage(
            view, c.learning_rate, c.batch_size, "all", weight_decay=c.weight_decay, epochs=c.epochs,
            patience=c.patience,
        )  # fmt: skip
        if not c.guided:
            return (last,)
        early = ("items.", "behaviors.", "positions.", "norm.", "encoder.")
        first = replace(last, name="encoder", epochs=c.first_epochs, patience=c.first_patience)
        few = replace(last, epochs=c.filter_epochs, patience=c.filter_epochs)
        return (
            replace(first, frozen=("hard.", "soft.", "output.")),
            # The ranking stays equal while no event is dropped, so validation cannot choose an epoch here.
            replace(few, name="hard", frozen=(*early, "soft.", "output."), own_end=True),
            replace(few, name="soft", frozen=(*early, "hard.")),
            replace(last, learning_rate=c.learning_rate / 2),
        )

    def set_up(self, events: TrainingEvents) -> None:
        """Start lambda at the behaviors' frequencies; note what each user has touched, for the negatives."""
        counts = torch.bincount(
            torch.from_numpy(events.behavior).long(), minlength=len(self.info.behaviors) + 1
        )
        self.hard.start(counts[1:].float().to(self.hard.rates.device) / self.info.num_users)
        user, item = torch.from_numpy(events.user), torch.from_numpy(events.item).long()
        sampler = UntouchedItems(user, item, self.info.num_users, self.info.num_items)
        self.untouched = sampler.to(self.items.weight.device)

    def start_stage(self, stage: str, events: TrainingEvents) -> None:
        """Start the block behind the filters as a copy of the encoder's first."""
        if stage == "soft" and len(self.encoder):
            self.output.load_state_dict(self.encoder[0].state_dict())

    def states(self, history: Tensor, behavior: Tensor) -> Tensor:
        """Return S (B, L, D), zero where padded, from items and behaviors (B, L) int64."""
        real = (history > 0)[..., None].to(self.items.weight.dtype)
        x = self.items(history) + self.behaviors(behavior) + self.positions.weight
        x = self.dropout(self.norm(x)) * real
        for block in self.encoder:
            x = block(x, real)
        return x

    def split(self, x: Tensor, behavior: Tensor) -> Split:
        """Return clean parts and noise of states (B, L, D)."""
        keep = self.hard(x, behavior)
        kept = keep[..., None] * x
        clean = self.soft(kept, behavior)
        return Split(x, keep, kept, x - kept, clean, kept - clean)

    def interest(self, parts: Split, behavior: Tensor) -> Tensor:
        """Return (B, D), what the present stage reads from the parts of a history."""
        if self.stage_name == "hard":
            order = torch.arange(parts.keep.shape[1], device=parts.keep.device)
            newest = ((parts.keep.detach() > 0) * order).amax(1)  # the last event kept
            return parts.kept[torch.arange(len(newest), device=newest.device), newest]
        return self.output(parts.clean, (behavior > 0)[..., None].to(parts.clean.dtype))[:, -1]

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return items and behaviors of the newest L events, (B, L) each: a transform needs one length."""
        length = self.config.max_history
        history, behavior = batch.history[:, -length:], batch.behavior[:, -length:]
        missing = length - history.shape[1]
        return F.pad(history, (missing, 0)), F.pad(behavior, (missing, 0))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the present stage and its terms."""
        assert batch.target is not None and batch.target_behavior is not None
        c, (history, behavior) = self.config, self.read(batch)
        weights = torch.where(
            batch.target_behavior == len(self.info.behaviors), c.loss_weight_target, c.loss_weight_auxiliary
        )
        x = self.states(history, behavior)
        terms: dict[str, Tensor] = {}
        if self.stage_name in ("encoder", "all", ""):
            terms["compactness"] = c.loss_weight_compactness * compactness(x, (history > 0).sum(1), c.epsilon)
        if self.stage_name == "encoder":
            hidden = x[:, -1]
        else:
            parts = self.split(x, behavior)
            hidden = self.interest(parts, behavior)
            real, wanted = behavior > 0, self.items(batch.target)
            if self.stage_name != "soft":
                noisy = ((parts.keep == 0) & real).any(1)
                value = self.contrast((parts.kept, x, parts.dropped), wanted, real, noisy)
                terms["hard"] = c.loss_weight_contrast * value
            if self.stage_name != "hard":
                value = self.contrast((parts.clean, parts.kept, parts.filtered), wanted, real, real.any(1))
                terms["soft"] = c.loss_weight_contrast * value
        terms["prediction"] = self.prediction(hidden, batch, weights)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def prediction(self, hidden: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """Return the loss of the targets under interests (B, D), a weighted mean."""
        assert batch.target is not None and self.untouched is not None
        if self.config.loss == "ce" and self.info.num_items <= WHOLE_CATALOG:
            return chunked_cross_entropy(hidden, self.items.weight, batch.target, weights)
        if self.config.loss == "ce":
            negatives = torch.randint(1, self.info.num_items + 1, (4096,), device=hidden.device)
            return sampled_cross_entropy(hidden, self.items.weight, batch.target, negatives, weights)
        candidates = torch.cat([batch.target[:, None], self.untouched.draw(batch.user, (1,))], 1)
        logits = dot_scores(hidden, self.items.weight, candidates)  # (B, 2)
        return bce(logits[:, 0], logits[:, 1:], weights)

    def contrast(
        self, parts: tuple[Tensor, Tensor, Tensor], wanted: Tensor, real: Tensor, noisy: Tensor
    ) -> Tensor:
        """Return how far clean part, original and noise are from their order, a mean over rows.

        Args:
            parts: clean, original, noise, each (B, L, D).
            wanted: vectors of the targets (B, D).
            real: (B, L) bool.
            noisy: (B,) bool, where there is noise.
        """
        count = real.sum(1).clamp(min=1)[:, None]
        pooled = [part.sum(1) / count for part in parts]  # (B, D)
        if self.config.similarity == "score":
            pooled = [(part * wanted).sum(1, keepdim=True) for part in pooled]  # (B, 1)
        clean, original, noise = pooled
        above = -F.logsigmoid(clean - original).mean(1)
        below = -F.logsigmoid(original - noise).mean(1)
        return (above + below * noisy).mean()

    def encode(self, batch: Batch) -> Tensor:
        """Return the interest after the newest event, (B, D)."""
        history, behavior = self.read(batch)
        x = self.states(history, behavior)
        return x[:, -1] if self.stage_name == "encoder" else self.interest(self.split(x, behavior), behavior)

    def encode_items(self) -> Tensor:
        """Return the item table, (N + 1, D)."""
        return self.items.weight

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return the dot products with the candidates, (B, C)."""
        return dot_scores(encoded, items, candidates)

    def diagnostics(self, batch: Batch) -> dict[str, Diagnostic]:
        """Return the share of the events of each behavior that the eliminator keeps."""
        history, behavior = self.read(batch)
        keep = self.split(self.states(history, behavior), behavior).keep
        own = [keep[behavior == index + 1].mean() for index in range(len(self.info.behaviors))]
        title, names = "share of the events that the hard eliminator keeps", self.info.behaviors
        shares = torch.stack(own)[:, None]
        return {"kept": Diagnostic(title, shares, names, ("kept",), "fraction", ("behavior", ""), "bars")}
