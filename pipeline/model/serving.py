"""Export and open the SavedModel, whose graph turns raw posts into tags by the text rule of `pipeline.data.words`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipeline.checks import thresholds
from pipeline.data import text_rule
from pipeline.data.several_tags import SEPARATOR
from pipeline.data.signatures import CELLS, CLASSIFY, EXAMPLES, FEATURE, OUTPUT, SERVING, VECTORS
from pipeline.data.text_rule import RULE
from pipeline.data.vectors import idf
from pipeline.data.vocabulary import COUNTS_FILE, Vocabulary
from pipeline.data.words import EXPANDS, SIGNS, WordRule, code_points
from pipeline.files import scratch_folder
from pipeline.model import network, warmup
from pipeline.settings import Settings

ERRORS = tf.errors.OpError
"""TensorFlow's errors for a model that it cannot load or run."""

tf1 = tf.compat.v1


def export(
    estimator: tf.estimator.Estimator,
    *,
    vocabulary_file: Path,
    labels_file: Path,
    settings: Settings,
    folder: Path,
    thresholds_file: Path | None = None,
) -> Path:
    """Write the SavedModel to a new folder under `folder` and return its path.

    Its signatures are `serving_default`, from post (string [n]) to tag (string [n]), probability (float32 [n]) and
    probabilities (float32 [n, tags]); `vectors`, from posts_input (float32 [n, vocabulary_size]) to labels (float32
    [n, tags]); `cells`, the same from a SparseTensor's components, indices (int64 [cells, 2]), values (float32 [cells])
    and shape (int64 [2]); and `classify`, from inputs (string [n], serialized tf.Examples with the feature `post`) to
    classes (string [n, tags]) and scores (float32 [n, tags]). With a file of thresholds, `serving_default` has tags
    (string [n]), too, such as `pandas|python`: those that pipeline.checks.thresholds gives the post, of which tag is
    the most probable. Both files, one entry a line, are stored as assets, and what TextRule and
    `thresholds` read, and the warm-up requests, as extra assets.
    """
    vocabulary = Vocabulary.load(vocabulary_file.parent)
    limits = thresholds.read(thresholds_file) if thresholds_file else None

    def receiver() -> tf.estimator.export.ServingInputReceiver:
        post = tf1.placeholder_with_default(tf.constant([], tf.string), [None], name="post")
        examples = tf1.placeholder_with_default(tf.constant([], tf.string), [None], name=EXAMPLES)
        dense = tf.zeros([0, settings.vocabulary_size])
        dense = tf1.placeholder_with_default(dense, [None, settings.vocabulary_size], name=FEATURE)
        return tf.estimator.export.ServingInputReceiver(
            {"post": post, EXAMPLES: examples, FEATURE: dense}, {"post": post}
        )

    def model_fn(features: Any, labels: Any, mode: str, config: Any) -> tf.estimator.EstimatorSpec:
        # A signature feeds one of the three, so the others have no rows.
        parsed = tf.io.parse_example(features[EXAMPLES], {"post": tf.io.FixedLenFeature([], tf.string)})["post"]
        of_text = _vectors(tf.concat([features["post"], parsed], 0), _lines(vocabulary_file), vocabulary, settings)
        cells = tf.sparse.concat(0, [of_text, tf.sparse.from_dense(features[FEATURE])])
        spec = estimator.model_fn(network.features(cells), labels, mode, config)
        probabilities = spec.predictions[OUTPUT]
        answer, classes = _answer(probabilities, _lines(labels_file), limits)
        outputs = {
            SERVING: tf.estimator.export.PredictOutput(answer),
            CLASSIFY: _FromExamples(features[EXAMPLES], probabilities, classes),
            VECTORS: _FromVectors({FEATURE: features[FEATURE]}, {OUTPUT: probabilities}),
            CELLS: _FromVectors(
                {"indices": cells.indices, "values": cells.values, "shape": cells.dense_shape}, {OUTPUT: probabilities}
            ),
        }
        return spec._replace(export_outputs=outputs)

    served = tf.estimator.Estimator(model_fn, model_dir=estimator.model_dir, config=estimator.config)
    with scratch_folder("words") as scratch:
        rule = Path(scratch, RULE)
        text_rule.write(rule, size=settings.vocabulary_size, mode=settings.vector_mode)
        warmup.write(vocabulary, SERVING, Path(scratch, warmup.FILE))
        extra = {
            RULE: str(rule),
            COUNTS_FILE: str(vocabulary_file.with_name(COUNTS_FILE)),
            warmup.FILE: str(Path(scratch, warmup.FILE)),
        }
        if thresholds_file:
            extra[thresholds.FILE] = str(thresholds_file)
        model = Path(served.export_saved_model(str(folder), receiver, assets_extra=extra).decode())
    _make_reproducible(model, (vocabulary_file, labels_file))
    return model


