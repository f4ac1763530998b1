"""The parity check: compares the SavedModel's answers to raw posts with the Estimator's answers to their vectors.

`python -m pipeline.model.parity MODEL CASES` prints a Parity as JSON. CASES is a Parquet file of the schema below.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from pipeline.data.vectors import vectorize
from pipeline.model import input_fn, serving

CASES = pa.schema(
    [
        ("row", pa.int64()),
        ("post", pa.string()),
        ("tag", pa.string()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
"""One post: its row in the source, text, vector, and the Estimator's answer as tag, or tags, and probabilities."""

BATCH = 500
DENSE_CELLS = 1 << 22
"""Of each batch so many posts are also asked as dense vectors that these have at most so many cells, 16 MB."""

PROBABILITY_TOLERANCE = 1e-5
VECTOR_TOLERANCE = 1e-6
"""Relative, for float32 has seven digits; only values with a logarithm may differ, in the last digit."""


@dataclass(frozen=True)
class Parity:
    """The result: posts compared, the largest difference of a probability, and the first faults as sentences."""

    posts: int
    largest_difference: float
    faults: list[str]


def check_parity(model: Path, cases: Path) -> Parity:
    """Compare every case's vector, tag and probabilities with those of the SavedModel's signatures.

    The signature `vectors`, whose input is dense, is asked for some of the posts only if the vocabulary is large.
    """
    count, largest, faults = 0, 0.0, list[str]()
    rule = serving.text_rule(model)
    assert rule is not None  # noqa: S101 - for the type checker: export has just put them there
    limits = serving.thresholds_of(model)
    with serving.opened(model) as served, pq.ParquetFile(cases) as file:
        for batch in file.iter_batches(BATCH):
            wanted = np.array(batch.column("probabilities").to_pylist(), dtype=np.float32)
            answer, vectors = served.tag_and_vectors(batch.column("post").to_pylist())
            cells = input_fn.vectors(batch, rule.size)
            answers = [answer["probabilities"], served.from_cells(cells)]
            differences = np.max([np.abs(each - wanted).max(axis=1) for each in answers], axis=0)
            dense = served.from_vectors(cells[: max(1, DENSE_CELLS // rule.size)].toarray())
            head = slice(len(dense))
            differences[head] = np.maximum(differences[head], np.abs(dense - wanted[head]).max(axis=1))
            again = vectorize(batch.column("post"), rule.vocabulary, size=rule.size, mode=rule.mode)
            same = _same(input_fn.vectors(again, rule.size), cells) & _same(vectors, cells, VECTOR_TOLERANCE)
            said, ties = answer["tag" if limits is None else "tags"], _ties(wanted, limits)
            faults.extend(_faults(batch, same, said, ties, differences))
            count, largest = count + batch.num_rows, max(largest, float(differences.max()))
    return Parity(count, largest, faults[:5])


def _same(one: csr_matrix, other: csr_matrix, tolerance: float = 0) -> np.ndarray:
    """Whether each row has the same values in both matrices, within a relative tolerance: bool [rows]."""
    excess = abs(one - other) - tolerance * abs(other)
    same: np.ndarray = excess.max(axis=1).toarray().ravel() <= 0
    return same


def _faults(
    batch: pa.RecordBatch,
    same: np.ndarray,
    said: np.ndarray,
    ties: np.ndarray,
    differences: np.ndarray,
) -> Iterator[str]:
    """Yield a sentence for each post of the batch whose vector, probabilities or tag differ."""
    rows, tags = batch.column("row").to_pylist(), batch.column("tag").to_pylist()
    for at, row in enumerate(rows):
        if not same[at]:
            yield f"row {row}: its vector is not the one that vectorize made"
        elif not differences[at] <= PROBABILITY_TOLERANCE:
            yield f"row {row}: a probability differs by {differences[at]:.1e} (at most {PROBABILITY_TOLERANCE:.0e})"
        elif said[at].decode() != tags[at] and not ties[at]:
            yield f"row {row}: tag {said[at].decode()!r} where the Estimator said {tags[at]!r}"


def _ties(probabilities: np.ndarray, limits: np.ndarray | None) -> np.ndarray:
    """Whether two tags, or a tag and its threshold, are closer than the tolerance, so that either answer is right."""
    first, second = -np.sort(-probabilities, axis=1)[:, :2].T
    distance = first - second
    if limits is not None:
        distance = np.minimum(distance, np.abs(probabilities - limits).min(axis=1))
    tie: np.ndarray = distance <= 2 * PROBABILITY_TOLERANCE
    return tie


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(check_parity(Path(sys.argv[1]), Path(sys.argv[2])))) + "\n")
