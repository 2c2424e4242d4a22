"""Count the items of the whole catalog that stand above and level with a target, in one pass over tiles.

The score that counts for a target is the one in the tile that holds it, so that equal items tie to the bit;
it is known only when that tile comes. A guess, scored alone, differs from it by rounding: what is clearly
above the guess is counted at once, what is close to it is kept with its score and decided at the end. Where
the guess was too far off, or too much is close (a constant scorer), the tiles are scored a second time.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import UserError
from bench.interface import Recommender

TILE_BYTES = 4 * 2**20
"""Scores of one tile, float32: they stay in the cache between the product and the counting."""
CLOSE = 4e-6
"""What counts as close, as a share of the largest score in sight: some 30 roundings of a float32."""
WAITING = 32
"""Tiles whose rows with something close are looked into together: some 1 to 2 MB."""
MOST_CLOSE = 2**18
"""Most scores kept for the end, some 25 MB with their rows and items."""
CHUNK_BYTES = 2**19
"""Scores of the rows that each core compares at a time."""


@dataclass(frozen=True)
class Catalog:
    """All items, scored for a batch of users tile by tile.

    Args:
        model: scores shared candidates.
        encoded: the B encoded users.
        items: what `encode_items` returned.
        size: B.
        device: where the model lies.
    """

    model: Recommender
    encoded: Any
    items: Any
    size: int
    device: torch.device

    @cached_property
    def ids(self) -> Tensor:
        """(N,) int64, 1..N."""
        return torch.arange(1, self.model.info.num_items + 1, device=self.device)

    @cached_property
    def starts(self) -> range:
        """First item of each tile."""
        return range(1, self.model.info.num_items + 1, max(1, TILE_BYTES // (4 * self.size)))

    def tile(self, start: int) -> Tensor:
        """Return (B, width) float32 scores of the tile that begins with an item."""
        stop = min(start + self.starts.step, self.model.info.num_items + 1)
        tile = self.ids[start - 1 : stop - 1]
        scores = self.model.score_encoded(self.encoded, tile, self.items)
        return checked(self.model, scores, self.size, len(tile)).float()

    def alone(self, target: Tensor) -> Tensor:
        """Return (B,) float32 scores of one item per user, equal to those in its tile but for rounding."""
        scores = self.model.score_encoded(self.encoded, target[:, None], self.items)
        return checked(self.model, scores, self.size, 1).float()[:, 0]


@dataclass
class Close:
    """Scores too close to the guess to be decided before the target's own score is known.

    Rows of tiles with something close are looked into together: a step between two tiles, whose scores have
    filled the cache, costs ten times its usual time. NumPy and plain lists: many small tensors between the
    tiles would keep the memory of the tiles apart.
    """

    high: NDArray[np.float32]
    """(B, 1) most that is close."""
    low: NDArray[np.float32]
    """(B, 1) least that is close."""
    waiting: list[tuple[NDArray[np.int64], NDArray[np.float32], int]] = field(default_factory=list)
    """Per tile: rows (n,), their scores (n, width), first item of the tile."""
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    items: list[NDArray[np.int64]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, rows: NDArray[np.int64], scores: Tensor, start: int) -> None:
        """Keep what is close in some rows (n,) of a tile (B, width) that begins with item `start`."""
        if scores.device.type == "cpu":
            part = scores.numpy()[rows]  # (n, width)
        else:
            part = scores[torch.from_numpy(rows).to(scores.device)].cpu().numpy()
        if self.waiting and (len(self.waiting) == WAITING or self.waiting[0][1].shape[1] != part.shape[1]):
            self.look()
        self.waiting.append((rows, part, start))

    def look(self) -> None:
        """Find what is close in the rows that wait."""
        if not self.waiting:
            return
        rows, scores, starts = zip(*self.waiting, strict=True)
        row, score = np.concatenate(rows), np.concatenate(scores)  # (n,), (n, width)
        start = np.repeat(starts, [len(rows) for rows in rows])  # (n,)
        close = score >= self.low[row]
        close &= score <= self.high[row]
        found, column = np.divmod(np.flatnonzero(close), score.shape[1])
        self.rows.append(row[found])
        self.items.append(start[found] + column)
        self.scores.append(score[found, column])
        self.waiting = []


def count_above(catalog: Catalog, target: Tensor, touched: Tensor) -> tuple[Tensor, Tensor]:
    """Count the untouched items above and level with each user's target.

    Args:
        catalog: the items, scored for B users.
        target: (B,) int64 item ids.
        touched: (pairs, 2) int64, row in the batch and item id of everything the users touched, targets
            included.

    Returns:
        (B,) int64 number of items above, -1 where a score is not finite, and (B,) number level with it.
    """
    size, starts = len(target), catalog.starts
    guess = catalog.alone(target)
    by_tile = _by_tile(touched[:, 0], touched[:, 1], starts)
    known_row, known_item = (torch.cat(part) for part in zip(*by_tile, strict=True))
    known_cells = _flat_cells(by_tile, starts, catalog.model.info.num_items + 1)
    known_score, done = torch.empty(len(known_row), device=target.device), 0
    overflow, most_close = False, 0
    for number, start in enumerate(starts):
        scores = catalog.tile(start)
        if number == 0:
            margin = CLOSE * torch.maximum(guess.abs(), scores.abs().amax(1))
            low, high = (guess - margin)[:, None], (guess + margin)[:, None]
            counter, close = Counter(high, low), Close(high.cpu().numpy(), low.cpu().numpy())
        cells = known_cells[number]
        torch.take(scores, cells, out=known_score[done : done + len(cells)])
        done += len(cells)
        near = counter(scores)
        rows = np.flatnonzero(near)
        most_close += int(near[rows].sum())
        overflow = most_close > MOST_CLOSE
        if not overflow and len(rows):
            close.add(rows, scores, start)
        del scores
    everyone = torch.arange(size, device=target.device)
    level = known_score[torch.searchsorted(_key(known_row, known_item), _key(everyone, target))]
    finite = _finite(catalog, counter.totals + guess)
    sure = ((level - guess).abs() <= margin) | ~finite
    if overflow or not bool(sure.all()):
        higher, tied = _second_pass(catalog, level[:, None], known_row, known_score)
    else:
        more, tied = _decided(close, _key(known_row, known_item), level)
        higher = counter.higher() + more - _count(known_row[known_score > high[known_row, 0]], size)
    return torch.where(finite, higher, -1), tied


def _decided(close: Close, touched: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B,) how many close scores of untouched items are above and level with the target's own.

    Args:
        close: what was kept.
        touched: (n,) keys of what the users touched.
        level: (B,) the targets' scores.
    """
    close.look()
    if not close.rows:
        return _count(touched[:0], len(level)), _count(touched[:0], len(level))
    kept = (torch.from_numpy(np.concatenate(part)) for part in (close.rows, close.items, close.scores))
    rows, items, scores = (part.to(level.device) for part in kept)
    free = ~torch.isin(_key(rows, items), touched)
    rows, scores = rows[free], scores[free]
    own = level[rows]
    return _count(rows[scores > own], len(level)), _count(rows[scores == own], len(level))


