"""Vectors of words and pairs, compared with those of scikit-learn's TfidfVectorizer."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from pipeline.data import words
from pipeline.data.vectors import vectorize
from pipeline.data.vocabulary import Vocabulary, count_words
from tests.data.test_words import dense, real_posts

__all__ = ["real_posts"]

POSTS = ["how to sort a list", "how to", "", "sort sort sort", "how to sort how to sort", "c#, c++!", "ÉCOLE école to"]


def peer(posts: list[str], vocabulary: Vocabulary) -> TfidfVectorizer:
    """scikit-learn's vectorizer with our words, our vocabulary and the rule of log_tfidf."""

    def split(post: str) -> list[str]:
        return words.words(pa.array([post]))[0].to_pylist()

    columns = {word: number for number, word in enumerate(vocabulary.words.to_pylist())}
    vectorizer = TfidfVectorizer(
        vocabulary=columns, ngram_range=(1, 2), sublinear_tf=True, tokenizer=split, token_pattern=None, lowercase=False
    )
    return vectorizer.fit(posts)


@pytest.mark.parametrize("size", [4, 9, 100])
def test_log_tfidf_is_that_of_scikit_learn(size: int) -> None:
    posts = pa.array(POSTS)
    vocabulary = count_words([posts], size=size, ngrams=2)
    wanted = peer(POSTS, vocabulary).transform(POSTS).toarray()
    made = dense(vectorize(posts, vocabulary, size=size, mode="log_tfidf"), size)
    np.testing.assert_allclose(made[:, 1 : 1 + wanted.shape[1]], wanted, rtol=1e-6)
    assert not made[:, 0].any()


def test_log_tfidf_of_real_posts_is_that_of_scikit_learn(real_posts: pa.Array) -> None:
    posts = real_posts[:1000]
    vocabulary = count_words([posts], size=20_000, ngrams=2)
    wanted = peer(posts.to_pylist(), vocabulary).transform(posts.to_pylist()).toarray()
    made = dense(vectorize(posts, vocabulary, size=20_000, mode="log_tfidf"), 20_000)
    np.testing.assert_allclose(made[:, 1:], wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("mode", ["binary", "count", "tfidf"])
def test_words_have_the_same_values_beside_pairs_and_without(mode: str) -> None:
    posts = pa.array(POSTS)
    values = list[dict[str, list[float]]]()
    for ngrams in (1, 2):
        vocabulary = count_words([posts], size=100, ngrams=ngrams)
        columns = dense(vectorize(posts, vocabulary, size=100, mode=mode), 100)[:, 1:].T.tolist()
        values.append(dict(zip(vocabulary.words.to_pylist(), columns, strict=False)))
    assert values[0] == {word: column for word, column in values[1].items() if " " not in word}


def test_pairs_in_each_mode_by_hand() -> None:
    vocabulary = count_words([pa.array(["a b a b", "a", "c"])], size=4, ngrams=2)
    assert vocabulary.words.to_pylist() == ["a", "b", "a b"]
    post = pa.array(["b a_b"])  # the filter character between a and b does not part them: b twice, a, a b
    log, keras, scikit = 1 + np.log(2), {"a": np.log(1 + 3 / 3), "b": np.log(1 + 3 / 2)}, {"a": 1 + np.log(4 / 3)}
    scikit["b"] = 1 + np.log(4 / 2)
    scaled = np.array([scikit["a"], log * scikit["b"], scikit["b"]])
    wanted = {
        "binary": [1, 1, 1],
        "count": [1, 2, 1],
        "freq": [1 / 4, 2 / 4, 1 / 4],
        "tfidf": [keras["a"], log * keras["b"], keras["b"]],
        "log_tfidf": scaled / np.sqrt((scaled**2).sum()),
    }
    for mode, values in wanted.items():
        made = vectorize(post, vocabulary, size=4, mode=mode)
        assert made["indices"].to_pylist() == [[1, 2, 3]]
        assert made["values"].to_pylist()[0] == pytest.approx(values), mode
