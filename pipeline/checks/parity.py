"""The parity check: whether what is published answers raw posts as the Estimator answered their vectors.

It is asked twice, with the same cases: the SavedModel in a new process (pipeline.model.parity), and the weights beside
it (pipeline.published.parity).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

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

PROBABILITY_TOLERANCE = 1e-5

SHOWN = 5
"""How many faults are named."""


@dataclass(frozen=True)
class Parity:
    """The result: posts compared, the largest difference of a probability, and the first faults as sentences."""

    posts: int
    largest_difference: float
    faults: list[str]


class Comparison:
    """Adds up batch by batch how far answers are from the Estimator's.

    `limits` are the thresholds of a model that gives posts several tags, float32 [tags], else None.
    """

    def __init__(self, limits: np.ndarray | None) -> None:
        self.limits, self.posts, self.largest, self.faults = limits, 0, 0.0, list[str]()

    def add(
        self,
        batch: pa.RecordBatch,
        tags: list[str],
        probabilities: list[np.ndarray],
        same_vectors: np.ndarray | None = None,
    ) -> None:
        """Compare the answers to a batch of CASES.

        `tags` are what each post got, `probabilities` what the ways to ask gave, float32 [n, tags] each, where n may be
        less than the batch has posts, and `same_vectors` whether each post's vector is the right one, None where there
        was no vector to see.
        """
        wanted = wanted_probabilities(batch)
        differences = np.zeros(len(wanted))
        for given in probabilities:
            some = slice(len(given))
            differences[some] = np.maximum(differences[some], np.abs(given - wanted[some]).max(axis=1))
        same = np.ones(len(wanted), bool) if same_vectors is None else same_vectors
        ties = are_ties(wanted, self.limits)
        self.faults.extend(faults(batch, same, tags, ties, differences))
        self.posts += len(wanted)
        self.largest = max(self.largest, float(differences.max()))

    def result(self) -> Parity:
        """The result of all batches."""
        return Parity(self.posts, self.largest, self.faults[:SHOWN])


def worst_of(results: Iterable[Parity]) -> Parity:
    """The result of several checks of the same cases."""
    every = list(results)
    differences = [each.largest_difference for each in every]
    found = [fault for each in every for fault in each.faults]
    return Parity(every[0].posts, max(differences), found[:SHOWN])


def wanted_probabilities(batch: pa.RecordBatch) -> np.ndarray:
    """What the Estimator said: float32 [posts, tags]."""
    return np.array(batch.column("probabilities").to_pylist(), dtype=np.float32)


def faults(
    batch: pa.RecordBatch, same: np.ndarray, given: list[str], ties: np.ndarray, differences: np.ndarray
) -> Iterator[str]:
    """Yield a sentence for each post of the batch whose vector, probabilities or tag differ."""
    rows, tags = batch.column("row").to_pylist(), batch.column("tag").to_pylist()
    for at, row in enumerate(rows):
        if not same[at]:
            yield f"row {row}: its vector is not the one that vectorize made"
        elif not differences[at] <= PROBABILITY_TOLERANCE:
            yield f"row {row}: a probability differs by {differences[at]:.1e} (at most {PROBABILITY_TOLERANCE:.0e})"
        elif given[at] != tags[at] and not ties[at]:
            yield f"row {row}: tag {given[at]!r} where the Estimator said {tags[at]!r}"


def are_ties(probabilities: np.ndarray, limits: np.ndarray | None) -> np.ndarray:
    """Whether two tags, or a tag and its threshold, are closer than the tolerance, so that either answer is right."""
    first, second = -np.sort(-probabilities, axis=1)[:, :2].T
    distance = first - second
    if limits is not None:
        distance = np.minimum(distance, np.abs(probabilities - limits).min(axis=1))
    tie: np.ndarray = distance <= 2 * PROBABILITY_TOLERANCE
    return tie
