"""Proof of an export, in a process of its own: does the SavedModel answer raw posts as the Estimator answered vectors?

`python -m pipeline.model.parity MODEL CASES` prints a Proof as JSON. CASES is a Parquet file of the schema below.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.words import vectorize
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
"""A post by its row in the source, the vector made of it, and the Estimator's answer: tag and probabilities."""

BATCH = 500
PROBABILITY_TOLERANCE = 1e-5
VECTOR_TOLERANCE = 1e-6
"""Relative: float32 keeps seven digits. Counts and marks are exact; only logarithms may differ in the last."""


@dataclass(frozen=True)
class Proof:
    """How many posts were compared, the largest difference of a probability, and the first faults in words."""

    posts: int
    largest_difference: float
    faults: list[str]


def prove(model: Path, cases: Path) -> Proof:
    """Compare every case's vector, tag and probabilities with the SavedModel's, by each of its signatures."""
    count, largest, faults = 0, 0.0, list[str]()
    words = serving.words(model)
    assert words is not None  # noqa: S101 - for the type checker: export has just put them there
    with serving.opened(model) as served, pq.ParquetFile(cases) as file:
        for batch in file.iter_batches(BATCH):
            wanted = np.array(batch.column("probabilities").to_pylist(), dtype=np.float32)
            answer, vectors = served.tag_and_vectors(batch.column("post").to_pylist())
            cells = input_fn.vectors(batch, vectors.shape[1])
            made = cells.toarray()
            answers = (answer["probabilities"], served.from_vectors(made), served.from_cells(cells))
            differences = np.max([np.abs(probabilities - wanted).max(axis=1) for probabilities in answers], axis=0)
            again = vectorize(batch.column("post"), words.vocabulary, size=words.size, mode=words.mode)
            same = (input_fn.vectors(again, words.size).toarray() == made).all(axis=1)
            same &= np.isclose(vectors, made, rtol=VECTOR_TOLERANCE, atol=0).all(axis=1)
            faults.extend(_faults(batch, same, answer, wanted, differences))
            count, largest = count + batch.num_rows, max(largest, float(differences.max()))
    return Proof(count, largest, faults[:5])


def _faults(
    batch: pa.RecordBatch,
    same: np.ndarray,
    answer: dict[str, np.ndarray],
    wanted: np.ndarray,
    differences: np.ndarray,
) -> Iterator[str]:
    rows, tags = batch.column("row").to_pylist(), batch.column("tag").to_pylist()
    first, second = -np.sort(-wanted, axis=1)[:, :2].T
    for at, row in enumerate(rows):
        if not same[at]:
            yield f"row {row}: its vector is not the one that vectorize made"
        elif not differences[at] <= PROBABILITY_TOLERANCE:
            yield f"row {row}: a probability differs by {differences[at]:.1e} (at most {PROBABILITY_TOLERANCE:.0e})"
        # Two tags closer than the tolerance are a tie, which either side may break its own way.
        elif answer["tag"][at].decode() != tags[at] and first[at] - second[at] > 2 * PROBABILITY_TOLERANCE:
            yield f"row {row}: tag {answer['tag'][at].decode()!r} where the Estimator said {tags[at]!r}"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(prove(Path(sys.argv[1]), Path(sys.argv[2])))) + "\n")
