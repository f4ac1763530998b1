"""What the SavedModel accepts and returns: raw posts in, tags out, with `pipeline.text`'s rule in the graph."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.estimator.network import FEATURE, OUTPUT
from pipeline.settings import Settings
from pipeline.text import EXPANDS, Vocabulary, code_points, idf

SERVING = "serving_default"
VECTORS = "vectors"

ERRORS = tf.errors.OpError
"""What TensorFlow raises for a model that it cannot load or ask."""

tf1 = tf.compat.v1


def export(
    estimator: tf.estimator.Estimator, *, vocabulary_file: Path, labels_file: Path, settings: Settings, folder: Path
) -> Path:
    """Write the SavedModel under `folder` and return its path.

    `serving_default`: post (string [n]) to tag (string [n]), probability (float32 [n]) and probabilities (float32
    [n, tags]). `vectors`: posts_input (float32 [n, vocabulary_size]) to labels (float32 [n, tags]). Both
    files, one entry a line, travel as assets.
    """
    weights = idf(Vocabulary.load(vocabulary_file.parent), settings.vocabulary_size)

    def receiver() -> tf.estimator.export.ServingInputReceiver:
        post = tf1.placeholder(tf.string, [None], name="post")
        features = {FEATURE: _vectors(post, _lines(vocabulary_file), weights, settings)}
        return tf.estimator.export.ServingInputReceiver(features, {"post": post})

    def model_fn(features: Any, labels: Any, mode: str, config: Any) -> tf.estimator.EstimatorSpec:
        spec = estimator.model_fn(features, labels, mode, config)
        probabilities = spec.predictions[OUTPUT]
        outputs = {
            SERVING: tf.estimator.export.PredictOutput(_answer(probabilities, _lines(labels_file))),
            VECTORS: _FromVectors(features[FEATURE], {OUTPUT: probabilities}),
        }
        return spec._replace(export_outputs=outputs)

    served = tf.estimator.Estimator(model_fn, model_dir=estimator.model_dir, config=estimator.config)
    return Path(served.export_saved_model(str(folder), receiver).decode())


class _FromVectors(tf.estimator.export.PredictOutput):
    """A signature fed with vectors: Estimator gives every signature the receiver's inputs, here the posts."""

    def __init__(self, vectors: tf.Tensor, outputs: dict[str, tf.Tensor]) -> None:
        super().__init__(outputs)
        self.vectors = vectors

    def as_signature_def(self, receiver_tensors: dict[str, tf.Tensor]) -> Any:
        return super().as_signature_def({FEATURE: self.vectors})


def _lines(file: Path) -> tf.Tensor:
    """The lines of a file that travels as an asset: string [n].

    Read whole and split, because TensorFlow's own text-file table drops carriage returns, which a word may hold.
    """
    name = tf.constant(str(file), name=file.stem)
    tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, name)
    return tf.strings.split([tf.io.read_file(name)], sep="\n").flat_values[:-1]


def _answer(probabilities: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    numbers = tf.range(tf.size(labels, out_type=tf.int64), dtype=tf.int64)
    # A table, not the lines themselves: an asset's path holds only while the tables are initialised.
    tags = tf1.lookup.StaticHashTable(tf1.lookup.KeyValueTensorInitializer(numbers, labels), "")
    return {
        "tag": tags.lookup(tf.argmax(probabilities, axis=1)),
        "probability": tf.reduce_max(probabilities, axis=1),
        "probabilities": probabilities,
    }


def _vectors(post: tf.Tensor, vocabulary: tf.Tensor, weights: np.ndarray, settings: Settings) -> tf.Tensor:
    """float32 [n, vocabulary_size]: what `pipeline.text.vectorize` makes of the same posts."""
    numbers = tf.range(1, tf.size(vocabulary, out_type=tf.int64) + 1, dtype=tf.int64)
    table = tf1.lookup.StaticHashTable(tf1.lookup.KeyValueTensorInitializer(vocabulary, numbers), 0)
    words = tf.strings.split(_normalized(post), sep=" ")
    index = table.lookup(words.flat_values)
    known = index > 0
    cells = tf.boolean_mask(tf.stack([words.value_rowids(), index], axis=1), known)
    shape = tf.stack([tf.size(post, out_type=tf.int64), settings.vocabulary_size])
    counts = tf.scatter_nd(cells, tf.ones_like(cells[:, 0], tf.float64), shape)
    vectors = tf.cast(_weighted(counts, weights, settings.vector_mode), tf.float32)
    return tf.ensure_shape(vectors, [None, settings.vocabulary_size])


def _normalized(post: tf.Tensor) -> tf.Tensor:
    """The posts lower-cased, filters as spaces. By a table of ours: each TensorFlow has its own edition of Unicode."""
    for one, two in EXPANDS.items():
        post = tf.strings.regex_replace(post, one, two)
    table = code_points()
    points = tf.strings.unicode_decode(post, "UTF-8", errors="replace")
    mapped = tf.where(
        points.flat_values < len(table),
        tf.gather(table, tf.minimum(points.flat_values, len(table) - 1)),
        points.flat_values,
    )
    return tf.strings.unicode_encode(points.with_flat_values(mapped), "UTF-8")


def _weighted(counts: tf.Tensor, weights: np.ndarray, mode: str) -> tf.Tensor:
    """float64 [n, columns]: Keras texts_to_matrix's four modes, of word counts."""
    if mode == "count":
        return counts
    if mode == "freq":
        return tf.math.divide_no_nan(counts, tf.reduce_sum(counts, axis=1, keepdims=True))
    present = tf.cast(counts > 0, tf.float64)
    if mode == "binary":
        return present
    return present * (1 + tf.math.log(tf.maximum(counts, 1))) * weights


class Served:
    """A SavedModel opened for answers; the vectors it makes of posts are the tensor that `vectors` feeds."""

    def __init__(self, session: Any, signatures: Any) -> None:
        self._session = session
        self._post = signatures[SERVING].inputs["post"].name
        self._answer = {name: output.name for name, output in signatures[SERVING].outputs.items()}
        self._vectors = signatures[VECTORS].inputs[FEATURE].name
        self._labels = signatures[VECTORS].outputs[OUTPUT].name

    def tag(self, posts: Sequence[str | bytes] | np.ndarray) -> dict[str, np.ndarray]:
        """`tag` (object of bytes [n]), `probability` (float32 [n]) and `probabilities` (float32 [n, tags])."""
        return self._session.run(self._answer, {self._post: _strings(posts)})  # type: ignore[no-any-return]

    def vectors(self, posts: Sequence[str | bytes] | np.ndarray) -> np.ndarray:
        """float32 [n, vocabulary_size]: what the network is fed for these posts."""
        return self._session.run(self._vectors, {self._post: _strings(posts)})  # type: ignore[no-any-return]

    def from_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, tags] by the `vectors` signature."""
        return self._session.run(self._labels, {self._vectors: vectors})  # type: ignore[no-any-return]


@contextmanager
def opened(folder: Path) -> Iterator[Served]:
    """Load the SavedModel in a session of its own."""
    with tf1.Session(graph=tf.Graph()) as session:
        meta = tf1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
        yield Served(session, meta.signature_def)


def _strings(posts: Sequence[str | bytes] | np.ndarray) -> np.ndarray:
    """As objects: NumPy's own strings lose a trailing NUL."""
    return np.array([post.encode() if isinstance(post, str) else post for post in posts], dtype=object)
