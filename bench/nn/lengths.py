"""Sequences of like length are computed together, without the columns that all of them leave empty: most
users have few events, and a batch as wide as its longest history is mostly padding.
"""

from collections.abc import Callable, Iterator
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 8
"""A part of a batch holds one row in so many at least."""


def like_lengths(size: Tensor) -> Iterator[Tensor]:
    """Yield the rows of each part of a batch, longest first.

    A part ends before a row of at most half the length of its longest, once it holds an eighth of the batch:
    so no part of more rows is filled by less than half, and no part is too small to be worth a call.

    Args:
        size: (B,) int64, lengths.
    """
    order = size.argsort(descending=True, stable=True)
    lengths = size[order].tolist()
    start, least = 0, -(-len(size) // SMALLEST)
    for row, length in enumerate(lengths):
        if row - start >= least and len(size) - row >= least and 2 * length <= lengths[start]:
            yield order[start:row]
            start = row
    yield order[start:]


@overload
def by_length(
    function: Callable[..., Tensor], size: Tensor, *parts: Tensor, padding: Literal["left", "right"] = ...,
    room: int = ...,
) -> Tensor: ...  # fmt: skip
@overload
def by_length(
    function: Callable[..., tuple[Tensor, ...]], size: Tensor, *parts: Tensor,
    padding: Literal["left", "right"] = ..., room: int = ...,
) -> tuple[Tensor, ...]: ...  # fmt: skip
def by_length(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    size: Tensor,
    *parts: Tensor,
    padding: Literal["left", "right"] = "left",
    room: int = 0,
) -> Tensor | tuple[Tensor, ...]:
    """Return what a function of independent rows gives, part by part; zeros where a part was cut.

    A device other than the CPU gets the whole batch at once: there a call costs more than padding.

    Args:
        function: of `parts` for some rows b, cut to w columns; gives tensors (b, ...), of which those of 3
            dimensions are (b, w, any).
        size: (B,) int64, real columns of each row.
        parts: (B,) or (B, L, ...), rows in the order of `size`.
        padding: side on which the rows of `parts` are padded.
        room: columns to leave beside the longest row of a part.
    """
    if size.device.type != "cpu":
        return function(*parts)
    length = max((part.shape[1] for part in parts if part.dim() > 1), default=0)
    rows, results = list(like_lengths(size)), []
    for chosen in rows:
        longest = int(size[chosen].max()) if len(chosen) else 0
        width = min(max(longest + room, 1), length)
        cut = slice(length - width, length) if padding == "left" else slice(width)
        given = function(*(part[chosen, cut] if part.dim() > 1 else part[chosen] for part in parts))
        missing = (length - width, 0) if padding == "left" else (0, length - width)
        each = given if isinstance(given, tuple) else (given,)
        results.append([F.pad(one, (0, 0, *missing)) if one.dim() == 3 else one for one in each])
    back = torch.cat(rows).argsort()
    whole = tuple(torch.cat(one)[back] for one in zip(*results, strict=True))
    return whole if isinstance(given, tuple) else whole[0]
