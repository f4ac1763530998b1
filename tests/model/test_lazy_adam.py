"""Lazy Adam: the same as Adam for the rows of a batch's words, and nothing for the others."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.model import network
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

COLUMNS, TAGS, POSTS, STEPS = 30, 4, 16, 5
KERNEL = "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"


def trained(folder, optimizer, vectors):
    """The first layer's kernel after some steps, each on these vectors, and before."""
    settings = Settings.of(
        {"vocabulary_size": COLUMNS, "hidden_units": 8, "optimizer": optimizer, "checkpoint_steps": 1}
    )
    labels = np.eye(TAGS, dtype=np.float32)[np.arange(POSTS) % TAGS]

    def feed():
        features = network.features(tf.sparse.from_dense(vectors))
        return tf.data.Dataset.from_tensors((features, labels)).repeat(STEPS)

    network.to_estimator(settings, TAGS, folder).train(feed)
    before = tf.train.load_checkpoint(str(folder / "keras" / "keras_model.ckpt")).get_tensor(KERNEL)
    return before, tf.train.load_checkpoint(str(folder)).get_tensor(KERNEL)


def test_it_is_adam_where_every_word_is_in_every_batch(tmp_path):
    vectors = np.random.default_rng(0).random((POSTS, COLUMNS), np.float32) + 0.1
    (start, adam), (same_start, lazy) = (trained(tmp_path / name, name, vectors) for name in ("adam", "lazy_adam"))
    np.testing.assert_array_equal(start, same_start)
    np.testing.assert_allclose(lazy, adam, atol=1e-6)
    assert np.abs(adam - start).max() > 1e-3


def test_it_leaves_the_rows_of_other_words_as_they_are(tmp_path):
    vectors = np.random.default_rng(0).random((POSTS, COLUMNS), np.float32) + 0.1
    vectors[:, 10:] = 0
    start, lazy = trained(tmp_path / "lazy", "lazy_adam", vectors)
    np.testing.assert_array_equal(lazy[10:], start[10:])
    assert (lazy[:10] != start[:10]).any(axis=1).all()


@pytest.mark.parametrize("ngrams", [1, 2])
def test_it_learns_as_well_as_adam(tmp_path, ngrams):
    accuracies = {}
    for optimizer in ("adam", "lazy_adam"):
        run = Run(Store(str(tmp_path / "store")), optimizer)
        values = {"source": "sample://posts?rows=1500&seed=3", "validation_fraction": 0.2, "learning_rate": 0.02}
        values |= {"vocabulary_size": 2000, "hidden_units": 16, "epochs": 4, "vector_mode": "log_tfidf"}
        run.begin(Settings.of(values | {"optimizer": optimizer, "ngrams": ngrams}), CREATED)
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
            summary = run_stage(stage, run)
        accuracies[optimizer] = summary["curve"][-1]["accuracy"]
    assert accuracies["lazy_adam"] > accuracies["adam"] - 0.02
    assert accuracies["lazy_adam"] > 0.6
