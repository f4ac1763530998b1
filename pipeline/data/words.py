r"""Convert text to word counts and vectors on Arrow arrays, with the same words as Keras's Tokenizer by default.

The rule, which is defined here only: a text is lower-cased, each of Keras's filter characters (`FILTERS`) becomes a
space, and the text is split at spaces (U+0020 only, so ``\r`` or a no-break space stays inside a word). Lower-casing is
Python 3.11's `str.lower` of each code point by itself. Keras does the same except for the capital sigma, which
`str.lower` turns into U+03C2 at the end of a word and into U+03C3 elsewhere; here it is always U+03C3, because a table
of code points (`code_points`, for the serving graph) does not know where a word ends. Arrow's `utf8_lower` and
TensorFlow's `tf.strings.lower` follow other versions of Unicode and differ from Python's on some fifty code points.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
EXPANDS = {"\u0130": "i\u0307"}  # the one code point that is two in lower case
VOCABULARY_FILE = "vocabulary.txt"
COUNTS_FILE = "counts.parquet"
MODES = ("binary", "count", "freq", "tfidf")

THREADS = max(2, os.cpu_count() or 1)

_CASED = 0x20000  # no code point from here on has a lower case
_ASCII = pa.array(
    np.frombuffer(
        bytes.maketrans(
            FILTERS.encode() + bytes(range(ord("A"), ord("Z") + 1)),
            b" " * len(FILTERS) + bytes(range(ord("a"), ord("z") + 1)),
        ),
        np.uint8,
    )
)
_SLICE = 1 << 20  # bytes of text processed at once: the arrays made of them stay in a core's cache
_MERGE = 1 << 19  # words collected at least before they are merged
_STRING = 1 << 31  # bytes that no longer fit an Arrow string array

Item = TypeVar("Item")
Result = TypeVar("Result")
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@cache
def code_points() -> Ints:
    """Map each code point below 0x20000 to its lower case, and each filter character to a space: int32 [0x20000].

    Code points without a lower case map to themselves, as do the keys of `EXPANDS`, which callers must replace first.
    """
    lower = [character.lower() for character in map(chr, range(_CASED))]
    table = np.array([ord(to) if len(to) == 1 else code for code, to in enumerate(lower)], np.int32)
    table[[ord(character) for character in FILTERS]] = ord(" ")
    table.flags.writeable = False
    return table


@cache
def _resized() -> dict[str, str]:
    """Map code points to their lower case where its length in UTF-8 differs, as for the Kelvin sign and k."""
    table = code_points()
    width = np.digitize(np.arange(_CASED), [0x80, 0x800, 0x10000])
    return {chr(code): chr(table[code]) for code in np.flatnonzero(width != width[table])} | EXPANDS


def words(posts: pa.Array) -> tuple[pa.Array, Longs]:
    """Split a batch of posts into words; return all words in order, and the row (from 0) that each came from.

    The words are a string array, or large_string from 2 GiB on. Posts may be sliced or chunked.
    """
    split = [_split(piece) for piece in _slices(posts, _SLICE)]
    found = [each for each, _ in split]
    if sum(each.nbytes for each in found) >= _STRING:
        found = [each.cast(pa.large_string()) for each in found]
    lengths = np.concatenate([np.diff(ends) for _, ends in split] or [np.empty(0, np.int64)])
    return (
        pa.concat_arrays(found) if found else pa.array([], pa.string()),
        np.repeat(np.arange(len(lengths)), lengths),
    )


def _slices(posts: pa.Array, size: int) -> Iterator[pa.Array]:
    """Yield the posts as successive string arrays of about `size` bytes of text; raise ValueError for a null."""
    for chunk in posts.chunks if isinstance(posts, pa.ChunkedArray) else [posts]:
        if chunk.null_count:
            raise ValueError(f"{chunk.null_count} of {len(chunk)} posts are null; drop them or make them empty first")
        if not (pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type)):
            chunk = chunk.cast(pa.large_string())
        offsets = _offsets(chunk)
        cuts = np.searchsorted(offsets, np.linspace(0, offsets[-1], 1 + -(-offsets[-1] // size))[1:-1])
        bounds = np.unique(np.concatenate([[0], cuts, [len(chunk)]])).tolist()
        for start, end in pairwise(bounds):
            yield chunk[start:end].cast(pa.string())


def _offsets(posts: pa.Array) -> Longs:
    """The byte offset at which each post begins, from 0, and the total: int64 [len(posts) + 1]."""
    if not len(posts):
        return np.zeros(1, np.int64)  # Arrow may keep no buffer at all
    kind = np.int64 if pa.types.is_large_string(posts.type) else np.int32
    offsets = np.frombuffer(posts.buffers()[1], kind)[posts.offset : posts.offset + len(posts) + 1].astype(np.int64)
    return np.subtract(offsets, offsets[0])


def _split(posts: pa.Array) -> tuple[pa.Array, Ints]:
    """Split a slice of posts; return words, and ends, int32 [len(posts) + 1]: post i has words[ends[i]:ends[i + 1]]."""
    posts, text = _lowered(posts)
    space = np.ones(len(text) + 2, bool)  # one before and one after, so that the first and the last word have an edge
    np.equal(text, ord(" "), out=space[1:-1])
    edges = np.flatnonzero(space[1:] != space[:-1]).astype(np.int32)
    starts = np.ascontiguousarray(edges[0::2])
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(edges[1::2] - starts, out=offsets[1:])
    kept = np.packbits(~space[1:-1], bitorder="little")  # as Arrow keeps its booleans
    letters = pa.array(text).filter(_of_buffer(pa.bool_(), len(text), kept)).to_numpy()
    ends = np.searchsorted(starts, (_offsets(posts) + np.arange(len(posts) + 1)).astype(np.int32)).astype(np.int32)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(letters)), ends


def _lowered(posts: pa.Array) -> tuple[pa.Array, NDArray[np.uint8]]:
    """Join the posts with spaces, lower-cased and without filter characters; return the posts and the joined bytes.

    The lower case of a code point does not depend on its neighbours, so all beyond ASCII are lower-cased in one string,
    which then replaces their bytes. The few whose length in UTF-8 would change are replaced in the posts first, which
    are therefore returned as well.
    """
    # As bytes.translate, without Python's lock, so that threads do not wait for each other.
    text = pc.take(_ASCII, _joined(posts), boundscheck=False).to_numpy()
    foreign = text >= 0x80
    characters = text[foreign].tobytes().decode()
    resized = _resized().keys() & set(characters) if characters else set()
    if resized:
        for character in resized:
            posts = pc.replace_substring(posts, character, _resized()[character])
        return _lowered(posts)
    lowered = characters.replace("\u03a3", "\u03c3").lower()
    if lowered != characters:
        text = text.copy()
        text[foreign] = np.frombuffer(lowered.encode(), np.uint8)
    return posts, text


def _joined(posts: pa.Array) -> pa.Array:
    """Join the bytes of all posts with spaces: uint8."""
    whole = pa.ListArray.from_arrays(pa.array([0, len(posts)], pa.int32()), posts)
    joined = pc.binary_join(whole, " ")[0].as_buffer()
    return _of_buffer(pa.uint8(), joined.size, joined)


def _of_buffer(kind: pa.DataType, length: int, content: object) -> pa.Array:
    """Wrap a buffer as an Arrow array without nulls."""
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(content)])


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words that the network knows: the most frequent ones of the train posts, in descending order.

    The index of words[i] is i + 1; index 0 is never used, as in Keras.
    """

    words: pa.Array  # string
    counts: Longs  # [len(words)]: occurrences
    document_counts: Longs  # [len(words)]: posts with the word
    documents: int  # posts counted
    occurrences: int  # of all words counted, including those too rare for the vocabulary

    @property
    def unknown(self) -> float:
        """The share of all word occurrences that are not in the vocabulary."""
        return 1 - int(self.counts.sum()) / max(self.occurrences, 1)

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
        totals = {"documents": str(self.documents), "occurrences": str(self.occurrences)}
        pq.write_table(table.replace_schema_metadata(totals), folder / COUNTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read what `save` wrote."""
        table = pq.read_table(folder / COUNTS_FILE)
        return cls(
            words=table["word"].combine_chunks(),
            counts=table["count"].to_numpy(),
            document_counts=table["document_count"].to_numpy(),
            documents=int(table.schema.metadata[b"documents"]),
            occurrences=int(table.schema.metadata[b"occurrences"]),
        )


@dataclass(frozen=True)
class Counts:
    """The distinct words in order of first appearance, with how often each occurs and in how many posts."""

    words: pa.Array
    counts: Longs
    document_counts: Longs
    documents: int

    def save(self, path: Path) -> None:
        """Write the counts as one Parquet file."""
        columns = {"word": self.words, "count": self.counts, "document_count": self.document_counts}
        pq.write_table(pa.table(columns).replace_schema_metadata({"documents": str(self.documents)}), path)

    @classmethod
    def load(cls, path: Path) -> "Counts":
        """Read what `save` wrote."""
        table = pq.read_table(path)
        counts, document_counts = (table[name].to_numpy() for name in ("count", "document_count"))
        documents = int(table.schema.metadata[b"documents"])
        return cls(table["word"].combine_chunks(), counts, document_counts, documents)

    def most_frequent(self, size: int) -> Vocabulary:
        """The vocabulary of the `size - 1` most frequent words, as Keras's num_words; of ties the first seen."""
        most = np.argsort(-self.counts, kind="stable")[: max(size - 1, 0)]
        return Vocabulary(
            words=self.words.take(pa.array(most)).cast(pa.string()),
            counts=self.counts[most],
            document_counts=self.document_counts[most],
            documents=self.documents,
            occurrences=int(self.counts.sum()),
        )


def count_words(batches: Iterable[pa.Array], *, size: int, threads: int = THREADS) -> Vocabulary:
    """Count the words of all batches and return the vocabulary of the `size - 1` most frequent; see most_frequent."""
    return count(batches, threads=threads).most_frequent(size)


def count(batches: Iterable[pa.Array], *, threads: int = THREADS) -> Counts:
    """Count the words of all batches. Memory grows with the number of distinct words, not of posts."""
    slices = (piece for batch in batches for piece in _slices(batch, _SLICE))
    return merged(_in_order(_count, slices, threads))


def _count(posts: pa.Array) -> Counts:
    """Count the words of one slice of posts."""
    found, ends = _split(posts)
    encoded = found.dictionary_encode()
    cells, first = _by_column(encoded.indices.to_numpy(), ends, len(encoded.dictionary))
    document_counts = np.add.reduceat(first, cells.indptr[:-1], dtype=np.int64)
    return Counts(encoded.dictionary, np.diff(cells.indptr).astype(np.int64), document_counts, len(posts))


def _by_column(columns: Ints, ends: Ints, width: int) -> tuple[sparse.csc_matrix, NDArray[np.bool_]]:
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


def merged(batches: Iterable[Counts]) -> Counts:
    """Add up the counts of successive posts; words stay in the order of their first appearance.

    New counts are collected until they are as large as the sum so far, and only then added, so the time is linear.
    """
    none = np.empty(0, np.int64)
    total = Counts(pa.array([], pa.large_string()), none, none, 0)
    waiting: list[Counts] = []
    for counts in batches:
        waiting.append(counts)
        if sum(len(each.words) for each in waiting) > max(len(total.words), _MERGE):
            total, waiting = _sum([total, *waiting]), []
    return _sum([total, *waiting])


def _sum(batches: list[Counts]) -> Counts:
    every = pa.concat_arrays([each.words.cast(pa.large_string()) for each in batches]).dictionary_encode()
    index = every.indices.to_numpy()
    counts, document_counts = np.zeros((2, len(every.dictionary)), np.int64)
    np.add.at(counts, index, np.concatenate([each.counts for each in batches]))
    np.add.at(document_counts, index, np.concatenate([each.document_counts for each in batches]))
    return Counts(every.dictionary, counts, document_counts, sum(each.documents for each in batches))


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Map `work` over the items on threads, in order, with at most two items per thread read ahead."""
    if threads == 1:
        yield from map(work, items)
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) == 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def idf(vocabulary: Vocabulary, size: int) -> NDArray[np.float64]:
    """Keras's inverse document frequency, ln(1 + documents / (1 + document_count)): float64 [size].

    It is 0 for index 0 and for indices beyond the vocabulary.
    """
    known = vocabulary.document_counts[: max(size - 1, 0)]
    weights = np.zeros(size)
    weights[1 : len(known) + 1] = np.log(1 + vocabulary.documents / (1 + known))
    return weights


def vectorize(posts: pa.Array, vocabulary: Vocabulary, *, size: int, mode: str) -> pa.RecordBatch:
    """Convert posts to sparse vectors, the non-zero cells of Keras's texts_to_matrix(mode).

    Each row has `indices` (int32, ascending) and `values` (float32, computed in float64). With c the count of a word in
    a post, a value is 1 (binary), c (count), c / the post's words within the vocabulary (freq) or (1 + ln c) * idf
    (tfidf). Words from index `size` on count as unknown. Raises ValueError for an unknown mode and for null posts.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    # "" is never a word: it takes index 0, so that the others have the index they have in Keras.
    known = pa.concat_arrays([pa.array([""]), vocabulary.words[: max(size - 1, 0)]])
    # Arrow hashes the vocabulary again for each slice, so a large vocabulary wants large slices.
    slices = _slices(posts, max(_SLICE, 64 * len(known)))
    rows = [_rows(piece, known) for piece in slices]
    lengths = np.concatenate([[0], *(np.diff(cells.indptr) for cells in rows)])
    offsets = pa.array(np.cumsum(lengths), pa.int32())
    indices = np.concatenate([np.empty(0, np.int32), *(cells.indices for cells in rows)])
    weights = idf(vocabulary, size)
    values = np.concatenate([np.empty(0, np.float32), *(_values(cells, weights, mode) for cells in rows)])
    return pa.record_batch(
        {
            "indices": pa.ListArray.from_arrays(offsets, pa.array(indices)),
            "values": pa.ListArray.from_arrays(offsets, pa.array(values)),
        }
    )


def _rows(posts: pa.Array, known: pa.Array) -> sparse.csr_matrix:
    """Count each known word in each post: csr [posts, len(known)], indices ascending, none of them 0."""
    found, ends = _split(posts)
    index = pc.fill_null(pc.index_in(found, value_set=known), 0).to_numpy()
    cells, first = _by_column(index, ends, len(known))
    unknown = cells.indptr[1]
    starts = np.append(np.flatnonzero(first[unknown:]), len(index) - unknown).astype(np.int32)
    indptr = np.searchsorted(starts, np.maximum(cells.indptr - unknown, 0)).astype(np.int32)
    counts = np.diff(starts), cells.indices[unknown:][starts[:-1]], indptr
    return sparse.csc_matrix(counts, shape=cells.shape).tocsr()


def _values(counts: sparse.csr_matrix, weights: NDArray[np.float64], mode: str) -> NDArray[np.float32]:
    """The value of each non-zero cell, by vectorize's formulas."""
    if mode == "binary":
        values = np.ones(len(counts.data))
    elif mode == "count":
        values = counts.data
    elif mode == "freq":
        values = counts.data / np.repeat(counts.sum(axis=1).A1, np.diff(counts.indptr))
    else:
        values = (1 + np.log(counts.data)) * weights[counts.indices]
    return values.astype(np.float32)


def vectorize_all(
    batches: Iterable[pa.RecordBatch], vocabulary: Vocabulary, *, size: int, mode: str, threads: int = THREADS
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yield each batch, in order, with the vectors of its column `post`; threads make a few of them ahead."""

    def pair(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        return batch, vectorize(batch.column("post"), vocabulary, size=size, mode=mode)

    return _in_order(pair, batches, threads)
