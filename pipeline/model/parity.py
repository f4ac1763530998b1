"""The parity check of the SavedModel: its answers to raw posts, and to vectors, against the Estimator's.

`python -m pipeline.model.parity MODEL CASES` prints a Parity as JSON. CASES is a Parquet file of
pipeline.checks.parity.CASES.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from pipeline.checks import thresholds
from pipeline.checks.parity import BATCH, Comparison, Parity
from pipeline.data.text_rule import TextRule
from pipeline.data.vectors import as_matrix, vectorize
from pipeline.model import serving

DENSE_CELLS = 1 << 22
"""Of each batch so many posts are also asked as dense vectors that these have at most so many cells, 16 MB."""

VECTOR_TOLERANCE = 1e-6
"""Relative, for float32 has seven digits; only values with a logarithm may differ, in the last digit."""


def check_parity(model: Path, cases: Path) -> Parity:
    """Compare every case's vector, tag and probabilities with those of the SavedModel's signatures.

    The signature `vectors`, whose input is dense, is asked for some of the posts only if the vocabulary is large.
    """
    rule = TextRule.of_model(model)
    assert rule is not None  # noqa: S101 - for the type checker: export has just put them there
    comparison = Comparison(thresholds.of_model(model))
    with serving.opened(model) as served, pq.ParquetFile(cases) as file:
        for batch in file.iter_batches(BATCH):
            answer, vectors = served.tag_and_vectors(batch.column("post").to_pylist())
            cells = as_matrix(batch, rule.size)
            dense = cells[: max(1, DENSE_CELLS // rule.size)].toarray()
            again = vectorize(batch.column("post"), rule.vocabulary, size=rule.size, mode=rule.mode)
            same = _same(as_matrix(again, rule.size), cells) & _same(vectors, cells, VECTOR_TOLERANCE)
            given = [tag.decode() for tag in answer["tag" if comparison.limits is None else "tags"]]
            probabilities = [answer["probabilities"], served.from_cells(cells), served.from_vectors(dense)]
            comparison.add(batch, given, probabilities, same)
    return comparison.result()


def _same(one: csr_matrix, other: csr_matrix, tolerance: float = 0) -> np.ndarray:
    """Whether each row has the same values in both matrices, within a relative tolerance: bool [rows]."""
    excess = abs(one - other) - tolerance * abs(other)
    same: np.ndarray = excess.max(axis=1).toarray().ravel() <= 0
    return same


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(check_parity(Path(sys.argv[1]), Path(sys.argv[2])))) + "\n")
