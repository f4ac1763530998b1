"""Convert the posts of all splits to sparse vectors over the vocabulary, stored as Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import held_out, posts, several_tags
from pipeline.data.vectors import vectorize_all
from pipeline.data.vocabulary import Vocabulary
from pipeline.files import read_lines
from pipeline.progress import Advance
from pipeline.settings import Settings
from pipeline.stages.context import Context
from pipeline.stages.plan import LABELS

UNKNOWN_TAG = "tag that no train post has"


@dataclass(frozen=True)
class Vectorized:
    """The summary: posts of each split, posts rejected by reason, and the average number of non-zero cells per post."""

    rows: int
    train_posts: int
    validation_posts: int
    test_posts: int
    rejected: int
    rejected_by_reason: dict[str, int]
    cells_per_post: float


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Vectorized:
    """Write the vectors of each side to `out`, and as `rejected` the posts whose tag no train post has."""
    source = inputs["ingest"]
    vocabulary = Vocabulary.load(inputs["fit_vocabulary"])
    labels = pa.array(read_lines(inputs["fit_vocabulary"] / LABELS), pa.string())
    total = sum(posts.rows(source, posts.of_side(side)) for side in posts.SIDES)
    with context.track("vectorize", "posts", total) as advance, _Output(out, settings.multi_tag) as output:
        for side in posts.SIDES:
            known = _known(posts.batches(source, posts.of_side(side)), labels, output, advance, settings)
            for batch, vectors in vectorize_all(
                known, vocabulary, size=settings.vocabulary_size, mode=settings.vector_mode
            ):
                output.write(side, _labelled(batch, vectors, labels, settings))
                advance(batch.num_rows)
    return output.summary()


run_shard = run
"""Vectorize one shard, in the same way as all posts at once."""


def gather(shards: Sequence[Path], out: Path, settings: Settings, context: Context) -> Vectorized:
    """Concatenate the vectors of the shards, in the order of the posts."""
    with _Output(out, settings.multi_tag) as output:
        for kind in output.writers:
            for folder in shards:
                for batch in posts.batches(folder, kind):
                    output.write(kind, batch)
    return output.summary()


class _Output(ExitStack):
    """Writes the three kinds of files that the stage leaves, and counts rows and cells."""

    def __init__(self, out: Path, several: bool) -> None:
        super().__init__()
        kinds = (*posts.SIDES, "rejected")
        self.writers = {kind: self.enter_context(posts.Writer(out, kind, several=several)) for kind in kinds}
        self.cells = 0

    def write(self, kind: str, batch: pa.RecordBatch) -> None:
        self.writers[kind].write(batch)
        if kind in posts.SIDES:
            self.cells += len(batch.column("indices").flatten())

    def summary(self) -> Vectorized:
        train, validation, test, rejected = (writer.rows for writer in self.writers.values())
        rows = train + validation + test
        by_reason = {UNKNOWN_TAG: rejected} if rejected else {}
        return Vectorized(rows, train, validation, test, rejected, by_reason, round(self.cells / max(rows, 1), 1))


def _known(
    batches: Iterator[pa.RecordBatch], labels: pa.Array, output: _Output, advance: Advance, settings: Settings
) -> Iterator[pa.RecordBatch]:
    """Yield the posts whose tag, or one of whose tags, is a label; write the others as rejected."""
    for batch in batches:
        known = held_out.known(batch.column("tag"), labels, several=settings.multi_tag)
        unknown = batch.filter(pc.invert(known))
        output.write("rejected", posts.rejected_rows(unknown.column("row"), UNKNOWN_TAG, unknown.column("post")))
        advance(unknown.num_rows)
        yield batch.filter(known)


def _labelled(batch: pa.RecordBatch, vectors: pa.RecordBatch, labels: pa.Array, settings: Settings) -> pa.RecordBatch:
    """Add label, or labels, and row number to the vectors of a batch, as VECTORS."""
    tags, schema = batch.column("tag"), posts.VECTORS
    if settings.multi_tag:
        label, schema = several_tags.labels_of(tags, labels), posts.of_several(schema)
    else:
        label = pc.index_in(tags, value_set=labels)
    columns = [vectors.column("indices"), vectors.column("values"), label, batch.column("row")]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
