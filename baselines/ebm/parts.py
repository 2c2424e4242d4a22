"""Parts of EBM: blocks over the spectrum, the compactness term, the hard eliminator and the soft filter.

Letters: B users, L history, D hidden size, F = L // 2 + 1 frequencies, K chunks, c = D / K, A behaviors.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.baselines.ebm.config import EBMConfig
from bench.nn.dropout import Dropout

Function = Callable[[Tensor], Tensor]


class _Transform(torch.autograd.Function):
    """Real Fourier transform over time. Its gradient is an inverse transform with the frequencies between the
    first and the last halved: they stand for two. torch's own takes a complex transform, ten times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.length = x.shape[1]
        return torch.fft.rfft(x, dim=1, norm="ortho")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.fft.irfft(grads[0] * _once(ctx.length, 0.5, grads[0]), n=ctx.length, dim=1, norm="ortho")


class _Inverse(torch.autograd.Function):
    """Its inverse; the gradient is a transform with these frequencies doubled."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, length: int) -> Tensor:
        ctx.length = length
        return torch.fft.irfft(spectrum, n=length, dim=1, norm="ortho")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.fft.rfft(grads[0], dim=1, norm="ortho") * _once(ctx.length, 2.0, grads[0]), None


def _once(length: int, factor: float, like: Tensor) -> Tensor:
    """Return (F, 1) the factor, 1 for the frequencies that stand for one coefficient alone."""
    scale = torch.full((length // 2 + 1, 1), factor, device=like.device)
    scale[0] = 1.0
    if length % 2 == 0:
        scale[-1] = 1.0
    return scale


def transform(x: Tensor, both: bool = False) -> Tensor:
    """Return the orthonormal real Fourier transform of (B, L, D) over time, (B, F, D) complex, or over both
    time and channels, (B, L, D // 2 + 1).
    """
    result: Tensor = torch.fft.rfft2(x, norm="ortho") if both else _Transform.apply(x)
    return result


def inverse(spectrum: Tensor, length: int, size: int, both: bool = False) -> Tensor:
    """Return (B, L, D) from its `transform`."""
    if both:
        return torch.fft.irfft2(spectrum, s=(length, size), norm="ortho")
    result: Tensor = _Inverse.apply(spectrum, length)
    return result


class ChunkedNetwork(nn.Module):
    """Two layers on each of K chunks of the channels, their own for every chunk.

    Complex numbers are handled as 2 c real ones, as they lie in memory: multiplying by W_r + i W_i is
    multiplying each pair by the real matrix [[W_r, W_i], [-W_i, W_r]], and one real product is faster than a
    complex one.

    Args:
        size: D.
        chunks: K.
        parts: 2 for complex weights, stored as real and imaginary part, 1 for real ones.
        function: between the layers; applied to real and imaginary part of complex numbers.
    """

    def __init__(self, size: int, chunks: int, parts: int, function: Function) -> None:
        super().__init__()
        width = size // chunks
        self.weights = nn.Parameter(torch.randn(2, chunks, width, width, parts) * 0.02)
        self.biases = nn.Parameter(torch.zeros(2, chunks, width, parts))
        self.chunks, self.function = chunks, function

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, F, D) from x (B, F, D), complex where the weights are."""
        parts = torch.view_as_real(x) if x.is_complex() else x
        weights, biases = self.real_weights()
        rows = parts.reshape(-1, self.chunks, weights.shape[-1]).transpose(0, 1)  # (K, B F, c or 2 c)
        rows = self.function(torch.baddbmm(biases[0], rows, weights[0]))
        rows = torch.baddbmm(biases[1], rows, weights[1])
        done = rows.transpose(0, 1).reshape(parts.shape)
        return torch.view_as_complex(done) if x.is_complex() else done

    def real_weights(self) -> tuple[Tensor, Tensor]:
        """Return matrices (2, K, c, c) and biases (2, K, 1, c) for numbers laid out as real ones, c of them
        twice as many where they are complex.
        """
        real, *rest = self.weights.unbind(-1)
        if not rest:
            return real, self.biases[:, :, None, :, 0]
        pairs = torch.stack([torch.stack([real, rest[0]], -1), torch.stack([-rest[0], real], -1)], -3)
        return pairs.flatten(-2).flatten(2, 3), self.biases.flatten(2)[:, :, None]


def _complex(parts: Tensor) -> Tensor:
    return torch.view_as_complex(parts) if parts.shape[-1] == 2 else parts[..., 0]


class Block(nn.Module):
    """An EBM block: over the spectrum, back to time, residual and norm."""

    def __init__(self, config: EBMConfig) -> None:
        super().__init__()
        size, self.mixer = config.hidden_size, config.mixer
        parts = 2 if config.mixer == "complex" else 1
        function = F.gelu if config.mixer == "filter" else F.relu
        self.network = ChunkedNetwork(size, config.num_chunks, parts, function)
        if config.mixer == "filter":
            self.filter = nn.Parameter(torch.stack([torch.ones(size), torch.zeros(size)], -1))
        self.norm, self.dropout = nn.LayerNorm(size), Dropout(config.dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Return (B, L, D) from x (B, L, D), zero where `real` (B, L, 1) is."""
        return self.norm(x + self.dropout(self.mixed(x))) * real

    def mixed(self, x: Tensor) -> Tensor:
        """Return what a block adds, (B, L, D)."""
        length, size = x.shape[1:]
        spectrum = transform(x)
        if self.mixer == "complex":
            return inverse(self.network(spectrum), length, size)
        if self.mixer == "real":
            return inverse(self.network(spectrum.real).to(spectrum.dtype), length, size)
        mixed: Tensor = self.network(inverse(spectrum * _complex(self.filter), length, size))
        return mixed


class _HalfLogDeterminant(torch.autograd.Function):
    """Half the log-determinants (b,) of A = I + factor Z Z^T, Z (b, l, D), or of I + factor Z^T Z where that
    is smaller, which is the same number. In float64: A is far from well conditioned. The gradient is factor
    A^-1 Z, by the triangular matrix at hand.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        z = x.double()
        ctx.turned = z.shape[1] > z.shape[2]
        z = z.transpose(1, 2) if ctx.turned else z
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        lower = torch.linalg.cholesky(eye.baddbmm(z, z.transpose(1, 2), alpha=factor))
        ctx.save_for_backward(z, lower)
        ctx.factor = factor
        return lower.diagonal(dim1=1, dim2=2).log().sum(1).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        z, lower = ctx.saved_tensors
        solved = torch.cholesky_solve(z, lower) * (ctx.factor * grads[0].double())[:, None, None]
        return (solved.transpose(1, 2) if ctx.turned else solved).to(grads[0].dtype), None


def compactness(x: Tensor, size: Tensor, epsilon: float) -> Tensor:
    """Return the mean over rows of half the log-determinant of I + D / (L epsilon^2) Z Z^T, Z (L, D) a row of
    x (B, L, D), which is zero before its last `size` (B,) events: these alone are computed with, on a CPU in
    quarters of like length.
    """
    length, width = x.shape[1:]
    order = size.argsort(stable=True).chunk(4 if x.device.type == "cpu" else 1)
    parts = [x[rows, length - max(int(size[rows].max()), 1) :] for rows in order]
    return torch.cat(
        [_HalfLogDeterminant.apply(part, width / (length * epsilon**2)) for part in parts]
    ).mean()


class HardEliminator(nn.Module):
    """Keeps or drops whole events."""

    def __init__(self, config: EBMConfig, behaviors: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(config.hidden_size)), nn.Parameter(torch.zeros(()))
        self.rates = nn.Parameter(torch.zeros(behaviors))  # lambda before the softplus
        self.temperature = config.temperature

    def start(self, events_per_user: Tensor) -> None:
        """Set lambda (A,) to log(1 + events of each behavior per user)."""
        rates = torch.log1p(events_per_user).clamp(min=1e-3)
        with torch.no_grad():
            self.rates.copy_(rates + torch.log(-torch.expm1(-rates)))  # inverse of the softplus

    def preference(self) -> Tensor:
        """Return p (A,), in (1, 2], smaller for a larger lambda."""
        rates = F.softplus(self.rates)
        return torch.exp(rates * rates.log() - rates - torch.lgamma(rates + 1)) + 1

    def forward(self, x: Tensor, behavior: Tensor) -> Tensor:
        """Return which events are kept, (B, L) of 0 and 1, 0 where padded; drawn in training.

        Args:
            x: states (B, L, D).
            behavior: (B, L) int64, 0 where padded.
        """
        preference = F.pad(self.preference(), (1, 0))[behavior]
        margin = preference - (x @ self.weight + self.bias)  # log odds of keeping
        if self.training:
            logits = torch.stack([F.logsigmoid(margin), F.logsigmoid(-margin)], -1)
            keep = F.gumbel_softmax(logits, self.temperature, hard=True)[..., 0]
        else:
            keep = (margin > 0).to(x.dtype)
        keep = keep * (behavior > 0)
        lost = ~(keep > 0).any(1) & (behavior[:, -1] > 0)  # everything was dropped: the newest event stays
        return torch.cat([keep[:, :-1], torch.where(lost, 1.0, keep[:, -1])[:, None]], 1)


class SoftFilter(nn.Module):
    """Takes noise from the representation of what was kept, by behavior."""

    def __init__(self, config: EBMConfig, behaviors: int) -> None:
        super().__init__()
        size, length = config.hidden_size, config.max_history
        self.both = config.fft2
        self.filters: nn.Parameter | None = None
        if config.soft == "linear":
            self.weight = nn.Parameter(torch.eye(size) + torch.randn(behaviors, size, size) * 0.02)
            self.bias = nn.Parameter(torch.zeros(behaviors, size))
            return
        shape = (length, size // 2 + 1) if self.both else (length // 2 + 1, size)
        ones = torch.stack([torch.ones(shape), torch.zeros(shape)], -1)
        self.filters = nn.Parameter(ones + torch.randn(behaviors, *shape, 2) * 0.02)

    def forward(self, x: Tensor, behavior: Tensor) -> Tensor:
        """Return the clean part (B, L, D) of x (B, L, D), zero where padded; behavior (B, L) int64."""
        if self.filters is None:
            own = torch.zeros_like(x)
            for index, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
                own = own + (x @ weight + bias) * (behavior == index + 1)[..., None]
            return own
        kind = F.one_hot(behavior, len(self.filters) + 1)[..., 1:].to(x.dtype)  # (B, L, A)
        share = kind.sum(1) / kind.sum((1, 2)).clamp(min=1)[:, None]  # (B, A)
        mixed = torch.einsum("ba,a...->b...", share, self.filters)
        spectrum = transform(x, self.both) * _complex(mixed.contiguous())
        return inverse(spectrum, x.shape[1], x.shape[2], self.both) * (behavior > 0)[..., None]
