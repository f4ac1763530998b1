"""The Parquet files that stages pass on: their schemas, names and shards, and the split into train and test posts."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StageOutOfOrder

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
"""Train posts are learned from, test posts only tested on; validation posts, if any, are taken from the train posts."""

SIDES_OF_SPLIT: tuple[Side, ...] = ("train", "test")

POSTS = pa.schema([("post", pa.string()), ("tag", pa.string()), ("row", pa.int64())])
"""Accepted posts; `row` is the number of the source's row, from 1, without the header."""

REJECTED = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Rejected rows: number, reason, and raw text."""

VECTORS = pa.schema(
    [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32())), ("label", pa.int32()), ("row", pa.int64())]
)
"""Sparse vectors: for each post the non-zero values and their indices, ascending; label and row number."""

PREDICTIONS = pa.schema(
    [("row", pa.int64()), ("label", pa.int32()), ("predicted", pa.int32()), ("probabilities", pa.list_(pa.float32()))]
)
"""The Estimator's answer to each test post: true label, predicted label, and a probability for each label."""

OF_ONE_TAG = ("label", "predicted")
"""The columns that hold lists of labels, ascending, where posts have several tags; see of_several."""

SCHEMAS: Mapping[str, pa.Schema] = {
    "posts": POSTS,  # in ingest only, until the number of posts is known and they can be split in sequence
    "posts/train": POSTS,
    "posts/validation": POSTS,
    "posts/test": POSTS,
    "rejected": REJECTED,
    "train": VECTORS,
    "validation": VECTORS,
    "test": VECTORS,
    "predictions": PREDICTIONS,
}

ROWS_PER_GROUP = 1024
ROWS_PER_FILE = 131_072
ROWS_PER_BATCH = 4096

MAX_BUFFERED_BYTES = 2**25
"""A row group of posts is written early at this many bytes, because posts may be long."""

STREAMING = {"buffer_size": 2**20, "pre_buffer": False}
"""pyarrow's options to read a row group, which may be the whole file, in pieces."""


