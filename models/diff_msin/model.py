"""Diff-MSIN: the data flow from a history and candidates to logits, and the loss."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.interface import Batch, DatasetInfo, Impressions, Recommender, Stage
from bench.models.diff_msin.config import DiffMSINConfig
from bench.models.diff_msin.experts import FeatureEnhancement
from bench.models.diff_msin.fusion import GatedCross, ScoreMap, State, cross_step
from bench.models.diff_msin.inputs import InputLayer
from bench.models.diff_msin.losses import decoupling, masked_mean, synergy_loss, unique_minus_shared
from bench.models.diff_msin.synergy import SynergyCapture
from bench.nn.ctr import TargetAttention, group_impressions, perceptron, score_in_blocks
from bench.nn.lengths import by_length


class DiffMSIN(Recommender):
    """Unique, common and synergistic streams of a history, fused under each candidate.

    Experts and synergy depend on the history alone: a history is encoded once for all its candidates.
    """

    Config = DiffMSINConfig

    def __init__(self, config: DiffMSINConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        self.config: DiffMSINConfig = config
        self.max_history = config.max_history
        self.inputs = InputLayer(config, info.content)
        size, modalities = self.inputs.size, len(self.inputs.modalities)
        self.behavior = nn.Embedding(len(info.behaviors) + 1, size, padding_idx=0)
        nn.init.normal_(self.behavior.weight, std=0.02)
        nn.init.zeros_(self.behavior.weight[0].detach())
        self.experts = FeatureEnhancement(modalities, size, config.mfe)
        self.capture = SynergyCapture(modalities, size, config)
        kind = ScoreMap if config.fdaf == "score_map" else GatedCross
        self.fusion = kind(modalities + 2, size, config)
        self.din = TargetAttention(size, config.unit_hidden) if config.backbone == "din" else None
        width = size + self.fusion.outputs + (size if self.din is not None else 0)
        self.head = perceptron(width, config.head_hidden, batch_norm=True)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: each target event with its negatives, Adam."""
        c = self.config
        view = Impressions(c.max_history, c.num_negatives, c.max_targets_per_user)
        return (
            Stage(
                view,
                c.learning_rate,
                c.batch_size,
                weight_decay=c.weight_decay,
                decay_after=c.decay_after,
                weight_average=c.weight_average,
                epochs=c.epochs,
                patience=c.patience,
            ),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L = L_click + lambda_dec L_dec + lambda_syn L_syn and its terms."""
        c = self.config
        assert batch.target is not None and batch.label is not None
        groups = group_impressions(batch.user, batch.history, batch.behavior, batch.target, batch.label)
        state = self.encode(batch.rows(groups.first))
        targets = self.inputs(groups.items)  # (M, B, C, D)
        logits = self.judge(state, targets)
        if c.objective == "softmax":
            label, real = groups.spread(batch.label), groups.items > 0
            share = torch.log_softmax(logits.masked_fill(~real, torch.finfo(logits.dtype).min), 1)
            click = -(label * share).sum() / label.sum().clamp(min=1)
        else:
            click = F.binary_cross_entropy_with_logits(logits[groups.row, groups.column], batch.label)
        chosen = targets[:, groups.row, groups.column]  # (M, n, D)
        decouple = self.decoupling(batch.rows(groups.first), state, chosen)
        synergy = synergy_loss(state.synergy, chosen.mean(0), batch.label, c.synergy, groups.row)
        loss = click + c.loss_weight_decouple * decouple + c.loss_weight_synergy * synergy
        return {"loss": loss, "click": click, "decouple": decouple, "synergy": synergy}

    def score(self, batch: Batch, candidates: Tensor) -> Tensor:
        """Return the logits of the candidates, (B, C)."""
        return self.score_encoded(self.encode(batch), candidates, None)

    def score_encoded(self, encoded: State, candidates: Tensor, items: None) -> Tensor:
        """Return (B, C) logits, `score_chunk` pairs at a time."""
        if candidates.dim() == 1:
            candidates = candidates.expand(len(encoded), -1)

        def judge(rows: slice, part: Tensor) -> Tensor:
            return self.judge(encoded.rows(rows), self.inputs(part))

        return score_in_blocks(candidates, self.config.score_chunk, judge)

    def encode(self, batch: Batch) -> State:
        """Return the streams of the histories, those of like length together."""
        items, behavior, mask = self.events(batch)
        streams, ids, synergy = by_length(self.streams, mask.sum(1), items, behavior)
        parts = streams.unflatten(-1, (-1, ids.shape[-1]))  # (B, L, S, D)
        return State(parts.permute(0, 2, 1, 3), mask, ids, synergy)

    def streams(self, items: Tensor, behavior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return MFE, SRC and the cross step of events (B, L).

        Returns:
            X (B, L, S D), the ids as they entered (B, L, D) and the pooled h_syn (B, D).
        """
        mask = items > 0
        raw = (self.inputs(items) + self.behavior(behavior)) * mask[..., None]  # H, (M, B, L, D)
        unique, common = self.experts(raw)
        synergy = self.capture(unique if self.config.synergy_input == "experts" else raw, mask)
        streams = cross_step(torch.cat([unique, common[None], synergy[None]])) * mask[..., None]
        return streams.permute(1, 2, 0, 3).flatten(2), raw[0], masked_mean(synergy, mask)

    def events(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return items, behaviors and mask, (B, L), of the events that `history` names; L is 1 or more."""
        deepest = len(self.info.behaviors)
        batch = replace(batch, history=batch.history[:, -self.max_history :],
                        behavior=batch.behavior[:, -self.max_history :])  # fmt: skip
        items, behavior = batch.history, batch.behavior
        if self.config.history != "merged" and deepest > 1:
            wanted = (deepest,) if self.config.history == "favor" else tuple(range(1, deepest))
            items, positions = batch.stream(*wanted)
            behavior = batch.behavior.gather(1, positions) * (items > 0)
        if not items.shape[1]:
            items = behavior = items.new_zeros(len(items), 1)
        return items, behavior, items > 0

    def judge(self, state: State, targets: Tensor) -> Tensor:
        """Return (B, C) logits of items given as streams (M, B, C, D): FDAF, DIN and the head."""
        mean = targets.mean(0)[None]
        sides = torch.cat([targets, mean, mean]).permute(1, 2, 0, 3)  # (B, C, S, D)
        parts = [targets[0], self.fusion(state, sides)]
        if self.din is not None:
            parts.append(self.din(state.ids, state.mask, targets[0]))
        joined = torch.cat(parts, -1)
        return self.head(joined.flatten(0, 1)).view(joined.shape[:2])

    def decoupling(self, batch: Batch, state: State, targets: Tensor) -> Tensor:
        """Return L_dec of the histories; `r_style` reads the target items (M, n, D) as well."""
        if self.config.decouple != "r_style":
            return decoupling(state.pooled(), self.config.decouple)
        items, behavior, mask = self.events(batch)
        raw = (self.inputs(items) + self.behavior(behavior)) * mask[..., None]
        unique, shared = masked_mean(self.experts.own(raw), mask), masked_mean(self.experts.common(raw), mask)
        of_targets = unique_minus_shared(self.experts.own(targets), self.experts.common(targets))
        return (unique_minus_shared(unique, shared) + of_targets) / 2

    def extra_terms(self) -> dict[str, float]:
        """Return gamma and the weight of each source in SRC, by receiver and source."""
        cross, names = self.capture.cross, self.inputs.modalities
        pairs = [f"{names[k]} to {names[m]}" for m in range(len(names)) for k in range(len(names)) if k != m]
        gamma = cross.gamma.expand(len(pairs)).tolist()
        weight = cross.weights().flatten().tolist()
        terms = {f"gamma, {pair}": value for pair, value in zip(pairs, gamma, strict=True)}
        return terms | {f"weight, {pair}": value for pair, value in zip(pairs, weight, strict=True)}