def _second_pass(catalog: Catalog, level: Tensor, row: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Count against the known scores of the targets, (B, 1), less the touched cells: rows and scores (n,)."""
    own, size, counter = level[row, 0], len(level), Counter(level, level)
    near = np.zeros(size)
    for start in catalog.starts:
        near += counter(catalog.tile(start))
    tied = torch.from_numpy(near).to(row.device, torch.int64)
    return counter.higher() - _count(row[score > own], size), tied - _count(row[score == own], size)


class Counter:
    """Counts the cells of each row above one bound and not below another, tile by tile.

    On a CPU some rows at a time, which then lie in the cache for all sweeps; comparing into floats and adding
    them up is several times as fast as a sum of booleans, and exact below 2^24. Buffers and their
    parts are made once: between the small steps of a tile, cutting them anew costs as much as counting.

    Args:
        high: (B, 1) float32.
        low: (B, 1) float32.
    """

    def __init__(self, high: Tensor, low: Tensor) -> None:
        self.high, self.low, self.width = high, low, 0
        self.totals = torch.zeros_like(high[:, 0])
        """(B,) sums of all scores so far."""
        self.above = np.zeros(len(high))
        """(B,) number of scores above `high` so far; whole below 2^53."""

    def __call__(self, scores: Tensor) -> NDArray[np.float32]:
        """Add a tile to `above` and `totals`; return (B,) the numbers of its scores from low to high.

        Args:
            scores: (B, width) float32.
        """
        if scores.device.type == "cpu":
            above, not_below = self._in_parts(scores)
        else:
            self.totals += scores.sum(1)
            counts = torch.stack([(scores > self.high).sum(1), (scores >= self.low).sum(1)])
            above, not_below = counts.float().cpu().numpy()
        self.above += above
        return not_below - above

    def higher(self) -> Tensor:
        """Return `above`, (B,) int64, where the bounds lie."""
        return torch.from_numpy(self.above).to(self.high.device, torch.int64)

    def _in_parts(self, scores: Tensor) -> NDArray[np.float32]:
        """Return (2, B) numbers of scores > high and of scores >= low."""
        if scores.shape[1] != self.width:
            self._make_buffers(scores.shape[1])
        for part, block in zip(self.parts, scores.split(self.step), strict=True):
            torch.gt(block, part.high, out=part.flags)
            torch.sum(part.flags, 1, out=part.above)
            torch.ge(block, part.low, out=part.flags)
            torch.sum(part.flags, 1, out=part.not_below)
            torch.sum(block, 1, out=part.sums)
        self.totals += self.sums
        return self.counts.numpy()

    def _make_buffers(self, width: int) -> None:
        rows, self.width, self.sums = len(self.high), width, torch.empty_like(self.totals)
        self.counts = self.high.new_empty(2, rows)
        step = self.step = max(1, min(rows, CHUNK_BYTES * torch.get_num_threads() // (4 * width)))
        flags = self.high.new_empty(step, width)
        self.parts = []
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            buffer = flags[: part.stop - start]
            counts = (*self.counts[:, part], self.sums[part])
            self.parts += [Part(self.high[part], self.low[part], buffer, *counts)]


@dataclass(frozen=True)
class Part:
    """Some n rows of a tile with their bounds and buffers."""

    high: Tensor
    """(n, 1)."""
    low: Tensor
    """(n, 1)."""
    flags: Tensor
    """(n, width): 1 where a score satisfies a bound."""
    above: Tensor
    """(n,) number of scores above `high`."""
    not_below: Tensor
    """(n,) number of scores not below `low`."""
    sums: Tensor
    """(n,) sums of the scores."""


def _by_tile(rows: Tensor, items: Tensor, starts: range) -> list[tuple[Tensor, Tensor]]:
    """Return, per tile, rows (n,) and items (n,) of the distinct pairs whose item lies in it."""
    keys = torch.unique(_key(rows, items))  # by item, then row
    item, row = keys >> 32, keys & (2**32 - 1)
    firsts = torch.tensor([*starts, starts[-1] + starts.step], device=items.device)
    cuts = torch.searchsorted(item, firsts).tolist()
    return [(row[a:b], item[a:b]) for a, b in pairwise(cuts)]


def _flat_cells(by_tile: list[tuple[Tensor, Tensor]], starts: range, stop: int) -> list[Tensor]:
    """Return, per tile, where its pairs stand (n,) in its flat scores; `stop` is behind the last item."""
    return [
        row * (min(start + starts.step, stop) - start) + item - start
        for start, (row, item) in zip(starts, by_tile, strict=True)
    ]


def _key(rows: Tensor, items: Tensor) -> Tensor:
    return (items << 32) + rows


def _count(rows: Tensor, size: int) -> Tensor:
    return torch.bincount(rows, minlength=size)


def _finite(catalog: Catalog, totals: Tensor) -> Tensor:
    """Return (B,) whether all scores of a row are finite; a finite sum proves it, others are looked into."""
    finite = torch.isfinite(totals)
    if bool(finite.all()):
        return finite
    finite = torch.ones_like(finite)
    for start in catalog.starts:
        finite &= torch.isfinite(catalog.tile(start)).all(1)
    return finite


def checked(model: Recommender, scores: Any, users: int, candidates: int) -> Tensor:
    """Return scores that have the shape they must have.

    Raises:
        UserError: they are no tensor of floats, or not (users, candidates): broadcasting would rank nonsense.
    """
    name = type(model).__name__
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise UserError(f"{name}: scores are {kind}, expected a tensor of floats")
    if scores.shape != (users, candidates):
        shape, expected = tuple(scores.shape), (users, candidates)
        raise UserError(f"{name}: scores have shape {shape}, expected {expected}: users by candidates")
    return scores
