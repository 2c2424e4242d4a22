"""M3BSR: the data flow from a history to scores, and the loss (Eq. 24)."""

import torch
from torch import Tensor, nn

from bench.interface import Batch, DatasetInfo, Next, Recommender, Stage, TrainingEvents
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.diffusion import ConditionalDenoising
from bench.models.m3bsr.disentangle import disentanglement
from bench.models.m3bsr.experts import Encoder, SharedExpert
from bench.models.m3bsr.fusion import RoutingFusion
from bench.models.m3bsr.head import ItemEncoder
from bench.models.m3bsr.inputs import MODALITIES, InputLayer
from bench.nn.losses import chunked_cross_entropy, sampled_cross_entropy
from bench.nn.scoring import dot_scores


class M3BSR(Recommender):
    """Denoises image and text under the ids, the shallower behaviors under the target behavior, then reads
    interests.

    The streams of all behaviors lie side by side in one history of at most `max_history` events. A step that
    works on each behavior alone (CDMD-M) runs on the whole history with a mask that keeps behaviors apart:
    equal numbers, half the padding.
    """

    Config = M3BSRConfig
    behaviors = "typed"

    def __init__(self, config: M3BSRConfig, info: DatasetInfo) -> None:
        super().__init__(config, info)
        size, count = config.hidden_size, len(info.behaviors)
        self.max_history = config.max_history
        self.target_behavior = count
        self.inputs = InputLayer(config, info)
        self.cdmd_m = ConditionalDenoising(2, size, config.cdmd_m)
        self.cdmd_b = ConditionalDenoising(3, size, config.cdmd_b)
        self.shared = SharedExpert(size, config.max_history, config.meie)
        self.unique = nn.ModuleList(Encoder(3, size, config.max_history, config.meie) for _ in info.behaviors)
        self.fusion = RoutingFusion(3 * count, size)
        self.items = ItemEncoder(info.num_items, config.id_size, size)

    def stages(self) -> tuple[Stage, ...]:
        """Return the one stage: favors with their prefixes, Adam, gradient norm 1."""
        c = self.config
        return (
            Stage(
                view=Next(c.max_history, "target", c.max_targets_per_user),
                learning_rate=c.learning_rate,
                batch_size=c.batch_size,
                micro_batch=c.micro_batch,
                epochs=c.epochs,
                patience=c.patience,
                clip_norm=1.0,
            ),
        )

    def start_epoch(self, epoch: int, events: TrainingEvents) -> None:
        """Start the item bias at the log frequency of the targets, so that training begins at popularity."""
        if epoch == 0:
            counts = torch.from_numpy(events.item_counts(self.target_behavior))
            with torch.no_grad():
                self.items.bias.copy_(torch.log((counts + 1) / (counts + 1).sum()))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return L = L_main + lambda_c L_contrast + lambda_m L_m + lambda_b L_b and its terms.  # Eq. 24"""
        c = self.config
        assert batch.target is not None
        interest, vectors, error_m, error_b = self._interest(batch)
        main = self._main(interest, batch.target)
        contrast = disentanglement(vectors, c.disent.temperature)  # Eq. 20
        loss = main + c.disent.weight * contrast + c.cdmd_m.weight * error_m + c.cdmd_b.weight * error_b
        return {"loss": loss, "main": main, "contrast": contrast, "modality": error_m, "behavior": error_b}

    def encode(self, batch: Batch) -> Tensor:
        """Return y, (B, D)."""
        return self._interest(batch)[0]

    def encode_items(self) -> Tensor:
        """Return the item encoder's table, (N + 1, D)."""
        return self.items.table(self.inputs)

    def score_encoded(self, encoded: Tensor, candidates: Tensor, items: Tensor) -> Tensor:
        """Return y . E_i + b_i, (B, C)."""
        return dot_scores(encoded, items, candidates, self.items.bias)

    def streams(self, batch: Batch) -> Tensor:
        """Return X[m], (3, B, L, D), zero where padded; m in (id, image, text).  # Eq. 3-5"""
        history = batch.history
        ids = self.inputs.project_id(self.inputs.ids(history, batch.user))
        content = [self.inputs.modality(index, history) for index in range(1, len(MODALITIES))]
        return torch.stack([ids, *content]) * batch.mask[None, :, :, None]

    def denoise_modalities(self, streams: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Denoise image and text under the ids of the same behavior (CDMD-M).  # Eq. 6-10

        Returns:
            Y, (3, B, L, D), and L_m: the mean over behaviors and modalities of the mean over valid positions.
        """
        mask = batch.mask
        same = (batch.behavior[:, :, None] == batch.behavior[:, None]) & mask[:, None]  # (B, L, L)
        condition = streams[:1].expand(2, -1, -1, -1)
        denoised, error = self.cdmd_m(streams[1:], mask, condition, same)
        means = [masked_mean(error, batch.behavior == b + 1) for b in range(self.target_behavior)]
        return torch.cat([streams[:1], denoised]), torch.stack(means).mean()

    def denoise_behaviors(
        self, shallow: Tensor, mask: Tensor, deep: Tensor, deep_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Denoise the shallower behaviors under the target behavior, modality by modality (CDMD-B).  # Eq.
        11-13

        Returns:
            Z of the shallower behaviors, (3, B, Lc, D), and L_b.
        """
        denoised, error = self.cdmd_b(shallow, mask, deep, deep_mask[:, None])
        return denoised, masked_mean(error, mask)

    def _interest(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return y (B, D), the interest vectors (1 + 3 A, B, D), L_m and L_b."""
        streams, error_m = self.denoise_modalities(self.streams(batch), batch)
        shallower = tuple(range(1, self.target_behavior))
        places, mask = self._places(batch, *shallower)
        deep_places, deep_mask = self._places(batch, self.target_behavior)
        deep = gather(streams, deep_places)
        shallow, error_b = self.denoise_behaviors(gather(streams, places), mask, deep, deep_mask)
        streams = scatter(streams, places, shallow, mask)
        common = self.shared(shallow, mask, deep, deep_mask)
        unique = [self._unique(streams, batch, behavior) for behavior in range(1, self.target_behavior + 1)]
        vectors = torch.cat([common[None], *unique])
        return self.fusion(common, vectors[1:]), vectors, error_m, error_b

    def _unique(self, streams: Tensor, batch: Batch, behavior: int) -> Tensor:
        """Return u[b, m] of one behavior, (3, B, D).  # Eq. 18, 19"""
        places, mask = self._places(batch, behavior)
        return self.unique[behavior - 1](gather(streams, places), mask)

    @staticmethod
    def _places(batch: Batch, *behaviors: int) -> tuple[Tensor, Tensor]:
        """Return where the events of some behaviors stand in the history, (B, Lb), and their mask."""
        items, places = batch.stream(*behaviors)
        return places, items > 0

    def _main(self, interest: Tensor, target: Tensor) -> Tensor:
        """Return the softmax loss over the catalog, full or sampled.  # Eq. 23, 24"""
        options, num_items = self.config.softmax, self.info.num_items
        if num_items <= options.full_up_to:
            return chunked_cross_entropy(interest, self.encode_items(), target, bias=self.items.bias)
        negatives = torch.randint(1, num_items + 1, (options.negatives,), device=target.device)
        ids, place = torch.unique(torch.cat([target, negatives]), return_inverse=True)
        rows = self.items(self.inputs, ids)
        return sampled_cross_entropy(
            interest, rows, place[: len(target)], place[len(target) :], bias=self.items.bias[ids]
        )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (G, B, L) over valid positions (B, L), then over G; 0 where nothing is valid."""
    return (values * mask).sum() / (mask.sum().clamp(min=1) * len(values))


def gather(streams: Tensor, places: Tensor) -> Tensor:
    """Return (3, B, Lb, D) from (3, B, L, D) at places (B, Lb); rows of padding hold whatever stands at place
    0.
    """
    index = places[None, :, :, None].expand(len(streams), -1, -1, streams.shape[-1])
    return streams.gather(2, index)


def scatter(streams: Tensor, places: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return the streams with (3, B, Lb, D) put back at their places where the mask (B, Lb) is True."""
    length = streams.shape[2]
    spare = torch.where(mask, places, length)  # padding is written to a column that is cut off again
    wide = torch.cat([streams, streams[:, :, :1]], 2)
    index = spare[None, :, :, None].expand(len(streams), -1, -1, streams.shape[-1])
    return wide.scatter(2, index, values)[:, :, :length]
