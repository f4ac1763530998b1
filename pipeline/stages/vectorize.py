"""Turn both splits into sparse vectors over the vocabulary; a dense matrix is never stored."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import posts, progress
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages import LABELS
from pipeline.text import Vocabulary, vectorize_all


@dataclass(frozen=True)
class Vectorized:
    """Posts of each split, and the non-zero cells a post has on average."""

    rows: int
    train_posts: int
    test_posts: int
    cells_per_post: float


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Vectorized:
    """Leaves `train` and `test` vectors. Posts with a tag that is no label were set aside before, and are left out."""
    source = inputs["ingest"]
    vocabulary = Vocabulary.load(inputs["fit_vocabulary"])
    labels = pa.array(read_lines(inputs["fit_vocabulary"] / LABELS), pa.string())
    counts, cells = dict[posts.Side, int](), 0
    with progress.track("vectorize", "posts", posts.rows(source, "posts")) as advance:
        for side in posts.SIDES:
            with posts.Writer(out, side) as writer:
                for vectors in _vectors(posts.split(source, side, settings), vocabulary, labels, settings):
                    writer.write(vectors)
                    advance(vectors.num_rows)
                    cells += len(vectors.column("indices").flatten())
                counts[side] = writer.rows
    total = sum(counts.values())
    return Vectorized(total, counts["train"], counts["test"], round(cells / total, 1))


def _vectors(
    batches: Iterator[pa.RecordBatch], vocabulary: Vocabulary, labels: pa.Array, settings: Settings
) -> Iterator[pa.RecordBatch]:
    known = (batch.filter(pc.is_in(batch.column("tag"), value_set=labels)) for batch in batches)
    texts, wholes = tee(known)
    vectors = vectorize_all(
        (batch.column("post") for batch in texts),
        vocabulary,
        size=settings.vocabulary_size,
        mode=settings.vector_mode,
    )
    for sparse, batch in zip(vectors, wholes, strict=True):
        label = pc.index_in(batch.column("tag"), value_set=labels)
        columns = [sparse.column("indices"), sparse.column("values"), label, batch.column("row")]
        yield pa.RecordBatch.from_arrays(columns, schema=posts.VECTORS)
