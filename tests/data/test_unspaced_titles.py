"""Titles of scripts without spaces share what they have in common; other titles stay as they were."""

import hashlib
import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from bench.data.preparation import words
from bench.data.preparation.encoders import EncoderOptions, encode_titles
from bench.data.preparation.runs import silent
from bench.data.preparation.words import FITTED_TITLES, VOCABULARY, encode_words, words_of

LATIN = ["Red Shoe's 42", "blue shoe", "Café au lait", "ß x_1", "한국어 셔츠", "...", "shoe"]
OTHERS = ["phone case", "usb cable", "手机壳透明防摔", "充电器快充"]


def vectors(titles: list[str], size: int = 32) -> np.ndarray:
    made = np.zeros((len(titles), size), np.float16)
    for rows, block in encode_words(titles, size, silent):
        made[rows] = block
    return made


@pytest.mark.parametrize(
    "pair",
    [
        ("红色连衣裙夏季新款", "蓝色连衣裙长款"),
        ("赤いドレス", "青いドレス"),
        ("ﾄﾞﾚｽ赤", "ドレス青"),
        ("เสื้อยืดสีแดง", "เสื้อยืดสีน้ำเงิน"),
        ("ເສື້ອສີແດງ", "ເສື້ອສີຟ້າ"),
        ("អាវក្រហម", "អាវខៀវ"),
        ("NIKE 连衣裙", "ＮＩＫＥ鞋"),
    ],
)
def test_titles_without_spaces_share_their_words(pair):
    one, other, *rest = vectors([*pair, *OTHERS]).astype(float)
    assert one @ other > 0.1
    assert max(abs(one @ far) for far in rest) < 0.05


def test_a_mixed_title_has_words_and_n_grams():
    assert words_of("Nike A4纸 连衣裙") == ["nike", "a4", "纸", "连衣", "衣裙"]
    assert words_of("ドレス・赤") == ["ドレ", "レス", "赤"]


@pytest.mark.parametrize("titles", [LATIN, ["衣裙 手机", "衣裙 电源", "shoe"]])
def test_titles_of_separated_words_give_the_vectors_and_hash_of_plain_words(titles, monkeypatch):
    plain = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").build_analyzer()
    made = vectors(titles)
    name = "tfidf-svd 32"
    digest = hashlib.sha256(json.dumps([name, VOCABULARY, FITTED_TITLES]).encode())
    for title in titles:
        digest.update(f"{len(title)}:{title}".encode())
    assert encode_titles(titles, EncoderOptions(text_size=32), None, silent).hash == digest.hexdigest()
    monkeypatch.setattr(words, "words_of", plain)
    assert made.tobytes() == vectors(titles).tobytes()


def test_titles_that_change_have_another_hash():
    titles = ["红色连衣裙", "shoe"]
    digest = hashlib.sha256(json.dumps(["tfidf-svd 32", VOCABULARY, FITTED_TITLES]).encode())
    for title in titles:
        digest.update(f"{len(title)}:{title}".encode())
    assert encode_titles(titles, EncoderOptions(text_size=32), None, silent).hash != digest.hexdigest()
