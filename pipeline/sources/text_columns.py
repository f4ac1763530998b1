"""Turns columns that Arrow has decoded, whatever their string type, into posts and tags with each row's fault."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    EMPTY_POST,
    EMPTY_TAG,
    LINE_BREAK_IN_TAG,
    TEXT_PER_BLOCK,
    Columns,
    position,
)

DECODED = pa.schema([("post", pa.string()), ("tag", pa.string()), ("fault", pa.string())])
"""The rows that are sent back; `fault` is one of blocks.REASONS, or null for an accepted row."""


def checked(schema: pa.Schema, name: str, columns: Columns) -> list[str]:
    """List the columns to read; BadInput where one is missing, there twice, or does not hold text."""
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        kind = schema.field(position(schema.names, column, name, setting)).type
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind) and not (
            columns.several and column == columns.tag and _is_list(kind) and _is_text(kind.value_type)
        ):
            raise BadInput(f"{name} has {kind} in column {column!r}, not text: set {setting} to a column of strings")
    return list(needed)


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in kinds


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halve the batch until each piece of several rows has at most TEXT_PER_BLOCK bytes."""
    if batch.num_rows < 2 or batch.nbytes <= TEXT_PER_BLOCK:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from halves(batch.slice(0, middle))
    yield from halves(batch.slice(middle))


def with_faults(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Convert the batch to DECODED: texts as plain strings, and each row's first fault."""
    post, undecodable = _strings(batch.column(columns.text))
    tag = pa.nulls(batch.num_rows, pa.string())
    faults = [(_empty(post), EMPTY_POST)]
    if columns.tag is not None:
        tag, bad = _strings(_joined(batch.column(columns.tag)))
        undecodable = pc.or_(undecodable, bad)
        faults += [(_empty(tag), EMPTY_TAG), (pc.match_substring_regex(tag, "[\r\n]"), LINE_BREAK_IN_TAG)]
    fault = pa.nulls(batch.num_rows, pa.string())
    for where, reason in reversed([(undecodable, BAD_UTF8), *faults]):
        fault = pc.if_else(where, reason, fault)
    return pa.record_batch([post, tag, fault], schema=DECODED)


def _joined(column: pa.Array) -> pa.Array:
    """The column, where it holds lists of tags with each list as one text."""
    if not _is_list(column.type):
        return column
    lists = column.cast(pa.list_(pa.binary()))
    without_null = pa.ListArray.from_arrays(lists.offsets, pc.fill_null(lists.values, b""))
    return pc.if_else(pc.is_null(column), None, pc.binary_join(without_null, SEPARATOR.encode()))


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
