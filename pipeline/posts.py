"""The Parquet files that stages hand on: their schemas, names and shards, and which posts train and which test."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.settings import Settings

POSTS = pa.schema([("post", pa.string()), ("tag", pa.string()), ("row", pa.int64())])
"""Accepted posts; `row` counts the source's rows from 1, header not counted."""

REJECTED = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Rows set aside, why, and the row's raw text."""

VECTORS = pa.schema(
    [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32())), ("label", pa.int32()), ("row", pa.int64())]
)
"""Sparse vectors: the non-zero cells of a post's row, by ascending index."""

PREDICTIONS = pa.schema(
    [("row", pa.int64()), ("label", pa.int32()), ("predicted", pa.int32()), ("probabilities", pa.list_(pa.float32()))]
)
"""The Estimator's answer to each test post: true label, predicted label, and probabilities in label order."""

SCHEMAS: Mapping[str, pa.Schema] = {
    "posts": POSTS,
    "rejected": REJECTED,
    "train": VECTORS,
    "test": VECTORS,
    "predictions": PREDICTIONS,
}

ROWS_PER_GROUP = 1024
ROWS_PER_SHARD = 131_072
ROWS_PER_BATCH = 4096

PIECEWISE = {"buffer_size": 2**20, "pre_buffer": False}
"""How pyarrow is kept from reading a whole row group, which may be the whole file, at once."""

Side = Literal["train", "test"]
SIDES: tuple[Side, Side] = ("train", "test")


class Writer:
    """Writes record batches of one kind under `folder/<kind>/`, a new shard every ROWS_PER_SHARD rows.

    A kind to which nothing was written still leaves one empty shard, so that a reader finds its schema.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.schema = folder / kind, SCHEMAS[kind]
        self.folder.mkdir(parents=True)
        self.rows = 0
        self._shard: pq.ParquetWriter | None = None
        self._room = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rows == 0 and error is None:
            self._next_shard()
        if self._shard:
            self._shard.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the batch's rows; its columns must be those of the kind's schema."""
        while batch.num_rows:
            if not self._room:
                self._next_shard()
            head, batch = batch.slice(0, self._room), batch.slice(self._room)
            self._shard.write_batch(head, row_group_size=ROWS_PER_GROUP)  # type: ignore[union-attr]
            self.rows += head.num_rows
            self._room -= head.num_rows

    def _next_shard(self) -> None:
        if self._shard:
            self._shard.close()
        path = self.folder / f"part-{self.rows // ROWS_PER_SHARD:05d}.parquet"
        self._shard = pq.ParquetWriter(path, self.schema, compression="zstd")
        self._room = ROWS_PER_SHARD


def shards(folder: Path, kind: str) -> list[Path]:
    """The kind's files, in the order of their rows."""
    return sorted((folder / kind).glob("part-*.parquet"))


def rows(folder: Path, kind: str) -> int:
    """How many rows the kind has, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in shards(folder, kind))


def batches(folder: Path, kind: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The kind's rows in order, ROWS_PER_BATCH at most at a time."""
    for path in shards(folder, kind):
        with pq.ParquetFile(path, **PIECEWISE) as shard:
            yield from shard.iter_batches(ROWS_PER_BATCH, columns=columns)


def split(folder: Path, side: Side, settings: Settings) -> Iterator[pa.RecordBatch]:
    """The posts of one side, in the order of the source."""
    total, start = rows(folder, "posts"), 0
    for batch in batches(folder, "posts"):
        trains = _trains(batch, start, total, settings)
        start += batch.num_rows
        chosen = batch.filter(pa.array(trains if side == "train" else ~trains))
        if chosen.num_rows:
            yield chosen


def _trains(batch: pa.RecordBatch, start: int, total: int, settings: Settings) -> np.ndarray:
    """A mark for each post, bool [rows]; sequential is the first int(total * train_fraction), as in the article."""
    if settings.split == "sequential":
        return np.arange(start, start + batch.num_rows) < int(total * settings.train_fraction)
    digests = b"".join(blake2b(post.encode(), digest_size=8).digest() for post in batch.column("post").to_pylist())
    return np.frombuffer(digests, dtype=">u8") < settings.train_fraction * 2.0**64
