r"""Split text into words on Arrow arrays, the same words as Keras's Tokenizer, or also the signs between them.

The rule `keras`, which is defined here only: a text is lower-cased, each of Keras's filter characters (`FILTERS`)
becomes a space, and the text is split at spaces (U+0020 only, so ``\r`` or a no-break space stays inside a word). By
the rule `signs` each filter character except tab and line feed is a word by itself, so ``c#`` is c and #. Lower-casing
is Python 3.11's `str.lower` of each code point by itself. Keras does the same except for the capital sigma, which
`str.lower` turns into U+03C2 at the end of a word and into U+03C3 elsewhere; here it is always U+03C3, because a table
of code points (`code_points`, for the serving graph) does not know where a word ends. Arrow's `utf8_lower` and
TensorFlow's `tf.strings.lower` follow other versions of Unicode and differ from Python's on some fifty code points.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
SIGNS = FILTERS.strip()
"""The words that only the rule `signs` knows, of one character each."""

WordRule = Literal["keras", "signs"]
EXPANDS = {"\u0130": "i\u0307"}  # the one code point that is two in lower case

SLICE = 1 << 20
"""Bytes of text processed at once: the arrays made of them stay in a core's cache."""

_CASED = 0x20000  # no code point from here on has a lower case


def _ascii(removed: str) -> pa.Array:
    """A table of 256 bytes that lower-cases ASCII and replaces the removed characters by spaces."""
    upper, lower = (bytes(range(ord(first), ord(first) + 26)) for first in "Aa")
    table = bytes.maketrans(removed.encode() + upper, b" " * len(removed) + lower)
    return _of_buffer(pa.uint8(), len(table), table)


def of_numbers(values: NDArray) -> pa.Array:
    """Wrap numbers as an Arrow array.

    This, of_texts and numbers_of do what pa.array and to_numpy do after they have imported pandas, if that is there:
    four fifths of a second, in a program that asks a model one post.
    """
    return _of_buffer(pa.from_numpy_dtype(values.dtype), len(values), values)


def numbers_of(array: pa.Array) -> NDArray:
    """The integers, or truth values, of an Arrow array without nulls; see of_numbers."""
    kind = np.dtype(str(array.type))
    if not len(array):
        return np.empty(0, kind)  # Arrow may keep no buffer at all
    buffer = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=array.offset + len(array), bitorder="little")
        return bits[array.offset :].view(bool)
    return np.frombuffer(buffer, kind)[array.offset : array.offset + len(array)]


def of_texts(texts: Sequence[bytes]) -> pa.Array:
    """Make a string array of texts in UTF-8, less than 2 GiB of them; see of_numbers."""
    ends = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(text) for text in texts], out=ends[1:])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))


def _of_buffer(kind: pa.DataType, length: int, content: object) -> pa.Array:
    """Wrap a buffer as an Arrow array without nulls."""
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(content)])


_ASCII: dict[WordRule, pa.Array] = {"keras": _ascii(FILTERS), "signs": _ascii(FILTERS.removeprefix(SIGNS))}
_TRANSLATION = {rule: numbers_of(table).tobytes() for rule, table in _ASCII.items()}
_WORD_OR_SIGN = re.compile(f"[^ {re.escape(SIGNS)}]+|[{re.escape(SIGNS)}]")
_IS_SIGN = of_numbers(np.isin(np.arange(256), np.frombuffer(SIGNS.encode(), np.uint8)).view(np.uint8))
_SPACE = of_texts([b" "])[0]
_STRING = 1 << 31  # bytes that no longer fit an Arrow string array

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@cache
def code_points(rule: WordRule = "keras") -> Ints:
    """Map each code point below 0x20000 to its lower case, or to a space if the rule removes it: int32 [0x20000].

    Code points without a lower case map to themselves, as do the keys of `EXPANDS`, which callers must replace first.
    """
    lower = [character.lower() for character in map(chr, range(_CASED))]
    table = np.array([ord(to) if len(to) == 1 else code for code, to in enumerate(lower)], np.int32)
    table[[ord(character) for character in FILTERS if rule == "keras" or character not in SIGNS]] = ord(" ")
    table.flags.writeable = False
    return table


@cache
def _resized() -> dict[str, str]:
    """Map code points to their lower case where its length in UTF-8 differs, as for the Kelvin sign and k."""
    table = code_points()
    width = np.digitize(np.arange(_CASED), [0x80, 0x800, 0x10000])
    return {chr(code): chr(table[code]) for code in np.flatnonzero(width != width[table])} | EXPANDS


