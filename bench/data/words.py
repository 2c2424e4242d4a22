"""Titles to vectors without any pretrained weights: TF-IDF of words, reduced by a truncated SVD.

S. Deerwester et al., Indexing by Latent Semantic Analysis, JASIS 41(6), 1990.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 32_768  # most frequent words; bounds the components at 134 MB
FITTED_TITLES = 20_000  # titles, evenly spaced, that the SVD is fitted on; bounds its memory and time
CHUNK = 16384


def encode_words(texts: list[str], size: int) -> NDArray[np.float16]:
    """Return (n, size) unit-length vectors, zero for a text without a word of the vocabulary.

    The width is constant: where the titles span fewer than `size` dimensions, the rest is zero.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = np.zeros((len(texts), size), np.float16)
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True, max_features=VOCABULARY)
    analyze = words.build_analyzer()
    rows = np.flatnonzero([bool(analyze(text)) for text in texts])
    if len(rows):
        table = words.fit_transform([texts[row] for row in rows])  # (rows, words), sparse
        for start, part in _reduce(table, size):
            vectors[rows[start : start + len(part)], : part.shape[1]] = unit(part)
    return vectors


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
