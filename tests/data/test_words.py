"""Words, vocabularies and vectors, compared with those of Keras's Tokenizer."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data import vocabulary as vocabularies
from pipeline.data import words
from pipeline.data.vectors import idf, vectorize, vectorize_all
from pipeline.data.vocabulary import Vocabulary, count_words
from pipeline.data.words import EXPANDS, FILTERS, SIGNS, WordRule, code_points
from tests.conftest import REAL_POSTS

FILTERED: dict[WordRule, str] = {"keras": FILTERS, "signs": "\t\n"}
KERAS_MODES = ("binary", "count", "freq", "tfidf")
ODD = ["q\rr", "a\u00a0b", "x\x85", "\u2028", "c\u2029", "\x0b", "\x1c\x1e", "'", "é", "\U00010428", "\x00", "q"]

unicode_posts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8)
tricky_posts = st.lists(
    st.text(FILTERS + "  aAbBzZ09'İIıΣσςßẞKÅÉéЖж漢\U00010400\U00010428\r\x0b\x85\u00a0\u2028\u0307"), max_size=8
)
relaxed = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def keras() -> Any:
    from tensorflow.keras.preprocessing import text as keras_text

    return keras_text


@pytest.fixture(scope="module")
def real_posts() -> pa.Array:
    if not REAL_POSTS.exists():
        pytest.skip(f"needs the 16,000 real posts ({REAL_POSTS})")
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(REAL_POSTS, parse_options=options)["post"].combine_chunks()


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make even tiny batches take several slices, and their counts several merges."""
    monkeypatch.setattr(words, "SLICE", 8)
    monkeypatch.setattr(vocabularies, "_MERGE", 2)


def strings(*posts: str) -> pa.Array:
    return pa.array(posts, pa.string())


def split(posts: pa.Array, rule: WordRule = "keras") -> list[list[str]]:
    """Words of each post."""
    found, rows = words.words(posts, rule)
    by_row: list[list[str]] = [[] for _ in range(len(posts))]
    for word, row in zip(found.to_pylist(), rows.tolist(), strict=True):
        by_row[row].append(word)
    return by_row


def counted(vocabulary: Vocabulary) -> list[tuple[str, int, int]]:
    columns = vocabulary.words.to_pylist(), vocabulary.counts.tolist(), vocabulary.document_counts.tolist()
    return list(zip(*columns, strict=True))


def dense(batch: pa.RecordBatch, size: int) -> NDArray[np.float32]:
    """Matrix of the vectors; checks on the way that indices ascend, without repeats."""
    indices, values = batch["indices"], batch["values"]
    assert indices.type == pa.list_(pa.int32())
    assert values.type == pa.list_(pa.float32())
    assert indices.value_lengths() == values.value_lengths()
    columns = indices.flatten().to_numpy()
    rows = np.repeat(np.arange(len(batch)), indices.value_lengths().to_numpy())
    assert (np.diff(rows * size + columns) > 0).all()
    matrix = np.zeros((len(batch), size), np.float32)
    matrix[rows, columns] = values.flatten().to_numpy()
    return matrix


def for_keras(post: str, rule: WordRule) -> str:
    """The text for which Keras, where it filters FILTERED[rule], finds the rule's words."""
    spaced = {sign: f" {sign} " for sign in SIGNS} if rule == "signs" else {}
    # The one exception to Keras: a capital sigma is the same small sigma everywhere.
    return post.translate(str.maketrans({"Σ": "σ"} | spaced))


def assert_as_keras(keras: Any, posts: pa.Array, size: int, batch: int, rule: WordRule = "keras") -> None:
    texts = [for_keras(post, rule) for post in posts.to_pylist()]
    tokenizer = keras.Tokenizer(num_words=size, filters=FILTERED[rule])
    tokenizer.fit_on_texts(texts)
    batches = [posts[start : start + batch] for start in range(0, len(posts), batch)]

    every = count_words(batches, size=len(tokenizer.word_index) + 1, word_rule=rule)
    assert every.documents == tokenizer.document_count
    assert every.words.to_pylist() == list(tokenizer.word_index)
    assert [(word, count) for word, count, _ in counted(every)] == Counter(tokenizer.word_counts).most_common()
    assert {word: documents for word, _, documents in counted(every)} == tokenizer.word_docs
    most = count_words(batches, size=size, word_rule=rule)
    assert counted(most) == counted(every)[: size - 1]

    for mode in KERAS_MODES:
        expected = tokenizer.texts_to_matrix(texts, mode).astype(np.float32)
        vectors = vectorize(posts, most, size=size, mode=mode)
        np.testing.assert_array_equal(dense(vectors, size), expected)
        assert vectorize(posts, every, size=size, mode=mode) == vectors


