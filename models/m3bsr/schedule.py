"""Forward process (Eq. 1, 6, 7) and the coefficients of the reverse one (Eq. 8, 12).

Symbols: x_0 the stream to be denoised, x_t its noised form at step t = 1..T, beta_t the schedule, alpha_t =
1 - beta_t, abar_t the product of alpha_s over s <= t, abar_0 = 1. All of it is kept in float32, computed in
float64 where nothing is learned.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.m3bsr.config import Denoising


@dataclass(frozen=True)
class Coefficients:
    """Figures of the forward process by step, and of the reverse process by index in its path."""

    beta: Tensor
    """(T + 1,), entry 0 is 0."""
    abar: Tensor
    """(T + 1,), entry 0 is 1."""
    scale: Tensor
    """(k,) factor of x in the reverse steps, the step from T first."""
    shift: Tensor
    """(k,) factor of the noise, negative."""
    spread: Tensor
    """(k,) deviation of what the ancestral sampler adds; 0 in the last step."""

    def noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Return x_t for x_0 = `clean`, both (..., D), at steps int64 (..., 1).  # Eq. 7"""
        abar = self.abar[step]
        return abar.sqrt() * clean + (1 - abar).sqrt() * noise

    def one_step(self, before: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return x_t for x_{t-1} = `before`.  # Eq. 7 read without the bar"""
        beta = self.beta[step]
        return (1 - beta).sqrt() * before + beta.sqrt() * noise

    def reverse(self, x: Tensor, noise: Tensor, index: int) -> Tensor:
        """Return the mean after a reverse step, by its index in the path, from x and its noise.  # Eq. 8"""
        return torch.addcmul(self.scale[index] * x, noise, self.shift[index])


class Schedule(nn.Module):
    """beta_1..beta_T: linear, cosine or learnable, and the path of the reverse process."""

    path: Tensor

    def __init__(self, options: Denoising) -> None:
        super().__init__()
        self.first, self.range = options.beta_first, options.beta_last - options.beta_first
        self.one_step = options.loss != "eps"
        self.bar = not self.one_step or (options.loss == "printed" and options.printed_bar)
        self.register_buffer("path", reverse_path(options), persistent=False)  # (k,) T first
        beta = fixed_betas(options)
        self.level: nn.Parameter | None = None
        if options.schedule == "learnable":
            # the ends of the range are limits of the sigmoid, so the linear values start a little inside
            share = torch.linspace(0, 1, options.diffusion_steps).clamp(1e-3, 1 - 1e-3)
            self.level = nn.Parameter(torch.logit(share))
            return
        for part, value in vars(coefficients(beta, self.path, self.bar)).items():
            self.register_buffer(f"fixed_{part}", value.float(), persistent=False)

    def forward(self) -> Coefficients:
        """Return the coefficients: constants, or functions of the learned levels."""
        if self.level is None:
            return Coefficients(*(self.get_buffer(f"fixed_{part.name}") for part in fields(Coefficients)))
        beta = (self.first + self.range * torch.sigmoid(self.level)).sort().values
        return coefficients(beta, self.path, self.bar)


def fixed_betas(options: Denoising) -> Tensor:
    """Return beta_1..beta_T, (T,) float64; of a learnable schedule its linear start."""
    if options.schedule == "cosine":
        step = torch.arange(options.diffusion_steps + 1, dtype=torch.float64)
        abar = torch.cos(0.9 * math.pi / 2 * step / options.diffusion_steps).square()
        return 1 - abar[1:] / abar[:-1]
    if options.diffusion_steps == 1:
        return torch.tensor([options.beta_last], dtype=torch.float64)
    return torch.linspace(options.beta_first, options.beta_last, options.diffusion_steps, dtype=torch.float64)


def reverse_path(options: Denoising) -> Tensor:
    """Return the steps from which the reverse process steps down, (k,) int64 from T on, evenly spaced."""
    count = options.reverse_steps or options.diffusion_steps
    return (torch.arange(count, 0, -1) * options.diffusion_steps + count // 2) // count


def coefficients(beta: Tensor, path: Tensor, bar: bool) -> Coefficients:
    """Return the coefficients of a schedule.

    A leap from t down to s has alpha = abar_t / abar_s and the mean (x_t - (1 - alpha) / root * noise) /
    sqrt(alpha). The root belongs to the noise that is predicted: sqrt(1 - abar_t) to the marginal noise, as
    Eq. 12 has it, sqrt(1 - alpha_t) to that of one step, as Eq. 8 has it. Mixed, the noise is subtracted
    sqrt((1 - abar_t) / (1 - alpha_t)) times over, or too little of it.

    Args:
        beta: (T,) float.
        path: (k,) int64, steps in falling order.
        bar: the root is sqrt(1 - abar_t).
    """
    log_abar = F.pad(torch.log1p(-beta).cumsum(0), (1, 0))  # (T + 1,)
    log_alpha = log_abar[path] - log_abar[F.pad(path[1:], (0, 1))]  # (k,)
    lost = -torch.expm1(log_alpha)
    root = (-torch.expm1(log_abar[path]) if bar else lost).sqrt()
    scale = torch.exp(-log_alpha / 2)
    return Coefficients(
        beta=F.pad(beta, (1, 0)),
        abar=log_abar.exp(),
        scale=scale,
        shift=-scale * lost / root,
        spread=lost.sqrt() * (torch.arange(len(path), device=path.device) < len(path) - 1),
    )
