"""Stable orders of long columns, by sorting single 64-bit numbers that hold value and index.

NumPy sorts such numbers with vector instructions, several times as fast as any sort of indices or of rows.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

SMALL = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
DENSE = 64  # ids up to so many times their number are looked up in a table: 256 bytes per id


def ranks(ids: pl.Series) -> NDArray[np.int64]:
    """Return (n,) numbers that are equal, or stand in the same order, where the ids do.

    Args:
        ids: whole numbers, by value, or text, by code point; without nulls.
    """
    if ids.dtype in SMALL:
        return ids.to_numpy().astype(np.int64, copy=False)
    return ids.rank("dense").to_numpy().astype(np.int64, copy=False)


def stable_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the indices that sort the values in ascending order; equal values keep their order."""
    if not len(values):
        return np.empty(0, np.int64)
    bits = len(values).bit_length()  # enough for any index
    least = int(values.min())
    if (int(values.max()) - least).bit_length() + bits > 63:
        return np.argsort(values, kind="stable")
    keys = values - least  # (n,)
    keys <<= bits  # the value in the high bits, the index in the low ones: no two keys are equal
    keys |= np.arange(len(values))
    keys.sort()
    keys &= (1 << bits) - 1  # (n,) the index alone
    return keys


def distinct(ids: pl.Series) -> pl.Series:
    """Return the distinct ids in ascending order."""
    if ids.dtype not in SMALL:
        return ids.unique().sort()
    ascending = np.sort(ids.to_numpy())
    return pl.Series(ids.name, ascending[_new(ascending)], dtype=ids.dtype)


def numbering(ids: pl.Series) -> Callable[[pl.Series], NDArray[np.int32]]:
    """Return a function from a column of ids (n,) to (n,) the number, from 1, of each of them.

    Args:
        ids: (N,) distinct, ascending; the id at index i has number i + 1.
    """
    if ids.dtype.is_integer() and len(ids) and int(ids[0]) >= 0 and int(ids[-1]) < DENSE * len(ids):
        numbers = np.zeros(int(ids[-1]) + 1, np.int32)  # a table by id is several times as fast as a search
        numbers[ids.to_numpy()] = np.arange(1, len(ids) + 1)
        return lambda column: numbers[column.to_numpy()]
    return lambda column: np.asarray(ids.search_sorted(column)).astype(np.int32) + np.int32(1)


def order_by(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the indices that sort by `first`, then by `second`; equal pairs keep their order."""
    if (packed := _packed(first, second, len(first).bit_length())) is not None:
        return stable_order(packed[0])
    order = stable_order(second)  # (n,); a stable sort by `first` after it leaves it where `first` is equal
    return order[stable_order(first[order])]


def distinct_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct rows of two columns of ids, in ascending order of the first, then the second."""
    first, second = (ranks(column) for column in pairs)
    if all(kind in SMALL for kind in pairs.dtypes) and (packed := _packed(first, second)) is not None:
        keys, bits = packed
        keys.sort()
        keys = keys[_new(keys)]  # (P,) distinct pairs
        columns = ((keys >> bits) + first.min(), (keys & ((1 << bits) - 1)) + second.min())
        return pl.DataFrame(dict(zip(pairs.columns, columns, strict=True)), schema=pairs.schema)
    order = order_by(first, second)  # (n,)
    return pairs[order[_new(first[order]) | _new(second[order])]]


def _packed(
    first: NDArray[np.int64], second: NDArray[np.int64], room: int = 0
) -> tuple[NDArray[np.int64], int] | None:
    """Return (n,) numbers from 0 that order like the pairs, and the bits of the second in them.

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
    """Return (n,) True where a value differs from the one before it; the first one does."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new