def _make_reproducible(model: Path, assets: tuple[Path, ...]) -> None:
    """Remove from saved_model.pb what differs from export to export: paths of assets, and random names of tables.

    The loaders of TensorFlow 1 and 2 both set the assets' paths themselves, and tables of two models with equal names
    do not collide.
    """
    file, names = model / "saved_model.pb", {str(asset).encode(): asset.name.encode() for asset in assets}
    saved = SavedModel.FromString(file.read_bytes())
    for node in saved.meta_graphs[0].graph_def.node:
        if node.op == "HashTableV2":
            node.attr["shared_name"].s = node.name.encode()
        elif node.op == "Const":
            strings = node.attr["value"].tensor.string_val
            strings[:] = [names.get(string, string) for string in strings]
    file.write_bytes(saved.SerializeToString(deterministic=True))


class _FromVectors(tf.estimator.export.PredictOutput):
    """A signature with inputs of its own; Estimator would give it the receiver's inputs, the posts."""

    def __init__(self, inputs: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> None:
        super().__init__(outputs)
        self.inputs = inputs

    def as_signature_def(self, receiver_tensors: dict[str, tf.Tensor]) -> Any:
        return super().as_signature_def(self.inputs)


class _FromExamples(tf.estimator.export.ClassificationOutput):
    """The signature for tf.Examples; Estimator would give it the receiver's inputs, the posts."""

    def __init__(self, examples: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor) -> None:
        super().__init__(scores, classes)
        self.examples = examples

    def as_signature_def(self, receiver_tensors: dict[str, tf.Tensor]) -> Any:
        return super().as_signature_def({"inputs": self.examples})


def _lines(file: Path) -> tf.Tensor:
    """Read the lines of a file that is stored as an asset: string [n].

    It is read whole and split: TensorFlow's own text-file table drops carriage returns, which a word may contain.
    """
    name = tf.constant(str(file), name=file.stem)
    tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, name)
    # A placeholder prevents constant folding, which would read the file before the loader has set its folder.
    read = tf.io.read_file(tf1.placeholder_with_default(name, []))
    return tf.strings.split([read], sep="\n").flat_values[:-1]


