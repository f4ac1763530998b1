"""Computes the probabilities of posts from a model's weights, by NumPy: one post by a table of words, many by Arrow."""

from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from pipeline.data.text_rule import TextRule
from pipeline.data.vectors import Vectorizer
from pipeline.data.weights import Weights
from pipeline.data.word_table import WordTable
from pipeline.data.words import of_texts

FEW = 16
"""Up to so many posts the table of words is faster than Arrow, whose cost is one millisecond a batch."""


class Arrays:
    """A model's weights, and the text rule by which posts become vectors. May be asked from several threads."""

    is_light = True

    def __init__(self, rule: TextRule, weights: Weights, *, several: bool) -> None:
        self._rule, self.weights, self._several = rule, weights, several

    def probabilities(self, posts: list[bytes]) -> np.ndarray:
        """Compute the probabilities of the posts, UTF-8: float32 [posts, tags]."""
        texts = [post.decode(errors="replace") for post in posts]
        if len(texts) > FEW:
            return self.of_column(of_texts([text.encode() for text in texts]))
        sums = np.empty((len(texts), len(self.weights.posts_bias)), np.float32)
        for place, text in enumerate(texts):
            columns, values = self._table.vector(text)
            np.dot(values, self.weights.posts_kernel[columns], out=sums[place])
        return self._from_logits(self.weights.from_sums(sums))

    def of_column(self, posts: pa.Array) -> np.ndarray:
        """The same of many posts, an array of strings."""
        return self.from_vectors(self._vectorizer.matrix(posts))

    def from_vectors(self, vectors: np.ndarray | csr_matrix) -> np.ndarray:
        """Compute the probabilities of vectors, float32 [posts, vocabulary_size]: float32 [posts, tags]."""
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers may be too large: the sums say so themselves
            return self._from_logits(self.weights.logits(vectors))

    def vector(self, post: bytes) -> csr_matrix:
        """The vector of a post: float32 [1, vocabulary_size]."""
        columns, values = self._table.vector(post.decode(errors="replace"))
        return csr_matrix((values, columns, [0, len(columns)]), shape=(1, self._rule.size))

    def close(self) -> None:
        """There is nothing to free: the arrays go with the last reference."""

    @cached_property
    def _table(self) -> WordTable:
        return WordTable(self._rule.vocabulary, self._rule.size, self._rule.mode)

    @cached_property
    def _vectorizer(self) -> Vectorizer:
        return Vectorizer(self._rule.vocabulary, self._rule.size, self._rule.mode)

    def _from_logits(self, logits: np.ndarray) -> np.ndarray:
        return _sigmoid(logits) if self._several else _softmax(logits)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
