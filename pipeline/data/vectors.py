"""Convert posts to sparse vectors over a vocabulary, as Keras does or with each post scaled to length 1."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from pipeline.data import words as text
from pipeline.data.threads import THREADS, in_order
from pipeline.data.vocabulary import Vocabulary, by_column, neighbours
from pipeline.data.words import Ints, WordRule, numbers_of, of_numbers, of_texts

UNKNOWN = of_numbers(np.zeros(1, np.int32))[0]
"""The number of what a vocabulary does not hold."""

MODES = ("binary", "count", "freq", "tfidf", "log_tfidf")


def idf(vocabulary: Vocabulary, size: int, mode: str = "tfidf") -> NDArray[np.float64]:
    """The inverse document frequency of each index, with n posts of which d have the word: float64 [size].

    In the mode tfidf it is Keras's, ln(1 + n / (1 + d)), and in log_tfidf that of scikit-learn's TfidfTransformer with
    smooth_idf, ln((1 + n) / (1 + d)) + 1. It is 0 for index 0 and for indices beyond the vocabulary.
    """
    known = vocabulary.document_counts[: max(size - 1, 0)]
    weights = np.zeros(size)
    if mode == "log_tfidf":
        weights[1 : len(known) + 1] = np.log((1 + vocabulary.documents) / (1 + known)) + 1
    else:
        weights[1 : len(known) + 1] = np.log(1 + vocabulary.documents / (1 + known))
    return weights


def vectorize(posts: pa.Array, vocabulary: Vocabulary, *, size: int, mode: str) -> pa.RecordBatch:
    """Convert posts to sparse vectors: the non-zero cells of Keras's texts_to_matrix(mode), or those of log_tfidf.

    Each row has `indices` (int32, ascending) and `values` (float32, computed in float64). With c the count of a word,
    or pair, in a post, a value is 1 (binary), c (count), c / the sum of the post's c (freq), (1 + ln c) * idf (tfidf),
    or the same divided by the Euclidean length of the post's values (log_tfidf, as scikit-learn's TfidfVectorizer with
    sublinear_tf). Words from index `size` on count as unknown. Raises ValueError for an unknown mode and null posts.
    """
    return Vectorizer(vocabulary, size, mode).vectors(posts)


def vectorize_all(
    batches: Iterable[pa.RecordBatch], vocabulary: Vocabulary, *, size: int, mode: str, threads: int = THREADS
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yield each batch, in order, with the vectors of its column `post`; threads make a few of them ahead."""
    vectorizer = Vectorizer(vocabulary, size, mode)
    return in_order(lambda batch: (batch, vectorizer.vectors(batch.column("post"))), batches, threads)


