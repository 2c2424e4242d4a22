"""Conditional diffusion (Eq. 6-13): the schedule, the noise predictor, the block that CDMD-M and CDMD-B
share.

Symbols: x_0 the stream to be denoised, x_t its noised form at step t = 1..T, beta_t the schedule, abar_t the
product of 1 - beta_s over s <= t, abar_0 = 1. G streams of one stage have their own predictors and run as one
call.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.models.m3bsr.config import Denoising
from bench.models.m3bsr.grouped import GroupedLinear, attend, split_heads


class Schedule(nn.Module):
    """The linear schedule of the noise, beta_1..beta_T, in float32."""

    abar: Tensor
    beta: Tensor

    def __init__(self, options: Denoising) -> None:
        super().__init__()
        beta = torch.linspace(options.beta_first, options.beta_last, options.steps, dtype=torch.float64)
        if options.steps == 1:
            beta = torch.tensor([options.beta_last], dtype=torch.float64)
        abar = torch.cumprod(1 - beta, 0)
        # plain numbers: reading them from a GPU at every step would stall it
        pairs = zip(beta.tolist(), abar.tolist(), strict=True)
        self._means = [(1.0, 0.0)] + [(1 / math.sqrt(1 - b), b / math.sqrt(1 - a)) for b, a in pairs]
        one = torch.ones(1, dtype=torch.float64)
        self.register_buffer(
            "beta", torch.cat([0 * one, beta]).float(), persistent=False
        )  # (T + 1,), entry 0 unused
        self.register_buffer("abar", torch.cat([one, abar]).float(), persistent=False)  # (T + 1,)

    def noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return x_t for x_0 = `clean`, both (..., D); `step` is int64 and broadcasts against (..., 1).  #
        Eq. 7
        """
        abar = self.abar[step]
        return abar.sqrt() * clean + (1 - abar).sqrt() * noise

    def reverse(self, x: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return the mean of x_{t-1} given x_t and its (predicted) noise.  # Eq. 8 with the bar of Eq. 12"""
        scale, share = self._means[step]
        return torch.add(scale * x, noise, alpha=-scale * share)


@dataclass
class Condition:
    """Keys and values of the condition, computed once for the whole chain."""

    key: Tensor
    """(G * B, H, Lk + 1, D / H), a learned null token last."""
    value: Tensor
    mask: Tensor
    """(B, Lq or 1, Lk + 1) bool."""


class NoisePredictor(nn.Module):
    """eps(x_t, condition, t), the repaired Eq. 9: an own path and a cross path, then a feed-forward net on [h
    ; x_t].

    Args:
        groups: G streams with weights of their own.
        size: D.
        options: of the stage.
    """

    def __init__(self, groups: int, size: int, options: Denoising) -> None:
        super().__init__()
        self.heads, self.scale, self.size = options.num_heads, options.cross_scale, size
        self.time = GroupedLinear(groups, size, size)
        self.own_and_query = GroupedLinear(groups, size, 2 * size, bias=False)
        self.key_and_value = GroupedLinear(groups, size, 2 * size, bias=False)
        self.output = GroupedLinear(groups, size, size, bias=False)
        self.null = nn.Parameter(torch.randn(groups, 1, 1, size) * 0.02)
        self.wide = GroupedLinear(groups, 2 * size, 4 * size)
        self.narrow = GroupedLinear(groups, 4 * size, size)
        with torch.no_grad():
            self.narrow.weight.mul_(
                0.1
            )  # predicts little noise at first, so the chain starts near the identity

    def condition(self, condition: Tensor, mask: Tensor) -> Condition:
        """Prepare a condition (G, B, Lk, D) under a mask (B, Lq or 1, Lk), True where the key may be seen.

        The null token is always seen, so a user without favors attends to it alone.
        """
        groups, batch = condition.shape[:2]
        full = torch.cat([condition, self.null.expand(groups, batch, 1, self.size)], 2)  # (G, B, Lk + 1, D)
        key, value = self.key_and_value(full).chunk(2, -1)
        return Condition(
            split_heads(key, self.heads), split_heads(value, self.heads), F.pad(mask, (0, 1), value=True)
        )

    def time_embedding(self, step: Tensor) -> Tensor:
        """Return (G, ..., D) for steps of any shape (...)."""
        half = self.size // 2
        rate = torch.exp(-math.log(10_000.0) * torch.arange(half, device=step.device) / half)
        angle = step[..., None] * rate
        wave = torch.cat([angle.sin(), angle.cos()], -1)  # (..., D)
        return self.time(wave.expand(self.time.weight.shape[0], *wave.shape))

    def forward(self, x: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """Predict the noise of x_t.

        Args:
            x: (G, B, Lq, D).
            condition: from `condition`.
            time: (G, B or 1, 1, D), from `time_embedding`.

        Returns:
            (G, B, Lq, D).
        """
        h = x + time
        own, query = self.own_and_query(F.layer_norm(h, h.shape[-1:])).chunk(2, -1)
        crossed = attend(split_heads(query, self.heads), condition.key, condition.value, condition.mask)
        h = h + own + self.scale * self.output(crossed)  # Eq. 9
        return self.narrow(F.gelu(self.wide(torch.cat([h, x], -1))))


class ConditionalDenoising(nn.Module):
    """One CDMD block: G streams denoised under a condition.

    Args:
        groups: G.
        size: D.
        options: of the stage.
    """

    def __init__(self, groups: int, size: int, options: Denoising) -> None:
        super().__init__()
        self.options = options
        self.schedule = Schedule(options)
        self.predictor = NoisePredictor(groups, size, options)

    def forward(self, clean: Tensor, mask: Tensor, condition: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Denoise streams.

        Args:
            clean: x_0, (G, B, Lq, D).
            mask: (B, Lq) bool.
            condition: (G, B, Lk, D).
            seen: (B, Lq or 1, Lk) bool, which condition positions a query may see.

        Returns:
            The denoised streams (G, B, Lq, D), zero where padded, and in training the squared error of the
            predicted noise, (G, B, Lq), averaged over coordinates, for Eq. 10 and 13; in eval mode zeros.
        """
        real = mask[None, :, :, None].to(clean.dtype)
        ready = self.predictor.condition(condition, seen)
        denoised = self._chain(self._start(clean) * real, ready) * real
        error = self._error(clean, real, ready) if self.training else clean.new_zeros(clean.shape[:-1])
        return denoised, error

    def _start(self, clean: Tensor) -> Tensor:
        """Return x_T: a marginal draw in training, its mean in inference (deterministic, independent of batch
        mates).
        """
        last = torch.tensor(self.options.steps, device=clean.device)
        noise = torch.randn_like(clean) if self.training else torch.zeros_like(clean)
        return self.schedule.noised(clean, noise, last)

    def _chain(self, x: Tensor, ready: Condition) -> Tensor:
        """Run the reverse process from T to 1 by its means."""
        steps = self.options.steps
        times = self.predictor.time_embedding(torch.arange(steps + 1, device=x.device))[
            :, None, :, None
        ]  # (G,1,T+1,1,D)
        first = steps if self.options.grad_last is None else self.options.grad_last
        for step in range(steps, 0, -1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and step <= first):
                x = self._step(x, ready, times[:, :, step], step)
        return x

    def _step(self, x: Tensor, ready: Condition, time: Tensor, step: int) -> Tensor:
        def once(x: Tensor) -> Tensor:
            return self.schedule.reverse(x, self.predictor(x, ready, time), step)

        if self.options.checkpoint and torch.is_grad_enabled():
            result: Tensor = checkpoint(once, x, use_reentrant=False)
            return result
        return once(x)

    def _error(self, clean: Tensor, real: Tensor, ready: Condition) -> Tensor:
        """Return the squared error of the noise predicted at one random step a sample.  # Eq. 10, 13, loss
        `eps`
        """
        step = torch.randint(1, self.options.steps + 1, (clean.shape[1],), device=clean.device)
        noise = torch.randn_like(clean)
        x = self.schedule.noised(clean, noise, step[None, :, None, None]) * real
        time = self.predictor.time_embedding(step)[:, :, None]  # (G, B, 1, D)
        return (noise - self.predictor(x, ready, time)).square().mean(-1)
