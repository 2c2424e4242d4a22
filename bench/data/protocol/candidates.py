"""The items that a held-out item is ranked against: drawn once per data set and seed, stored, hashed.

Negatives are items that the user touched under no behavior, without replacement. `popular99` draws them one
after the other with probability proportional to the training counts of what is left; items never trained on
come last.
"""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.schema import Touched
from bench.errors import UserError
from bench.files import replacing

NEGATIVES = 99
CHUNK_USERS = 8192  # of one rejection round; part of the result, as the generator is read chunk by chunk
PROPOSALS = 128  # per user and round
ROUNDS = 16
EXACT_CELLS = 2**22  # users x items weighed at once where rejection does not pay


@dataclass(frozen=True)
class Draw:
    """How negatives are drawn: weights of the items, from their training counts."""

    weights: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    """(N + 1,) counts -> (N + 1,) weights."""
    reads_counts: bool
    """True where other counts are another draw."""


PROTOCOLS: Mapping[str, Draw | None] = {
    "uniform99": Draw(lambda counts: np.ones(len(counts)), reads_counts=False),
    "popular99": Draw(lambda counts: counts.astype(np.float64), reads_counts=True),
    "full": None,
}
"""Name -> how its negatives are drawn; None ranks against every untouched item. Another protocol is another
entry at the end: its position is part of the seed."""


@dataclass(frozen=True)
class Candidates:
    """What every model of a table ranks."""

    kind: str
    seed: int
    negatives: NDArray[np.int32] | None
    """(S, 99) item ids, 0 where the user has fewer untouched items; None for `full`: every untouched item."""
    hash: str
    """SHA-256 (hex) over kind, seed, users, held-out items and negatives."""