@relaxed
@given(
    posts=(unicode_posts | tricky_posts).filter(len),
    size=st.integers(1, 12),
    batch=st.integers(1, 9),
    rule=st.sampled_from(get_args(WordRule)),
)
@example(posts=["ΑΣ ΑΣΑ Σ", "İİ KKÅ", "Aẞß\rİ\u00a0b"], size=9, batch=2, rule="keras")
@example(posts=["", "!!", " \t\n", "a"], size=3, batch=4, rule="keras")
@example(posts=["C#, c++; İ_[b]", "#", "a#b # c", "!!\t\n-"], size=9, batch=2, rule="signs")
def test_words_counts_and_vectors_are_those_of_keras(
    keras: Any, posts: list[str], size: int, batch: int, rule: WordRule
) -> None:
    assert split(strings(*posts), rule) == [
        keras.text_to_word_sequence(for_keras(post, rule), filters=FILTERED[rule]) for post in posts
    ]
    assert_as_keras(keras, strings(*posts), size, batch, rule)


@relaxed
@given(posts=tricky_posts)
def test_words_do_not_depend_on_how_posts_are_sliced(small_slices: None, keras: Any, posts: list[str]) -> None:
    assert split(strings(*posts)) == [keras.text_to_word_sequence(post.replace("Σ", "σ")) for post in posts]


@pytest.mark.parametrize("rule", get_args(WordRule))
def test_2_000_real_posts_are_as_in_keras(keras: Any, real_posts: pa.Array, rule: WordRule) -> None:
    assert_as_keras(keras, real_posts[:2000], size=5000, batch=700, rule=rule)


@pytest.mark.thorough
def test_16_000_real_posts_are_as_in_keras(keras: Any, real_posts: pa.Array) -> None:
    assert_as_keras(keras, real_posts, size=1000, batch=4000)


@pytest.mark.parametrize(
    ("post", "expected"),
    [
        ("C++ vs. C#", ["c", "vs", "c"]),
        ("don't  e-mail me@home", ["don't", "e", "mail", "me", "home"]),
        ("a\rb c\u00a0d e\x0bf", ["a\rb", "c\u00a0d", "e\x0bf"]),
        ("ΟΔΟΣ ΣΑΣ", ["οδοσ", "σασ"]),
        ("İSTANBUL Straße K2 ÉCOLE", ["i\u0307stanbul", "straße", "k2", "école"]),
        (FILTERS, []),
        ("", []),
    ],
)
def test_the_rule_by_example(post: str, expected: list[str]) -> None:
    assert split(strings(post)) == [expected]
    assert split(strings("x", post, "Y")) == [["x"], expected, ["y"]]


def test_a_post_ends_its_last_word() -> None:
    assert split(strings("ab", "cd", "", "", "e")) == [["ab"], ["cd"], [], [], ["e"]]


def arrays(posts: list[str]) -> Iterator[pa.Array]:
    """Yield the same posts as Arrow may hold them."""
    whole = pa.array(["B", *posts, "İ é"])
    yield whole[1:-1]
    yield pa.concat_arrays([whole[2:4], whole])[3:-1]
    yield pa.chunked_array([posts[:1], [], posts[1:]], pa.string())
    yield pa.array(["É", *posts], pa.large_string())[1:]
    yield pa.array(posts, pa.string_view())
    yield pa.array(posts).dictionary_encode()


def test_sliced_chunked_and_other_string_arrays() -> None:
    posts = ["A b", "", "É é!A"]
    for array in arrays(posts):
        assert split(array) == [["a", "b"], [], ["é", "é", "a"]], array.type
        vocabulary = count_words([array], size=9)
        assert counted(vocabulary) == [("a", 2, 2), ("é", 2, 1), ("b", 1, 1)]
        indices = vectorize(array, vocabulary, size=9, mode="binary")["indices"]
        assert indices.to_pylist() == [[1, 3], [], [1, 2]]


def test_null_posts_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 posts are null"):
        words.words(pa.array(["a", None]))


