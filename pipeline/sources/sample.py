"""Generates synthetic posts, to try the pipeline without data: template sentences filled with terms of a tag.

The templates and terms are in sample.toml. An accuracy measured on these posts says nothing about real ones.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import posts
from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.source_policy import SAMPLE

MOST_TAGS = 5
"""The largest number of tags of a post that may be asked for."""

ROWS_PER_CHUNK = 1024
"""Posts generated at once, each chunk from random numbers of its own."""

BYTES_PER_POST = 800
"""About the mean size of a post, from which the size of a whole sample is estimated."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Chosen so that the article's network reaches an accuracy of 0.84 to 0.93 on the test posts of 4,000 rows.
MISLEADING = 0.09
"""Share of posts whose terms are those of a related tag: an error that no amount of posts removes."""

BORROWED = 0.05
"""Share of the terms in any post that come from a related tag."""

VAGUE = 0.2
"""Largest share of a post's terms that are replaced by general words."""

FEWEST, MOST = 9, 13
"""Number of sentences between a post's opening and its closing."""

NUMBERS = 500
"""Numbers in posts are 0 to 499."""

PAD, SLOTS = -1, {"{t}": -2, "{g}": -3, "{i}": -4, "{n}": -5, "{s}": -6}
"""Codes, in arrays of entries, of an unused column and of a place to fill: {s} is the space between two sentences."""


class Sample(NamedTuple):
    """What a sample:// source asks for: posts, the seed of their random numbers, and the most tags that one has."""

    rows: int = 4000
    seed: int = 0
    tags: int = 1


def parse(source: str) -> Sample:
    """Read sample://posts?rows=N&seed=N&tags=N; BadInput where the source has another form."""
    place, _, query = source.removeprefix(SAMPLE).partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    if place != "posts" or len(dict(asked)) < len(asked):
        raise _not_a_sample(source)
    for name, value in asked:
        if name not in Sample._fields or not re.fullmatch("[0-9]{1,15}", value):
            raise _not_a_sample(source)
    wanted = Sample(**{name: int(value) for name, value in asked})
    if wanted.rows < 1 or not 1 <= wanted.tags <= MOST_TAGS:
        raise _not_a_sample(source)
    return wanted


def _not_a_sample(source: str) -> BadInput:
    return BadInput(
        f"{source} does not name synthetic posts: write sample://posts?rows=N&seed=N, where each N is a whole number "
        f"and rows is at least 1; with &tags=N posts have up to N tags, {MOST_TAGS} at most"
    )


def blocks(rows: int, seed: int, tags: int = 1) -> Iterator[pa.RecordBatch]:
    """Generate `rows` synthetic posts as batches of posts.POSTS, each with up to so many tags, as one text.

    The same seed gives the same posts on every machine, and a smaller sample is the beginning of a larger one.
    """
    for number, start in enumerate(range(0, rows, ROWS_PER_CHUNK)):
        yield _chunk(number, seed, tags).slice(0, rows - start)


def _chunk(number: int, seed: int, most: int) -> pa.RecordBatch:
    dice = _Dice(seed, number)
    tags = _tags()
    drawn = dice.below(len(tags), ROWS_PER_CHUNK, most)
    # Of the tags that were drawn a post has the first few; one that was drawn twice counts once.
    count = 1 + dice.below(most, ROWS_PER_CHUNK) if most > 1 else np.ones(ROWS_PER_CHUNK, np.int64)
    entries = _filled(_sentences(dice), drawn, count, dice)
    used = entries != PAD
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    words = _lexicon().entries.take(pa.array(entries[used]))
    post = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), "")
    rows = np.arange(ROWS_PER_CHUNK) + number * ROWS_PER_CHUNK + 1
    tag = pa.array(tags).take(pa.array(drawn[:, 0]))
    if most > 1:
        several = [sorted({tags[at] for at in row[:of]}) for row, of in zip(drawn.tolist(), count, strict=True)]
        tag = pa.array(map(SEPARATOR.join, several), pa.string())
    return pa.record_batch([post, tag, rows], schema=posts.POSTS)


class _Dice:
    """The random numbers of one chunk, made from PCG64's raw output, which NumPy promises never to change."""

    def __init__(self, seed: int, chunk: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, chunk]))

    def uniform(self, *shape: int) -> Floats:
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def below(self, limit: int | Ints, *shape: int) -> Ints:
        return (self.uniform(*shape) * limit).astype(np.int64)


def _sentences(dice: _Dice) -> Ints:
    """Draw each post's opening, FEWEST to MOST sentences and closing: entries, slots and PAD [rows, columns]."""
    lexicon = _lexicon()
    body = np.argsort(dice.uniform(ROWS_PER_CHUNK, len(lexicon.bodies) - 1), kind="stable")[:, :MOST]
    count = FEWEST + dice.below(MOST - FEWEST + 1, ROWS_PER_CHUNK, 1)
    body[np.arange(MOST) >= count] = -1  # the last of the bodies is blank
    opening = lexicon.openings[dice.below(len(lexicon.openings) - 1, ROWS_PER_CHUNK)]
    closing = lexicon.closings[dice.below(len(lexicon.closings) - 1, ROWS_PER_CHUNK)]
    return np.hstack([opening, lexicon.bodies[body].reshape(ROWS_PER_CHUNK, -1), closing])


