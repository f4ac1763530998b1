r"""Text to word counts and vectors, on Arrow; the meaning of a word is that of Keras Tokenizer's defaults.

The rule, and the only place where it is written: a text is lower-cased, each of Keras's filter characters (`FILTERS`)
becomes a space, and what stands between spaces (U+0020 only, so ``\r`` or a no-break space stays inside a word) is a
word. Lower-casing is Python 3.11's `str.lower` of each code point by itself. That is Keras too, but for the capital
sigma: at the end of a word Python makes it U+03C2, and here it is U+03C3 as everywhere else, because a table of code
points (`code_points`, for the serving graph) cannot see the end of a word. Arrow's `utf8_lower` and TensorFlow's
`tf.strings.lower` follow other versions of Unicode and differ from Python's on some fifty code points.
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
_SLICE = 1 << 20  # bytes of text taken at once: the arrays made of them stay in a core's cache
_MERGE = 1 << 19  # words set aside at least before they are merged
_STRING = 1 << 31  # bytes that no longer fit an Arrow string array

Item = TypeVar("Item")
Result = TypeVar("Result")
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@cache
def code_points() -> Ints:
    """Lower case of each code point below 0x20000, itself where it has none, 0x20 for a filter: int32 [0x20000].

    The keys of `EXPANDS` map to themselves: who uses the table replaces them beforehand.
    """
    lower = [character.lower() for character in map(chr, range(_CASED))]
    table = np.array([ord(to) if len(to) == 1 else code for code, to in enumerate(lower)], np.int32)
    table[[ord(character) for character in FILTERS]] = ord(" ")
    table.flags.writeable = False
    return table


@cache
def _resized() -> dict[str, str]:
    """Lower case of the few code points for which it has another length in UTF-8, such as the Kelvin sign's k."""
    table = code_points()
    width = np.digitize(np.arange(_CASED), [0x80, 0x800, 0x10000])
    return {chr(code): chr(table[code]) for code in np.flatnonzero(width != width[table])} | EXPANDS


def words(posts: pa.Array) -> tuple[pa.Array, Longs]:
    """All words of a batch in order, and the row (from 0, within the batch) that each came from.

    A string array, or a large_string one where the words hold 2 GiB or more. Posts may be sliced or chunked.
    """
    split = [_split(part) for part in _slices(posts, _SLICE)]
    found = [part for part, _ in split]
    if sum(part.nbytes for part in found) >= _STRING:
        found = [part.cast(pa.large_string()) for part in found]
    lengths = np.concatenate([np.diff(ends) for _, ends in split] or [np.empty(0, np.int64)])
    return (
        pa.concat_arrays(found) if found else pa.array([], pa.string()),
        np.repeat(np.arange(len(lengths)), lengths),
    )


def _slices(posts: pa.Array, size: int) -> Iterator[pa.Array]:
    """Successive string arrays without nulls, of about `size` bytes of text, that make up the posts."""
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
    """Where each post starts in the text of all, in bytes, and where the last ends: int64 [len(posts) + 1]."""
    if not len(posts):
        return np.zeros(1, np.int64)  # Arrow may keep no buffer at all
    kind = np.int64 if pa.types.is_large_string(posts.type) else np.int32
    offsets = np.frombuffer(posts.buffers()[1], kind)[posts.offset : posts.offset + len(posts) + 1].astype(np.int64)
    return np.subtract(offsets, offsets[0])


