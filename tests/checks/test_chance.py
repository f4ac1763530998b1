"""What posts drift by chance: against formulas, and by posts that have drifted and posts that have not."""

import math
from dataclasses import astuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import chi2

from benchmarks.drift import Learned, drifted
from pipeline.checks import chance
from pipeline.checks.chance import Sample, effective_posts, expected
from pipeline.checks.drift import NO_DRIFT, Corpus, Drift, Shares, between, measure
from pipeline.data import posts
from pipeline.data.vocabulary import count_words
from pipeline.errors import StageOutOfOrder
from pipeline.sources import sample
from tests.conftest import TINY, write_posts


def table(texts: list[str], tags: list[str]) -> pa.Table:
    return pa.table({"post": texts, "tag": tags, "row": range(len(texts))}, schema=posts.POSTS)


@pytest.mark.parametrize("count", [300, 1000, 10_000])
def test_the_divergence_of_tags_is_that_of_the_chi_squared_distribution(count):
    """8 n ln 2 times the divergence in bits of n posts from k tags is about chi-squared with k - 1 degrees (Lin 1991).

    The largest of 200 draws is near its quantile of 0.995.
    """
    texts = table(["a word"] * 1000, ["java", "python", "css", "c#"] * 250)
    vocabulary = count_words([texts.column("post").combine_chunks()], size=10)
    found = Sample.of(texts, vocabulary, several=False).by_chance(count)
    low, high = (chi2.ppf(share, 3) / (8 * count * math.log(2)) for share in (0.98, 0.99999))
    assert low < found.tag_drift < high
    assert (found.word_drift, found.unknown_words, found.length_change) == pytest.approx((0, 0, 1))


@pytest.mark.parametrize("rule", ["keras", "signs"])
def test_a_sample_has_the_shares_that_a_corpus_has(rule):
    texts, tags = zip(*[(f"{text} c# {text}, (unknown)", f"{tag}|{text[:4]}") for text, tag in TINY], strict=True)
    every = table(list(texts), list(tags))
    vocabulary = count_words([every.column("post").combine_chunks()], size=8, word_rule=rule)
    shares = Sample.of(every, vocabulary, several=True)._shares(np.ones(len(every), np.int64))
    single = vocabulary.counts[vocabulary.single_words]
    assert shares.words == pytest.approx([*(single / vocabulary.occurrences), vocabulary.unknown])
    assert sorted(shares.tags * 16) == pytest.approx(sorted(pd.Series("|".join(tags).split("|")).value_counts()))
    assert shares.median_characters == np.median([len(text) for text in texts])


def test_new_posts_and_learned_ones_both_vary():
    assert (effective_posts(100, 100), effective_posts(30, 10**6), effective_posts(1, 1)) == (50, 30, 1)


def test_what_is_within_chance_does_not_count():
    live = Corpus({"java": 50, "python": 50}, 100, {"the": 60, "a": 20}, 100)
    now = Corpus({"java": 30, "python": 10}, 200, {"the": 30, "a": 20}, 100)
    plain = measure(now, live)
    assert measure(now, live, plain) == NO_DRIFT
    assert measure(now, live, Drift(1, 1, 1, 10)) == NO_DRIFT
    half = Drift(plain.tag_drift / 2, plain.word_drift / 2, plain.unknown_words / 2, 1.25)
    assert astuple(measure(now, live, half)) == pytest.approx(
        (plain.tag_drift / 2, plain.word_drift / 2, plain.unknown_words / 2, 1.6), abs=1e-6
    )


def test_a_fall_of_unknown_words_stays_a_fall():
    live = Corpus({"java": 1}, 100, {"the": 60}, 100)
    assert measure(Corpus({"java": 1}, 100, {"the": 90}, 100), live, Drift(0, 0, 0.1, 1)).unknown_words == -0.3


def test_posts_without_a_word_have_no_divergence():
    empty, some = Shares(np.ones(1), np.zeros(2), 3), Shares(np.ones(1), np.array([0.5, 0.5]), 3)
    assert between(empty, some).word_drift == 0


def test_for_very_many_posts_nothing_is_drawn(tmp_path, monkeypatch):
    folder = write_posts(tmp_path, TINY)
    vocabulary = count_words([pa.array([text for text, _ in TINY])], size=8)
    assert expected(3, folder, vocabulary, several=False).tag_drift > 0.1
    monkeypatch.setattr(chance, "MANY_POSTS", 2)
    assert expected(3, folder, vocabulary, several=False) == NO_DRIFT
    with pytest.raises(StageOutOfOrder):
        expected(1, tmp_path / "none", vocabulary, several=False)


def real(path) -> pa.Table:
    data = pd.read_csv(path)
    return table(data["post"].tolist(), data["tags"].tolist())


@pytest.fixture(scope="module", params=["synthetic", "real"])
def split(request) -> tuple[Learned, pa.Table]:
    """A model's posts, and others of the same kind."""
    every = pa.Table.from_batches(sample.blocks(6000, 3))
    if request.param == "real":
        every = real(request.getfixturevalue("real_posts"))
    mixed = every.take(pa.array(np.random.default_rng(7).permutation(len(every))[:6000]))
    return Learned(mixed.slice(0, 3000), 1000), mixed.slice(3000)


@pytest.mark.parametrize("count", [1, 10, 30, 100, 1000])
def test_posts_of_the_same_kind_are_hardly_ever_warned_of(split, count):
    learned, others = split
    random = np.random.default_rng(count)
    draws = [others.take(pa.array(random.choice(len(others), count, replace=False))) for _ in range(20)]
    warned = [learned.warnings(some, learned.chance(count)) for some in draws]
    assert sum(map(bool, warned)) <= 2
    if count <= 30:
        assert all(learned.warnings(some, NO_DRIFT) for some in draws)


@pytest.mark.parametrize("count", [100, 1000])
def test_posts_that_drifted_are_always_warned_of(split, count):
    learned, others = split
    cut, one_tag = drifted(others).values()
    assert {"length_change", "word_drift"} <= learned.warnings(cut.slice(0, count), learned.chance(count))
    one_tag = one_tag.slice(0, count)
    assert "tag_drift" in learned.warnings(one_tag, learned.chance(len(one_tag)))