@pytest.mark.parametrize("kind", [pa.null(), pa.string(), pa.large_string()])
def test_no_posts(kind: pa.DataType) -> None:
    none = pa.array([], kind)
    found, rows = words.words(none)
    assert (len(found), found.type, len(rows)) == (0, pa.string(), 0)
    vocabulary = count_words([none], size=3)
    assert (counted(vocabulary), vocabulary.documents) == ([], 0)
    assert counted(count_words([], size=3)) == []
    assert len(vectorize(none, vocabulary, size=3, mode="tfidf")) == 0


def test_posts_without_words_count_as_documents_and_have_empty_rows() -> None:
    posts = strings("", "?!", "a")
    vocabulary = count_words([posts], size=5)
    assert vocabulary.documents == 3
    assert vectorize(posts, vocabulary, size=5, mode="freq").to_pydict() == {
        "indices": [[], [], [1]],
        "values": [[], [], [1.0]],
    }


def test_words_beyond_a_string_array_come_as_large_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words.words(strings("a b"))[0].type == pa.string()
    monkeypatch.setattr(words, "_STRING", 8)
    found, rows = words.words(strings("a b", "c"))
    assert (found.type, found.to_pylist(), rows.tolist()) == (pa.large_string(), ["a", "b", "c"], [0, 0, 1])


def test_ties_go_to_the_word_seen_first() -> None:
    batches = [strings("z y", "x x"), strings("w y z"), strings("x w v")]
    assert counted(count_words(batches, size=4)) == [("x", 3, 2), ("z", 2, 2), ("y", 2, 2)]
    assert count_words(batches, size=9).words.to_pylist() == ["x", "z", "y", "w", "v"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_size_counts_the_unused_index_0(size: int) -> None:
    assert len(count_words([strings("a b c d")], size=size).words) == size - 1


def test_formulas_by_hand() -> None:
    vocabulary = count_words([strings("b a a", "a", "c", "a c")], size=3)
    assert counted(vocabulary) == [("a", 4, 3), ("c", 2, 2)]
    weights = [0, np.log(1 + 4 / 4), np.log(1 + 4 / 3), 0]
    np.testing.assert_allclose(idf(vocabulary, 4), weights, rtol=1e-15)
    np.testing.assert_array_equal(idf(vocabulary, 2), idf(vocabulary, 4)[:2])

    post = strings("c a b a a")
    expected: dict[str, list[float]] = {
        "binary": [1, 1],
        "count": [3, 1],
        "freq": [3 / 4, 1 / 4],  # b is not in the vocabulary
        "tfidf": [(1 + np.log(3)) * weights[1], weights[2]],
    }
    for mode, values in expected.items():
        batch = vectorize(post, vocabulary, size=4, mode=mode)
        assert batch["indices"].to_pylist() == [[1, 2]]
        np.testing.assert_allclose(batch["values"].to_pylist(), [values], rtol=1e-7, err_msg=mode)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'idf' is none of binary, count, freq, tfidf, log_tfidf"):
        vectorize(strings("a"), count_words([strings("a")], size=2), size=2, mode="idf")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 7, 400])
def test_results_do_not_depend_on_batches_slices_and_threads(small_slices: None, batch: int, threads: int) -> None:
    draw = np.random.default_rng(batch)
    posts = strings(*(" ".join(f"w{n}" for n in draw.zipf(1.3, 9) % 200) for _ in range(400)))
    batches = [posts[start : start + batch] for start in range(0, len(posts), batch)]
    each = Counter(word for post in posts.to_pylist() for word in post.split())
    documents = Counter(word for post in posts.to_pylist() for word in set(post.split()))

    vocabulary = count_words(iter(batches), size=100, threads=threads)
    assert counted(vocabulary) == [(word, count, documents[word]) for word, count in each.most_common(99)]
    assert vocabulary.documents == 400

    pairs = list(vectorize_all(map(as_posts, batches), vocabulary, size=100, mode="tfidf", threads=threads))
    assert [batch.column("post") for batch, _ in pairs] == batches
    vectors = [vectors for _, vectors in pairs]
    assert [len(vector) for vector in vectors] == [len(array) for array in batches]
    assert pa.Table.from_batches(vectors).combine_chunks().to_batches() == [
        vectorize(posts, vocabulary, size=100, mode="tfidf")
    ]


def as_posts(texts: pa.Array) -> pa.RecordBatch:
    return pa.record_batch({"post": texts})


