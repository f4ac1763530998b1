"""The network in Keras, as in the article, and its conversion to an Estimator."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import tensorflow as tf

from pipeline import tf_config
from pipeline.data.signatures import OUTPUT
from pipeline.files import scratch_folder
from pipeline.settings import Settings

INDICES, VALUES, SHAPE = "posts_indices", "posts_values", "posts_shape"
"""The network's inputs, the components of a SparseTensor: int64 [cells, 2], float32 [cells], int64 [2].

A converted Estimator does not accept a SparseTensor itself.
"""


def features(vectors: tf.SparseTensor) -> dict[str, tf.Tensor]:
    """Convert sparse vectors, float32 [n, vocabulary_size], to the network's inputs."""
    return {INDICES: vectors.indices, VALUES: vectors.values, SHAPE: vectors.dense_shape}


@tf.keras.utils.register_keras_serializable("tagger")
class SparseDense(tf.keras.layers.Layer):
    """Keras's Dense layer with relu for sparse input, so that a post costs only the kernel's rows of its words.

    The kernel is dense, so weights and checkpoints are the same as those of Dense. So is its gradient, unless `lazy`
    makes it one of the rows of the batch's words only, without repeats, which only LazyAdam can use.
    """

    def __init__(self, columns: int, units: int, *, lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns, self.units, self.lazy = columns, units, lazy

    def build(self, input_shape: Any) -> None:
        """Create the weights with the same initial values as Dense."""
        self.kernel = self.add_weight("kernel", [self.columns, self.units], initializer="glorot_uniform")
        self.bias = self.add_weight("bias", [self.units], initializer="zeros")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Compute the activations, float32 [n, units]."""
        vectors, kernel = tf.SparseTensor(*inputs), self.kernel
        if self.lazy:
            columns, places = tf.unique(vectors.indices[:, 1])
            kernel = tf.gather(kernel, columns)
            cells = tf.stack([vectors.indices[:, 0], tf.cast(places, tf.int64)], axis=1)
            shape = tf.stack([vectors.dense_shape[0], tf.size(columns, out_type=tf.int64)])
            vectors = tf.SparseTensor(cells, vectors.values, shape)
        return tf.nn.relu(tf.sparse.sparse_dense_matmul(vectors, kernel) + self.bias)

    def get_config(self) -> dict[str, Any]:
        """The arguments by which Estimator creates the layer again in its own graph."""
        return {**super().get_config(), "columns": self.columns, "units": self.units, "lazy": self.lazy}


@tf.keras.utils.register_keras_serializable("tagger")
class LazyAdam(tf.keras.optimizers.legacy.Adam):
    """Adam (Kingma and Ba 2015) that changes moments and weights only in the rows that have a gradient.

    A row without a gradient keeps its moments as they are, where Adam would let them decay and still move the weights.
    """

    def _resource_apply_sparse_duplicate_indices(
        self, grad: tf.Tensor, handle: tf.Variable, indices: tf.Tensor, **kwargs: Any
    ) -> tf.Operation:
        """Skip the search for repeated rows, because SparseDense has none."""
        return self._resource_apply_sparse(grad, handle, indices, **kwargs)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        kind = var.dtype.base_dtype
        known = (apply_state or {}).get((var.device, kind)) or self._fallback_apply_state(var.device, kind)
        slots = self.get_slot(var, "m"), self.get_slot(var, "v")
        mean, square = (tf.gather(slot, indices) for slot in slots)
        mean = known["beta_1_t"] * mean + known["one_minus_beta_1_t"] * grad
        square = known["beta_2_t"] * square + known["one_minus_beta_2_t"] * tf.square(grad)
        step = known["lr"] * mean / (tf.sqrt(square) + known["epsilon"])
        rows = ((slots[0].scatter_update, mean), (slots[1].scatter_update, square), (var.scatter_sub, step))
        return tf.group(*(change(tf.IndexedSlices(value, indices)) for change, value in rows))


def keras_model(settings: Settings, tags: int) -> tf.keras.Model:
    """Build and compile the network: SparseDense `posts`, dropout if it is set, Dense `labels` with softmax.

    With multi_tag `labels` has a sigmoid, which gives each tag a probability of its own; at first, one tag a post (the
    bias of Lin et al. 2017, Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002).
    """
    tf.keras.utils.set_random_seed(settings.seed)
    inputs = [
        tf.keras.Input((2,), dtype=tf.int64, name=INDICES),
        tf.keras.Input((), dtype=tf.float32, name=VALUES),
        tf.keras.Input((), dtype=tf.int64, name=SHAPE),
    ]
    lazy = settings.optimizer == "lazy_adam"
    hidden = SparseDense(settings.vocabulary_size, settings.hidden_units, lazy=lazy, name="posts")(inputs)
    if settings.dropout:
        hidden = tf.keras.layers.Dropout(settings.dropout, name="dropout")(hidden)
    outputs, loss = tf.keras.layers.Dense(tags, activation="softmax", name=OUTPUT), "categorical_crossentropy"
    if settings.multi_tag:
        # Few posts have a given tag, so that from bias 0 the network would first have to learn to say no.
        rare = tf.keras.initializers.Constant(-math.log(tags - 1))
        outputs = tf.keras.layers.Dense(tags, activation="sigmoid", bias_initializer=rare, name=OUTPUT)
        loss = "binary_crossentropy"
    model = tf.keras.Model(inputs, outputs(hidden))
    adam = LazyAdam if lazy else tf.keras.optimizers.legacy.Adam  # model_to_estimator takes legacy optimizers only
    model.compile(
        optimizer=adam(learning_rate=settings.learning_rate),
        loss=loss,
        metrics=[metric(settings)],
    )
    return model


def metric(settings: Settings) -> str:
    """The Estimator's own metric: the share of posts whose most probable tag is right.

    With several tags it is the share of all decisions, one for each post and tag, that are right at a threshold of 0.5.
    """
    return "binary_accuracy" if settings.multi_tag else "accuracy"


def to_estimator(
    settings: Settings,
    tags: int,
    model_dir: Path,
    place: tf_config.Place | None = None,
    prepare: Callable[[tf.keras.Model], object] | None = None,
) -> tf.estimator.Estimator:
    """Convert the network to an Estimator with checkpoints in `model_dir`; with a `place`, to one of a cluster.

    If `model_dir` has a checkpoint, the Estimator continues from it, else from the model's weights, which `prepare` may
    set.
    """
    tf.config.experimental.enable_op_determinism()
    model = keras_model(settings, tags)
    if prepare:
        prepare(model)
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
    """Set TF_CONFIG to the place or remove it, because RunConfig always reads it; restore it at the end."""
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
    """Open the Estimator of a checkpoint's folder, on a copy, because an Estimator writes to its model_dir."""
    with scratch_folder("model") as scratch:
        model_dir = Path(scratch, "model")
        copytree(checkpoint, model_dir)
        yield to_estimator(settings, tags, model_dir)
