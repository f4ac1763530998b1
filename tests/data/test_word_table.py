"""One post converted by a table of words has the vector that Arrow gives it, whatever is in it."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.vectors import MODES, as_matrix, vectorize
from pipeline.data.vocabulary import count_words
from pipeline.data.word_table import WordTable
from pipeline.data.words import words, words_of

ODD = [
    "C++ vs. C#: \tWhich <b>is</b> faster?",
    "ΌΔΟΣ Σ ΑΣ Ισ İstanbul I i ı K K ẞ ß Å",
    "line one\r\nline two\rline three\x0b\x0c\x1c\x85\u2028\xa0 end",
    "zero\x00byte Ⰰ Ა ᲀ Ɥ Ꞁ 𐐀 𐕰 🙂 e\u0301 \u0130\u0130",
    "word word word Word , . , a.b a b",
    "",
    "...",
]
alphabet = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from("İΣσςßẞǅK \r\x0b\x00\xa0aAbB#+<.,\t\n🙂Ⰰ")
)
texts = st.one_of(st.text(alphabet, max_size=60), st.lists(st.sampled_from(ODD), max_size=3).map(" ".join))


@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(["keras", "signs"]))
def test_a_post_has_the_words_that_arrow_finds(posts, rule):
    found, rows = words(pa.array(posts, pa.string()), rule)
    by_post = [[] for _ in posts]
    for word, row in zip(found.to_pylist(), rows.tolist(), strict=True):
        by_post[row].append(word)
    assert [words_of(post, rule) for post in posts] == by_post


def test_every_code_point_is_lower_cased_as_arrow_does():
    every = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    for rule in ("keras", "signs"):
        found, _ = words(pa.array([" ".join(every)]), rule)
        assert words_of(" ".join(every), rule) == found.to_pylist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(texts, min_size=1, max_size=8),
    st.sampled_from(MODES),
    st.sampled_from(["keras", "signs"]),
    st.sampled_from([1, 2]),
    st.integers(1, 60),
)
def test_its_vector_is_the_one_of_arrow_to_the_last_bit(posts, mode, rule, ngrams, size):
    vocabulary = count_words([pa.array([*ODD, *posts[:3]], pa.string())], size=50, ngrams=ngrams, word_rule=rule)
    expected = as_matrix(vectorize(pa.array(posts, pa.string()), vocabulary, size=size, mode=mode), size)
    table = WordTable(vocabulary, size, mode)
    for row, post in enumerate(posts):
        columns, values = table.vector(post)
        assert values.dtype == np.float32
        assert columns.tolist() == expected[row].indices.tolist()
        assert values.tolist() == expected[row].data.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_a_post_without_a_known_word_has_no_cells(mode):
    table = WordTable(count_words([pa.array(["a b"])], size=9), 9, mode)
    columns, values = table.vector("c d")
    assert (len(columns), len(values), values.dtype) == (0, 0, np.float32)


def test_a_post_of_750_characters_takes_a_fifth_of_a_millisecond():
    sentence = "How can I convert a List<String> into an array, e.g. of int[], in C# or Java?\n"
    post = (sentence * 10)[:750]
    vocabulary = count_words([pa.array([post, *ODD])], size=1000, ngrams=2, word_rule="signs")
    table = WordTable(vocabulary, 1000, "log_tfidf")
    started = time.process_time()
    for _ in range(500):
        table.vector(post)
    assert (time.process_time() - started) / 500 < 2e-4
