"""CDMD-M (4.2.1, Eq. 6-10): image and text of each behavior denoised under the ids of the same behavior."""

import torch
from torch import Tensor, nn

from bench.models.m3bsr.config import M3BSRConfig
from bench.models.m3bsr.context import IdContext
from bench.models.m3bsr.denoise import ConditionalDenoising
from bench.models.m3bsr.replace import stage


class ModalityDenoising(nn.Module):
    """One predictor a modality, shared by the behaviors.

    All behaviors lie side by side in one history; a mask keeps each to its own ids, which equals one call for
    each behavior at half the padding.

    Args:
        config: of the model.
        shapes: groups and width of each part of the content streams, as `InputLayer.shapes` has them.
    """

    def __init__(self, config: M3BSRConfig, shapes: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        size = config.hidden_size
        self.causal = config.reading == "causal"
        self.blocks = nn.ModuleList(
            stage(groups, width, size, config.cdmd_m, salt, packed=config.packed)
            for salt, (groups, width) in enumerate(shapes)
        )
        asks = any(isinstance(block, ConditionalDenoising) for block in self.blocks)
        self.context = (
            IdContext(size, config.max_history, config.meie, config.packed)
            if asks and config.cdmd_m.cond == "context"
            else None
        )

    def forward(
        self, content: tuple[Tensor, ...], ids: Tensor, behavior: Tensor, user: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Denoise the content streams.

        Args:
            content: X[m] of image and text in parts (G, B, L, width).
            ids: X[id], (B, L, D).
            behavior: (B, L) int64, 0 where padded.
            user: (B,) int64.

        Returns:
            Y[m] in parts, and in training the error (M - 1, B, L); None without a loss.
        """
        given = self._given(content, ids, behavior)
        done = [block(*part, user) for block, part in zip(self.blocks, given, strict=True)]
        errors = [error for _, error in done if error is not None]
        return tuple(denoised for denoised, _ in done), torch.cat(errors) if errors else None

    def noise_errors(
        self, content: tuple[Tensor, ...], ids: Tensor, behavior: Tensor, user: Tensor
    ) -> Tensor | None:
        """Return the error of the predicted noise at each step, (T, M - 1, B, L), None without a predictor.

        Arguments as in `forward`.
        """
        given = self._given(content, ids, behavior)
        errors = [
            block.noise_errors(*part, user)
            for block, part in zip(self.blocks, given, strict=True)
            if isinstance(block, ConditionalDenoising)
        ]
        return torch.cat(errors, 1) if errors else None

    def condition(self, ids: Tensor, behavior: Tensor) -> tuple[Tensor, Tensor]:
        """Return the condition, ids or their context (B, L, D), and what each event may see of it, (B, L, L):
        that of its own behavior, in the causal reading up to itself.
        """
        mask = behavior > 0
        same = (behavior[:, :, None] == behavior[:, None]) & mask[:, None]
        same = same.tril() if self.causal else same
        return ids if self.context is None else self.context(ids, mask, same), same

    def _given(self, content: tuple[Tensor, ...], ids: Tensor, behavior: Tensor) -> list[tuple[Tensor, ...]]:
        """Return stream, mask, condition and what each event may see of it, of each part."""
        condition, seen = self.condition(ids, behavior)
        return [(part, behavior > 0, condition.expand(len(part), *ids.shape), seen) for part in content]
