"""CDMD-B (4.2.2, Eq. 11-13): the shallower behaviors denoised under the target behavior, by modality."""

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.replace import stage

IMAGE = 1
"""Index of the image among the modalities."""


class BehaviorDenoising(nn.Module):
    """One predictor a modality.

    With more than two behaviors every shallower one is denoised under the deepest. Their events lie in one
    sequence, since none of them looks at another one.

    Args:
        config: of the model.
        salt: number of the block in the model.
        modalities: M, names of the streams.

    Raises:
        UserError: the image is the condition of a data set without images.
    """

    def __init__(
        self, config: M3BSRConfig, salt: int, modalities: tuple[str, ...] = ("id", "image", "text")
    ) -> None:
        super().__init__()
        self.cond = config.cdmd_b.cond
        if self.cond == "image" and "image" not in modalities:
            raise UserError(
                "cdmd_b.cond=image: no item of the data set has an image; choose same or all, or set "
                "absent=constant"
            )
        size, count = config.hidden_size, len(modalities)
        join = nn.Linear(count * size, size) if self.cond == "all" else None
        beside = sum(p.numel() for p in join.parameters()) if join is not None else 0
        self.block = stage(count, size, size, config.cdmd_b, salt, beside, config.packed)
        self.join = join if config.cdmd_b.replace == "none" else None

    def forward(
        self, shallow: Tensor, mask: Tensor, deep: Tensor, seen: Tensor, user: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Denoise streams (id, image, text).

        Args:
            shallow: Y of the shallower behaviors, (M, B, Lc, D).
            mask: (B, Lc) bool.
            deep: Y of the target behavior, (M, B, Lf, D).
            seen: (B, Lc or 1, Lf) bool, which of its events each shallower event may see.
            user: (B,) int64.

        Returns:
            Z of the shallower behaviors, (M, B, Lc, D), and in training the error (M, B, Lc); None without a
            loss.
        """
        denoised, error = self.block(shallow, mask, self.condition(deep), seen, user)
        return denoised, error

    def noise_errors(
        self, shallow: Tensor, mask: Tensor, deep: Tensor, seen: Tensor, user: Tensor
    ) -> Tensor | None:
        """Return the error of the predicted noise at each step, (T, M, B, Lc), or None without a predictor.

        Arguments as in `forward`.
        """
        if not isinstance(self.block, ConditionalDenoising):
            return None
        return self.block.noise_errors(shallow, mask, self.condition(deep), seen, user)

    def condition(self, deep: Tensor) -> Tensor:
        """Return h_c of Eq. 12 for each modality, (M, B, Lf, D)."""
        if self.cond == "image":
            return deep[IMAGE : IMAGE + 1].expand_as(deep)
        if self.join is not None:
            joined: Tensor = self.join(torch.cat(deep.unbind(0), -1))
            return joined.expand_as(deep)
        return deep
