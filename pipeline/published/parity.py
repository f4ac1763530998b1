"""The parity check of the weights beside a SavedModel: their answers to raw posts against the Estimator's."""

from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.checks.parity import BATCH, Comparison, Parity, worst_of
from pipeline.published.arrays import FEW
from pipeline.published.model import PublishedModel


def check_parity(model: Path, cases: Path) -> Parity:
    """Compare every case's tag and probabilities with the published model's, asked a few at a time and many at once.

    `cases` is a Parquet file of pipeline.checks.parity.CASES. Raises CorruptArtifact if the model cannot be opened.
    """
    with closing(PublishedModel.open(model)) as published, pq.ParquetFile(cases) as file:
        by_table, by_arrow = Comparison(published.limits), Comparison(published.limits)
        for batch, many in published.answer_batches(file.iter_batches(BATCH)):
            by_arrow.add(batch, many.given, [many.probabilities])
            for start in range(0, batch.num_rows, FEW):
                few = batch.slice(start, FEW)
                answers = published.answer(few.column("post").to_pylist())
                by_table.add(few, answers.given, [answers.probabilities])
    return worst_of([by_table.result(), by_arrow.result()])
