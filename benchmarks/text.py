"""Posts a second of counting words and making vectors, beside Keras's Tokenizer, in one process."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import pipeline.estimator  # noqa: F401 - before TensorFlow, to keep it from talking about CUDA
from pipeline import sources
from pipeline.text import Vocabulary, count_words, vectorize_all

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
SIZE = 1000  # words of the vocabulary, as Keras's num_words
BATCH = 4000  # posts
ROUNDS = 3


def text_rows(posts: list[str]) -> list[dict[str, Any]]:
    """Time both sides on the same posts, given to ours as Arrow arrays; a row for each task and number of threads.

    `posts_per_second` is of ours, `times_keras` its ratio to `keras_posts_per_second`; all are of the best of
    three rounds. Raises AssertionError where the two sides do not agree on the vocabulary or on a single cell.
    """
    from tensorflow.keras.preprocessing.text import Tokenizer

    batches = [pa.array(posts[start : start + BATCH], pa.string()) for start in range(0, len(posts), BATCH)]

    def fitted() -> Any:
        tokenizer = Tokenizer(num_words=SIZE)
        tokenizer.fit_on_texts(posts)
        return tokenizer

    fit_seconds, tokenizer = _timed(fitted)
    matrix_seconds, matrix = _timed(lambda: tokenizer.texts_to_matrix(posts, "binary"))
    rows = []
    for threads in (1, 2):
        seconds, vocabulary = _timed(partial(count_words, batches, size=SIZE, threads=threads))
        np.testing.assert_array_equal(vocabulary.words.to_pylist(), list(tokenizer.word_index)[: SIZE - 1])
        rows.append(_row("count words", threads, len(posts), seconds, "fit_on_texts", fit_seconds))
    for threads in (1, 2):
        seconds, vectors = _timed(partial(_vectors, batches, vocabulary, threads))
        np.testing.assert_array_equal(_dense(vectors), matrix)
        rows.append(_row("make vectors (binary)", threads, len(posts), seconds, "texts_to_matrix", matrix_seconds))
    return rows


def _vectors(batches: list[pa.Array], vocabulary: Vocabulary, threads: int) -> list[pa.RecordBatch]:
    return list(vectorize_all(batches, vocabulary, size=SIZE, mode="binary", threads=threads))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the best of some rounds, and what the last returned."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def _row(task: str, threads: int, posts: int, seconds: float, keras: str, keras_seconds: float) -> dict[str, Any]:
    return {
        "task": task,
        "threads": threads,
        "posts": posts,
        "posts_per_second": round(posts / seconds),
        "keras": keras,
        "keras_posts_per_second": round(posts / keras_seconds),
        "times_keras": round(keras_seconds / seconds, 1),
    }


def _dense(vectors: list[pa.RecordBatch]) -> NDArray[np.float32]:
    table = pa.Table.from_batches(vectors).combine_chunks()
    indices, values = table["indices"].combine_chunks(), table["values"].combine_chunks()
    matrix = np.zeros((len(table), SIZE), np.float32)
    matrix[np.repeat(np.arange(len(table)), indices.value_lengths()), indices.flatten()] = values.flatten()
    return matrix


def load() -> tuple[str, list[str]]:
    """What the posts are, in words, and their texts."""
    if not REAL_POSTS.exists():
        return "invented, the real ones are not there", _texts("sample://posts?rows=16000&seed=0")
    return REAL_POSTS.name, _texts(str(REAL_POSTS))


def _texts(source: str) -> list[str]:
    blocks = sources.read(source, text_column="post", tag_column="tags")
    return [post for block in blocks for post in block.posts.column("post").to_pylist()]
