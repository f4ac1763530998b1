"""The article's network in Keras, and its conversion to an Estimator."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree

import tensorflow as tf

from pipeline.settings import Settings

FEATURE = "posts_input"
"""What model_to_estimator calls the input of a first layer named `posts`: float32 [n, vocabulary_size]."""

OUTPUT = "labels"
"""The network's answer: float32 [n, tags], probabilities in label order."""


def keras_model(settings: Settings, tags: int) -> tf.keras.Model:
    """The compiled network: Dense `posts` (relu), dropout where it is set, Dense `labels` (softmax)."""
    tf.keras.utils.set_random_seed(settings.seed)
    hidden = tf.keras.layers.Dense(
        settings.hidden_units, activation="relu", input_shape=(settings.vocabulary_size,), name="posts"
    )
    dropout = [tf.keras.layers.Dropout(settings.dropout, name="dropout")] if settings.dropout else []
    output = tf.keras.layers.Dense(tags, activation="softmax", name=OUTPUT)
    model = tf.keras.Sequential([hidden, *dropout, output])
    model.compile(
        # model_to_estimator takes the legacy optimizers only.
        optimizer=tf.keras.optimizers.legacy.Adam(learning_rate=settings.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def to_estimator(settings: Settings, tags: int, model_dir: Path) -> tf.estimator.Estimator:
    """The network as an Estimator that keeps its checkpoints in `model_dir`.

    A `model_dir` that holds a checkpoint continues from it; training wants an empty one.
    """
    tf.config.experimental.enable_op_determinism()
    model = keras_model(settings, tags)
    config = tf.estimator.RunConfig(
        tf_random_seed=settings.seed, keep_checkpoint_max=1, save_checkpoints_steps=settings.checkpoint_steps
    )
    estimator = tf.keras.estimator.model_to_estimator(keras_model=model, model_dir=str(model_dir), config=config)
    tf.keras.backend.clear_session()
    return estimator


@contextmanager
def trained(checkpoint: Path, settings: Settings, tags: int) -> Iterator[tf.estimator.Estimator]:
    """The Estimator with the weights of a checkpoint's folder, on a copy: an Estimator writes into its model_dir."""
    with tempfile.TemporaryDirectory(prefix="tagger-model-") as scratch:
        model_dir = Path(scratch, "model")
        copytree(checkpoint, model_dir)
        yield to_estimator(settings, tags, model_dir)
