"""M3BSR: the data flow from a history to scores, and the loss (Eq. 24, 25)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import Batch, Causal, DatasetInfo, Diagnostic, Next, Recommender, Stage, TrainingEvents
from bench.models.m3bsr.behavior import BehaviorDenoising
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.diagnostics import tables
from bench.models.m3bsr.disentangle import disentanglement
from bench.models.m3bsr.experts import Encoder, SharedExpert
from bench.models.m3bsr.fusion import MeanFusion, RoutingFusion
from bench.models.m3bsr.head import make_head
from bench.models.m3bsr.inputs import InputLayer
from bench.models.m3bsr.layout import Layout, Reads, layout, masked_mean, running_mean, scatter
from bench.models.m3bsr.modality import ModalityDenoising
from bench.models.m3bsr.objective import main_loss
from bench.nn.dropout import Dropout
from bench.nn.scoring import dot_scores


@dataclass(frozen=True)
class Denoised:
    """A batch after both denoising stages."""

    modality: Tensor
    """Y, (M, B, L, D), zero where padded."""
    behavior: Tensor
    """Z, (M, B, L, D); events of the target behavior as in Y."""
    errors: dict[str, Tensor]
    """L_m (`modality`) and L_b (`behavior`), where the stage has a loss and in training alone."""


class M3BSR(Recommender):
    """Denoises image and text under the ids, the shallower behaviors under the target behavior, then reads
    interests: in the causal reading at every labelled position of a window, else once a history.

    The streams of all behaviors lie side by side in one history of at most `max_history` events. A step that
    works on each behavior alone (CDMD-M) runs on the whole history with a mask that keeps behaviors apart:
    equal numbers, half the padding.
    """

    Config = M3BSRConfig
    target_share: Tensor

    def __init__(self, config: M3BSRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, count, meie = config.hidden_size, len(info.behaviors), config.meie
        self.max_history = config.max_history
        self.causal = config.reading == "causal"
        self.target_behavior = count
        self.inputs = InputLayer(config, info)
        self.dropout = Dropout(config.dropout)
        self.cdmd_m = ModalityDenoising(config, self.inputs.shapes)
        # with one behavior there is nothing shallower to be denoised
        names, streams = self.inputs.modalities, len(self.inputs.modalities)
        self.cdmd_b = BehaviorDenoising(config, len(self.inputs.shapes), names) if count > 1 else None
        self.shared = (
            SharedExpert(size, config.max_history, meie, streams) if meie.enabled and meie.shared else None
        )
        encoders = (1 if meie.tie_behaviors else count) if meie.enabled else 0
        self.unique = nn.ModuleList(Encoder(streams, size, config.max_history, meie) for _ in range(encoders))
        self.fusion = (
            RoutingFusion(config.fusion, streams * count, size, meie.shared)
            if meie.enabled
            else MeanFusion(streams * count, size)
        )
        self.items = make_head(config, info.num_items, self.fusion.width, streams - 1)
        self.register_buffer("target_share", torch.zeros(info.num_items + 1), persistent=False)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: windows, or favors with their prefixes, Adam, gradient norm 1."""
        c = self.config
        prefixes = Next(
            c.max_history, "last" if c.targets == "last_only" else "target", c.max_targets_per_user
        )
        return (
            Stage(
                view=Causal(c.max_history) if self.causal else prefixes,
                learning_rate=c.learning_rate,
                warmup_steps=c.warmup_steps,
                decay_after=c.decay_after,
                weight_average=c.weight_average,
                batch_size=c.batch_size,
                micro_batch=c.micro_batch,
                epochs=c.epochs,
                patience=c.patience,
                clip_norm=1.0,
            ),
        )

    def set_up(self, events: TrainingEvents) -> None:
        """Count the targets; start the item bias at their log frequency, so that training begins at
        popularity.
        """
        counts = torch.from_numpy(events.item_counts(self.target_behavior))
        if self.causal:
            c, every = self.config, torch.from_numpy(events.item_counts())
            counts = c.loss_weight_target * counts + c.loss_weight_auxiliary * (every - counts)
        self.target_share.copy_(counts / counts.sum().clamp(min=1))
        if self.config.popularity_bias:
            with torch.no_grad():
                self.items.bias.copy_(torch.log((counts + 1) / (counts + 1).sum()))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L = L_main + lambda_c L_contrast + lambda_m L_m + lambda_b L_b and its terms.  # Eq. 25"""
        c = self.config
        events = layout(batch, self.target_behavior)
        reads, target, weights = self._targets(batch)
        streams = self.denoised(batch, events)
        interest, vectors = self.interest(streams.behavior, events, reads)
        main = main_loss(
            interest, target, self.item_vectors, self.items.bias, self.target_share, c.softmax, weights
        )  # Eq. 24
        terms = streams.errors
        if vectors is not None and len(vectors) > 1:
            terms = {"contrast": disentanglement(vectors, c.disent), **terms}  # Eq. 20
        parts = {"contrast": c.disent, "modality": c.cdmd_m, "behavior": c.cdmd_b}
        lambdas = {name: part.loss_weight for name, part in parts.items()}
        loss = main
        for name, term in terms.items():
            loss = loss + lambdas[name] * term
        return {"loss": loss, "main": main, **terms}

    def _targets(self, batch: Batch) -> tuple[Reads | None, Tensor, Tensor | None]:
        """Return the labelled positions, their items (P,) and weights (P,); of prefixes the items alone."""
        if not self.causal:
            assert batch.target is not None
            return None, batch.target, None
        assert batch.labels is not None and batch.label_behavior is not None
        row, position = torch.nonzero(batch.labels, as_tuple=True)
        goal = batch.label_behavior[row, position] == self.target_behavior
        weights = torch.where(goal, self.config.loss_weight_target, self.config.loss_weight_auxiliary)
        return Reads(row, position), batch.labels[row, position], weights

    def encode(self, batch: Batch) -> Tensor:
        """Return y, (B, width)."""
        events = layout(batch, self.target_behavior)
        return self.interest(self.denoised(batch, events).behavior, events)[0]

    def encode_items(self) -> Tensor:
        """Return the item vectors, (N + 1, width)."""
        return self.item_vectors()

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return y . E_i + b_i, (B, C)."""
        return dot_scores(encoded, items, candidates, self.items.bias)

    def item_views(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return images and texts of the events before and after CDMD-M, or what stands in its place."""
        mask, names = batch.mask, {"none": "CDMD-M", "mlp": "the MLP"}
        before = self.inputs.finished(self.inputs.content_streams(batch.history), mask)
        after = self.denoised(batch, layout(batch, self.target_behavior)).modality[1:]
        items, shown = batch.history[mask], {}
        for place, modality in enumerate(self.inputs.modalities[1:]):
            shown[f"{modality}, raw"] = (items, before[place][mask])
            if stage := names.get(self.config.cdmd_m.replace):
                shown[f"{modality}, after {stage}"] = (items, after[place][mask])
        return shown

    def diagnostics(self, batch: Batch) -> dict[str, Diagnostic]:
        """Return norms, gates, cosines and noise errors; defined in `diagnostics`."""
        return tables(self, batch)

    def denoised(self, batch: Batch, events: Layout) -> Denoised:
        """Run the input layer and both denoising stages.  # Eq. 3-13"""
        ids = self.inputs.id_stream(batch.history, batch.user)
        content = self.inputs.content_streams(batch.history)
        parts, error = self.cdmd_m(content, ids, batch.behavior, batch.user)
        modality = self.dropout(torch.cat([ids[None], self.inputs.finished(parts, batch.mask)]))
        errors = {}
        if error is not None:
            means = [masked_mean(error, batch.behavior == b + 1) for b in range(self.target_behavior)]
            errors["modality"] = torch.stack(means).mean()
        if self.cdmd_b is None:
            return Denoised(modality, modality, errors)
        shallow, deep = events.shallower, events.target
        seen = shallow.sees(deep, self.causal)
        denoised, error = self.cdmd_b(shallow.of(modality), shallow.mask, deep.of(modality), seen, batch.user)
        if error is not None:
            errors["behavior"] = masked_mean(error, shallow.mask)
        return Denoised(modality, scatter(modality, shallow.positions, denoised, shallow.mask), errors)

    def interest(
        self, streams: Tensor, events: Layout, reads: Reads | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Read interests from the denoised streams.

        Args:
            streams: Z, (M, B, L, D).
            events: where the behaviors stand in them.
            reads: P positions to read at, in the causal reading alone; None is the end of each row, P = B.

        Returns:
            y (P, width), and the interest vectors (1 + M A, P, D), h_common first where there is one, or None
            without experts.
        """
        with self._mixed_precision():
            if isinstance(self.fusion, MeanFusion):
                y = self._mean_interest(self.fusion, streams, events, reads)
                return self.dropout(y.float()), None
            common, unique = self.experts(streams, events, reads)
            y = self.dropout(self.fusion(common, unique).float())
        vectors = unique if common is None else torch.cat([common[None], unique])
        return y, vectors.float()

    def _mean_interest(
        self, fusion: MeanFusion, streams: Tensor, events: Layout, reads: Reads | None
    ) -> Tensor:
        """Return y of the ablation without experts."""
        if not self.causal:
            y: Tensor = fusion([(each.of(streams), each.mask) for each in events.each])
            return y
        reads = reads or events.newest()
        means = [running_mean(streams, events.behavior == b + 1) for b in range(len(events.each))]
        before = F.pad(torch.cat(means), (0, 0, 1, 0))  # 0 stands before the first event
        return fusion.of(before[:, reads.row, reads.position + 1])

    def experts(
        self, streams: Tensor, events: Layout, reads: Reads | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Return h_common (P, D), or None, and the unique vectors u, (M A, P, D).  # Eq. 14-19"""
        if self.causal:
            return self._causal_experts(streams, events, reads or events.newest())
        common = None
        if self.shared is not None:
            shallow, deep = events.shallower, events.target
            common = self.shared(shallow.of(streams), shallow.mask, deep.of(streams), deep.mask)
        # tied, the last encoder is the only one
        encoders = [
            self.unique[min(position, len(self.unique) - 1)] for position in range(self.target_behavior)
        ]
        unique = [
            encoder(each.of(streams), each.mask) for encoder, each in zip(encoders, events.each, strict=True)
        ]
        return common, torch.cat(unique)

    def _causal_experts(self, streams: Tensor, events: Layout, reads: Reads) -> tuple[Tensor | None, Tensor]:
        """Return what `experts` does, each vector that of the last event of its behavior up to a position."""
        packed = self.config.packed
        common = None if self.shared is None else self.shared.each(streams, events, reads, packed)
        unique = []
        for number, each in enumerate(events.each):
            encoder = self.unique[min(number, len(self.unique) - 1)]
            assert isinstance(encoder, Encoder)
            age = each.positions - events.length
            unique.append(encoder.each(each.of(streams), each.mask, age, each.latest(reads), packed))
        return common, torch.cat(unique)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Return E of items (K,), or the table of all of them (N + 1, width), float32.  # Eq. 23"""
        with self._mixed_precision():
            vectors = self.items.table(self.inputs) if items is None else self.items(self.inputs, items)
        return vectors.float()

    def _mixed_precision(self) -> torch.autocast:
        device = self.items.bias.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.autocast)
