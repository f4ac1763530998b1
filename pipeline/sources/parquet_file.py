"""Reads the posts of a Parquet file, whatever its string type, in blocks of limited size."""

import io
from collections.abc import Iterator

from pipeline.sources import parquet_subprocess
from pipeline.sources.blocks import Block, Columns, too_large
from pipeline.sources.rows import decoded_block


def parquet_blocks(file: io.BufferedReader, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """Read all rows, numbered from 1; BadInput where a needed column is missing or no text, or the file is damaged.

    The file is decoded in a subprocess, because a malicious one can make Arrow crash or take any amount of memory.
    """
    row, room = 1, max_bytes
    for batch in parquet_subprocess.batches(file, name, columns):
        room -= batch.nbytes
        if room < 0:
            raise too_large(name, max_bytes)
        yield decoded_block(batch, row, columns)
        row += batch.num_rows