class Writer:
    """Writes record batches of one kind to `folder/<kind>/`, a new file every ROWS_PER_FILE rows.

    The files and row groups of vectors depend on the rows alone, not on the batches in which they are written. Without
    any rows it still writes one empty file, so that a reader finds the schema.
    """

    def __init__(self, folder: Path, kind: str, *, several: bool = False) -> None:
        self.folder, self.schema = folder / kind, of_several(SCHEMAS[kind]) if several else SCHEMAS[kind]
        self.folder.mkdir(parents=True)
        self.rows = 0
        self._max_bytes = MAX_BUFFERED_BYTES if self.schema in (POSTS, REJECTED) else math.inf
        self._buffer: list[pa.RecordBatch] = []
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
            return  # empty batches would pile up in the buffer, which is flushed by rows and bytes
        self._buffer.append(batch)
        self.rows += batch.num_rows
        buffered = self.rows - self._written
        large = sum(each.nbytes for each in self._buffer) > self._max_bytes
        if buffered >= ROWS_PER_GROUP or large:
            self._flush(buffered if large else buffered // ROWS_PER_GROUP * ROWS_PER_GROUP)

    def _flush(self, count: int) -> None:
        """Write the first `count` buffered rows."""
        buffered = pa.Table.from_batches(self._buffer, self.schema).combine_chunks()
        done = 0
        while done < count:
            room = ROWS_PER_FILE - self._written % ROWS_PER_FILE
            if room == ROWS_PER_FILE:
                self._next_file()
            group = buffered.slice(done, min(ROWS_PER_GROUP, room, count - done))
            self._file.write_table(group, row_group_size=ROWS_PER_GROUP)  # type: ignore[union-attr]
            done += group.num_rows
            self._written += group.num_rows
        self._buffer = buffered.slice(count).to_batches()

    def _next_file(self) -> None:
        if self._file:
            self._file.close()
        path = self.folder / _name(self._written // ROWS_PER_FILE)
        self._file = pq.ParquetWriter(path, self.schema, compression="zstd")


def of_several(schema: pa.Schema) -> pa.Schema:
    """The schema for posts with several tags."""
    return pa.schema([each.with_type(pa.list_(each.type)) if each.name in OF_ONE_TAG else each for each in schema])


def have_several(folder: Path, kind: str) -> bool:
    """Whether the kind was written for posts with several tags."""
    return bool(pa.types.is_list(pq.read_schema(shards(folder, kind)[0]).field("label").type))


def shards(folder: Path, kind: str) -> list[Path]:
    """List the kind's files in the order of their rows; raise StageOutOfOrder if the folder has none of that kind."""
    if not (folder / kind).is_dir():
        raise StageOutOfOrder(
            f"{folder.name} of this run has no {kind}: it was made by an older version of the pipeline; start a new run"
        )
    return sorted((folder / kind).glob("part-*.parquet"))


def rows(folder: Path, kind: str) -> int:
    """Count the kind's rows from the files' footers, without reading the rows."""
    return sum(pq.read_metadata(path).num_rows for path in shards(folder, kind))


def batches(folder: Path, kind: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the kind's rows in order, at most ROWS_PER_BATCH at a time."""
    for path in shards(folder, kind):
        with pq.ParquetFile(path, **STREAMING) as shard:
            yield from shard.iter_batches(ROWS_PER_BATCH, columns=columns)


def spread(folder: Path, kind: str, count: int) -> pa.Table:
    """Every n-th row of a kind, with the smallest n for which these are at most `count` rows."""
    step, seen, taken = max(1, -(-rows(folder, kind) // count)), 0, list[pa.RecordBatch]()
    for batch in batches(folder, kind):
        taken.append(batch.take(pa.array(np.arange(-seen % step, batch.num_rows, step))))
        seen += batch.num_rows
    return pa.Table.from_batches(taken)


def of_side(side: Side) -> str:
    """The kind under which the posts of one side are stored."""
    return f"posts/{side}"


def divide(folder: Path, first_test: int) -> None:
    """Split `posts` in sequence into `posts/train` and `posts/test`; `first_test` is the index of the first test post.

    Whole files are moved; only the file that holds the boundary is rewritten, as two.
    """
    files, start = [(path, pq.read_metadata(path).num_rows) for path in shards(folder, "posts")], 0
    for side in SIDES_OF_SPLIT:
        (folder / of_side(side)).mkdir()
    for number, (path, count) in enumerate(files):
        train = min(max(first_test - start, 0), count)
        start += count
        if 0 < train < count:
            _split_file(path, train, folder, number)
            path.unlink()
        else:
            path.rename(folder / of_side("train" if train else "test") / _name(number))
    for side in SIDES_OF_SPLIT:
        _write_if_empty(folder, side)


def _split_file(path: Path, train: int, folder: Path, number: int) -> None:
    """Write the file's first `train` posts to a file of the train side, and the others to one of the test side."""
    done = 0
    with (
        pq.ParquetWriter(folder / of_side("train") / _name(number), POSTS, compression="zstd") as first,
        pq.ParquetWriter(folder / of_side("test") / _name(number), POSTS, compression="zstd") as second,
        pq.ParquetFile(path, **STREAMING) as whole,
    ):
        for group in range(whole.num_row_groups):
            table = whole.read_row_group(group)
            here = min(max(train - done, 0), len(table))
            done += len(table)
            for file, piece in ((first, table.slice(0, here)), (second, table.slice(here))):
                if len(piece):
                    file.write_table(piece, row_group_size=ROWS_PER_GROUP)


def _write_if_empty(folder: Path, side: Side) -> None:
    """Write an empty file for a side without posts, so that a reader finds the schema."""
    if not shards(folder, of_side(side)):
        pq.write_table(POSTS.empty_table(), folder / of_side(side) / _name(0))


def cut_validation(folder: Path, fraction: float) -> None:
    """Move this fraction of the train posts, chosen by their content, to `posts/validation`."""
    if not fraction:
        with Writer(folder, of_side("validation")):
            return
    whole, train = folder / "whole", of_side("train")
    (whole / train).parent.mkdir(parents=True)
    (folder / train).rename(whole / train)
    with Writer(folder, of_side("validation")) as held_out, Writer(folder, train) as rest:
        for batch in batches(whole, train):
            chosen = pa.array(validates(batch, fraction), pa.bool_())
            held_out.write(batch.filter(chosen))
            rest.write(batch.filter(pc.invert(chosen)))
    shutil.rmtree(whole)


def drop(folder: Path, side: Side) -> None:
    """Replace a side's posts by none."""
    shutil.rmtree(folder / of_side(side))
    (folder / of_side(side)).mkdir()
    _write_if_empty(folder, side)


def reshard(folder: Path, kind: str, count: int) -> None:
    """Rewrite the kind as `count` files, whose numbers of rows differ by one at most."""
    whole, total = folder / "whole", rows(folder, kind)
    (whole / kind).parent.mkdir(parents=True)
    (folder / kind).rename(whole / kind)
    (folder / kind).mkdir()
    source, rest = batches(whole, kind), SCHEMAS[kind].empty_table()
    for index in range(count):
        left = (index + 1) * total // count - index * total // count
        with pq.ParquetWriter(folder / kind / _name(index), SCHEMAS[kind], compression="zstd") as file:
            while left:
                if not rest.num_rows:
                    rest = pa.Table.from_batches([next(source)])
                piece, rest = rest.slice(0, left), rest.slice(left)
                file.write_table(piece, row_group_size=ROWS_PER_GROUP)
                left -= piece.num_rows
    shutil.rmtree(whole)


def rejected_rows(numbers: pa.Array, reason: str, texts: pa.Array) -> pa.RecordBatch:
    """Make a batch of REJECTED from the numbers and texts of rows that are rejected for one reason."""
    columns = [numbers, pa.array([reason] * len(numbers), pa.string()), texts]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTED)


def correct(answers: pa.Table) -> np.ndarray:
    """Whether `predicted` is `label` in each row, one label or a list of them: bool [rows]."""
    label, predicted = (answers[name].combine_chunks() for name in OF_ONE_TAG)
    if pa.types.is_list(label.type):
        return np.array([one == other for one, other in zip(label.to_pylist(), predicted.to_pylist(), strict=True)])
    same: np.ndarray = label.to_numpy() == predicted.to_numpy()
    return same


def tally(column: pa.Array) -> dict[str, int]:
    """Count how often each value occurs."""
    return {pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()}


def digests(texts: pa.Array) -> np.ndarray:
    """The 64-bit BLAKE2b digest of each text, uint64 [len(texts)]; texts with equal digests count as copies."""
    joined = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(joined, dtype=">u8")


def trains(batch: pa.RecordBatch, train_fraction: float) -> np.ndarray:
    """Whether a split by content puts each post on the train side, bool [rows]; it depends on the text alone."""
    return digests(batch.column("post")) < train_fraction * 2.0**64


def validates(batch: pa.RecordBatch, fraction: float) -> np.ndarray:
    """Whether each post is a validation post, bool [rows]; it depends on the text alone.

    By the lower half of the digest, because a split by content goes by the upper half.
    """
    return (digests(batch.column("post")).astype(np.uint64) & np.uint64(2**32 - 1)) < fraction * 2.0**32


def first_test_post(total: int, train_fraction: float) -> int:
    """The index of the first test post in a sequential split: int(total * train_fraction), as in the article."""
    return int(total * train_fraction)


def _name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def shard_files(names: Iterable[str], index: int, shards: int) -> list[str]:
    """Select one shard's files from the names of all that ingest left.

    Raises StageOutOfOrder if the posts are stored in another number of shards.
    """
    found = {side: sorted(name for name in names if name.startswith(f"{of_side(side)}/")) for side in SIDES}
    stored = len(found["train"])
    if stored != shards or index >= shards:
        raise StageOutOfOrder(
            f"shard {index} of {shards} does not exist, because the posts are stored as {stored}: TAGGER_SHARDS was "
            "changed after the run began; start a new run"
        )
    return [found[side][index] for side in SIDES if found[side]]
