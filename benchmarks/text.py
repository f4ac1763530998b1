"""Posts a second of counting words and making vectors, beside Keras and scikit-learn, in one process."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

import pipeline.estimator  # noqa: F401 - before TensorFlow, to keep it from talking about CUDA
from benchmarks.table import Row
from pipeline import sources
from pipeline.text import Vocabulary, count_words, vectorize_all

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
SIZE = 1000  # words of the vocabulary, as Keras's num_words
BATCH = 4000  # posts
ROUNDS = 3
BESIDE_KERAS = 10
"""At least so many times Keras's pace, on two threads."""


def text_rows(posts: list[str]) -> list[Row]:
    """Time all sides on the same posts, given to ours as Arrow arrays, on one thread and on two; best of three rounds.

    Raises AssertionError where Keras and ours do not agree on the vocabulary or on a single cell.
    """
    from tensorflow.keras.preprocessing.text import Tokenizer

    batches = [pa.array(posts[start : start + BATCH], pa.string()) for start in range(0, len(posts), BATCH)]

    def fitted() -> Any:
        tokenizer = Tokenizer(num_words=SIZE)
        tokenizer.fit_on_texts(posts)
        return tokenizer

    fit, tokenizer = _timed(fitted)
    transform, matrix = _timed(lambda: tokenizer.texts_to_matrix(posts, "binary"))
    sk_fit, counter = _timed(lambda: CountVectorizer(max_features=SIZE - 1, binary=True).fit(posts))
    sk_transform, _ = _timed(lambda: counter.transform(posts))
    rows = list[Row]()
    for threads in (1, 2):
        on, paces = f"{threads} thread{'s' if threads > 1 else ''}", partial(_row, len(posts))
        reach = BESIDE_KERAS if threads == 2 else None
        seconds, vocabulary = _timed(partial(count_words, batches, size=SIZE, threads=threads))
        np.testing.assert_array_equal(vocabulary.words.to_pylist(), list(tokenizer.word_index)[: SIZE - 1])
        for peer, theirs, to in (("Keras fit_on_texts", fit, reach), ("CountVectorizer.fit", sk_fit, None)):
            rows.append(paces(f"count words, {on}", seconds, peer, theirs, to))
        seconds, vectors = _timed(partial(_vectors, batches, vocabulary, threads))
        np.testing.assert_array_equal(_dense(vectors), matrix)
        for peer, theirs, to in (
            ("Keras texts_to_matrix", transform, reach),
            ("CountVectorizer.transform", sk_transform, None),
        ):
            rows.append(paces(f"make vectors, {on}", seconds, peer, theirs, to))
    return rows


def _vectors(batches: list[pa.Array], vocabulary: Vocabulary, threads: int) -> list[pa.RecordBatch]:
    beside = (pa.record_batch({"post": batch}) for batch in batches)
    return [vectors for _, vectors in vectorize_all(beside, vocabulary, size=SIZE, mode="binary", threads=threads)]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the best of some rounds, and what the last returned."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def _row(posts: int, what: str, seconds: float, peer: str, theirs: float, reach: float | None) -> Row:
    return Row(what, "posts/s", posts / seconds, peer, posts / theirs, reach)


def _dense(vectors: list[pa.RecordBatch]) -> NDArray[np.float32]:
    table = pa.Table.from_batches(vectors).combine_chunks()
    indices, values = table["indices"].combine_chunks(), table["values"].combine_chunks()
    matrix = np.zeros((len(table), SIZE), np.float32)
    matrix[np.repeat(np.arange(len(table)), indices.value_lengths()), indices.flatten()] = values.flatten()
    return matrix


def load() -> tuple[str, str, list[str]]:
    """What the posts are, in words, the source to read them from, and their texts."""
    name, source = "invented, the real ones are not there", "sample://posts?rows=16000&seed=0"
    if REAL_POSTS.exists():
        name, source = REAL_POSTS.name, str(REAL_POSTS)
    blocks = sources.read(source, text_column="post", tag_column="tags")
    return name, source, [post for block in blocks for post in block.posts.column("post").to_pylist()]
