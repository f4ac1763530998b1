"""Reads the posts of a Parquet file, whatever its string type, in blocks of limited size."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.posts import POSTS, REJECTED
from pipeline.sources import parquet_subprocess
from pipeline.sources.blocks import REJECTED_TEXT, Block, Columns, too_large


def parquet_blocks(file: io.BufferedReader, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """Read all rows, numbered from 1; BadInput where a needed column is missing or no text, or the file is damaged.

    The file is decoded in a subprocess, because a malicious one can make Arrow crash or take any amount of memory.
    """
    row, room = 1, max_bytes
    for batch in parquet_subprocess.batches(file, name, columns):
        room -= batch.nbytes
        if room < 0:
            raise too_large(name, max_bytes)
        yield _block(batch, row)
        row += batch.num_rows


def _block(decoded: pa.RecordBatch, first_row: int) -> Block:
    """Divide the decoded rows into accepted and rejected ones."""
    rows = pa.array(range(first_row, first_row + decoded.num_rows), pa.int64())
    numbered = decoded.append_column("row", rows)
    accepted = numbered.filter(pc.is_null(decoded.column("fault")))
    rejected = numbered.filter(pc.is_valid(decoded.column("fault")))
    text = pc.utf8_slice_codeunits(pc.fill_null(rejected.column("post"), ""), 0, REJECTED_TEXT)
    return Block(
        posts=accepted.select(POSTS.names),
        rejected=pa.record_batch([rejected.column("row"), rejected.column("fault"), text], schema=REJECTED),
    )
