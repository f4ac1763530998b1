"""Converts one post to its vector without Arrow, whose cost for each batch is that of ten posts.

The vector is the one of pipeline.data.vectors, to the last bit.
"""

from collections import Counter
from itertools import pairwise

import numpy as np

from pipeline.data.vectors import cell_values, idf
from pipeline.data.vocabulary import Vocabulary
from pipeline.data.words import words_of


class WordTable:
    """The columns of a vocabulary's words and pairs, and what else is prepared once to convert single posts."""

    def __init__(self, vocabulary: Vocabulary, size: int, mode: str) -> None:
        known = vocabulary.head(size)
        self._columns = {entry: column for column, entry in enumerate(known.words.to_pylist(), 1)}
        self._has_pairs = any(" " in entry for entry in self._columns)
        self._word_rule, self._mode, self._weights = vocabulary.word_rule, mode, idf(vocabulary, size, mode)

    def vector(self, post: str) -> tuple[np.ndarray, np.ndarray]:
        """The columns of the post's words, int [cells], ascending, and their values, float32 [cells]."""
        entries = words_of(post, self._word_rule)
        if self._has_pairs:
            entries += [f"{first} {second}" for first, second in pairwise(entries)]
        columns = self._columns
        counted = sorted((columns[entry], count) for entry, count in Counter(entries).items() if entry in columns)
        if not counted:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        found, counts = map(np.array, zip(*counted, strict=True))
        return found, cell_values(counts.astype(np.float64), self._weights[found], self._mode, _sum)


def _sum(values: np.ndarray) -> np.float64:
    """The sum of the values, added one after the other as np.bincount does for many posts: np.sum rounds otherwise."""
    total: np.float64 = np.bincount(np.zeros(len(values), np.intp), values)[0]
    return total
