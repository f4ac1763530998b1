"""The Parquet files that stages hand on: their schemas, names and shards, and which posts train and which test."""

import math
import shutil
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
ROWS_PER_FILE = 131_072
ROWS_PER_BATCH = 4096

TEXTS = ("posts", "rejected")
BYTES_WAITING = 2**25
"""Bytes of text at which a row group ends though it has not all its rows: posts may be long."""

PIECEWISE = {"buffer_size": 2**20, "pre_buffer": False}
"""How pyarrow is kept from reading a whole row group, which may be the whole file, at once."""

Side = Literal["train", "test"]
SIDES: tuple[Side, Side] = ("train", "test")


class Writer:
    """Writes record batches of one kind under `folder/<kind>/`, a new file every ROWS_PER_FILE rows.

    How vectors are cut into files and row groups depends on the rows alone, not on the batches they come in. A kind to
    which nothing was written still leaves one empty file, so that a reader finds its schema.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.schema = folder / kind, SCHEMAS[kind]
        self.folder.mkdir(parents=True)
        self.rows = 0
        self._most = BYTES_WAITING if kind in TEXTS else math.inf
        self._waiting: list[pa.RecordBatch] = []
        self._written = 0
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush(self.rows - self._written)
        if error is None and not self._file:
            self._next_file()
        if self._file:
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the batch's rows; its columns must be those of the kind's schema."""
        if not batch.num_rows:
            return  # nothing would ever write it out
        self._waiting.append(batch)
        self.rows += batch.num_rows
        waiting = self.rows - self._written
        large = sum(part.nbytes for part in self._waiting) > self._most
        if waiting >= ROWS_PER_GROUP or large:
            self._flush(waiting if large else waiting // ROWS_PER_GROUP * ROWS_PER_GROUP)

    def _flush(self, count: int) -> None:
        """Write so many of the rows that wait."""
        waiting = pa.Table.from_batches(self._waiting, self.schema).combine_chunks()
        done = 0
        while done < count:
            room = ROWS_PER_FILE - self._written % ROWS_PER_FILE
            if room == ROWS_PER_FILE:
                self._next_file()
            group = waiting.slice(done, min(ROWS_PER_GROUP, room, count - done))
            self._file.write_table(group, row_group_size=ROWS_PER_GROUP)  # type: ignore[union-attr]
            done += group.num_rows
            self._written += group.num_rows
        self._waiting = waiting.slice(count).to_batches()

    def _next_file(self) -> None:
        if self._file:
            self._file.close()
        path = self.folder / f"part-{self._written // ROWS_PER_FILE:05d}.parquet"
        self._file = pq.ParquetWriter(path, self.schema, compression="zstd")


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


def cut(folder: Path, kind: str, count: int) -> None:
    """Cut the kind anew into so many files, equal to a row; each says where it starts and how many rows there are."""
    whole, total = folder / "whole", rows(folder, kind)
    whole.mkdir()
    (folder / kind).rename(whole / kind)
    (folder / kind).mkdir()
    source, rest = batches(whole, kind), SCHEMAS[kind].empty_table()
    for index in range(count):
        start, end = index * total // count, (index + 1) * total // count
        schema = SCHEMAS[kind].with_metadata({"start": str(start), "total": str(total)})
        with pq.ParquetWriter(folder / kind / f"part-{index:05d}.parquet", schema, compression="zstd") as file:
            while start < end:
                if not rest.num_rows:
                    rest = pa.Table.from_batches([next(source)])
                piece, rest = rest.slice(0, end - start), rest.slice(end - start)
                file.write_table(piece.replace_schema_metadata(schema.metadata), row_group_size=ROWS_PER_GROUP)
                start += piece.num_rows
    shutil.rmtree(whole)


def split(folder: Path, side: Side, settings: Settings, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The posts of one side, in the order of the source: all, or those of the files that are there after a cut."""
    names = columns or POSTS.names
    needed = names if settings.split == "sequential" else [*names, *{"post"}.difference(names)]
    here, start = rows(folder, "posts"), 0
    for path in shards(folder, "posts"):
        with pq.ParquetFile(path, **PIECEWISE) as shard:
            metadata = shard.schema_arrow.metadata or {}
            start, total = int(metadata.get(b"start", start)), int(metadata.get(b"total", here))
            for batch in shard.iter_batches(ROWS_PER_BATCH, columns=needed):
                trains = _trains(batch, start, total, settings)
                start += batch.num_rows
                chosen = batch.select(names).filter(pa.array(trains if side == "train" else ~trains))
                if chosen.num_rows:
                    yield chosen


def set_aside(numbers: pa.Array, reason: str, texts: pa.Array) -> pa.RecordBatch:
    """Rows of the source, by their numbers and texts, as REJECTED for one reason."""
    columns = [numbers, pa.array([reason] * len(numbers), pa.string()), texts]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTED)


def tally(column: pa.Array) -> dict[str, int]:
    """How often each value occurs."""
    return {pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()}


def digests(texts: pa.Array) -> np.ndarray:
    """The first 64 bits of each text's BLAKE2b, uint64 [len(texts)]: by them posts are told apart."""
    joined = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(joined, dtype=">u8")


def _trains(batch: pa.RecordBatch, start: int, total: int, settings: Settings) -> np.ndarray:
    """A mark for each post, bool [rows]."""
    if settings.split == "sequential":
        return np.arange(start, start + batch.num_rows) < first_test_post(total, settings)
    return digests(batch.column("post")) < settings.train_fraction * 2.0**64


def first_test_post(total: int, settings: Settings) -> int:
    """Where a sequential split of so many posts cuts: int(total * train_fraction), as in the article."""
    return int(total * settings.train_fraction)
