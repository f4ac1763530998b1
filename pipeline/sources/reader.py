"""Posts from a file, a URL or an invented sample, block by block; rows that cannot be used are set aside."""

import gzip
import io
from collections.abc import Iterator

import pyarrow as pa

from pipeline.data import posts
from pipeline.settings import MAX_SOURCE_BYTES
from pipeline.source_policy import checked
from pipeline.sources import sample
from pipeline.sources.blocks import REASONS, Block, Columns, corrupt, shown, too_large
from pipeline.sources.csv_file import csv_blocks
from pipeline.sources.open import bounded, explained, on_disk, opened
from pipeline.sources.parquet_file import parquet_blocks

__all__ = ["REASONS", "Block", "read", "shown"]

GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"


def read(
    source: str,
    *,
    text_column: str,
    tag_column: str | None,
    max_bytes: int = MAX_SOURCE_BYTES,
    allowed: tuple[str, ...] | None = None,
) -> Iterator[Block]:
    """All rows in order, numbered from 1, in blocks of at most posts.ROWS_PER_BATCH rows and about 32 MB of text.

    Raises BadInput for a source that cannot be read as it is, is not among those `allowed` (None allows all), or is
    larger, unpacked, than `max_bytes`; Unavailable where trying again can help.
    """
    columns, name = Columns(text_column, tag_column), shown(source)
    place = source if allowed is None else checked(source, allowed)
    if sample.is_sample(source):
        yield from _invented(source, columns, max_bytes)
        return
    with explained(name), opened(place, max_bytes, allowed) as file:
        yield from _blocks(file, name, columns, max_bytes)


def _invented(source: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    none = pa.RecordBatch.from_pylist([], schema=posts.REJECTED)
    rows, seed = sample.parse(source)
    if rows * sample.BYTES_PER_POST > max_bytes:
        raise too_large(source, max_bytes)
    for batch in sample.blocks(rows, seed):
        yield Block(_untagged(batch) if columns.tag is None else batch, none)


def _untagged(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(1, posts.POSTS.field("tag"), pa.nulls(batch.num_rows, pa.string()))


def _blocks(file: io.BufferedReader, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """By content, not by name; but a name that promises what the content is not is a damaged file."""
    head, path = file.peek(4), name.partition("::")[0].lower()
    for suffix, magic in ((".gz", GZIP_MAGIC), (".parquet", PARQUET_MAGIC)):
        if path.endswith(suffix) and not head.startswith(magic):
            raise corrupt(name, f"its name ends in {suffix} but its content does not begin as such a file does")
    if head.startswith(PARQUET_MAGIC):
        with on_disk(file, name, max_bytes) as local:
            yield from parquet_blocks(local, name, columns, max_bytes)
        return
    file = bounded(file, name, max_bytes)
    if head.startswith(GZIP_MAGIC):
        file = bounded(gzip.GzipFile(fileobj=file), name, max_bytes)
    yield from csv_blocks(file, name, columns)
