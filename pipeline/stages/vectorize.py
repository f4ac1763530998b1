"""Turn both splits into sparse vectors over the vocabulary; a dense matrix is never stored."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import progress
from pipeline.data import posts
from pipeline.data.words import Vocabulary, vectorize_all
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages.plan import LABELS

UNKNOWN_TAG = "tag only in the test split"


@dataclass(frozen=True)
class Vectorized:
    """Posts of each split, those set aside, and the non-zero cells a post has on average."""

    rows: int
    train_posts: int
    test_posts: int
    rejected: int
    cells_per_post: float


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Vectorized:
    """Leaves `train` and `test` vectors, and in `rejected` the test posts whose tag no train post has."""
    return part(inputs, out, settings)


def part(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Vectorized:
    """The same of what is there of the posts."""
    source = inputs["ingest"]
    vocabulary = Vocabulary.load(inputs["fit_vocabulary"])
    labels = pa.array(read_lines(inputs["fit_vocabulary"] / LABELS), pa.string())
    with progress.track("vectorize", "posts", posts.rows(source, "posts")) as advance, _Written(out) as written:
        for side in posts.SIDES:
            known = _known(posts.split(source, side, settings), labels, written, advance)
            for batch, vectors in vectorize_all(
                known, vocabulary, size=settings.vocabulary_size, mode=settings.vector_mode
            ):
                written.write(side, _labelled(batch, vectors, labels))
                advance(batch.num_rows)
    return written.summary()


def gather(parts: Sequence[Path], out: Path, settings: Settings) -> Vectorized:
    """Put together what the parts left, in the order of their posts."""
    with _Written(out) as written:
        for kind in written.writers:
            for folder in parts:
                for batch in posts.batches(folder, kind):
                    written.write(kind, batch)
    return written.summary()


class _Written(ExitStack):
    """The three kinds of files that the stage leaves, and how much is in them."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.writers = {kind: self.enter_context(posts.Writer(out, kind)) for kind in (*posts.SIDES, "rejected")}
        self.cells = 0

    def write(self, kind: str, batch: pa.RecordBatch) -> None:
        self.writers[kind].write(batch)
        if kind in posts.SIDES:
            self.cells += len(batch.column("indices").flatten())

    def summary(self) -> Vectorized:
        train, test, rejected = (writer.rows for writer in self.writers.values())
        return Vectorized(train + test, train, test, rejected, round(self.cells / max(train + test, 1), 1))


def _known(
    batches: Iterator[pa.RecordBatch], labels: pa.Array, written: _Written, advance: progress.Advance
) -> Iterator[pa.RecordBatch]:
    """The posts whose tag is a label; the others are set aside."""
    for batch in batches:
        known = pc.is_in(batch.column("tag"), value_set=labels)
        unknown = batch.filter(pc.invert(known))
        written.write("rejected", posts.set_aside(unknown.column("row"), UNKNOWN_TAG, unknown.column("post")))
        advance(unknown.num_rows)
        yield batch.filter(known)


def _labelled(batch: pa.RecordBatch, vectors: pa.RecordBatch, labels: pa.Array) -> pa.RecordBatch:
    label = pc.index_in(batch.column("tag"), value_set=labels)
    columns = [vectors.column("indices"), vectors.column("values"), label, batch.column("row")]
    return pa.RecordBatch.from_arrays(columns, schema=posts.VECTORS)
