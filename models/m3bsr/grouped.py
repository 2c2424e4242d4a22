"""Layers of G independent weight sets that run as one batched call: the streams of one stage share their
shapes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """G affine maps, y_g = x_g W_g + b_g, in one batched product.

    Args:
        groups: G.
        inputs: I.
        outputs: O.
        bias: False leaves b_g out: where it would change nothing (keys) or is redundant, it only costs a
            reduction.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, 1, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (G, ..., I) to (G, ..., O)."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])  # (G, n, I)
        out = (
            torch.bmm(flat, self.weight) if self.bias is None else torch.baddbmm(self.bias, flat, self.weight)
        )
        return out.view(*x.shape[:-1], self.weight.shape[-1])


class GroupedNorm(nn.Module):
    """LayerNorm with G sets of gain and offset."""

    def __init__(self, groups: int, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(groups, size))
        self.offset = nn.Parameter(torch.zeros(groups, size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of (G, ..., D)."""
        shape = (x.shape[0], *[1] * (x.dim() - 2), x.shape[-1])
        return F.layer_norm(x, x.shape[-1:]) * self.gain.view(shape) + self.offset.view(shape)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn (G, B, L, D) into (G * B, H, L, D / H)."""
    groups, batch, length, size = x.shape
    return x.reshape(groups * batch, length, heads, size // heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention of grouped heads.

    Args:
        query: (G * B, H, Lq, D / H).
        key: (G * B, H, Lk, D / H).
        value: like `key`.
        mask: (B, Lq or 1, Lk) bool, True where the key may be seen; every row sees one key at least.

    Returns:
        (G, B, Lq, D).
    """
    rows, heads, length, width = query.shape
    batch, keys = mask.shape[0], mask.shape[-1]
    allowed = mask.expand(batch, length, keys).repeat(rows // batch, 1, 1)[:, None]  # (G * B, 1, Lq, Lk)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)  # (G * B, H, Lq, D / H)
    return out.transpose(1, 2).reshape(rows // batch, batch, length, heads * width)
