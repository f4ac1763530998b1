"""Turns columns that Arrow has decoded, whatever their string type, into posts and tag fields as plain strings."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.sources.blocks import TEXT_PER_BLOCK, Columns, position

DECODED = pa.schema([("post", pa.string()), ("tag", pa.string()), ("undecodable", pa.bool_())])
"""The rows that are sent back: a post and its tag field, null if absent, and whether one of them is not UTF-8."""


def checked(schema: pa.Schema, name: str, columns: Columns) -> list[str]:
    """List the columns to read; BadInput where one is missing, there twice, or cannot hold text."""
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        kind = schema.field(position(schema.names, column, name, setting)).type
        lists = column == columns.tag and _is_list(kind) and _is_text(kind.value_type)
        # A column without any value may have any simple type: pandas writes it as numbers.
        if pa.types.is_nested(kind) and not lists:
            raise _no_text(name, column, kind, setting)
    return list(needed)


def _no_text(name: str, column: str, kind: pa.DataType, setting: str) -> BadInput:
    return BadInput(f"{name} has {kind} in column {column!r}, not text: set {setting} to a column of strings")


def _is_text(kind: pa.DataType) -> bool:
    kinds = (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.null(),
    )
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in kinds


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_list(kind) for is_list in lists)


def halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halve the batch until each piece of several rows has at most TEXT_PER_BLOCK bytes."""
    if batch.num_rows < 2 or batch.nbytes <= TEXT_PER_BLOCK:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from halves(batch.slice(0, middle))
    yield from halves(batch.slice(middle))


def decoded(batch: pa.RecordBatch, name: str, columns: Columns) -> pa.RecordBatch:
    """Convert the batch to DECODED: texts as plain strings; BadInput where a column holds something else."""
    post, undecodable = _strings(_texts(batch, columns.text, name, "text_column"))
    tag = pa.nulls(batch.num_rows, pa.string())
    if columns.tag is not None:
        tag, bad = _strings(_texts(batch, columns.tag, name, "tag_column"))
        undecodable = pc.or_(undecodable, bad)
    return pa.record_batch([post, tag, undecodable], schema=DECODED)


def _texts(batch: pa.RecordBatch, name: str, source: str, setting: str) -> pa.Array:
    """The column as texts, where it holds lists of tags with each list as one."""
    column = batch.column(name)
    if _is_list(column.type):
        return _joined(column)
    if _is_text(column.type):
        return column
    if column.null_count < len(column):
        raise _no_text(source, name, column.type, setting)
    return pa.nulls(len(column), pa.string())


def _joined(column: pa.Array) -> pa.Array:
    """Each list as one text. Not by a cast to another kind of list, which loses the elements of a list_view."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    tags = pc.fill_null(pc.list_flatten(column).cast(pa.binary()), b"")
    lists = pa.ListArray.from_arrays(offsets, tags)
    return pc.if_else(pc.is_null(column), None, pc.binary_join(lists, SEPARATOR.encode()))


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