def _split(posts: pa.Array) -> tuple[pa.Array, Ints]:
    """Words of a slice; post i has words[ends[i]:ends[i + 1]], int32 [len(posts) + 1]."""
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
    """Bytes of the posts, a space between each two, in lower case and without filters; and the posts they line up with.

    The lower case of a code point does not depend on its neighbours, so those beyond ASCII are lower-cased by
    themselves, in one string, and put back over their own bytes. The few that would not fit there are replaced first.
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
    """The bytes of all posts, a space between each two: uint8."""
    whole = pa.ListArray.from_arrays(pa.array([0, len(posts)], pa.int32()), posts)
    joined = pc.binary_join(whole, " ")[0].as_buffer()
    return _of_buffer(pa.uint8(), joined.size, joined)


def _of_buffer(kind: pa.DataType, length: int, content: object) -> pa.Array:
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(content)])


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The most frequent words of the train posts, most frequent first.

    The index of words[i] is i + 1; index 0 is never used, as in Keras.
    """

    words: pa.Array  # string
    counts: Longs  # [len(words)]: occurrences
    document_counts: Longs  # [len(words)]: posts with the word
    documents: int  # posts counted
    occurrences: int  # of all words counted, these and those that are too rare

    @property
    def unknown(self) -> float:
        """The share of the words counted that are not in the vocabulary."""
        return 1 - int(self.counts.sum()) / max(self.occurrences, 1)

    def head(self, size: int) -> "Vocabulary":
        """The `size - 1` most frequent of these words."""
        most = slice(0, max(size - 1, 0))
        return replace(
            self, words=self.words[most], counts=self.counts[most], document_counts=self.document_counts[most]
        )

    def save(self, folder: Path) -> None:
        r"""Write `vocabulary.txt` (a word a line, most frequent first, UTF-8) and `counts.parquet` into the folder.

        In `vocabulary.txt` only ``\n`` ends a line: a word may hold ``\r``, U+2028 and the like.
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
    """Distinct words in order of first appearance, how often each occurs and in how many posts."""

    words: pa.Array
    counts: Longs
    document_counts: Longs
    documents: int

    def save(self, path: Path) -> None:
        """Write them as one Parquet file."""
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
        """The `size - 1` most frequent words, as Keras's num_words; ties go to the word seen first."""
        most = np.argsort(-self.counts, kind="stable")[: max(size - 1, 0)]
        return Vocabulary(
            words=self.words.take(pa.array(most)).cast(pa.string()),
            counts=self.counts[most],
            document_counts=self.document_counts[most],
            documents=self.documents,
            occurrences=int(self.counts.sum()),
        )


def count_words(batches: Iterable[pa.Array], *, size: int, threads: int = THREADS) -> Vocabulary:
    """Vocabulary of the `size - 1` most frequent words, as Keras's num_words; ties go to the word seen first."""
    return count(batches, threads=threads).most_frequent(size)


def count(batches: Iterable[pa.Array], *, threads: int = THREADS) -> Counts:
    """The words of all batches. Memory grows with the number of distinct words, not of posts."""
    slices = (part for batch in batches for part in _slices(batch, _SLICE))
    return merged(_in_order(_count, slices, threads))


def _count(posts: pa.Array) -> Counts:
    found, ends = _split(posts)
    encoded = found.dictionary_encode()
    cells, first = _by_column(encoded.indices.to_numpy(), ends, len(encoded.dictionary))
    document_counts = np.add.reduceat(first, cells.indptr[:-1], dtype=np.int64)
    return Counts(encoded.dictionary, np.diff(cells.indptr).astype(np.int64), document_counts, len(posts))


def _by_column(columns: Ints, ends: Ints, width: int) -> tuple[sparse.csc_matrix, NDArray[np.bool_]]:
    """Cells of the posts column by column, rows ascending, and whether each is the first of its post and column.

    Post i has columns[ends[i]:ends[i + 1]]. Turning rows into columns is a counting sort: it brings the repeats of a
    word in a post together in linear time.
    """
    ones = np.ones(len(columns), np.int8)
    cells = sparse.csr_matrix((ones, columns, ends), shape=(len(ends) - 1, width)).tocsc()
    first = np.ones(len(columns), bool)
    np.not_equal(cells.indices[1:], cells.indices[:-1], out=first[1:])
    first[cells.indptr[:-1][np.diff(cells.indptr) > 0]] = True
    return cells, first


