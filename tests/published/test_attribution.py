"""The words that speak for a tag, against TensorFlow's own gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse import csr_matrix, random

from pipeline.model import checkpoint, network
from pipeline.published import attribution
from pipeline.settings import Settings

TAGS, COLUMNS = 3, 40


@pytest.fixture
def model_dir(tmp_path):
    """The checkpoint of a network with random weights and biases, and the Keras model with the same."""
    settings = Settings(vocabulary_size=COLUMNS, hidden_units=8, epochs=1)
    estimator = network.to_estimator(settings, TAGS, tmp_path / "model")
    shuffle = np.random.default_rng(7)
    vectors = random(64, COLUMNS, density=0.2, format="csr", dtype=np.float32, random_state=7)
    onehot = np.eye(TAGS, dtype=np.float32)[shuffle.integers(0, TAGS, 64)]

    def feed():
        rows, columns = vectors.nonzero()
        sparse = tf.SparseTensor(
            np.stack([rows, columns], 1), np.asarray(vectors[rows, columns]).ravel(), (64, COLUMNS)
        )
        return tf.data.Dataset.from_tensors((network.features(sparse), onehot)).repeat(20)

    estimator.train(feed)
    return tmp_path / "model"


def gradient_times_input(model_dir, vectors, tag):
    """By automatic differentiation of the dense network's centred logit."""
    reader = tf.train.load_checkpoint(str(model_dir))
    weights = [
        reader.get_tensor(checkpoint.LAYERS.format(layer, part)) for layer in (0, 1) for part in ("kernel", "bias")
    ]
    dense = tf.constant(vectors.toarray())
    with tf.GradientTape() as tape:
        tape.watch(dense)
        logits = tf.nn.relu(dense @ weights[0] + weights[1]) @ weights[2] + weights[3]
        centred = logits[:, tag] - tf.reduce_mean(logits, axis=1)
    return (tape.gradient(centred, dense) * dense).numpy().sum(axis=0)


def of(model_dir):
    return attribution.Attribution(checkpoint.weights(model_dir))


def test_contributions_are_gradient_times_input(model_dir):
    vectors = random(50, COLUMNS, density=0.15, format="csr", dtype=np.float32, random_state=1)
    attributed = of(model_dir)
    for tag in range(TAGS):
        columns, sums = attributed.contributions(vectors, tag)
        found = np.zeros(COLUMNS)
        found[columns] = sums
        np.testing.assert_allclose(found, gradient_times_input(model_dir, vectors, tag), atol=1e-5)


def test_only_posts_of_the_tag_and_words_that_speak_for_it_count(model_dir):
    vectors = random(50, COLUMNS, density=0.15, format="csr", dtype=np.float32, random_state=1)
    labels = np.arange(50) % 2  # no post has tag 2
    first, second, none = attribution.strongest(of(model_dir), vectors, labels, TAGS, 4)
    assert none == []
    for tag, columns in enumerate((first, second)):
        sums = gradient_times_input(model_dir, vectors[labels == tag], tag)
        assert columns == np.argsort(-sums)[:4].tolist()
        assert (sums[columns] > 0).all()


def test_a_post_without_words_adds_nothing(model_dir):
    assert attribution.strongest(
        of(model_dir),
        csr_matrix((2, COLUMNS), dtype=np.float32),
        np.array([0, 1]),
        TAGS,
        4,
    ) == [[], [], []]
