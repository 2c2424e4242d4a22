"""Which cells of a rectangle (B, L) token-wise work runs on: all of them, or the real events alone, packed.

A projection, a norm or a feed-forward network treats each event by itself, so what it computes in padded
cells is thrown away: four of ten cells of the histories of MovieLens-100K, seven of ten of its click streams.
Attention alone needs the rectangle. Both forms give the same numbers where there is an event.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function


class Rectangle:
    """All cells: streams stay (G, B, L, D)."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def pack(self, streams: Tensor) -> Tensor:
        """Return the streams as they are."""
        return streams

    def unpack(self, tokens: Tensor) -> Tensor:
        """Return the streams as they are."""
        return tokens

    def of_rows(self, values: Tensor) -> Tensor:
        """Return values (G, B or 1, 1, D) of rows as they are: they broadcast over the cells of a row."""
        return values

    def keep(self, tokens: Tensor) -> Tensor:
        """Return the tokens (G, B, L, D), zero where padded."""
        return tokens * self.mask[None, :, :, None].to(tokens.dtype)


class Packed(Rectangle):
    """The n real cells alone, row after row: (G, B, L, D) becomes (G, 1, n, D)."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask)
        flat = mask.flatten()
        self.index, self.rest = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]  # (n,), (B L - n,)

    def pack(self, streams: Tensor) -> Tensor:
        """Return the real cells of (G, B, L, D), (G, 1, n, D)."""
        tokens: Tensor = _Pack.apply(streams.flatten(1, 2), self.index, self.rest)
        return tokens[:, None]

    def unpack(self, tokens: Tensor) -> Tensor:
        """Return (G, 1, n, D) put back to (G, B, L, D), zero where padded."""
        flat: Tensor = _Unpack.apply(tokens[:, 0], self.index, self.rest)
        return flat.unflatten(1, self.mask.shape)

    def of_rows(self, values: Tensor) -> Tensor:
        """Return (G, 1, n, D) from values (G, B, 1, D) of rows; (G, 1, 1, D) stays as it is."""
        if values.shape[1] == 1:
            return values
        return values[:, self.index // self.mask.shape[1]].transpose(1, 2)

    def keep(self, tokens: Tensor) -> Tensor:
        """Return the tokens as they are: none is padding."""
        return tokens


def cells(mask: Tensor, packed: bool) -> Rectangle:
    """Return the cells of a mask (B, L), packed or all of them."""
    return Packed(mask) if packed else Rectangle(mask)


class _Pack(Function):
    """(G, N, D) -> (G, n, D) at distinct cells; its gradient is `_Unpack`, not a sum over equal ones."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor, rest: Tensor) -> Tensor:
        ctx.save_for_backward(index, rest)
        return flat.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _put(grad, *ctx.saved_tensors), None, None


class _Unpack(Function):
    """(G, n, D) -> (G, N, D), zero in all other cells."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, rest: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return _put(tokens, index, rest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return grad.index_select(1, index), None, None


def _put(tokens: Tensor, index: Tensor, rest: Tensor) -> Tensor:
    out = tokens.new_empty(len(tokens), len(index) + len(rest), tokens.shape[-1])
    return out.index_fill_(1, rest, 0).index_copy_(1, index, tokens)