def draw(
    kind: str,
    seed: int,
    users: NDArray[np.int64],
    target_items: NDArray[np.int64],
    touched: Touched,
    counts: NDArray[np.int64],
    num_items: int,
) -> Candidates:
    """Draw the candidates of one held-out part; the same arguments give the same candidates on every machine.

    Args:
        kind: 99 uniform, 99 by popularity, or the full catalog.
        seed: of the draw; the users and held-out items are mixed in, so validation and test draw apart.
        users: (S,) 0-based.
        target_items: (S,) held-out item of each, 1..N.
        touched: all items of each user, the held-out ones included.
        counts: (N + 1,) training events of each item; read by `popular99` only.
        num_items: N.

    Raises:
        UserError: a held-out item is not among the items its user touched.
    """
    if kind not in PROTOCOLS:
        raise UserError(f"candidates '{kind}': expected one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[kind]
    if protocol is None:
        digest = _hash(kind, seed, users, target_items, num_items, touched.offsets, touched.item)
        return Candidates(kind, seed, None, digest)
    owners = np.repeat(np.arange(len(touched.offsets) - 1), np.diff(touched.offsets))  # (T,) user of each
    keys = owners * (num_items + 1) + touched.item  # (T,) one number per touched (user, item), ascending
    _check_targets(users, target_items, keys, num_items)
    entropy = hashlib.sha256(_bytes(users) + _bytes(target_items)).digest()
    rng = np.random.default_rng([seed, list(PROTOCOLS).index(kind), int.from_bytes(entropy[:16], "little")])
    weights = protocol.weights(counts)  # (N + 1,)
    weights[0] = 0
    negatives = np.zeros((len(users), NEGATIVES), np.int32)  # (S, 99)
    # Each item stands in the urn as often as its weight says: a uniform draw from it is a weighted one.
    urn = np.repeat(np.arange(num_items + 1, dtype=np.int32), weights.astype(np.int64))
    easy = np.flatnonzero(~_crowded(weights, owners, touched)[users])  # rows for which rejection pays
    for start in range(0, len(easy), CHUNK_USERS):
        rows = easy[start : start + CHUNK_USERS]
        negatives[rows] = _by_rejection(rng, urn, users[rows], keys, num_items)
    _complete(rng, negatives, weights, users, touched)
    return Candidates(kind, seed, negatives, _hash(kind, seed, users, target_items, negatives))


def stored(
    folder: Path,
    part: Literal["validation", "test"],
    kind: str,
    seed: int,
    users: NDArray[np.int64],
    target_items: NDArray[np.int64],
    touched: Touched,
    counts: NDArray[np.int64],
    num_items: int,
) -> Candidates:
    """Read the candidates under `folder/candidates`, or draw them and store them where that is possible.

    The file's name holds a digest of all that the draw reads, so another split, history or preparation of the
    data never finds it. The other arguments are those of `draw`.

    Raises:
        UserError: a stored file is damaged or was changed.
    """
    protocol = PROTOCOLS.get(kind)
    if protocol is None:
        return draw(kind, seed, users, target_items, touched, counts, num_items)
    popularity = counts if protocol.reads_counts else 0
    request = _hash(kind, seed, users, target_items, num_items, touched.offsets, touched.item, popularity)
    path = folder / "candidates" / f"{part}-{kind}-{seed}-{request[:16]}.npz"
    if path.is_file():
        negatives, written = _read(path)
        if _hash(kind, seed, users, target_items, negatives) != written:
            raise UserError(
                f"{path}: the negatives do not match their stored hash; delete the file, it is drawn again"
            )
        return Candidates(kind, seed, negatives, written)
    fresh = draw(kind, seed, users, target_items, touched, counts, num_items)
    _write(path, fresh)
    return fresh


def _crowded(weights: NDArray[np.float64], owners: NDArray[np.int64], touched: Touched) -> NDArray[np.bool_]:
    """Return (U,) True for users who left few items, or little of the weight: rejection would stall."""
    users, weight = len(touched.offsets) - 1, weights[touched.item]  # weight (T,)
    left = (weights > 0).sum() - np.bincount(owners, weight > 0, users)  # (U,) items that can be drawn
    return (left <= 4 * NEGATIVES) | (np.bincount(owners, weight, users) > weights.sum() / 2)


def _by_rejection(
    rng: np.random.Generator,
    urn: NDArray[np.int32],
    users: NDArray[np.int64],
    keys: NDArray[np.int64],
    num_items: int,
) -> NDArray[np.int32]:
    """Return (R, 99) the first distinct untouched items of a stream of draws; rows not full end in zeros."""
    picked = np.zeros((len(users), NEGATIVES), np.int32)  # (R, 99)
    open_rows = np.arange(len(users))  # rows of `picked` that are not full
    for number in range(ROUNDS):
        items = urn[rng.integers(0, len(urn), (len(open_rows), PROPOSALS))]  # (R, W), W = PROPOSALS
        if number:  # those picked so far stay in front, so that they are picked again
            items = np.concatenate([picked[open_rows], items], axis=1)  # (R, W), W = 99 + PROPOSALS
        good = _acceptable(items, users[open_rows], keys, num_items)  # (R, W)
        rank = np.cumsum(good, axis=1)  # (R, W) from 1
        row, column = np.nonzero(good & (rank <= NEGATIVES))
        picked[open_rows[row], rank[row, column] - 1] = items[row, column]
        open_rows = open_rows[rank[:, -1] < NEGATIVES]
        if not len(open_rows):
            break
    return picked


def _acceptable(
    items: NDArray[np.int32], users: NDArray[np.int64], keys: NDArray[np.int64], num_items: int
) -> NDArray[np.bool_]:
    """Return (R, W) True where an item is real, untouched by the row's user and new in its row."""
    width = items.shape[1]
    packed = np.sort(items * np.int64(width) + np.arange(width), axis=1)  # (R, W) by item, then by column
    item, column = np.divmod(packed, width)  # (R, W) each; `column` is where the item stood in `items`
    is_new = item > 0  # (R, W)
    is_new[:, 1:] &= item[:, 1:] != item[:, :-1]  # of equal items the first column alone
    wanted = users[:, None] * (num_items + 1) + item  # (R, W) ascending inside a row: quick to search
    nearest = np.minimum(np.searchsorted(keys, wanted.ravel()), len(keys) - 1).reshape(wanted.shape)
    good = np.zeros_like(is_new)
    np.put_along_axis(good, column, is_new & (keys[nearest] != wanted), axis=1)
    return good


def _complete(
    rng: np.random.Generator,
    negatives: NDArray[np.int32],
    weights: NDArray[np.float64],
    users: NDArray[np.int64],
    touched: Touched,
) -> None:
    """Fill, in place, the rows that are not full, exactly: by exponential races over all items that are left.

    Of independent arrival times Exp(1) / weight, the first 99 are a draw one after the other without
    replacement.
    """
    rows = np.flatnonzero(negatives[:, -1] == 0)
    step = max(1, EXACT_CELLS // len(weights))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]  # (R,)
        # (R, N + 1); infinite for padding, touched items and the negatives that a row has already
        arrival = rng.standard_exponential((len(part), len(weights))) / np.where(weights > 0, weights, 1)
        arrival[:, weights == 0] += 1e9  # after all items of some weight
        arrival[:, 0] = np.inf
        begins, sizes = touched.offsets[users[part]], np.diff(touched.offsets)[users[part]]  # (R,) each
        row = np.repeat(np.arange(len(part)), sizes)  # (T,) T touched items of these users
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # (T,) number in its row
        arrival[row, touched.item[np.repeat(begins, sizes) + inside]] = np.inf
        np.put_along_axis(arrival, negatives[part].astype(np.int64), np.inf, axis=1)
        fresh = _first(arrival)  # (R, <= 99)
        have = (negatives[part] > 0).sum(1)  # (R,)
        row, column = np.nonzero((fresh > 0) & (np.arange(fresh.shape[1]) < NEGATIVES - have[:, None]))
        negatives[part[row], have[row] + column] = fresh[row, column]


def _first(arrival: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (R, <= 99) the items with the earliest arrivals in their order, 0 where nothing is left."""
    size = min(NEGATIVES, arrival.shape[1])
    early = np.argpartition(arrival, size - 1, axis=1)[:, :size]  # (R, size) unordered: cheaper than a sort
    times = np.take_along_axis(arrival, early, axis=1)  # (R, size)
    order = np.argsort(times, axis=1, kind="stable")  # (R, size)
    return np.take_along_axis(np.where(np.isfinite(times), early, 0), order, axis=1)


def _check_targets(
    users: NDArray[np.int64], target_items: NDArray[np.int64], keys: NDArray[np.int64], num_items: int
) -> None:
    missing = ~np.isin(users * (num_items + 1) + target_items, keys)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise UserError(
            f"user {users[row]}: the held-out item {target_items[row]} is not among the items "
            "that the user touched; prepare the data set again"
        )


def _hash(*values: Any) -> str:
    """Return a SHA-256 over words, numbers and integer arrays; all arrays count as int64."""
    digest = hashlib.sha256()
    for value in values:
        content = str(value).encode() if isinstance(value, str | int) else _bytes(value)
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def _bytes(array: NDArray[np.integer]) -> bytes:
    return np.ascontiguousarray(array, dtype="<i8").tobytes()


def _read(path: Path) -> tuple[NDArray[np.int32], str]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["negatives"], str(content["hash"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a readable candidates file ({error}); delete the file, it is drawn again"
        ) from error


def _write(path: Path, candidates: Candidates) -> None:
    """Store under a temporary name, then rename; a folder that cannot be written costs only the next draw."""
    content: dict[str, Any] = {"negatives": candidates.negatives, "hash": np.array(candidates.hash)}
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **content)
    except OSError:
        return
