"""From Parquet vectors to the batches an Estimator is fed: shuffled in windows, and sparse as they are stored."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from scipy.sparse import csr_matrix, vstack

from pipeline.data import posts
from pipeline.model import network

GROUPS_PER_WINDOW = 16
"""Row groups held and shuffled at once: 16,384 posts, taken from anywhere in the split."""

PREDICTION_BATCH = 512

COLUMNS = ["indices", "values", "label"]

Window = tuple[csr_matrix, np.ndarray]


Share = tuple[int, int]
"""Which of how many readers of the train vectors: (0, 1) is the only one."""


def training(
    folder: Path,
    *,
    columns: int,
    tags: int,
    batch_size: int,
    epochs: int,
    seed: int,
    done: int = 0,
    share: Share = (0, 1),
) -> Callable[[], tf.data.Dataset]:
    """An input_fn of the share's train vectors, shuffled anew in each epoch; the same seed gives the same batches.

    The first `done` batches are left out: an earlier try has trained on them.
    """

    def windows() -> Iterator[Window]:
        for epoch in range(epochs):
            yield from _whole(_shuffled(folder, columns, np.random.default_rng([seed, epoch]), share), batch_size)

    return lambda: _dataset(windows, columns, tags, batch_size).skip(done).prefetch(2)


def testing(folder: Path, *, columns: int, tags: int) -> Callable[[], tf.data.Dataset]:
    """An input_fn of the test vectors, once, in order."""

    def windows() -> Iterator[Window]:
        batches = posts.batches(folder, "test", COLUMNS)
        yield from _whole(((vectors(batch, columns), _labels(batch)) for batch in batches), PREDICTION_BATCH)

    return lambda: _dataset(windows, columns, tags, PREDICTION_BATCH).prefetch(2)


def vectors(table: pa.Table | pa.RecordBatch, columns: int) -> csr_matrix:
    """The rows' `indices` and `values` as one sparse float32 [rows, columns]."""
    indices, values = (_single(table.column(name)) for name in ("indices", "values"))
    starts = np.concatenate([[0], np.cumsum(indices.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)])
    return csr_matrix(
        (values.flatten().to_numpy(), indices.flatten().to_numpy(), starts), shape=(len(indices), columns)
    )


def _labels(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    labels: np.ndarray = _single(table.column("label")).to_numpy()
    return labels


def _single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def row_groups(folder: Path, share: Share = (0, 1)) -> list[tuple[Path, int, int]]:
    """The train vectors' row groups that are the share's, each as file, number and rows.

    Every n-th is, so that each of n readers has posts of every part of the split.
    """
    groups = []
    for path in posts.shards(folder, "train"):
        footer = pq.read_metadata(path)
        groups += [(path, group, footer.row_group(group).num_rows) for group in range(footer.num_row_groups)]
    reader, readers = share
    return groups[reader::readers]


def _shuffled(folder: Path, columns: int, random: np.random.Generator, share: Share) -> Iterator[Window]:
    """Windows of row groups drawn from the whole share, so that a split sorted by tag is mixed all the same."""
    groups = row_groups(folder, share)
    order = random.permutation(len(groups))
    for start in range(0, len(groups), GROUPS_PER_WINDOW):
        parts = [
            pq.ParquetFile(groups[at][0]).read_row_group(groups[at][1], columns=COLUMNS)
            for at in order[start : start + GROUPS_PER_WINDOW]
        ]
        table = pa.concat_tables(parts).combine_chunks()
        rows = random.permutation(len(table))
        yield vectors(table, columns)[rows], _labels(table)[rows]


def _whole(windows: Iterator[Window], size: int) -> Iterator[Window]:
    """The same posts in windows of whole batches of `size`: what one leaves over begins the next, and ends the last."""
    rest: Window | None = None
    for cells, labels in windows:
        if rest:
            cells, labels = vstack([rest[0], cells], format="csr"), np.concatenate([rest[1], labels])
        whole = len(labels) // size * size
        if whole:
            yield cells[:whole], labels[:whole]
        rest = (cells[whole:], labels[whole:]) if whole < len(labels) else None
    if rest:
        yield rest


def _ahead(windows: Iterator[Window], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Each window's parts as arrays, the next one made while this one is trained on.

    Cells are (row in its batch, column), int64 [cells, 2]; starts are where a post's cells begin, int64 [posts + 1].
    """

    def made() -> tuple[np.ndarray, ...] | None:
        window = next(windows, None)
        if window is None:
            return None
        matrix, labels = window
        rows = np.repeat(np.arange(len(labels)) % size, np.diff(matrix.indptr))
        cells = np.stack([rows, matrix.indices], axis=1).astype(np.int64, copy=False)
        return cells, matrix.data, matrix.indptr.astype(np.int64), labels

    # A thread of our own: under op determinism tf.data does not read ahead.
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(made)
        while (arrays := coming.result()) is not None:
            coming = reader.submit(made)
            yield arrays


def _dataset(windows: Callable[[], Iterator[Window]], columns: int, tags: int, size: int) -> tf.data.Dataset:
    """(network.features of `size` posts, one-hot float32 [size, tags]); only the last of an epoch may be smaller."""

    def batches(cells: tf.Tensor, values: tf.Tensor, starts: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
        def batch(first: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            chosen = labels[first : first + size]
            count = tf.size(chosen, out_type=tf.int64)
            begin, end = starts[first], starts[first + count]
            sparse = tf.SparseTensor(cells[begin:end], values[begin:end], tf.stack([count, columns]))
            return network.features(sparse), tf.one_hot(chosen, tags, dtype=tf.float32)

        return tf.data.Dataset.range(0, tf.size(labels, out_type=tf.int64), size).map(batch)

    kinds = (
        tf.TensorSpec([None, 2], tf.int64),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None], tf.int32),
    )
    return tf.data.Dataset.from_generator(lambda: _ahead(windows(), size), output_signature=kinds).flat_map(batches)
