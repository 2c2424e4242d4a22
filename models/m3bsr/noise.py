"""Noise of inference: a function of seed, user and position alone, so that nobody's scores depend on batch
mates, padding or how often they were asked for.
"""

import torch
from torch import Tensor


def seeded_normal(user: Tensor, shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """Return standard normal noise, float32.

    Each number is made from its own counter (an integer hash, then the inverse normal distribution), not
    drawn from a generator: there is no order of draws. Positions are counted from the newest event.

    Args:
        user: (B,) int64.
        shape: (G, B, L, D).
        seed: of the draw.

    Returns:
        (G, B, L, D).
    """
    groups, _, length, size = shape
    device = user.device
    state = _mixed(_mixed(user + 1) ^ _mixed(torch.tensor(seed, device=device)))[None, :, None, None]
    state = _mixed(state + torch.arange(groups, device=device)[:, None, None, None])
    state = _mixed(state + torch.arange(length - 1, -1, -1, device=device)[:, None])
    state = _mixed(state + torch.arange(size, device=device))  # (G, B, L, D), 32 random bits
    return torch.special.ndtri(((state >> 9).float() + 0.5) / 2**23)  # never 0 or 1 in float32


def _mixed(value: Tensor) -> Tensor:
    """Return 32 well-mixed bits of int64 numbers; products stay below 2^59."""
    value = value & 0xFFFFFFFF
    for _ in range(2):
        value = ((value ^ (value >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return value ^ (value >> 16)
