"""From Parquet vectors to the batches an Estimator is fed: shuffled in windows, dense one batch at a time."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from scipy.sparse import csr_matrix, vstack

from pipeline import posts
from pipeline.estimator.network import FEATURE

GROUPS_PER_WINDOW = 16
"""Row groups held and shuffled at once: 16,384 posts, taken from anywhere in the split."""

PREDICTION_BATCH = 512

Window = tuple[csr_matrix, np.ndarray]


def training(
    folder: Path, *, columns: int, tags: int, batch_size: int, epochs: int, seed: int, done: int = 0
) -> Callable[[], tf.data.Dataset]:
    """An input_fn of the train vectors, shuffled anew in each epoch; the same seed gives the same batches.

    The first `done` batches are left out: an earlier try has trained on them.
    """

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        for epoch in range(epochs):
            random = np.random.default_rng([seed, epoch])
            yield from _batches(_shuffled(folder, columns, random), batch_size)

    return lambda: _dataset(lambda: islice(batches(), done, None), columns, tags)


def testing(folder: Path, *, columns: int, tags: int) -> Callable[[], tf.data.Dataset]:
    """An input_fn of the test vectors, once, in order."""

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        windows = (_window(batch, columns) for batch in posts.batches(folder, "test", ["indices", "values", "label"]))
        yield from _batches(windows, PREDICTION_BATCH)

    return lambda: _dataset(batches, columns, tags)


def _shuffled(folder: Path, columns: int, random: np.random.Generator) -> Iterator[Window]:
    """Windows of row groups drawn from the whole split, so that a split sorted by tag is mixed all the same."""
    groups = [
        (path, group)
        for path in posts.shards(folder, "train")
        for group in range(pq.read_metadata(path).num_row_groups)
    ]
    order = random.permutation(len(groups))
    for start in range(0, len(groups), GROUPS_PER_WINDOW):
        parts = [
            pq.ParquetFile(groups[at][0]).read_row_group(groups[at][1], columns=["indices", "values", "label"])
            for at in order[start : start + GROUPS_PER_WINDOW]
        ]
        vectors, labels = _window(pa.concat_tables(parts).combine_chunks(), columns)
        rows = random.permutation(len(labels))
        yield vectors[rows], labels[rows]


def _window(table: pa.Table | pa.RecordBatch, columns: int) -> Window:
    """The rows as a sparse float32 [rows, columns] and their labels, int32 [rows]."""
    indices, values = (_single(table.column(name)) for name in ("indices", "values"))
    lengths = indices.value_lengths().to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    vectors = csr_matrix(
        (values.flatten().to_numpy(), indices.flatten().to_numpy(), starts), shape=(len(lengths), columns)
    )
    return vectors, _single(table.column("label")).to_numpy()


def _single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _batches(windows: Iterator[Window], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Rows and columns of the non-zero cells, their values, and the labels, `size` posts at a time.

    What a window leaves over begins the next batch; only the last batch may be smaller.
    """
    rest: Window | None = None
    for vectors, labels in windows:
        if rest:
            vectors, labels = vstack([rest[0], vectors], format="csr"), np.concatenate([rest[1], labels])
        whole = len(labels) // size * size
        for start in range(0, whole, size):
            yield _cells(vectors, labels, start, start + size)
        rest = (vectors[whole:], labels[whole:]) if whole < len(labels) else None
    if rest:
        yield _cells(*rest, 0, len(rest[1]))


def _cells(vectors: csr_matrix, labels: np.ndarray, start: int, end: int) -> tuple[np.ndarray, ...]:
    bounds = vectors.indptr[start : end + 1]
    cells = slice(bounds[0], bounds[-1])
    rows = np.repeat(np.arange(end - start, dtype=np.int32), np.diff(bounds))
    return rows, vectors.indices[cells].astype(np.int32, copy=False), vectors.data[cells], labels[start:end]


def _dataset(batches: Callable[[], Iterator[tuple[np.ndarray, ...]]], columns: int, tags: int) -> tf.data.Dataset:
    """({posts_input: float32 [n, columns]}, one-hot float32 [n, tags])."""

    def dense(rows: tf.Tensor, places: tf.Tensor, values: tf.Tensor, labels: tf.Tensor) -> tuple[dict, tf.Tensor]:
        shape = tf.stack([tf.size(labels), columns])
        vectors = tf.scatter_nd(tf.stack([rows, places], axis=1), values, shape)
        return {FEATURE: tf.ensure_shape(vectors, [None, columns])}, tf.one_hot(labels, tags, dtype=tf.float32)

    def spec(kind: tf.DType) -> tf.TensorSpec:
        return tf.TensorSpec([None], kind)

    kinds = (spec(tf.int32), spec(tf.int32), spec(tf.float32), spec(tf.int32))
    return tf.data.Dataset.from_generator(batches, output_signature=kinds).map(dense).prefetch(2)