def _filled(entries: Ints, tags: Ints, count: Ints, dice: _Dice) -> Ints:
    """Fill each slot with a drawn entry, those of terms mostly with a term of a topic of the post.

    The topics are mostly the first `count` of its `tags`, [rows] and [rows, tags].
    """
    lexicon = _lexicon()
    tag = tags[:, 0]
    topics = tags.copy()
    topics[:, 0] = np.where(dice.uniform(len(tag)) < MISLEADING, _related(tag, dice), tag)
    vague = dice.uniform(len(tag)) * VAGUE
    row, column = np.nonzero(entries == SLOTS["{t}"])
    own = topics[row, dice.below(count[row], len(row))] if tags.shape[1] > 1 else topics[row, 0]
    about = np.where(dice.uniform(len(row)) < BORROWED, _related(own, dice), own)
    often = dice.uniform(len(row)) ** 2  # the first terms of a tag are the most frequent
    term = lexicon.terms[about, (often * lexicon.terms_of[about]).astype(np.int64)]
    entries[row, column] = np.where(dice.uniform(len(row)) < vague[row], SLOTS["{g}"], term)
    for slot, (first, number) in lexicon.ranges.items():
        where = entries == slot
        entries[where] = first + dice.below(number, int(where.sum()))
    return entries


def _related(tag: Ints, dice: _Dice) -> Ints:
    lexicon = _lexicon()
    return lexicon.related[tag, dice.below(lexicon.related_to[tag], len(tag))]


@cache
def words() -> dict[str, Any]:
    """The templates, terms and general words of sample.toml."""
    return tomllib.loads(files(__package__).joinpath("sample.toml").read_text(encoding="utf-8"))


def _tags() -> list[str]:
    return list(words()["terms"])


@dataclass(frozen=True)
class _Lexicon:
    """The words of sample.toml as arrays of entry numbers, so that posts are drawn by NumPy."""

    openings: Ints  # [templates, columns] of entries, slots and PAD; the last template of each is blank
    bodies: Ints
    closings: Ints
    terms: Ints  # [tags, columns] of entries, of which the first terms_of[tag] count
    terms_of: Ints
    related: Ints  # [tags, columns] of tags, of which the first related_to[tag] count
    related_to: Ints
    ranges: dict[int, tuple[int, int]]  # slot: its first entry, and how many there are
    entries: pa.StringArray  # the text of each entry


@cache
def _lexicon() -> _Lexicon:
    said, tags = words(), _tags()
    entries: dict[str, int] = {}
    terms = [[_entry(term, entries) for term in _terms(tag)] for tag in tags]
    related = [[tags.index(other) for other in said["related"][tag]] for tag in tags]
    ranges = {
        SLOTS["{g}"]: _range(said["general"], entries),
        SLOTS["{i}"]: _range([verb + noun for verb in said["verbs"] for noun in said["nouns"]], entries),
        SLOTS["{n}"]: _range([str(number) for number in range(NUMBERS)], entries),
        SLOTS["{s}"]: _range([" ", "\n"], entries),
    }
    return _Lexicon(
        openings=_templates(said["openings"], "{s}", entries),
        bodies=_templates(said["bodies"], "{s}", entries),
        closings=_templates(said["closings"], "", entries),
        terms=_padded(terms),
        terms_of=np.array([len(row) for row in terms]),
        related=_padded(related),
        related_to=np.array([len(row) for row in related]),
        ranges=ranges,
        entries=pa.array(list(entries)),  # last: all of the above add to them
    )


def _terms(tag: str) -> list[str]:
    """The tag's own terms, then those that its group of tags shares."""
    shared = [term for group in words()["shared"] if tag in group["tags"] for term in group["terms"]]
    return [*words()["terms"][tag], *shared]


def _entry(text: str, entries: dict[str, int]) -> int:
    return entries.setdefault(text, len(entries))


def _range(texts: list[str], entries: dict[str, int]) -> tuple[int, int]:
    """Add the texts as consecutive entries, and return the first one's number and how many there are."""
    first = len(entries)
    for text in texts:
        entries[text] = len(entries)
    return first, len(texts)


def _templates(sentences: list[str], end: str, entries: dict[str, int]) -> Ints:
    """The sentences, each with the end, as rows of entries and slots; the last row is blank."""
    pieces = [re.split(r"(\{[tgins]\})", sentence + end) for sentence in sentences]
    coded = [[SLOTS.get(piece) or _entry(piece, entries) for piece in row if piece] for row in pieces]
    return _padded([*coded, []])


def _padded(rows: list[list[int]]) -> Ints:
    width = max(map(len, rows))
    return np.array([row + [PAD] * (width - len(row)) for row in rows])
