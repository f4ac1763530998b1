"""Count words, and pairs of neighbouring words, and choose a model's vocabulary from them.

A pair is written as its two words with a space between, which no word contains. The words of a pair follow each other
in the post once the filter characters are removed, as in scikit-learn's TfidfVectorizer; by the word rule `signs` these
are words themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from pipeline.data import words as text
from pipeline.data.threads import THREADS, in_order
from pipeline.data.words import Ints, Longs, WordRule

VOCABULARY_FILE = "vocabulary.txt"
COUNTS_FILE = "counts.parquet"

MOST_PAIRS = 1 << 22
"""Distinct pairs counted at once, some 300 MB; if there are more, the rarest are dropped, as Counts.undercount says."""

_NONE = np.empty(0, np.int64)
_MERGE = 1 << 19  # words collected at least before they are merged


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What the network knows: the most frequent words, and pairs of words, of the train posts, in descending order.

    The index of words[i] is i + 1; index 0 is never used, as in Keras.
    """

    words: pa.Array  # string; a pair contains a space
    counts: Longs  # [len(words)]: occurrences
    document_counts: Longs  # [len(words)]: posts with the word
    documents: int  # posts counted
    occurrences: int  # of all words counted (neither pairs nor signs), including those too rare for the vocabulary
    word_rule: WordRule = "keras"  # how the posts were split into words; see pipeline.data.words

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Whether each entry is a pair of words: bool [len(words)]."""
        found: NDArray[np.bool_] = text.numbers_of(pc.match_substring(self.words, " "))
        return found

    @property
    def single_words(self) -> NDArray[np.bool_]:
        """Whether each entry is a word, neither a pair nor a sign: bool [len(words)]."""
        return ~(self.pairs | _is_sign(self.words))

    @property
    def unknown(self) -> float:
        """The share of all word occurrences that are not in the vocabulary."""
        return 1 - int(self.counts[self.single_words].sum()) / max(self.occurrences, 1)

    def head(self, size: int) -> "Vocabulary":
        """The vocabulary of the `size - 1` most frequent of these words."""
        most = slice(0, max(size - 1, 0))
        return replace(
            self, words=self.words[most], counts=self.counts[most], document_counts=self.document_counts[most]
        )

    def save(self, folder: Path) -> None:
        r"""Write `vocabulary.txt` (a word a line, most frequent first, UTF-8) and `counts.parquet` into the folder.

        In `vocabulary.txt` only ``\n`` ends a line: a word may contain ``\r``, U+2028 and the like.
        """
        lines = "".join(f"{word}\n" for word in self.words.to_pylist())
        (folder / VOCABULARY_FILE).write_bytes(lines.encode())
        table = pa.table({"word": self.words, "count": self.counts, "document_count": self.document_counts})
        totals = {"documents": str(self.documents), "occurrences": str(self.occurrences), "word_rule": self.word_rule}
        pq.write_table(table.replace_schema_metadata(totals), folder / COUNTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read what `save` wrote."""
        table = _read(folder / COUNTS_FILE)
        about = table.schema.metadata
        return cls(
            words=table["word"].combine_chunks(),
            counts=text.numbers_of(table["count"].combine_chunks()),
            document_counts=text.numbers_of(table["document_count"].combine_chunks()),
            documents=int(about[b"documents"]),
            occurrences=int(about[b"occurrences"]),
            word_rule=about.get(b"word_rule", b"keras").decode(),  # older vocabularies do not say
        )


@dataclass(frozen=True)
class Counts:
    """The distinct words, or pairs, in order of first appearance: how often each occurs, and in how many posts.

    Each number may be too low by up to `undercount`, and what is not listed occurs at most so often; 0 if all is exact.
    """

    words: pa.Array
    counts: Longs
    document_counts: Longs
    documents: int
    undercount: int = 0

    def save(self, path: Path) -> None:
        """Write the counts as one Parquet file."""
        columns = {"word": self.words, "count": self.counts, "document_count": self.document_counts}
        totals = {"documents": str(self.documents), "undercount": str(self.undercount)}
        pq.write_table(pa.table(columns).replace_schema_metadata(totals), path)

    @classmethod
    def load(cls, path: Path) -> "Counts":
        """Read what `save` wrote."""
        table = pq.read_table(path)
        counts, document_counts = (table[name].to_numpy() for name in ("count", "document_count"))
        documents, undercount = (int(table.schema.metadata[name]) for name in (b"documents", b"undercount"))
        return cls(table["word"].combine_chunks(), counts, document_counts, documents, undercount)

    def without_rarest(self, most: int) -> "Counts":
        """Drop the rarest entries, so that at most `most` are left."""
        if len(self.counts) <= most:
            return self
        floor = int(np.partition(self.counts, -most - 1)[-most - 1])
        kept = np.flatnonzero(self.counts > floor)
        return Counts(
            self.words.take(pa.array(kept)),
            self.counts[kept],
            self.document_counts[kept],
            self.documents,
            self.undercount + floor,
        )


