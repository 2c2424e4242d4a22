"""SRC, synergistic relationship capture: rounds of noise, each taken back by what the other modalities say.

No generative model and no noise loss: in round t = 1..T every stream x^m is noised by one step and goes one
reverse step in which the place of the predicted noise is taken by cross-modal interactions,

    n^m   = sqrt(alpha_t) x^m + sqrt(1 - alpha_t) e          (e is 0 outside training)
    eps^m = sum over k != m of w_km (rho n^m + gamma_mk Attn(n^m W_q, n^k W_k, n^k W_v))
    x^m   = (n^m - (1 - alpha_t) / sqrt(1 - abar_t) eps^m) / sqrt(alpha_t)

with abar_t = cos^2(0.9 pi/2 t/T) and gamma starting at 0. The released code has rho = 1 and noise of
standard deviation 1: then eps is the stream itself at the start, and ten rounds leave 0.8 % of it under noise
of 0.46. Hence rho = 0 (`own_share`): eps is what the others say, the chain starts at the identity; and noise
of 0.1, which adds up to 0.24. Both are options; rho = 1 with noise 1 is the formula as it was found.

Letters: M modalities, P = M (M - 1) ordered pairs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.diff_msin.config import DiffMSINConfig
from bench.nn.transformer import attention_mask


def schedule(steps: int) -> tuple[list[float], list[float]]:
    """Return abar_0..abar_T and alpha_1..alpha_T (entry 0 is 1), both of T + 1 numbers."""
    abar = [math.cos(0.9 * math.pi / 2 * step / steps) ** 2 for step in range(steps + 1)]
    return abar, [1.0] + [after / before for before, after in zip(abar, abar[1:], strict=False)]


def reverse_factors(steps: int, released: bool) -> list[float]:
    """Return (1 - alpha_t) / sqrt(1 - abar_t) for t = 0..T; entry 0 is 0.

    The released code reads abar one step early: its first factor divides by 1e-4, the root of the bound
    under 1 - abar_0 = 0.
    """
    abar, alpha = schedule(steps)
    early = int(released)
    return [0.0] + [
        (1 - alpha[step]) / math.sqrt(max(1 - abar[step - early], 1e-8)) for step in range(1, steps + 1)
    ]


class CrossModal(nn.Module):
    """eps of all modalities at once: single-head attention of each ordered pair, weighted over the sources.

    The weights w are a softmax over the M - 1 sources; `released` has independent sigmoids that start at
    sigmoid(0.5) and uses one attention module for all pairs.

    Args:
        modalities: M; 2 or more for `forward`.
        size: D.
        released: mirrors the released code.
        own_share: rho.
    """

    def __init__(self, modalities: int, size: int, released: bool, own_share: float = 1.0) -> None:
        super().__init__()
        self.own_share = own_share
        self.sources = modalities - 1
        self.released = released
        pairs = modalities * self.sources
        own = min(pairs, 1) if released else pairs
        bound = 1 / math.sqrt(size)
        self.query, self.key, self.value = (
            nn.Parameter(torch.empty(own, size, size).uniform_(-bound, bound)) for _ in range(3)
        )
        self.gamma = nn.Parameter(torch.zeros(own))
        self.weight = nn.Parameter(torch.full((modalities, self.sources), 0.5 if released else 0.0))
        source = [k for m in range(modalities) for k in range(modalities) if k != m]
        self.register_buffer("source", torch.tensor(source, dtype=torch.int64), persistent=False)

    def weights(self) -> Tensor:
        """Return w, (M, M - 1): row m holds the weights of the other modalities in their order."""
        return torch.sigmoid(self.weight) if self.released else torch.softmax(self.weight, 1)

    def forward(self, noised: Tensor, allowed: Tensor, alpha: float = 1.0) -> Tensor:
        """Return eps / sqrt(alpha), (M, B, L, D).

        Keys and values are n^k itself: (n^m W_q) (n^k W_k)' = n^m (W_q W_k') n^k', and the sum over k of
        A (n^k W_v) is one product of the A n^k, side by side, and the W_v, one below another.

        Args:
            noised: n / sqrt(alpha), (M, B, L, D).
            allowed: (B, 1, L, L) float, 0 where a query sees the key, -inf elsewhere.
            alpha: of the round.
        """
        count, batch, length, size = noised.shape
        pairs, weight = len(self.get_buffer("source")), self.weights()
        score = (self.query @ self.key.mT).expand(pairs, -1, -1)  # W_q W_k' of each pair
        value = self.value * (weight.flatten() * self.gamma)[:, None, None]  # w gamma enters by the values
        receiver = noised[:, None].expand(-1, self.sources, -1, -1, -1).reshape(pairs, -1, size)
        query = torch.bmm(receiver, score).view(pairs, batch, length, size).transpose(0, 1)
        source = noised[self.get_buffer("source")].transpose(0, 1)  # (B, P, L, D)
        scale = alpha * size**-0.5
        attended = F.scaled_dot_product_attention(query, source, source, allowed, scale=scale)  # (B, P, L, D)
        beside = attended.transpose(1, 2).reshape(batch * length, count, -1)  # (B L, M, (M - 1) D)
        crossed = torch.bmm(beside.transpose(0, 1), value.view(count, -1, size)).view_as(noised)
        if not self.own_share:
            return crossed
        return torch.addcmul(crossed, weight.sum(1).view(-1, 1, 1, 1), noised, value=self.own_share)


class SynergyCapture(nn.Module):
    """All rounds, then h_syn = MLP([x^1 ; .. ; x^M]) + Hbar, MLP: M D -> 2 D -> D with GELU.

    Args:
        modalities: M.
        size: D.
        config: of the model.
    """

    def __init__(self, modalities: int, size: int, config: DiffMSINConfig) -> None:
        super().__init__()
        self.config = config
        self.cross = CrossModal(modalities, size, config.released, config.residual)
        self.join = nn.Sequential(
            nn.Linear(modalities * size, 2 * size), nn.GELU(), nn.Linear(2 * size, size)
        )
        self.scale = config.noise_scale
        self.alphas = schedule(config.rounds)[1]
        self.factors = reverse_factors(config.rounds, config.released)

    def forward(self, streams: Tensor, mask: Tensor) -> Tensor:
        """Return h_syn (B, L, D) of streams H (M, B, L, D) under a mask (B, L) bool."""
        refined = self.refine(streams, mask)
        return self.join(torch.cat(refined.unbind(0), -1)) + streams.mean(0)

    def refine(self, streams: Tensor, mask: Tensor) -> Tensor:
        """Return x after T rounds, (M, B, L, D); H itself where no other modality could undo the noise."""
        if not self.cross.sources:
            return streams
        allowed = torch.zeros_like(mask[:, None, None], dtype=streams.dtype)
        allowed = allowed.masked_fill(~attention_mask(mask), -torch.inf)
        first = self.config.rounds if self.config.grad_last is None else self.config.grad_last
        for step in range(1, self.config.rounds + 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and step > self.config.rounds - first):
                streams = self.round(streams, allowed, step)
        return streams

    def round(self, streams: Tensor, allowed: Tensor, step: int) -> Tensor:
        """Return x after round `step`; n and eps are divided by sqrt(alpha), which spares two products."""
        alpha, noised = self.alphas[step], streams
        if self.scale and (self.training or self.config.released):
            spread = math.sqrt((1 - alpha) / alpha) * self.scale
            noised = torch.add(streams, torch.randn_like(streams), alpha=spread)
        return torch.sub(noised, self.cross(noised, allowed, alpha), alpha=self.factors[step])