@pytest.mark.parametrize("threads", [1, 2])
def test_at_most_two_batches_per_thread_are_read_ahead(threads: int) -> None:
    read: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(50):
            read.append(number)
            yield as_posts(strings("a b"))

    vectors = vectorize_all(batches(), count_words([strings("a")], size=2), size=2, mode="count", threads=threads)
    assert read == []
    next(vectors)
    assert len(read) <= 2 * threads
    assert sum(1 for _ in vectors) == 49


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_on_a_thread_reaches_the_caller(threads: int) -> None:
    with pytest.raises(ValueError, match="are null"):
        list(
            vectorize_all(
                map(as_posts, [strings("a"), pa.array([None], pa.string())]),
                count_words([strings("a")], size=2),
                size=2,
                mode="count",
                threads=threads,
            )
        )


def test_a_vocabulary_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = count_words([strings(*ODD), strings("q q")], size=20)
    assert saved.words.to_pylist() == ["q", *ODD[:-1]]
    saved.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert (counted(loaded), loaded.documents) == (counted(saved), len(ODD) + 1)
    assert loaded.words.type == pa.string()
    assert loaded.counts.dtype == loaded.document_counts.dtype == np.int64

    lines = (tmp_path / "vocabulary.txt").read_bytes().decode().split("\n")
    assert lines == [*saved.words.to_pylist(), ""]
    table = pyarrow.parquet.read_table(tmp_path / "counts.parquet")
    assert table.to_pylist()[:2] == [
        {"word": "q", "count": 3, "document_count": 2},
        {"word": "q\rr", "count": 1, "document_count": 1},
    ]
    assert table.schema.metadata[b"documents"] == b"13"


def test_a_vocabulary_knows_how_its_words_were_found_also_one_saved_before_there_were_two_ways(tmp_path: Path) -> None:
    for rule in get_args(WordRule):
        count_words([strings("c# c")], size=20, word_rule=rule).save(tmp_path)
        assert Vocabulary.load(tmp_path).word_rule == rule
    file = tmp_path / "counts.parquet"
    table = pq.read_table(file)
    totals = {name: value for name, value in table.schema.metadata.items() if name != b"word_rule"}
    pq.write_table(table.replace_schema_metadata(totals), file)
    assert Vocabulary.load(tmp_path).word_rule == "keras"


def test_an_empty_vocabulary_comes_back_too(tmp_path: Path) -> None:
    count_words([strings("!")], size=20).save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert (counted(loaded), loaded.documents, loaded.words.type) == ([], 1, pa.string())
    assert (tmp_path / "vocabulary.txt").read_bytes() == b""
    assert vectorize(strings("a"), loaded, size=4, mode="tfidf")["indices"].to_pylist() == [[]]


def test_only_the_known_code_point_is_longer_in_lower_case_and_none_is_cased_beyond_the_table() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert {character: character.lower() for character in every if len(character.lower()) != 1} == EXPANDS
    table = code_points()
    assert table.dtype == np.int32
    assert len(table) == 0x20000
    assert all(character.lower() == character for character in every[len(table) :])


def test_code_points_agree_with_the_words() -> None:
    table = code_points().tolist()
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    table += range(len(table), sys.maxunicode + 1)
    expected = [
        f"b{EXPANDS.get(chr(code), chr(table[code]))}y".split(" ")  # between two letters
        for code in codes
    ]
    differing = [
        (hex(code), is_, should_be)
        for code, is_, should_be in zip(
            codes, split(pa.array([f"B{chr(code)}Y" for code in codes])), expected, strict=True
        )
        if is_ != should_be
    ]
    assert differing == []
    assert [code for code in range(0xD800, 0xE000) if table[code] != code] == []
    assert "".join(chr(code) for code in range(0x80) if table[code] == 0x20) == "".join(sorted(FILTERS + " "))
    with_signs = code_points("signs").tolist()
    assert [chr(code) for code in range(0x20000) if with_signs[code] != table[code]] == sorted(SIGNS)
    assert [with_signs[ord(sign)] for sign in SIGNS] == [ord(sign) for sign in SIGNS]


def test_code_points_are_lower_cased_as_keras_does(keras: Any) -> None:
    table = code_points()
    for code in set(range(len(table))) - set(range(0xD800, 0xE000)) - {ord("Σ")}:
        lower = EXPANDS.get(chr(code), chr(table[code]))
        assert keras.text_to_word_sequence(chr(code)) == [lower] * (lower != " "), hex(code)