def _read(path: Path) -> pa.Table:
    """Read a Parquet file without pyarrow.dataset, which imports pandas."""
    with pq.ParquetFile(path) as file:
        return file.read()


def _is_sign(words: pa.Array) -> NDArray[np.bool_]:
    """Whether each word is one of the signs that only the word rule `signs` knows: bool [len(words)]."""
    found: NDArray[np.bool_] = pc.is_in(words, pa.array(list(text.SIGNS), words.type)).to_numpy(zero_copy_only=False)
    return found


def most_frequent(
    counts: Sequence[Counts], size: int, min_documents: int = 1, word_rule: WordRule = "keras"
) -> Vocabulary:
    """Choose the `size - 1` most frequent words and pairs, of those that at least min_documents posts have.

    `counts` are those of the words, split by the word rule, and, if pairs are wanted, those of the pairs. `size` is
    Keras's num_words. Of ties the first seen is chosen, and a word before a pair.
    """
    occurrences, documents = (
        np.concatenate([getattr(each, name) for each in counts]) for name in ("counts", "document_counts")
    )
    allowed = np.flatnonzero(documents >= min_documents)
    most = allowed[np.argsort(-occurrences[allowed], kind="stable")[: max(size - 1, 0)]]
    every = pa.chunked_array([each.words.cast(pa.large_string()) for each in counts])
    return Vocabulary(
        words=every.take(pa.array(most)).combine_chunks().cast(pa.string()),
        counts=occurrences[most],
        document_counts=documents[most],
        documents=counts[0].documents,
        occurrences=int(counts[0].counts[~_is_sign(counts[0].words)].sum()),
        word_rule=word_rule,
    )


def count_words(
    batches: Iterable[pa.Array],
    *,
    size: int,
    ngrams: int = 1,
    word_rule: WordRule = "keras",
    threads: int = THREADS,
) -> Vocabulary:
    """Count the words of all batches, with ngrams=2 also the pairs, and return the most frequent; see most_frequent."""
    counts = count(batches, ngrams=ngrams, word_rule=word_rule, threads=threads)
    return most_frequent(counts, size, word_rule=word_rule)


def count(
    batches: Iterable[pa.Array], *, ngrams: int = 1, word_rule: WordRule = "keras", threads: int = THREADS
) -> list[Counts]:
    """Count the words of all batches and, with ngrams=2, the pairs: a Counts of each.

    Memory grows with the number of distinct words, not of posts, and of pairs only to MOST_PAIRS.
    """
    slices = (piece for batch in batches for piece in text.slices(batch, text.SLICE))
    if ngrams == 1:
        return [merged(in_order(lambda posts: _count_words(posts, word_rule)[0], slices, threads))]
    total = _Total()
    for words, pairs in in_order(lambda posts: _count_pairs(posts, word_rule), slices, threads):
        total.add(words, pairs)
    return total.result()


def _count_words(posts: pa.Array, word_rule: WordRule) -> tuple[Counts, Ints, Ints]:
    """Count the words of one slice of posts; and return the number of each word in order, and where posts end."""
    found, ends = text.split(posts, word_rule)
    encoded = found.dictionary_encode()
    columns = encoded.indices.to_numpy()
    return _tally(columns, ends, encoded.dictionary), columns, ends


def _count_pairs(posts: pa.Array, word_rule: WordRule) -> tuple[Counts, Counts]:
    """Count the words of one slice of posts, and the pairs, which are numbered by its words as `neighbours` does."""
    words, columns, ends = _count_words(posts, word_rule)
    keys, pair_ends = neighbours(columns, ends, len(words.words))
    pairs = pa.array(keys).dictionary_encode()
    return words, _tally(pairs.indices.to_numpy(), pair_ends, pairs.dictionary)


def neighbours(columns: Ints, ends: Ints, width: int) -> tuple[Longs, Ints]:
    """Number the pairs of neighbouring words: for words a and b, a * width + b; and where each post's pairs end.

    Post i has the words columns[ends[i] : ends[i + 1]], and of the pairs returned those at the same places of the ends
    returned.
    """
    keys = columns[:-1].astype(np.int64) * width + columns[1:]
    pair_ends = np.zeros_like(ends)
    np.cumsum(np.maximum(np.diff(ends) - 1, 0), out=pair_ends[1:])
    within = np.ones(len(columns), bool)
    within[ends[1:][np.diff(ends) > 0] - 1] = False  # a post's last word begins no pair
    return keys[within[:-1]], pair_ends


def _tally(columns: Ints, ends: Ints, distinct: pa.Array) -> Counts:
    """Count the distinct words, which `columns` numbers for each post; see by_column."""
    cells, first = by_column(columns, ends, len(distinct))
    document_counts = np.add.reduceat(first, cells.indptr[:-1], dtype=np.int64)
    return Counts(distinct, np.diff(cells.indptr).astype(np.int64), document_counts, len(ends) - 1)


