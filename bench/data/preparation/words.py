"""Titles to vectors without any pretrained weights: TF-IDF of words, reduced by a truncated SVD.

Chinese, Japanese, Thai and other scripts leave no spaces between words, so that two titles would hardly ever
share one. There a run of letters counts as its character n-grams: pairs of ideographs and kana, as in most
search engines (a word of two, and one alone, stay what they are), triples of the letters and marks of Thai,
Lao, Burmese, Khmer and Tibetan. Everything else, also in the same title, counts by words.

S. Deerwester et al., Indexing by Latent Semantic Analysis, JASIS 41(6), 1990.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.preparation.features import Block
from bench.data.preparation.runs import Watch

VOCABULARY = 32_768  # most frequent words; bounds the components at 134 MB
FITTED_TITLES = 20_000  # titles, evenly spaced, that the SVD is fitted on; bounds its memory and time
CHUNK = 16384
WORD = re.compile(r"\b\w+\b")
GRAMS = {
    2: (
        r"\u3005-\u3007\u3041-\u3096\u309D-\u309F\u30A1-\u30FA\u30FC-\u30FF\u3105-\u312F\u31A0-\u31BF\u31F0-\u31FF"
        r"\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0003FFFF"
    ),
    3: (
        r"\u0E01-\u0E3A\u0E40-\u0E4E\u0E81-\u0ECE\u0EDC-\u0EDF\u0F40-\u0FBC"
        r"\u1000-\u103F\u1050-\u108F\u1780-\u17D3"
    ),
}
"""Size of the n-grams -> the letters and marks of the scripts that are cut into them."""
UNSPACED = re.compile("|".join(f"([{letters}]+)" for letters in GRAMS.values()))
HALF_WIDTH = re.compile(r"[\uFF66-\uFF9F]")  # kana; NFKC makes the usual ones of them
FORM = b"character n-grams of scripts without spaces"


def words_of(title: str) -> list[str]:
    """Return the words of a title in lower case, and the character n-grams where words are not separated."""
    if not (UNSPACED.search(title) or HALF_WIDTH.search(title)):
        return WORD.findall(title.lower())
    title = unicodedata.normalize("NFKC", title).lower()
    grams = []
    for run in UNSPACED.finditer(title):
        size, letters = list(GRAMS)[(run.lastindex or 1) - 1], run.group()
        grams += [letters[at : at + size] for at in range(max(1, len(letters) - size + 1))]
    return WORD.findall(UNSPACED.sub(" ", title)) + grams


def grams_form(titles: Sequence[str]) -> bytes:
    """Return what stands for the n-grams in a hash: nothing where every title has its plain words alone."""
    plain = all(sorted(words_of(title)) == sorted(WORD.findall(title.lower())) for title in titles)
    return b"" if plain else FORM


def encode_words(texts: Sequence[str], size: int, watch: Watch) -> Iterator[Block]:
    """Yield rows and their (rows, size) unit-length vectors; texts without a known word have none.

    The width is constant: where the titles span fewer than `size` dimensions, the rest is zero.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(analyzer=words_of, sublinear_tf=True, max_features=VOCABULARY)
    rows = np.flatnonzero([bool(words_of(text)) for text in texts])
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
