"""Stable orders of long columns, by sorting single 64-bit numbers that hold value and position.

NumPy sorts such numbers with vector instructions, several times as fast as any sort of positions or of rows.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

SMALL = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
DENSE = 64  # ids up to so many times their number are looked up in a table: 256 bytes an id


def ranks(ids: pl.Series) -> NDArray[np.int64]:
    """Return (n,) numbers that are equal, or stand in the same order, where the ids do.

    Args:
        ids: whole numbers, by value, or text, by code point; without nulls.
    """
    if ids.dtype in SMALL:
        return ids.to_numpy().astype(np.int64, copy=False)
    return ids.rank("dense").to_numpy().astype(np.int64, copy=False)


def stable_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the positions of the values in ascending order, equal ones in the order they stand in."""
    if not len(values):
        return np.empty(0, np.int64)
    bits = len(values).bit_length()
    least = int(values.min())
    if (int(values.max()) - least).bit_length() + bits > 63:
        return np.argsort(values, kind="stable")
    keys = values - least  # (n,) value in the high bits, position in the low ones
    keys <<= bits
    keys |= np.arange(len(values))
    keys.sort()
    keys &= (1 << bits) - 1
    return keys


def distinct(ids: pl.Series) -> pl.Series:
    """Return the distinct ids in ascending order."""
    if ids.dtype not in SMALL:
        return ids.unique().sort()
    ascending = np.sort(ids.to_numpy())
    return pl.Series(ids.name, ascending[_new(ascending)], dtype=ids.dtype)


def numbering(ids: pl.Series) -> Callable[[pl.Series], NDArray[np.int32]]:
    """Return what gives the rank, from 1, of each id among these distinct ascending ones."""
    if ids.dtype.is_integer() and len(ids) and int(ids[0]) >= 0 and int(ids[-1]) < DENSE * len(ids):
        rank_of = np.zeros(int(ids[-1]) + 1, np.int32)  # a table by id is several times as fast as a search
        rank_of[ids.to_numpy()] = np.arange(1, len(ids) + 1)
        return lambda column: rank_of[column.to_numpy()]
    return lambda column: np.asarray(ids.search_sorted(column)).astype(np.int32) + np.int32(1)


def order_by(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the positions in ascending order of `first`, then `second`, then position."""
    if (packed := _packed(first, second, len(first).bit_length())) is not None:
        return stable_order(packed[0])
    order = stable_order(second)
    return order[stable_order(first[order])]


def distinct_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct rows of two columns of ids, in ascending order of the first, then the second."""
    first, second = (ranks(column) for column in pairs)
    if all(kind in SMALL for kind in pairs.dtypes) and (packed := _packed(first, second)) is not None:
        keys, bits = packed
        keys.sort()
        keys = keys[_new(keys)]
        columns = ((keys >> bits) + first.min(), (keys & ((1 << bits) - 1)) + second.min())
        return pl.DataFrame(dict(zip(pairs.columns, columns, strict=True)), schema=pairs.schema)
    order = order_by(first, second)
    return pairs[order[_new(first[order]) | _new(second[order])]]


def _packed(
    first: NDArray[np.int64], second: NDArray[np.int64], room: int = 0
) -> tuple[NDArray[np.int64], int] | None:
    """Return numbers from 0 that order like the pairs, and the bits of the second in them.

    None where they, and `room` bits beside them, need more than 63 bits, or there is nothing.
    """
    if not len(first):
        return None
    least, bits = int(second.min()), (int(second.max()) - int(second.min())).bit_length()
    if (int(first.max()) - int(first.min())).bit_length() + bits + room > 63:
        return None
    keys = first - first.min()
    keys <<= bits
    keys |= second - least
    return keys, bits


def _new(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,) where a value differs from the one before it; the first does."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new