def by_column(columns: Ints, ends: Ints, width: int) -> tuple[sparse.csc_matrix, NDArray[np.bool_]]:
    """Sort the cells of the posts by column, then row, and mark the first of each post and column.

    Post i has columns[ends[i] : ends[i + 1]], one for each word, with repeats. The conversion from CSR to CSC is a
    counting sort, so it brings the repeats of a word in a post together in linear time.
    """
    ones = np.ones(len(columns), np.int8)
    cells = sparse.csr_matrix((ones, columns, ends), shape=(len(ends) - 1, width)).tocsc()
    first = np.ones(len(columns), bool)
    np.not_equal(cells.indices[1:], cells.indices[:-1], out=first[1:])
    first[cells.indptr[:-1][np.diff(cells.indptr) > 0]] = True
    return cells, first


def merged(batches: Iterable[Counts], most: int | None = None) -> Counts:
    """Add up the counts of successive posts; words stay in the order of their first appearance.

    If more than `most` are distinct, the rarest are dropped and `undercount` rises.
    """
    total = _Sum(most)
    for counts in batches:
        total.add(counts)
    return total.result()


class _Sum:
    """Adds up the counts of successive posts.

    New counts are collected until they are as large as the sum so far, and only then added, so the time is linear. The
    rarest are dropped as in lossy counting (Manku and Motwani 2002, Approximate Frequency Counts over Data Streams).
    """

    def __init__(self, most: int | None = None, kind: pa.DataType | None = None) -> None:
        """Where more than `most` are distinct, the rarest are dropped; `kind` is what words are: large strings."""
        self.most = most
        self.room = _MERGE if most is None else most // 2
        self.total = Counts(pa.array([], kind or pa.large_string()), _NONE, _NONE, 0)
        self.waiting: list[Counts] = []

    def add(self, counts: Counts) -> None:
        """Add the counts of further posts."""
        self.waiting.append(counts)
        if sum(len(each.words) for each in self.waiting) > max(len(self.total.words), self.room):
            self.merge()
            if self.most is not None and len(self.total.words) > self.most:
                self.total = self.total.without_rarest(self.most // 2)

    def result(self) -> Counts:
        """The sum."""
        self.merge()
        return self.total

    def merge(self) -> list[Longs]:
        """Add what is waiting to the sum, and return for each of it where in the sum its words are."""
        every, self.waiting = [self.total, *self.waiting], []
        coded = pa.concat_arrays([each.words.cast(self.total.words.type) for each in every]).dictionary_encode()
        index = coded.indices.to_numpy().astype(np.int64)
        counts, document_counts = np.zeros((2, len(coded.dictionary)), np.int64)
        np.add.at(counts, index, np.concatenate([each.counts for each in every]))
        np.add.at(document_counts, index, np.concatenate([each.document_counts for each in every]))
        documents, undercount = (sum(getattr(each, name) for each in every) for name in ("documents", "undercount"))
        self.total = Counts(coded.dictionary, counts, document_counts, documents, undercount)
        return np.split(index, np.cumsum([len(each.words) for each in every]))[1:-1]


class _Total:
    """Adds up the counts of successive slices of posts: of words, and of pairs as two numbers of words in one.

    A pair of the words with the numbers a and b in the sum is a * 2^32 + b. So no text is made of the pairs of a slice.
    """

    def __init__(self) -> None:
        self.words, self.pairs = _Sum(), _Sum(MOST_PAIRS, pa.int64())
        self.waiting: list[Counts] = []

    def add(self, words: Counts, pairs: Counts) -> None:
        """Add the counts of a slice, whose pairs are numbered by its words."""
        self.words.waiting.append(words)
        self.waiting.append(pairs)
        new = max(sum(len(each.words) for each in waiting) for waiting in (self.words.waiting, self.waiting))
        if new > max(len(self.words.total.words), _MERGE):
            self._merge()

    def _merge(self) -> None:
        slices, self.waiting = self.waiting, []
        for pairs, numbers in zip(slices, self.words.merge(), strict=True):
            first, second = np.divmod(pairs.words.to_numpy(), len(numbers) or 1)
            keys = (numbers[first] << 32) + numbers[second]
            self.pairs.add(replace(pairs, words=pa.array(keys, pa.int64())))

    def result(self) -> list[Counts]:
        """The sum of the words, and that of the pairs."""
        self._merge()
        words, pairs = self.words.total, self.pairs.result()
        keys = pairs.words.to_numpy()
        first, second = (words.words.take(pa.array(half)) for half in (keys >> 32, keys & (2**32 - 1)))
        return [words, replace(pairs, words=pc.binary_join_element_wise(first, second, pa.scalar(" ", first.type)))]
