"""One post by the table of words and many by Arrow: the same answers, whatever the posts hold and the model is."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.text_rule import TextRule
from pipeline.data.vectors import MODES
from pipeline.data.vocabulary import count_words
from pipeline.data.weights import Weights
from pipeline.published.arrays import FEW, Arrays
from pipeline.published.model import PublishedModel
from tests.data.test_word_table import ODD, texts

TAGS, UNITS = 5, 8


def a_model(posts, *, size=60, mode="log_tfidf", ngrams=1, rule="keras", several=False, units=UNITS):
    """A model with the words of the posts and weights that are drawn, and give no two tags the same probability."""
    vocabulary = count_words([pa.array(posts, pa.string())], size=size, ngrams=ngrams, word_rule=rule)
    drawn = np.random.default_rng(7)
    shapes = ((size, units), (units,), (units, TAGS), (TAGS,))
    weights = Weights(*(drawn.normal(0, 0.3, shape).astype(np.float32) for shape in shapes))
    text_rule = TextRule(vocabulary, size, mode)
    limits = np.full(TAGS, 0.5, np.float32) if several else None
    labels = [f"tag{number}" for number in range(TAGS)]
    return PublishedModel(1, labels, limits, text_rule, Arrays(text_rule, weights, several=several))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(texts, min_size=1, max_size=6),
    st.sampled_from(MODES),
    st.sampled_from(["keras", "signs"]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_the_paths_answer_equally(posts, mode, rule, ngrams, several):
    model = a_model([*ODD, *posts[:2]], mode=mode, ngrams=ngrams, rule=rule, several=several)
    few = model.answer(posts)
    many = model.answer(posts * (FEW + 1))[: len(posts)]
    [(_, batch)] = model.answer_batches([pa.record_batch({"post": pa.array(posts, pa.string())})])
    for other in (many, batch):
        np.testing.assert_allclose(few.probabilities, other.probabilities, atol=1e-6)
    first, second = -np.sort(-few.probabilities, axis=1)[:, :2].T
    clear = first - second > 1e-5
    if several:
        clear &= (np.abs(few.probabilities - 0.5) > 1e-5).all(axis=1)
    for place in np.flatnonzero(clear):
        given_by_each = {(other.tags[place], other.given[place]) for other in (few, many, batch)}
        assert len(given_by_each) == 1
    assert all(("|" in each) <= several for each in few.given)