def _answer(
    probabilities: tf.Tensor, labels: tf.Tensor, limits: np.ndarray | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The outputs of `serving_default`, and the tags of the columns of `probabilities`, string [n, tags]."""
    numbers = tf.range(tf.size(labels, out_type=tf.int64), dtype=tf.int64)
    # A table, because the asset's path is only valid while tables are initialized.
    tags = tf1.lookup.StaticHashTable(tf1.lookup.KeyValueTensorInitializer(numbers, labels), "")
    columns = tf.range(tf.shape(probabilities, out_type=tf.int64)[1], dtype=tf.int64)
    classes = tags.lookup(tf.zeros_like(probabilities, tf.int64) + columns)
    given, several = probabilities, {}
    if limits is not None:
        chosen = _chosen(probabilities, limits)
        given = tf.where(chosen, probabilities, -1.0)
        several = {"tags": tf.strings.reduce_join(tf.ragged.boolean_mask(classes, chosen), axis=1, separator=SEPARATOR)}
    answer = {"tag": tags.lookup(tf.argmax(given, axis=1))} | several
    return answer | {"probability": tf.reduce_max(given, axis=1), "probabilities": probabilities}, classes


def _chosen(probabilities: tf.Tensor, limits: np.ndarray) -> tf.Tensor:
    """The same in the graph as pipeline.checks.thresholds.chosen: bool [n, tags]."""
    reached = probabilities >= tf.constant(limits)
    best = tf.one_hot(tf.argmax(probabilities, axis=1), len(limits), on_value=True, off_value=False)
    return tf.logical_or(reached, tf.logical_and(tf.logical_not(tf.reduce_any(reached, axis=1, keepdims=True)), best))


def _vectors(post: tf.Tensor, entries: tf.Tensor, vocabulary: Vocabulary, settings: Settings) -> tf.SparseTensor:
    """Convert posts to vectors in the graph as `pipeline.data.vectors.vectorize` does: float32 [n, vocabulary_size].

    `entries` are the words and pairs of the vocabulary.
    """
    numbers = tf.range(1, tf.size(entries, out_type=tf.int64) + 1, dtype=tf.int64)
    table = tf1.lookup.StaticHashTable(tf1.lookup.KeyValueTensorInitializer(entries, numbers), 0)
    words = tf.strings.split(_normalized(post, vocabulary.word_rule), sep=" ")
    found, rows = words.flat_values, words.value_rowids()
    if vocabulary.pairs.any():
        full = tf.not_equal(found, "")  # between two spaces
        found, rows = tf.boolean_mask(found, full), tf.boolean_mask(rows, full)
        together = tf.equal(rows[:-1], rows[1:])
        first, second = (tf.boolean_mask(words, together) for words in (found[:-1], found[1:]))
        found = tf.concat([found, tf.strings.join([first, second], " ")], axis=0)
        rows = tf.concat([rows, tf.boolean_mask(rows[:-1], together)], axis=0)
    index, size, number = table.lookup(found), settings.vocabulary_size, tf.size(post, out_type=tf.int64)
    known = index > 0
    cells, _, counts = tf.unique_with_counts(tf.boolean_mask(rows * size + index, known), out_idx=tf.int64)
    order = tf.argsort(cells)
    cells, counts = tf.gather(cells, order), tf.gather(counts, order)
    rows, columns = cells // size, cells % size
    weights = tf.gather(tf.constant(idf(vocabulary, size, settings.vector_mode)), columns)
    values = _weighted(tf.cast(counts, tf.float64), rows, number, weights, settings.vector_mode)
    return tf.SparseTensor(tf.stack([rows, columns], axis=1), tf.cast(values, tf.float32), tf.stack([number, size]))


def _normalized(post: tf.Tensor, word_rule: WordRule) -> tf.Tensor:
    """Lower-case the posts and put spaces between words, with our table, as TensorFlow's Unicode version varies."""
    if word_rule == "signs":
        post = tf.strings.regex_replace(post, f"([{re.escape(SIGNS)}])", r" \1 ")
    for one, two in EXPANDS.items():
        post = tf.strings.regex_replace(post, one, two)
    table = code_points(word_rule)
    points = tf.strings.unicode_decode(post, "UTF-8", errors="replace")
    mapped = tf.where(
        points.flat_values < len(table),
        tf.gather(table, tf.minimum(points.flat_values, len(table) - 1)),
        points.flat_values,
    )
    return tf.strings.unicode_encode(points.with_flat_values(mapped), "UTF-8")


def _weighted(counts: tf.Tensor, rows: tf.Tensor, number: tf.Tensor, weights: tf.Tensor, mode: str) -> tf.Tensor:
    """Convert the counts of the cells of `number` posts to the values of a vector mode: float64 [cells]."""
    if mode == "binary":
        return tf.ones_like(counts)
    if mode == "count":
        return counts
    if mode == "freq":
        return counts / tf.gather(tf.math.unsorted_segment_sum(counts, rows, number), rows)
    values = (1 + tf.math.log(counts)) * weights
    if mode == "log_tfidf":
        values /= tf.gather(tf.sqrt(tf.math.unsorted_segment_sum(values**2, rows, number)), rows)
    return values


class Served:
    """A loaded SavedModel: tags posts, and gives the vectors between."""

    def __init__(self, session: Any, signatures: Any) -> None:
        self.signatures = dict(signatures)
        self._session = session
        self._post = signatures[SERVING].inputs["post"].name
        self._answer = {name: output.name for name, output in signatures[SERVING].outputs.items()}
        # Prepared once, because to look up the tensors takes as long as to tag a post.
        self._tag = session.make_callable(list(self._answer.values()), [self._post])
        self._vectors = signatures[VECTORS].inputs[FEATURE].name
        self._labels = signatures[VECTORS].outputs[OUTPUT].name
        self._cells: dict[str, str] = {}
        if CELLS in signatures:  # models published by older versions of the pipeline have no such signature
            self._cells = {name: cell.name for name, cell in signatures[CELLS].inputs.items()}

    def tag(self, posts: Sequence[str | bytes] | np.ndarray) -> dict[str, np.ndarray]:
        """Return `tag` (object of bytes [n]), `probability` (float32 [n]) and `probabilities` (float32 [n, tags]).

        A model of several tags returns also `tags` (object of bytes [n]).
        """
        return dict(zip(self._answer, self._tag(_strings(posts)), strict=True))

    def tag_and_vectors(self, posts: Sequence[str | bytes] | np.ndarray) -> tuple[dict[str, np.ndarray], csr_matrix]:
        """Tag posts, and return the network's input too: float32 [n, vocabulary_size]."""
        answer, cells = self._session.run((self._answer, self._cells), {self._post: _strings(posts)})
        at = tuple(cells["indices"].T)
        return answer, csr_matrix((cells["values"], at), shape=cells["shape"])

    def from_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Compute the probabilities, float32 [n, tags], by the signature `vectors`."""
        return self._session.run(self._labels, {self._vectors: vectors})  # type: ignore[no-any-return]

    def from_cells(self, vectors: csr_matrix) -> np.ndarray:
        """Compute the probabilities, float32 [n, tags], by the signature `cells`."""
        cells = vectors.tocoo()
        fed = {"indices": np.stack([cells.row, cells.col], axis=1), "values": cells.data, "shape": cells.shape}
        return self._session.run(  # type: ignore[no-any-return]
            self._labels, {self._cells[name]: value for name, value in fed.items()}
        )


@contextmanager
def opened(folder: Path) -> Iterator[Served]:
    """Load a SavedModel in its own session, which is closed at the end, by whichever thread."""
    session = tf1.Session(graph=tf.Graph())
    try:
        meta = tf1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
        yield Served(session, meta.signature_def)
    finally:
        session.close()


def _strings(posts: Sequence[str | bytes] | np.ndarray) -> np.ndarray:
    """Convert texts to an object array of bytes, as NumPy's own strings lose a trailing NUL."""
    return np.array([post.encode() if isinstance(post, str) else post for post in posts], dtype=object)
