import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from pipeline.data import posts
from pipeline.model import input_fn, network

ROWS = 2500
"""More than two row groups, the last one short."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Vectors in which post n has label n % 3, the value n in column 1 + n % 4, and, if n is odd, a 1 in column 5."""
    folder = tmp_path_factory.mktemp("vectors")
    rows = [
        {
            "indices": [1 + n % 4] + [5] * (n % 2),
            "values": [float(n)] + [1.0] * (n % 2),
            "label": n % 3,
            "row": n,
        }
        for n in range(ROWS)
    ]
    for side in posts.SIDES:
        with posts.Writer(folder, side) as writer:
            writer.write(pa.RecordBatch.from_pylist(rows, schema=posts.VECTORS))
    return folder


def read(dataset):
    """Read all batches, check every row, and return the rows' numbers in order and the batches' sizes."""
    numbers, sizes = [], []
    for features, labels in dataset.as_numpy_iterator():
        sparse = tf.SparseTensor(*(features[part] for part in (network.INDICES, network.VALUES, network.SHAPE)))
        vectors = tf.sparse.to_dense(sparse).numpy()
        assert vectors.shape == (len(labels), 6)
        assert vectors.dtype == labels.dtype == np.float32
        for vector, label in zip(vectors, labels, strict=True):
            n = int(vector[1:5].max())
            expected = np.zeros(6, np.float32)
            expected[1 + n % 4] = n
            expected[5] = n % 2
            assert vector.tolist() == expected.tolist()
            assert label.tolist() == [float(n % 3 == at) for at in range(3)]
            numbers.append(n)
        sizes.append(len(vectors))
    return numbers, sizes


def training(folder, epochs=1, seed=0, batch_size=300, share=(0, 1)):
    feed = input_fn.training(folder, columns=6, tags=3, batch_size=batch_size, epochs=epochs, seed=seed, share=share)
    return read(feed())


def test_every_post_comes_once_an_epoch_in_full_batches(folder):
    numbers, sizes = training(folder, epochs=2)
    assert sorted(numbers) == sorted([*range(ROWS), *range(ROWS)])
    assert sizes == [300] * 8 + [100] + [300] * 8 + [100]


def test_each_epoch_is_shuffled_again_by_the_seed(folder):
    numbers, _ = training(folder, epochs=2)
    first, second = numbers[:ROWS], numbers[ROWS:]
    assert first != second
    assert first != list(range(ROWS))
    assert training(folder, epochs=2)[0] == numbers
    assert training(folder, seed=1)[0] != first


def test_readers_that_share_an_epoch_read_each_post_once(folder):
    """Three row groups: of two readers the first has the first and the third."""
    first, second = (training(folder, share=(reader, 2))[0] for reader in range(2))
    assert sorted(first) == [*range(1024), *range(2048, ROWS)]
    assert sorted(second) == list(range(1024, 2048))
    assert sum(rows for _, _, rows in input_fn.row_groups(folder, (0, 2))) == len(first)


def test_a_batch_may_span_windows_that_come_from_anywhere(folder, monkeypatch):
    """With windows of one row group, batches are still full, and the groups come in another order than in the file."""
    monkeypatch.setattr(input_fn, "GROUPS_PER_WINDOW", 1)
    numbers, sizes = training(folder, batch_size=900)
    assert sorted(numbers) == list(range(ROWS))
    assert sizes == [900, 900, 700]
    orders = {tuple(n // posts.ROWS_PER_GROUP for n in training(folder, seed=seed)[0][::1024]) for seed in range(6)}
    assert len(orders) > 1


def test_test_posts_come_once_in_order(folder):
    numbers, sizes = read(input_fn.testing(folder, columns=6, tags=3)())
    assert numbers == list(range(ROWS))
    assert set(sizes[:-1]) == {input_fn.PREDICTION_BATCH}


@pytest.fixture
def skewed(tmp_path):
    """Vectors of which 6 have label 0, 3 label 1, and 1 label 2."""
    rows = [
        {"indices": [1], "values": [1.0], "label": label, "row": n} for n, label in enumerate([0] * 6 + [1] * 3 + [2])
    ]
    with posts.Writer(tmp_path, "train") as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=posts.VECTORS))
    return tmp_path


def test_balanced_labels_have_the_same_sum_for_each_class(skewed):
    weights = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2])
    np.testing.assert_allclose(input_fn.class_weights(skewed, 3), weights, rtol=1e-6)
    feed = input_fn.training(skewed, columns=2, tags=3, batch_size=4, epochs=1, seed=0, balanced=True)
    labels = np.concatenate([labels for _, labels in feed().as_numpy_iterator()])
    np.testing.assert_allclose(labels.sum(axis=0), [10 / 3] * 3, rtol=1e-6)
    assert ((labels > 0).sum(axis=1) == 1).all()
