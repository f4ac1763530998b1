"""Pairs of words: what is counted, and which of words and pairs a vocabulary takes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import vocabulary as module
from pipeline.data import words
from pipeline.data.vocabulary import Counts, Vocabulary, count, count_words, most_frequent

POSTS = ["how to sort a list", "how to", "", "sort", "how to sort how to sort", "c#, c++!"]

texts = st.lists(st.lists(st.sampled_from("abcde"), max_size=7).map(" ".join), max_size=12)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make even tiny batches take several slices, and their counts several merges."""
    monkeypatch.setattr(words, "SLICE", 8)
    monkeypatch.setattr(module, "_MERGE", 2)


def grams(post: str) -> list[str]:
    """The words of a post, then its pairs."""
    split = post.replace("#,", "").replace("++!", "").split()
    return [*split, *map(" ".join, pairwise(split))]


def as_counter(vocabulary: Vocabulary) -> dict[str, tuple[int, int]]:
    numbers = zip(vocabulary.counts.tolist(), vocabulary.document_counts.tolist(), strict=True)
    return dict(zip(vocabulary.words.to_pylist(), numbers, strict=True))


def expected(posts: list[str]) -> dict[str, tuple[int, int]]:
    counts = Counter(gram for post in posts for gram in grams(post))
    documents = Counter(gram for post in posts for gram in set(grams(post)))
    return {gram: (counts[gram], documents[gram]) for gram in counts}


def test_words_and_pairs_of_some_posts() -> None:
    vocabulary = count_words([pa.array(POSTS)], size=100, ngrams=2)
    assert as_counter(vocabulary) == expected(POSTS)
    assert vocabulary.words.to_pylist()[:5] == ["how", "to", "sort", "how to", "to sort"]
    assert vocabulary.documents == len(POSTS)
    assert vocabulary.unknown == 0


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posts=texts, batch=st.integers(1, 5), threads=st.sampled_from([1, 2]))
def test_pairs_do_not_depend_on_batches_slices_and_threads(
    small_slices: None, posts: list[str], batch: int, threads: int
) -> None:
    batches = [pa.array(posts[start : start + batch], pa.string()) for start in range(0, len(posts), batch)]
    vocabulary = count_words(batches, size=1000, ngrams=2, threads=threads)
    every = expected(posts)
    assert as_counter(vocabulary) == every
    singles = Counter(word for post in posts for word in post.split())
    pairs = Counter(gram for post in posts for gram in grams(post) if " " in gram)
    order = sorted([*singles, *pairs], key=lambda gram: -every[gram][0])  # stable: words first, then pairs, as seen
    assert vocabulary.words.to_pylist() == order


def test_unknown_words_are_counted_without_pairs() -> None:
    vocabulary = count_words([pa.array(["a b", "a b", "c"])], size=4, ngrams=2)
    assert vocabulary.words.to_pylist() == ["a", "b", "a b"]
    assert vocabulary.unknown == pytest.approx(1 / 5)


def test_signs_are_entries_but_neither_words_nor_unknown_words() -> None:
    vocabulary = count_words([pa.array(["c# c#", "c#, d"])], size=5, ngrams=2, word_rule="signs")
    assert vocabulary.words.to_pylist() == ["c", "#", "c #", ","]
    assert vocabulary.single_words.tolist() == [True, False, False, False]
    assert vocabulary.occurrences == 4
    assert vocabulary.unknown == pytest.approx(1 / 4)  # d


def test_what_few_posts_have_is_left_out() -> None:
    counts = count([pa.array(["x x x x", "a b", "a b", "a"])], ngrams=2)
    assert most_frequent(counts, 100, min_documents=2).words.to_pylist() == ["a", "b", "a b"]
    assert most_frequent(counts, 100, min_documents=3).words.to_pylist() == ["a"]


def test_the_rarest_pairs_are_dropped_where_there_are_too_many(
    small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No count is too high, none is lower than it should be by more than it says, and no other pair was as frequent."""
    monkeypatch.setattr(module, "MOST_PAIRS", 40)
    draw = np.random.default_rng(0)
    posts = [" ".join(f"w{n}" for n in draw.zipf(1.4, 20) % 60) for _ in range(300)]
    every = expected(posts)
    singles, pairs = count([pa.array(posts)], ngrams=2)
    assert pairs.undercount > 0
    assert singles.undercount == 0
    found = dict(zip(pairs.words.to_pylist(), pairs.counts.tolist(), strict=True))
    frequent = {gram for gram, (number, _) in every.items() if " " in gram and number > pairs.undercount}
    assert frequent
    assert frequent <= found.keys()
    assert all(every[gram][0] - pairs.undercount <= number <= every[gram][0] for gram, number in found.items())


def test_counts_come_back_as_they_were_saved(tmp_path) -> None:
    saved = Counts(pa.array(["a b"], pa.large_string()), np.array([3]), np.array([2]), documents=7, undercount=5)
    saved.save(tmp_path / "pairs.parquet")
    loaded = Counts.load(tmp_path / "pairs.parquet")
    assert (loaded.words.to_pylist(), loaded.counts.tolist(), loaded.document_counts.tolist()) == (["a b"], [3], [2])
    assert (loaded.documents, loaded.undercount) == (7, 5)
