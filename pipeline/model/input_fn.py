"""Feed an Estimator with sparse batches from Parquet vectors, shuffled within windows of row groups."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from scipy.sparse import csr_matrix, vstack

from pipeline.data import posts, tag_matrix
from pipeline.data.vectors import as_matrix
from pipeline.model import network

GROUPS_PER_WINDOW = 16
"""How many row groups, drawn from the whole split, are in memory and shuffled together: 16,384 posts."""

PREDICTION_BATCH = 512

COLUMNS = ["indices", "values", "label"]

Window = tuple[csr_matrix, np.ndarray]


Share = tuple[int, int]
"""The index of a reader of the train vectors, and the number of readers."""


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
    balanced: bool = False,
) -> Callable[[], tf.data.Dataset]:
    """Make an input_fn of the share's train vectors, shuffled again for each epoch; the seed determines the batches.

    The first `done` batches are skipped, because an earlier attempt was trained on them. If `balanced`, each post's
    one-hot label, and so its loss, is multiplied by the weight of its class.
    """

    def windows() -> Iterator[Window]:
        for epoch in range(epochs):
            yield from _full_batches(
                _shuffled(folder, columns, tags, np.random.default_rng([seed, epoch]), share), batch_size
            )

    weights = class_weights(folder, tags) if balanced else None
    return lambda: (
        _dataset(windows, columns, tags, batch_size, weights, several=posts.have_several(folder, "train"))
        .skip(done)
        .prefetch(2)
    )


def class_weights(folder: Path, tags: int) -> np.ndarray:
    """The weight of each class for which all have the same sum over the train vectors, float32 [tags]; mean 1 by post.

    It is n / (tags * n of the class), as scikit-learn's class_weight="balanced".
    """
    counts = np.zeros(tags, np.int64)
    for batch in posts.batches(folder, "train", ["label"]):
        counts += np.bincount(batch.column("label").to_numpy(), minlength=tags)
    weights: np.ndarray = counts.sum() / (tags * np.maximum(counts, 1))
    return weights.astype(np.float32)


def testing(folder: Path, *, columns: int, tags: int) -> Callable[[], tf.data.Dataset]:
    """Make an input_fn of the test vectors, once, in order."""

    def windows() -> Iterator[Window]:
        batches = posts.batches(folder, "test", COLUMNS)
        yield from _full_batches(
            ((as_matrix(batch, columns), labels(batch, tags)) for batch in batches), PREDICTION_BATCH
        )

    return lambda: _dataset(
        windows, columns, tags, PREDICTION_BATCH, several=posts.have_several(folder, "test")
    ).prefetch(2)


def labels(table: pa.Table | pa.RecordBatch, tags: int) -> np.ndarray:
    """The label of each post, int32 [posts]; or where posts have several, which they have, bool [posts, tags]."""
    column = table.column("label")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    found: np.ndarray = (
        tag_matrix.matrix(column, tags).toarray() if pa.types.is_list(column.type) else column.to_numpy()
    )
    return found


def row_groups(folder: Path, share: Share = (0, 1)) -> list[tuple[Path, int, int]]:
    """List the row groups of train vectors that belong to the share, each as file, number and count of rows.

    Of n readers each has every n-th, so that each has posts from all of the split.
    """
    groups = []
    for path in posts.shards(folder, "train"):
        footer = pq.read_metadata(path)
        groups += [(path, group, footer.row_group(group).num_rows) for group in range(footer.num_row_groups)]
    reader, readers = share
    return groups[reader::readers]


def _shuffled(folder: Path, columns: int, tags: int, random: np.random.Generator, share: Share) -> Iterator[Window]:
    """Yield windows of row groups drawn at random from the whole share, which also mixes a split sorted by tag."""
    groups = row_groups(folder, share)
    order = random.permutation(len(groups))
    for start in range(0, len(groups), GROUPS_PER_WINDOW):
        tables = [
            pq.ParquetFile(groups[at][0]).read_row_group(groups[at][1], columns=COLUMNS)
            for at in order[start : start + GROUPS_PER_WINDOW]
        ]
        table = pa.concat_tables(tables).combine_chunks()
        rows = random.permutation(len(table))
        yield as_matrix(table, columns)[rows], labels(table, tags)[rows]


def _full_batches(windows: Iterator[Window], size: int) -> Iterator[Window]:
    """Regroup the posts into windows of full batches: the remainder of one begins the next, the last may be short."""
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
    """Yield each window as the arrays cells, values, starts and labels; a thread prepares the next one.

    Cells are (row in its batch, column), int64 [cells, 2]; starts are where a post's cells begin, int64 [posts + 1].
    """

    def prepare() -> tuple[np.ndarray, ...] | None:
        window = next(windows, None)
        if window is None:
            return None
        matrix, labels = window
        rows = np.repeat(np.arange(len(labels)) % size, np.diff(matrix.indptr))
        cells = np.stack([rows, matrix.indices], axis=1).astype(np.int64, copy=False)
        return cells, matrix.data, matrix.indptr.astype(np.int64), labels

    # A thread here, because under op determinism tf.data does not read ahead.
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(prepare)
        while (arrays := coming.result()) is not None:
            coming = reader.submit(prepare)
            yield arrays


def _dataset(
    windows: Callable[[], Iterator[Window]],
    columns: int,
    tags: int,
    size: int,
    weights: np.ndarray | None = None,
    *,
    several: bool = False,
) -> tf.data.Dataset:
    """Make a dataset of batches: (network.features, one-hot float32 [size, tags]); an epoch's last may be smaller.

    With `weights`, float32 [tags], the one is the weight of its class. If posts have `several` tags, each has a one.
    """

    def batches(cells: tf.Tensor, values: tf.Tensor, starts: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
        def batch(first: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            chosen = labels[first : first + size]
            count = tf.shape(chosen, out_type=tf.int64)[0]
            begin, end = starts[first], starts[first + count]
            sparse = tf.SparseTensor(cells[begin:end], values[begin:end], tf.stack([count, columns]))
            labelled = tf.cast(chosen, tf.float32) if several else tf.one_hot(chosen, tags, dtype=tf.float32)
            if weights is not None:
                labelled *= tf.gather(weights, chosen)[:, tf.newaxis]
            return network.features(sparse), labelled

        return tf.data.Dataset.range(0, tf.shape(labels, out_type=tf.int64)[0], size).map(batch)

    kinds = (
        tf.TensorSpec([None, 2], tf.int64),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, tags], tf.bool) if several else tf.TensorSpec([None], tf.int32),
    )
    return tf.data.Dataset.from_generator(lambda: _ahead(windows(), size), output_signature=kinds).flat_map(batches)
