"""Posts of a Parquet file, whatever its kind of strings, a bounded piece at a time."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.sources import parquet_subprocess
from pipeline.sources.blocks import (
    BAD_UTF8,
    EMPTY_POST,
    EMPTY_TAG,
    LINE_BREAK_IN_TAG,
    REJECTED_TEXT,
    TEXT_PER_BLOCK,
    Block,
    Columns,
    corrupt,
    position,
    too_large,
)

MOST_COLUMNS = 10_000
"""Also the most row groups. Arrow's parser recurses, and crashes on groups within 30,000 groups."""

PLAIN = pa.schema([("post", pa.string()), ("tag", pa.string()), ("fault", pa.string())])
"""Rows as they leave the decoder; `fault` is one of REASONS or null."""


def parquet_blocks(file: io.BufferedReader, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """All rows, numbered from 1; BadInput where a needed column is missing or no text, or the file is damaged.

    A file that lies about its pages can make Arrow take any amount of memory, or crash: hence the other process.
    """
    row, room = 1, max_bytes
    for part in parquet_subprocess.batches(lambda: _decoded(file, name, columns), PLAIN, name):
        room -= part.nbytes
        if room < 0:
            raise too_large(name, max_bytes)
        yield _sorted_out(part, row)
        row += part.num_rows


def _decoded(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(
            file, **posts.PIECEWISE, page_checksum_verification=True, thrift_container_size_limit=MOST_COLUMNS
        ) as parquet:
            needed = _checked(parquet.schema_arrow, name, columns)
            for batch in parquet.iter_batches(_rows_per_batch(parquet, needed), columns=needed):
                yield from _parts(_plain(batch, columns))
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of the schema's names
        if isinstance(error, OSError) and error.errno:  # the disk's fault; Arrow's own bear no number
            raise
        raise corrupt(name, f"Parquet cannot be read from it ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return ascii(str(error).partition("\n")[0].rstrip("."))[1:-1][:200]  # it may quote what it found


def _checked(schema: pa.Schema, name: str, columns: Columns) -> list[str]:
    """The columns needed, each there once and of text; BadInput otherwise."""
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        kind = schema.field(position(schema.names, column, name, setting)).type
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise BadInput(f"{name} holds {kind} in column {column!r}, not text; set {setting} to a column of strings")
    return list(needed)


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in kinds


def _rows_per_batch(parquet: pq.ParquetFile, needed: list[str]) -> int:
    """So many rows that the needed columns of none of the row groups pass TEXT_PER_BLOCK on average."""
    meta = parquet.metadata
    most = 1.0
    for group in map(meta.row_group, range(meta.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in needed)
        most = max(most, size / (group.num_rows or 1))
    return max(1, min(posts.ROWS_PER_BATCH, int(TEXT_PER_BLOCK / most)))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch halved until no part of several rows passes TEXT_PER_BLOCK."""
    if batch.num_rows < 2 or batch.nbytes <= TEXT_PER_BLOCK:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _parts(batch.slice(0, middle))
    yield from _parts(batch.slice(middle))


def _plain(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """The batch as PLAIN, its strings plain ones whatever they were."""
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
    return pa.record_batch([post, tag, fault], schema=PLAIN)


def _strings(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    r"""The column as strings, undecodable bytes as \xff, and where there were any: bool [rows]."""
    raw = column.cast(pa.large_binary())  # strings too: a file may call bytes a string that are none
    try:
        return raw.cast(pa.string()), pa.repeat(False, len(raw))
    except pa.ArrowInvalid:
        values = raw.to_pylist()
    decoded = [None if value is None else value.decode(errors="backslashreplace") for value in values]
    bad = [text is not None and text.encode() != value for text, value in zip(decoded, values, strict=True)]
    return pa.array(decoded, pa.string()), pa.array(bad)


def _empty(column: pa.Array) -> pa.Array:
    """Where nothing is left after str.strip(): bool [rows]."""
    nothing = pc.equal(pc.binary_length(column), 0)
    return pc.fill_null(pc.or_(nothing, pc.utf8_is_space(column)), True)


def _sorted_out(plain: pa.RecordBatch, first_row: int) -> Block:
    rows = pa.array(range(first_row, first_row + plain.num_rows), pa.int64())
    numbered = plain.append_column("row", rows)
    accepted = numbered.filter(pc.is_null(plain.column("fault")))
    rejected = numbered.filter(pc.is_valid(plain.column("fault")))
    text = pc.utf8_slice_codeunits(pc.fill_null(rejected.column("post"), ""), 0, REJECTED_TEXT)
    return Block(
        posts=accepted.select(posts.POSTS.names),
        rejected=pa.record_batch([rejected.column("row"), rejected.column("fault"), text], schema=posts.REJECTED),
    )
