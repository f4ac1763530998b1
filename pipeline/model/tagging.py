"""Tags batches of posts with a SavedModel, by vectors made on Arrow where the model carries its text rule."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from pipeline.checks import thresholds
from pipeline.data import tag_matrix
from pipeline.data.vectors import vectorize_all
from pipeline.model import input_fn, serving

Tagged = tuple[pa.RecordBatch, pa.Array, np.ndarray]
"""A batch, the tag of each of its posts (string), and the tag's probability (float32).

Of a model of several tags the first is a text such as `pandas|python`, and the second the probability of the most
probable one.
"""


def tagged(
    served: serving.Served, model: Path, labels: list[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[Tagged]:
    """Tag the column `post` of each batch; `labels` are the model's tags in their order, and `model` is its folder.

    If the model carries its text rule, the vectors are made here, in a sixth of the time that its graph needs; the
    parity check at its export made sure that both are the same.
    """
    rule = serving.text_rule(model)
    if rule is None:
        for batch in batches:
            answer = served.tag(batch.column("post").cast(pa.binary()).to_numpy(zero_copy_only=False))
            yield batch, pa.array(answer["tag"], pa.binary()).cast(pa.string()), answer["probability"]
        return
    tags, limits = pa.array(labels, pa.string()), serving.thresholds_of(model)
    for batch, vectors in vectorize_all(batches, rule.vocabulary, size=rule.size, mode=rule.mode):
        probabilities = served.from_cells(input_fn.vectors(vectors, rule.size))
        label, several = given(probabilities, labels, limits)
        texts = tags.take(pa.array(label)) if several is None else pa.array(several, pa.string())
        yield batch, texts, probabilities[np.arange(len(label)), label]


def given(
    probabilities: np.ndarray, labels: list[str], limits: np.ndarray | None
) -> tuple[np.ndarray, list[str] | None]:
    """The label that each post gets, int [posts]; and where posts have several tags the text of all that it gets.

    The label is then that of the most probable one. `probabilities` are float32 [posts, tags]; `limits` are the
    thresholds of a model of several tags, None of one that gives each post one tag.
    """
    if limits is None:
        return probabilities.argmax(axis=1), None
    chosen = thresholds.chosen(probabilities, limits)
    return thresholds.first(probabilities, chosen), tag_matrix.texts_of(csr_matrix(chosen), labels)
