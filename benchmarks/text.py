"""Measure how many posts per second are counted and vectorized, compared with Keras and scikit-learn."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.csv import write_csv
from sklearn.feature_extraction.text import CountVectorizer

import pipeline.model  # noqa: F401 - before TensorFlow, to silence its messages about CUDA
from benchmarks.table import Row
from pipeline.data.vectors import vectorize_all
from pipeline.data.vocabulary import Vocabulary, count_words
from pipeline.sources import reader, sample
from pipeline.sources.source import Source

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
SIZE = 1000  # words of the vocabulary, as Keras's num_words
BATCH = 4000  # posts
ROUNDS = 3
THREADS = (1, 2)
FIT, TRANSFORM = "Keras fit_on_texts", "Keras texts_to_matrix"
SK_FIT, SK_TRANSFORM = "CountVectorizer.fit", "CountVectorizer.transform"

SYNTHETIC = 16_000  # posts, if the real ones are missing

KERAS_RATIO = 10
"""The bound: at least so many times the speed of Keras, on two threads."""


def text_rows(posts: list[str], rounds: int = ROUNDS) -> list[Row]:
    """Time all libraries in turn on the same posts, ours on one thread and on two, and compare their best rounds.

    Raises AssertionError if the vocabulary or the vectors differ from those of Keras.
    """
    from tensorflow.keras.preprocessing.text import Tokenizer

    batches = [pa.array(posts[start : start + BATCH], pa.string()) for start in range(0, len(posts), BATCH)]

    def fitted() -> Any:
        tokenizer = Tokenizer(num_words=SIZE)
        tokenizer.fit_on_texts(posts)
        return tokenizer

    def vectors(threads: int) -> Any:
        return _vectors(batches, made[_count(threads)], threads)

    made = dict[str, Any]()
    sides: dict[str, Callable[[], Any]] = {
        FIT: fitted,
        TRANSFORM: lambda: made[FIT].texts_to_matrix(posts, "binary"),
        SK_FIT: lambda: CountVectorizer(max_features=SIZE - 1, binary=True).fit(posts),
        SK_TRANSFORM: lambda: made[SK_FIT].transform(posts),
    }
    for threads in THREADS:
        sides[_count(threads)] = partial(count_words, batches, size=SIZE, threads=threads)
        sides[_make(threads)] = partial(vectors, threads)
    seconds = dict.fromkeys(sides, math.inf)
    for _ in range(rounds):
        for side, work in sides.items():
            made.pop(side, None)  # freeing its memory must not count in the next round
            start = time.perf_counter()
            made[side] = work()
            seconds[side] = min(seconds[side], time.perf_counter() - start)
    for threads in THREADS:
        np.testing.assert_array_equal(made[_count(threads)].words.to_pylist(), list(made[FIT].word_index)[: SIZE - 1])
        np.testing.assert_array_equal(_dense(made[_make(threads)]), made[TRANSFORM])
    rows = list[Row]()
    for threads in THREADS:
        reach = KERAS_RATIO if threads == max(THREADS) else None
        for what, peers in ((_count(threads), (FIT, SK_FIT)), (_make(threads), (TRANSFORM, SK_TRANSFORM))):
            ours, theirs, others = (len(posts) / seconds[side] for side in (what, *peers))
            rows += [Row(what, "posts/s", ours, peers[0], theirs, reach), Row(what, "posts/s", ours, peers[1], others)]
    return rows


def _count(threads: int) -> str:
    return f"count words, {threads} thread{'s' if threads > 1 else ''}"


def _make(threads: int) -> str:
    return f"make vectors, {threads} thread{'s' if threads > 1 else ''}"


def _vectors(batches: list[pa.Array], vocabulary: Vocabulary, threads: int) -> list[pa.RecordBatch]:
    records = (pa.record_batch({"post": batch}) for batch in batches)
    return [vectors for _, vectors in vectorize_all(records, vocabulary, size=SIZE, mode="binary", threads=threads)]


def _dense(vectors: list[pa.RecordBatch]) -> NDArray[np.float32]:
    table = pa.Table.from_batches(vectors).combine_chunks()
    indices, values = table["indices"].combine_chunks(), table["values"].combine_chunks()
    matrix = np.zeros((len(table), SIZE), np.float32)
    matrix[np.repeat(np.arange(len(table)), indices.value_lengths()), indices.flatten()] = values.flatten()
    return matrix


def load(folder: Path, real: Path = REAL_POSTS, synthetic: int = SYNTHETIC) -> tuple[str, str, list[str]]:
    """Return a description of the posts, the path of their CSV file, and their texts.

    Synthetic posts are written to the folder, because the notebook and the linear model read only files.
    """
    name, path = real.name, real
    if not real.exists():
        name, path = "synthetic, because the real ones are missing", folder / "synthetic.csv"
        posts = pa.Table.from_batches(block.select(["post", "tag"]) for block in sample.blocks(synthetic, seed=0))
        write_csv(posts.rename_columns(["post", "tags"]), path)
    blocks = reader.read(Source.parse(str(path)), text_column="post", tag_column="tags")
    return name, str(path), [post for block in blocks for post in block.posts.column("post").to_pylist()]
