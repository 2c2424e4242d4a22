"""Principal components of image and text, and pseudo vectors of each, made from the other modality alone.

All is fitted on items of the training part. Letters: N items, n fitted ones, R raw width, D components.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK = 8192
FOLDS = 5
SHARED = 0.1
"""Mean cosine of an item's own image and text, centered, from which both lie in one space (CLIP)."""


def blocks(rows: NDArray[np.int64], size: int = BLOCK) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers block by block."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def mean_of(features: NDArray[np.floating], fitted: NDArray[np.int64]) -> Floats:
    """Return (R,) the mean of the fitted rows."""
    total = np.zeros(features.shape[1])
    for part in blocks(fitted):
        total += features[part].astype(np.float64).sum(0)
    mean: Floats = (total / max(len(fitted), 1)).astype(np.float32)
    return mean


def components(features: NDArray[np.floating], fitted: NDArray[np.int64], size: int) -> tuple[Floats, Floats]:
    """Return the mean (R,) and a map (R, D) to principal components, scaled to a mean square of 1 over the
    fitted rows; columns beyond the raw width are zero. Time grows with n R^2, memory with R^2.
    """
    mean, width = mean_of(features, fitted), features.shape[1]
    covariance = np.zeros((width, width))
    for part in blocks(fitted):
        centered = features[part].astype(np.float64) - mean
        covariance += centered.T @ centered
    values, vectors = np.linalg.eigh(covariance / max(len(fitted), 1))
    kept = min(size, width)
    chosen, level = vectors[:, ::-1][:, :kept], values[::-1][:kept].clip(min=0)
    scale = 1 / np.sqrt(max(level.mean(), 1e-12))
    map_to = np.zeros((width, size), np.float32)
    map_to[:, :kept] = chosen * scale
    return mean, map_to


def projected(
    features: NDArray[np.floating], present: NDArray[np.bool_], mean: Floats, map_to: Floats
) -> Floats:
    """Return (N + 1, D), zero where an item has none."""
    out = np.zeros((len(features), map_to.shape[1]), np.float32)
    for part in blocks(present.nonzero()[0]):
        out[part] = (features[part].astype(np.float32) - mean) @ map_to
    return out


class Ridge:
    """Ridge regression of one modality on another, out of fold on the items that it is fitted on.

    Each fitted item is predicted by the regression of the folds that it is not in; others by all. The penalty
    is the mean variance of the inputs times the number of items.
    """

    def __init__(
        self,
        source: NDArray[np.floating],
        wanted: NDArray[np.floating],
        fitted: NDArray[np.int64],
    ) -> None:
        self.source = source
        self.means = mean_of(source, fitted), mean_of(wanted, fitted)
        self.fold = np.full(len(source), -1)
        self.fold[fitted] = np.arange(len(fitted)) % FOLDS
        squares = np.zeros((FOLDS, source.shape[1], source.shape[1]))
        products = np.zeros((FOLDS, source.shape[1], wanted.shape[1]))
        for fold in range(FOLDS):
            for part in blocks(fitted[self.fold[fitted] == fold]):
                x, y = source[part] - self.means[0], wanted[part] - self.means[1]
                squares[fold] += x.T.astype(np.float64) @ x
                products[fold] += x.T.astype(np.float64) @ y
        self.maps = []
        for fold in (*range(FOLDS), -1):
            square, product = squares.sum(0), products.sum(0)
            if fold >= 0:
                square, product = square - squares[fold], product - products[fold]
            penalty = max(np.trace(square) / len(square), 1e-6) * np.eye(len(square))
            self.maps.append(np.linalg.solve(square + penalty, product).astype(np.float32))

    def predict(self, rows: NDArray[np.int64]) -> Floats:
        """Return (n, R of the wanted one), centered, for rows of the source."""
        x = (self.source[rows] - self.means[0]).astype(np.float32)
        out = np.zeros((len(rows), self.maps[0].shape[1]), np.float32)
        for fold in range(-1, FOLDS):
            own = self.fold[rows] == fold
            out[own] = x[own] @ self.maps[fold]
        return out


def unit(x: Floats) -> Floats:
    """Return rows of length 1; zero rows stay."""
    length: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return length


def share_a_space(
    first: NDArray[np.floating], second: NDArray[np.floating], fitted: NDArray[np.int64]
) -> bool:
    """Return whether two modalities of the fitted items can be compared as they are: equal widths, and an
    item's own vectors are alike once centered.
    """
    if first.shape[1] != second.shape[1] or not len(fitted):
        return False
    part = fitted[:BLOCK]
    pair = [unit((x[part] - mean_of(x, fitted)).astype(np.float32)) for x in (first, second)]
    return bool((pair[0] * pair[1]).sum(1).mean() > SHARED)


def pseudo_vectors(
    source: NDArray[np.floating],
    wanted: NDArray[np.floating],
    has: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    fitted: NDArray[np.int64],
    way: str,
    retrieved: int,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return pseudo vectors (N + 1, R of `wanted`) of items that have the source, and for which there is one.

    `ridge` predicts them. `retrieval` is the mean over the `retrieved` other fitted items whose `wanted`
    vector is most like the source vector, by cosine of centered vectors; where the two do not lie in one
    space the source is first mapped by the ridge regression. An item's own `wanted` vector is never used.
    Time of the retrieval grows with N n, memory with n.

    Args:
        source: (N + 1, R of the source).
        wanted: (N + 1, R).
        has: (N + 1,) whether items have the source, and the wanted one.
        fitted: (n,) items of the training part that have both.
        way: `retrieval` or `ridge`.
        retrieved: K_p.
    """
    out = np.zeros(wanted.shape, np.float32)
    known = has[0].copy()
    if len(fitted) <= retrieved:
        return out, np.zeros_like(known)
    rows, mean = known.nonzero()[0], mean_of(wanted, fitted)
    direct = way == "retrieval" and share_a_space(source, wanted, fitted)
    ridge = None if direct else Ridge(source, wanted, fitted)
    shelf = unit((wanted[fitted] - mean).astype(np.float32)) if way == "retrieval" else None
    center = mean_of(source, fitted)
    for part in blocks(rows, max(2**24 // len(fitted), 1)):
        asked = (source[part] - center).astype(np.float32) if ridge is None else ridge.predict(part)
        if shelf is None:
            out[part] = asked + mean
            continue
        near = unit(asked) @ shelf.T
        near[part[:, None] == fitted] = -np.inf
        best = np.argpartition(-near, retrieved - 1, axis=1)[:, :retrieved]
        out[part] = wanted[fitted[best]].astype(np.float32).mean(1)
    return out, known
