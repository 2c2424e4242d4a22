"""Titles to vectors without any pretrained weights: TF-IDF of words, reduced by a truncated SVD.

S. Deerwester et al., Indexing by Latent Semantic Analysis, JASIS 41(6), 1990.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.preparation.features import Block
from bench.data.preparation.runs import Watch

VOCABULARY = 32_768  # most frequent words; bounds the components at 134 MB
FITTED_TITLES = 20_000  # titles, evenly spaced, that the SVD is fitted on; bounds its memory and time
CHUNK = 16384


def encode_words(texts: Sequence[str], size: int, watch: Watch) -> Iterator[Block]:
    """Yield rows and their (rows, size) unit-length vectors; texts without a known word have none.

    The width is constant: where the titles span fewer than `size` dimensions, the rest is zero.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True, max_features=VOCABULARY)
    analyze = words.build_analyzer()
    rows = np.flatnonzero([bool(analyze(text)) for text in texts])
    if not len(rows):
        return
    table = words.fit_transform([texts[row] for row in rows.tolist()])  # (rows, words), sparse
    for start, part in _reduce(table, size):
        vectors = np.zeros((len(part), size), np.float16)
        vectors[:, : part.shape[1]] = unit(part)
        known = vectors.any(axis=1)
        watch("text encoded", start + len(part), len(rows))
        yield rows[start : start + len(part)][known], vectors[known]


def _reduce(table: Any, size: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield first row and (rows, components) of a sparse table in its leading singular directions."""
    from sklearn.utils.extmath import randomized_svd

    sample = table[:: -(-table.shape[0] // FITTED_TITLES)]
    _, _, components = randomized_svd(
        sample, min(size, *sample.shape), n_iter=4, flip_sign=False, random_state=0
    )
    # Signs are free: a component's largest weight is made positive, the first of nearly equal ones.
    largest = np.abs(components).round(6).argmax(axis=1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    for start in range(0, table.shape[0], CHUNK):
        yield start, table[start : start + CHUNK] @ components.T


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the rows scaled to length 1; rows that are zero up to rounding become zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 1e-9, norms, np.inf)