class Vectorizer:
    """What is prepared once to convert many batches of posts; see vectorize."""

    def __init__(self, vocabulary: Vocabulary, size: int, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        self.mode, self.weights = mode, idf(vocabulary, size, mode)
        self.columns, self.word_rule = _Columns.of(vocabulary.head(size)), vocabulary.word_rule

    def vectors(self, posts: pa.Array) -> pa.RecordBatch:
        """The vectors of a batch of posts."""
        cells = self.matrix(posts)
        offsets = pa.array(cells.indptr, pa.int32())
        return pa.record_batch(
            {
                "indices": pa.ListArray.from_arrays(offsets, pa.array(cells.indices)),
                "values": pa.ListArray.from_arrays(offsets, pa.array(cells.data)),
            }
        )

    def matrix(self, posts: pa.Array) -> sparse.csr_matrix:
        """The same as one sparse matrix, float32 [posts, size]."""
        # Arrow hashes the vocabulary again for each slice, so a large vocabulary wants large slices.
        slices = text.slices(posts, max(text.SLICE, 64 * len(self.columns.known)))
        rows = [self.columns.count(piece, self.word_rule) for piece in slices]
        lengths = np.concatenate([[0], *(np.diff(cells.indptr) for cells in rows)])
        indices = np.concatenate([np.empty(0, np.int32), *(cells.indices for cells in rows)])
        values = np.concatenate([np.empty(0, np.float32), *(self._values(cells) for cells in rows)])
        return sparse.csr_matrix((values, indices, np.cumsum(lengths)), shape=(len(lengths) - 1, len(self.weights)))

    def _values(self, cells: sparse.csr_matrix) -> NDArray[np.float32]:
        def sums(values: NDArray) -> NDArray:
            rows = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
            of_rows: NDArray = np.bincount(rows, values, cells.shape[0])
            of_cells: NDArray = of_rows[rows]
            return of_cells

        return cell_values(cells.data, self.weights[cells.indices], self.mode, sums)


@dataclass(frozen=True, eq=False)
class _Columns:
    """The columns of a vocabulary, found by the numbers of words; index 0 stands for what is unknown.

    `known` are the words of all entries, of which "" is the first. For a word's number in it, `column` is the column of
    the word by itself; `keys` are the numbers of the pairs as `neighbours` makes them, ascending, and `pair_columns`
    their columns.
    """

    width: int
    known: pa.Array  # string
    column: Ints  # [len(known)]
    keys: pa.Array  # int64
    pair_columns: Ints  # [len(keys)]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "_Columns":
        """Take the words and pairs of a vocabulary apart."""
        width, are_pairs = 1 + len(vocabulary.words), vocabulary.pairs
        # "" is never a word: it takes index 0, so that the others have the index they have in Keras.
        if not are_pairs.any():
            known = pa.concat_arrays([of_texts([b""]), vocabulary.words])
            no_keys, no_columns = of_numbers(np.empty(0, np.int64)), np.empty(0, np.int32)
            return cls(width, known, np.arange(width, dtype=np.int32), no_keys, no_columns)
        words, pairs = (vocabulary.words.take(of_numbers(np.flatnonzero(each))) for each in (~are_pairs, are_pairs))
        halves = pc.split_pattern(pairs, " ").flatten()
        known = pc.unique(pa.concat_arrays([of_texts([b""]), words, halves]))
        column = np.zeros(len(known), np.int32)
        column[numbers_of(pc.index_in(words, value_set=known))] = 1 + np.flatnonzero(~are_pairs)
        first, second = numbers_of(pc.index_in(halves, value_set=known)).astype(np.int64).reshape(-1, 2).T
        keys = first * len(known) + second
        return cls(width, known, column, of_numbers(keys), (1 + np.flatnonzero(are_pairs)).astype(np.int32))

    def count(self, posts: pa.Array, word_rule: WordRule) -> sparse.csr_matrix:
        """Count each entry of the vocabulary in each post: csr [posts, width], indices ascending, none of them 0."""
        found, ends = text.split(posts, word_rule)
        words = numbers_of(pc.fill_null(pc.index_in(found, value_set=self.known), UNKNOWN))
        index = self.column[words]
        if len(self.keys):
            keys, pair_ends = neighbours(words, ends, len(self.known))
            at = pc.index_in(of_numbers(keys), value_set=self.keys)
            known = numbers_of(at.is_valid())
            pairs = np.where(known, self.pair_columns[numbers_of(pc.fill_null(at, UNKNOWN))], 0)
            index, ends = _interleaved(index, ends, pairs, pair_ends), ends + pair_ends
        return _counted(index, ends, self.width)


def as_matrix(vectors: pa.Table | pa.RecordBatch, size: int) -> sparse.csr_matrix:
    """Convert `indices` and `values` to one sparse matrix, float32 [rows, size]."""
    indices, values = (_single(vectors.column(name)) for name in ("indices", "values"))
    starts = np.concatenate([[0], np.cumsum(indices.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)])
    cells = values.flatten().to_numpy(), indices.flatten().to_numpy(), starts
    return sparse.csr_matrix(cells, shape=(len(indices), size))


def _single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _interleaved(words: Ints, ends: Ints, pairs: Ints, pair_ends: Ints) -> Ints:
    """Put each post's pairs behind its words, so that the columns of post i are at ends[i] + pair_ends[i]."""
    every = np.empty(len(words) + len(pairs), np.int32)
    every[np.arange(len(words)) + np.repeat(pair_ends[:-1], np.diff(ends))] = words
    every[np.arange(len(pairs)) + np.repeat(ends[1:], np.diff(pair_ends))] = pairs
    return every


def _counted(index: Ints, ends: Ints, width: int) -> sparse.csr_matrix:
    """Count each column in each post, leaving out column 0: csr [posts, width]."""
    cells, first = by_column(index, ends, width)
    unknown = cells.indptr[1]
    starts = np.append(np.flatnonzero(first[unknown:]), len(index) - unknown).astype(np.int32)
    indptr = np.searchsorted(starts, np.maximum(cells.indptr - unknown, 0)).astype(np.int32)
    counts = np.diff(starts), cells.indices[unknown:][starts[:-1]], indptr
    return sparse.csc_matrix(counts, shape=cells.shape).tocsr()


def cell_values(
    counts: NDArray, weights: NDArray[np.float64], mode: str, sums: Callable[[NDArray], NDArray | np.float64]
) -> NDArray[np.float32]:
    """The value of each non-zero cell, by vectorize's formulas.

    `weights` are those of the cells' columns; `sums` gives for each cell the sum of the values of its post's cells.
    """
    if mode == "binary":
        values = np.ones(len(counts))
    elif mode == "count":
        values = counts
    elif mode == "freq":
        values = counts / sums(counts)
    else:
        values = (1 + np.log(counts)) * weights
    if mode == "log_tfidf":
        values /= np.sqrt(sums(values**2))
    return values.astype(np.float32)