def words(posts: pa.Array, rule: WordRule = "keras") -> tuple[pa.Array, Longs]:
    """Split a batch of posts into words; return all words in order, and the row (from 0) that each came from.

    The words are a string array, or large_string from 2 GiB on. Posts may be sliced or chunked.
    """
    pieces = [split(piece, rule) for piece in slices(posts, SLICE)]
    found = [each for each, _ in pieces]
    if sum(each.nbytes for each in found) >= _STRING:
        found = [each.cast(pa.large_string()) for each in found]
    lengths = np.concatenate([np.diff(ends) for _, ends in pieces] or [np.empty(0, np.int64)])
    return (
        pa.concat_arrays(found) if found else pa.array([], pa.string()),
        np.repeat(np.arange(len(lengths)), lengths),
    )


def words_of(post: str, rule: WordRule = "keras") -> list[str]:
    """Split one post into words as `words` does, without Arrow, which takes longer to begin than this to end."""
    lowered = post.encode().translate(_TRANSLATION[rule]).decode()
    if not lowered.isascii():
        lowered = lowered.replace("\u03a3", "\u03c3").lower()
    if rule == "signs":
        return _WORD_OR_SIGN.findall(lowered)
    return list(filter(None, lowered.split(" ")))


def slices(posts: pa.Array, size: int) -> Iterator[pa.Array]:
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


def split(posts: pa.Array, rule: WordRule = "keras") -> tuple[pa.Array, Ints]:
    """Split a slice of posts; return words, and ends, int32 [len(posts) + 1]: post i has words[ends[i]:ends[i + 1]]."""
    posts, text = _lowered(posts, rule)
    full = np.zeros(len(text) + 2, bool)  # a space before and one after, so that the first and last word have an edge
    np.not_equal(text, ord(" "), out=full[1:-1])
    starts, stops = _edges(full) if rule == "keras" else _edges_with_signs(full, text)
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(stops - starts, out=offsets[1:])
    kept = np.packbits(full[1:-1], bitorder="little")  # as Arrow keeps its booleans
    letters = numbers_of(of_numbers(text).filter(_of_buffer(pa.bool_(), len(text), kept)))
    ends = np.searchsorted(starts, (_offsets(posts) + np.arange(len(posts) + 1)).astype(np.int32)).astype(np.int32)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(letters)), ends


def _edges(full: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Where words start and stop in a text: int32 [words] each; `full` says of each byte that it is no space."""
    edges = np.flatnonzero(full[1:] != full[:-1]).astype(np.int32)
    return np.ascontiguousarray(edges[0::2]), edges[1::2]


def _edges_with_signs(full: NDArray[np.bool_], text: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """As _edges, with each sign a word by itself."""
    sign = np.zeros(len(full), bool)
    sign[1:-1] = numbers_of(pc.take(_IS_SIGN, of_numbers(text), boundscheck=False)).view(bool)
    edge = sign[1:] | sign[:-1]
    edge |= full[1:] != full[:-1]
    starts, stops = (np.flatnonzero(edge & full[side]) for side in (np.s_[1:], np.s_[:-1]))
    return starts.astype(np.int32), stops.astype(np.int32)


def _lowered(posts: pa.Array, rule: WordRule) -> tuple[pa.Array, NDArray[np.uint8]]:
    """Join the posts with spaces, lower-cased and without what the rule removes; return posts and joined bytes.

    The lower case of a code point does not depend on its neighbours, so all beyond ASCII are lower-cased in one string,
    which then replaces their bytes. The few whose length in UTF-8 would change are replaced in the posts first, which
    are therefore returned as well.
    """
    # As bytes.translate, without Python's lock, so that threads do not wait for each other.
    text = numbers_of(pc.take(_ASCII[rule], _joined(posts), boundscheck=False))
    foreign = text >= 0x80
    characters = text[foreign].tobytes().decode()
    resized = _resized().keys() & set(characters) if characters else set()
    if resized:
        for character in resized:
            posts = pc.replace_substring(posts, character, _resized()[character])
        return _lowered(posts, rule)
    lowered = characters.replace("\u03a3", "\u03c3").lower()
    if lowered != characters:
        text = text.copy()
        text[foreign] = np.frombuffer(lowered.encode(), np.uint8)
    return posts, text


def _joined(posts: pa.Array) -> pa.Array:
    """Join the bytes of all posts with spaces: uint8."""
    whole = pa.ListArray.from_arrays(of_numbers(np.array([0, len(posts)], np.int32)), posts)
    joined = pc.binary_join(whole, _SPACE)[0].as_buffer()
    return _of_buffer(pa.uint8(), joined.size, joined)
