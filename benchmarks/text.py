"""Posts a second of counting words and making vectors, beside Keras's Tokenizer, in one process.

`python benchmarks/text.py [posts.csv]` takes the column `post` of a CSV file: by default the 16,000 real posts where
they are next to the repository, and posts made up of random words where they are not.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

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
    from tensorflow.keras.preprocessing.text import Tokenizer  # takes seconds, and only this function needs it

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


def _posts(path: Path) -> list[str]:
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    posts: list[str] = pyarrow.csv.read_csv(path, parse_options=options)["post"].to_pylist()
    return posts


def _made_up(posts: int = 16_000) -> list[str]:
    """Make posts of 160 words whose frequencies fall off as in a language (Zipf)."""
    draw = np.random.default_rng(0)
    return [" ".join(f"word{rank}," for rank in draw.zipf(1.2, 160) % 100_000) for _ in range(posts)]


def main() -> None:
    """Print a line of numbers a row."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else REAL_POSTS
    posts = _posts(path) if path.exists() else _made_up()
    print(f"{len(posts)} posts, {path.name if path.exists() else 'made up of random words'}")
    for row in text_rows(posts):
        print("  ".join(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
