"""Decodes one Parquet file, in the process that parquet_subprocess starts, with limited memory.

It imports only what decoding needs, because every Parquet source waits for this process to start.
"""

import json
import os
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadInput
from pipeline.sources import text_columns
from pipeline.sources.blocks import BUFFER, ROWS_PER_BLOCK, TEXT_PER_BLOCK, Columns, corrupt
from pipeline.sources.text_columns import DECODED

MEMORY = 2 * 2**30
"""Bytes of memory that decoding may use in addition to what the process uses at its start."""

MOST_COLUMNS = 10_000
"""Largest number of columns, and of row groups. Arrow's parser recurses, and crashes on 30,000 nested groups."""


def main(job: dict[str, Any], complain: int) -> NoReturn:
    """Decode standard input to an Arrow stream on standard output, and write the error, as JSON, to `complain`."""
    name, fault = job["name"], dict[str, Any]()
    try:
        _confine()
        with (
            os.fdopen(0, "rb") as file,
            os.fdopen(1, "wb") as sink,
            pa.ipc.new_stream(sink, DECODED) as stream,
        ):
            for batch in decoded(file, name, Columns(job["text"], job["tag"])):
                stream.write_batch(batch)
    except BadInput as error:
        fault = {"sentence": str(error)}
    except MemoryError:
        fault = {"sentence": f"{name} needs more than {MEMORY >> 20:,} MiB to decode: write it with smaller row groups"}
    except OSError as error:
        fault = {"errno": [error.errno, error.strerror]}
    except BaseException:
        fault = {"traceback": traceback.format_exc()}
    finally:
        os.write(complain, json.dumps(fault).encode())
        os._exit(0)


def _confine() -> None:
    """Limit memory, write no core file, end on signals without a traceback, and print nothing."""
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C++ would print why it aborts
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(FileNotFoundError, ValueError):  # no /proc here, or the machine's own limit is lower
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, hard))


def decoded(file: IO[bytes], name: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Decode the file to batches of DECODED; a malicious file can crash the process that calls this.

    Raises BadInput, MemoryError, and OSError where the disk fails.
    """
    try:
        with pq.ParquetFile(
            file,
            buffer_size=BUFFER,
            pre_buffer=False,  # which would read a whole row group at once
            page_checksum_verification=True,
            thrift_container_size_limit=MOST_COLUMNS,
        ) as parquet:
            needed = text_columns.checked(parquet.schema_arrow, name, columns)
            for batch in parquet.iter_batches(_rows_per_batch(parquet, needed), columns=needed):
                yield from text_columns.halves(text_columns.decoded(batch, name, columns))
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of the schema's names
        if isinstance(error, OSError) and error.errno:  # the disk's: Arrow's own OSErrors have no number
            raise
        raise corrupt(name, f"Parquet cannot be read from it ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return ascii(str(error).partition("\n")[0].rstrip("."))[1:-1][:200]  # it may quote bytes of the file


def _rows_per_batch(parquet: pq.ParquetFile, needed: list[str]) -> int:
    """Choose a batch size for which no row group's needed columns exceed TEXT_PER_BLOCK on average."""
    meta = parquet.metadata
    most = 1.0
    for group in map(meta.row_group, range(meta.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        # The path of a list's chunk goes on behind the column's name.
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema in needed or chunk.path_in_schema.partition(".")[0] in needed
        )
        most = max(most, size / (group.num_rows or 1))
    return max(1, min(ROWS_PER_BLOCK, int(TEXT_PER_BLOCK / most)))
