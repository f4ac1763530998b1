"""The article's network in Keras, and its conversion to an Estimator."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import tensorflow as tf

from pipeline import tf_config
from pipeline.settings import Settings

INDICES, VALUES, SHAPE = "posts_indices", "posts_values", "posts_shape"
"""The network's inputs, a SparseTensor's parts: int64 [cells, 2], float32 [cells], int64 [2].

A converted Estimator takes no SparseTensor itself.
"""

OUTPUT = "labels"
"""The network's answer: float32 [n, tags], probabilities in label order."""


def features(vectors: tf.SparseTensor) -> dict[str, tf.Tensor]:
    """What the network is fed for these vectors, float32 [n, vocabulary_size]."""
    return {INDICES: vectors.indices, VALUES: vectors.values, SHAPE: vectors.dense_shape}


@tf.keras.utils.register_keras_serializable("tagger")
class SparseDense(tf.keras.layers.Layer):
    """Keras Dense with relu, for vectors that are nearly all zeros: it reads the kernel's rows of a post's words only.

    The kernel and its gradient are dense, so the weights, the updates and the checkpoint are those of Dense.
    """

    def __init__(self, columns: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns, self.units = columns, units

    def build(self, input_shape: Any) -> None:
        """The weights of Dense, drawn alike."""
        self.kernel = self.add_weight("kernel", [self.columns, self.units], initializer="glorot_uniform")
        self.bias = self.add_weight("bias", [self.units], initializer="zeros")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """float32 [n, units]."""
        return tf.nn.relu(tf.sparse.sparse_dense_matmul(tf.SparseTensor(*inputs), self.kernel) + self.bias)

    def get_config(self) -> dict[str, Any]:
        """How Estimator makes the layer anew in its own graph."""
        return {**super().get_config(), "columns": self.columns, "units": self.units}


def keras_model(settings: Settings, tags: int) -> tf.keras.Model:
    """The compiled network: dense `posts` (relu), dropout where it is set, Dense `labels` (softmax)."""
    tf.keras.utils.set_random_seed(settings.seed)
    parts = [
        tf.keras.Input((2,), dtype=tf.int64, name=INDICES),
        tf.keras.Input((), dtype=tf.float32, name=VALUES),
        tf.keras.Input((), dtype=tf.int64, name=SHAPE),
    ]
    hidden = SparseDense(settings.vocabulary_size, settings.hidden_units, name="posts")(parts)
    if settings.dropout:
        hidden = tf.keras.layers.Dropout(settings.dropout, name="dropout")(hidden)
    model = tf.keras.Model(parts, tf.keras.layers.Dense(tags, activation="softmax", name=OUTPUT)(hidden))
    model.compile(
        # model_to_estimator takes the legacy optimizers only.
        optimizer=tf.keras.optimizers.legacy.Adam(learning_rate=settings.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def to_estimator(
    settings: Settings, tags: int, model_dir: Path, place: tf_config.Place | None = None
) -> tf.estimator.Estimator:
    """The network as an Estimator that keeps its checkpoints in `model_dir`; of a cluster only where a place is given.

    A `model_dir` that holds a checkpoint continues from it; training wants an empty one.
    """
    tf.config.experimental.enable_op_determinism()
    model = keras_model(settings, tags)
    with _tf_config(place):
        config = tf.estimator.RunConfig(
            tf_random_seed=settings.seed,
            keep_checkpoint_max=1,
            save_checkpoints_steps=settings.checkpoint_steps,
            experimental_max_worker_delay_secs=5,
        )
    estimator = tf.keras.estimator.model_to_estimator(keras_model=model, model_dir=str(model_dir), config=config)
    tf.keras.backend.clear_session()
    return estimator


@contextmanager
def _tf_config(place: tf_config.Place | None) -> Iterator[None]:
    """RunConfig reads the environment whether or not it is meant: while this lasts, it says the place and no more."""
    before = os.environ.pop(tf_config.VARIABLE, None)
    if place:
        os.environ[tf_config.VARIABLE] = place.config
    try:
        yield
    finally:
        os.environ.pop(tf_config.VARIABLE, None)
        if before is not None:
            os.environ[tf_config.VARIABLE] = before


@contextmanager
def trained(checkpoint: Path, settings: Settings, tags: int) -> Iterator[tf.estimator.Estimator]:
    """The Estimator with the weights of a checkpoint's folder, on a copy: an Estimator writes into its model_dir."""
    with tempfile.TemporaryDirectory(prefix="tagger-model-") as scratch:
        model_dir = Path(scratch, "model")
        copytree(checkpoint, model_dir)
        yield to_estimator(settings, tags, model_dir)
