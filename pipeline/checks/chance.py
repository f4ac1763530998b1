"""How far posts drift by chance: what is measured of posts that are drawn from those the live model learned from."""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipeline.checks.drift import NO_DRIFT, Drift, Shares, between
from pipeline.data import posts, words
from pipeline.data.several_tags import SEPARATOR
from pipeline.data.vocabulary import Vocabulary

DRAWS = 200
"""How often posts are drawn; the largest figure of all draws counts as what chance gives."""

POSTS_DRAWN_FROM = 10_000
"""The most of the learned posts that are drawn from."""

MANY_POSTS = 100_000
"""From this number of posts on, what chance gives is far below every limit, and is not computed."""


def expected(new_posts: int, ingested: Path, vocabulary: Vocabulary, *, several: bool) -> Drift:
    """How far that many posts drift by chance from those that a model learned from, in the folder that its ingest left.

    `vocabulary` is the model's. Raises StageOutOfOrder where the folder has no train posts.
    """
    count = effective_posts(new_posts, vocabulary.documents)
    if count >= MANY_POSTS:
        return NO_DRIFT
    learned = posts.spread(ingested, posts.of_side("train"), POSTS_DRAWN_FROM)
    return Sample.of(learned, vocabulary, several=several).by_chance(count)


def effective_posts(new: int, learned: int) -> int:
    """How many posts drawn from the learned ones differ from them as much as `new` others do.

    The variances of both samples add up: 1 / effective = 1 / new + 1 / learned.
    """
    return max(1, round(new * learned / (new + learned)))


@dataclass(frozen=True)
class Sample:
    """Some of the posts that the live model learned from, one by one.

    `tags` [posts, tags] and `words` [posts, words + 1] are counts, the last column that of all words outside the
    vocabulary; `characters` are int [posts].
    """

    tags: sparse.csr_matrix
    words: sparse.csr_matrix
    characters: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, vocabulary: Vocabulary, *, several: bool) -> Self:
        """Count the tags and words of each of these posts, a table of POSTS."""
        single = vocabulary.words.filter(pa.array(vocabulary.single_words))
        occurring, of_post = words.words(table.column("post"), vocabulary.word_rule)
        if vocabulary.word_rule == "signs":
            is_word = pc.invert(pc.is_in(occurring, pa.array(list(words.SIGNS), occurring.type)))
            occurring = occurring.filter(is_word)
            of_post = of_post[is_word.to_numpy(zero_copy_only=False)]
        column = pc.fill_null(pc.index_in(occurring, single.cast(occurring.type)), len(single)).to_numpy()
        texts = table.column("tag").to_pylist()
        tags = [text.split(SEPARATOR) if several else [text] for text in texts]
        numbers = {tag: number for number, tag in enumerate(sorted({tag for of_one in tags for tag in of_one}))}
        tag_of = np.array([numbers[tag] for of_one in tags for tag in of_one])
        post_of = np.repeat(np.arange(len(tags)), list(map(len, tags)))
        return cls(
            tags=_counts(post_of, tag_of, len(tags), len(numbers)),
            words=_counts(of_post, column, len(tags), len(single) + 1),
            characters=pc.utf8_length(table.column("post")).to_numpy(),
        )

    def by_chance(self, count: int) -> Drift:
        """The largest figures in DRAWS draws of `count` posts, with replacement, measured against this sample.

        Whole posts are drawn, a bootstrap (Efron 1979), because a word that occurs in a post is likely to occur there
        again (Church and Gale 1995), so that words drawn one by one would differ too little.
        """
        random = np.random.default_rng(0)
        once = np.ones(len(self.characters), np.int64)
        then = self._shares(once)
        draws = (random.multinomial(count, once / len(once)) for _ in range(DRAWS))
        measured = [astuple(between(self._shares(times), then)) for times in draws]
        return Drift(*np.max(measured, axis=0).tolist())

    def _shares(self, times: np.ndarray) -> Shares:
        """The shares in these posts, each of which counts the given number of times, int [posts]."""
        tag_counts = self.tags.T @ times
        word_counts = self.words.T @ times
        order = np.argsort(self.characters, kind="stable")
        until = np.cumsum(times[order])
        middle = [(until[-1] - 1) // 2, until[-1] // 2]
        middle_characters = self.characters[order[np.searchsorted(until, middle, side="right")]]
        return Shares(
            tags=tag_counts / tag_counts.sum(),
            words=word_counts / max(word_counts.sum(), 1),
            median_characters=float(middle_characters.mean()),
        )


def _counts(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(height, width))
