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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    BUFFER,
    EMPTY_POST,
    EMPTY_TAG,
    LINE_BREAK_IN_TAG,
    ROWS_PER_BLOCK,
    TEXT_PER_BLOCK,
    Columns,
    corrupt,
    position,
)

MEMORY = 2 * 2**30
"""Bytes of memory that decoding may use in addition to what the process uses at its start."""

MOST_COLUMNS = 10_000
"""Largest number of columns, and of row groups. Arrow's parser recurses, and crashes on 30,000 nested groups."""

DECODED = pa.schema([("post", pa.string()), ("tag", pa.string()), ("fault", pa.string())])
"""The rows that are sent back; `fault` is one of blocks.REASONS, or null for an accepted row."""


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
            needed = _checked(parquet.schema_arrow, name, columns)
            for batch in parquet.iter_batches(_rows_per_batch(parquet, needed), columns=needed):
                yield from _halves(_with_faults(batch, columns))
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of the schema's names
        if isinstance(error, OSError) and error.errno:  # the disk's: Arrow's own OSErrors have no number
            raise
        raise corrupt(name, f"Parquet cannot be read from it ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return ascii(str(error).partition("\n")[0].rstrip("."))[1:-1][:200]  # it may quote bytes of the file


def _checked(schema: pa.Schema, name: str, columns: Columns) -> list[str]:
    """List the columns to read; BadInput where one is missing, there twice, or does not hold text."""
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        kind = schema.field(position(schema.names, column, name, setting)).type
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise BadInput(f"{name} has {kind} in column {column!r}, not text: set {setting} to a column of strings")
    return list(needed)


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in kinds


def _rows_per_batch(parquet: pq.ParquetFile, needed: list[str]) -> int:
    """Choose a batch size for which no row group's needed columns exceed TEXT_PER_BLOCK on average."""
    meta = parquet.metadata
    most = 1.0
    for group in map(meta.row_group, range(meta.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in needed)
        most = max(most, size / (group.num_rows or 1))
    return max(1, min(ROWS_PER_BLOCK, int(TEXT_PER_BLOCK / most)))


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halve the batch until each piece of several rows has at most TEXT_PER_BLOCK bytes."""
    if batch.num_rows < 2 or batch.nbytes <= TEXT_PER_BLOCK:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _halves(batch.slice(0, middle))
    yield from _halves(batch.slice(middle))


def _with_faults(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Convert the batch to DECODED: texts as plain strings, and each row's first fault."""
    post, undecodable = _strings(batch.column(columns.text))
    tag = pa.nulls(batch.num_rows, pa.string())
    faults = [(_empty(post), EMPTY_POST)]
    if columns.tag is not None:
        tag, bad = _strings(batch.column(columns.tag))
        undecodable = pc.or_(undecodable, bad)
        faults += [(_empty(tag), EMPTY_TAG), (pc.match_substring_regex(tag, "[\r\n]"), LINE_BREAK_IN_TAG)]
    fault = pa.nulls(batch.num_rows, pa.string())
    for where, reason in reversed([(undecodable, BAD_UTF8), *faults]):
        fault = pc.if_else(where, reason, fault)
    return pa.record_batch([post, tag, fault], schema=DECODED)


def _strings(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    r"""Convert the column to strings, undecodable bytes as \xff; the second array, bool [rows], says where."""
    raw = column.cast(pa.large_binary())  # strings, too: a file may call bytes strings that are not UTF-8
    try:
        return raw.cast(pa.string()), pa.repeat(False, len(raw))
    except pa.ArrowInvalid:
        values = raw.to_pylist()
    texts = [None if value is None else value.decode(errors="backslashreplace") for value in values]
    bad = [text is not None and text.encode() != value for text, value in zip(texts, values, strict=True)]
    return pa.array(texts, pa.string()), pa.array(bad)


def _empty(column: pa.Array) -> pa.Array:
    """Find the texts of which str.strip() leaves nothing: bool [rows]."""
    nothing = pc.equal(pc.binary_length(column), 0)
    return pc.fill_null(pc.or_(nothing, pc.utf8_is_space(column)), True)