def merged(parts: Iterable[Counts]) -> Counts:
    """Sum of the parts, which follow one another; words in order of first appearance.

    A merge waits until the parts set aside are as large as the sum so far, so the time is linear in their size.
    """
    none = np.empty(0, np.int64)
    total = Counts(pa.array([], pa.large_string()), none, none, 0)
    waiting: list[Counts] = []
    for part in parts:
        waiting.append(part)
        if sum(len(part.words) for part in waiting) > max(len(total.words), _MERGE):
            total, waiting = _sum([total, *waiting]), []
    return _sum([total, *waiting])


def _sum(parts: list[Counts]) -> Counts:
    every = pa.concat_arrays([part.words.cast(pa.large_string()) for part in parts]).dictionary_encode()
    index = every.indices.to_numpy()
    counts, document_counts = np.zeros((2, len(every.dictionary)), np.int64)
    np.add.at(counts, index, np.concatenate([part.counts for part in parts]))
    np.add.at(document_counts, index, np.concatenate([part.document_counts for part in parts]))
    return Counts(every.dictionary, counts, document_counts, sum(part.documents for part in parts))


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results of `work` on threads, in the order of the items; no more than two items a thread are under way."""
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
    """Keras's inverse document frequency, ln(1 + documents / (1 + document_count)): float64 [size], 0 where no word."""
    known = vocabulary.document_counts[: max(size - 1, 0)]
    weights = np.zeros(size)
    weights[1 : len(known) + 1] = np.log(1 + vocabulary.documents / (1 + known))
    return weights


def vectorize(posts: pa.Array, vocabulary: Vocabulary, *, size: int, mode: str) -> pa.RecordBatch:
    """Non-zero cells of Keras's texts_to_matrix(mode) as float32, a row a post: columns indices (ascending) and values.

    With c the count of a word in a post, values are 1 (binary), c (count), c / the post's words within the vocabulary
    (freq) or (1 + ln c) * idf (tfidf), worked out in float64. Words from index `size` on count as unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    # "" is never a word: it takes index 0, so that the others have the index they have in Keras.
    known = pa.concat_arrays([pa.array([""]), vocabulary.words[: max(size - 1, 0)]])
    # Arrow hashes the vocabulary anew for each slice, so a large one takes large slices.
    slices = _slices(posts, max(_SLICE, 64 * len(known)))
    rows = [_rows(part, known) for part in slices]
    lengths = np.concatenate([[0], *(np.diff(part.indptr) for part in rows)])
    offsets = pa.array(np.cumsum(lengths), pa.int32())
    indices = np.concatenate([np.empty(0, np.int32), *(part.indices for part in rows)])
    weights = idf(vocabulary, size)
    values = np.concatenate([np.empty(0, np.float32), *(_values(part, weights, mode) for part in rows)])
    return pa.record_batch(
        {
            "indices": pa.ListArray.from_arrays(offsets, pa.array(indices)),
            "values": pa.ListArray.from_arrays(offsets, pa.array(values)),
        }
    )


def _rows(posts: pa.Array, known: pa.Array) -> sparse.csr_matrix:
    """How often each known word occurs in each post: csr [posts, len(known)], indices ascending, none of them 0."""
    found, ends = _split(posts)
    index = pc.fill_null(pc.index_in(found, value_set=known), 0).to_numpy()
    cells, first = _by_column(index, ends, len(known))
    unknown = cells.indptr[1]
    starts = np.append(np.flatnonzero(first[unknown:]), len(index) - unknown).astype(np.int32)
    indptr = np.searchsorted(starts, np.maximum(cells.indptr - unknown, 0)).astype(np.int32)
    counts = np.diff(starts), cells.indices[unknown:][starts[:-1]], indptr
    return sparse.csc_matrix(counts, shape=cells.shape).tocsr()


def _values(counts: sparse.csr_matrix, weights: NDArray[np.float64], mode: str) -> NDArray[np.float32]:
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
    """Each batch with the vectors of its column `post`, made on threads, in order; bounded look-ahead."""

    def beside(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        return batch, vectorize(batch.column("post"), vocabulary, size=size, mode=mode)

    return _in_order(beside, batches, threads)
