"""What all readers of sources share: the blocks they yield, why they reject a row, and how they refuse a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from pipeline.errors import BadInput

MALFORMED_QUOTES = "malformed quotes"
MALFORMED_JSON = "malformed JSON"
MALFORMED_XML = "malformed XML"
MALFORMED_HTML = "malformed HTML"
NUL_BYTES = "NUL bytes"
WRONG_FIELD_COUNT = "wrong number of fields"
BAD_UTF8 = "bad UTF-8"
EMPTY_POST = "empty post"
EMPTY_TAG = "empty tag"
LINE_BREAK_IN_TAG = "line break in tag"
NO_TEXT = "post or tag is no text"
SEVERAL_TAGS = "several tags"
REASONS = (
    MALFORMED_QUOTES,
    MALFORMED_JSON,
    MALFORMED_XML,
    MALFORMED_HTML,
    NUL_BYTES,
    WRONG_FIELD_COUNT,
    NO_TEXT,
    BAD_UTF8,
    EMPTY_POST,
    EMPTY_TAG,
    LINE_BREAK_IN_TAG,
    SEVERAL_TAGS,
)
"""The reasons for rejecting a row; of several that apply, the first of these is recorded."""

LEFT_OUT = "left out"
"""In place of a reason, for a post that the tags to keep leave out; it comes before EMPTY_POST."""

ROWS_PER_BLOCK = 4096
"""Rows, accepted and rejected, after which a block ends."""

TEXT_PER_BLOCK = 32 * 2**20
"""Characters (CSV) or bytes (Parquet) after which a block ends, even if it has fewer rows than ROWS_PER_BLOCK."""

REJECTED_TEXT = 64 * 2**10
"""Characters of a rejected row that are kept."""

UTF8_BOM = b"\xef\xbb\xbf"

BUFFER = 2**20
"""Bytes read from a file at a time."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source: accepted ones as posts.POSTS, rejected ones as posts.REJECTED.

    `left_out` counts the posts that have none of the tags to keep, or several of them. `warnings` are sentences about
    the source that a person should read.
    """

    posts: pa.RecordBatch
    rejected: pa.RecordBatch
    left_out: int = 0
    warnings: tuple[str, ...] = ()


class Columns(NamedTuple):
    """The names of the columns to read; without a tag column (posts to be tagged), tags are null and not checked.

    `keep` are the tags to keep; empty for all. `several` says that a post may have several tags. What a tag column may
    hold, pipeline.data.several_tags says.
    """

    text: str
    tag: str | None
    keep: frozenset[str] = frozenset()
    several: bool = False


def corrupt(name: str, fault: str) -> BadInput:
    """The error for a file that is incomplete or damaged."""
    return BadInput(f"{name} is truncated or corrupt: {fault}; download or write it again")


def too_large(name: str, max_bytes: int) -> BadInput:
    """The error for a source with more bytes, unpacked, than the setting max_source_bytes allows."""
    return BadInput(
        f"{name} is larger than max_source_bytes={max_bytes:,}: choose a smaller source or raise the setting"
    )


def position(names: Sequence[str], wanted: str, name: str, setting: str) -> int:
    """Find the index of the column with the wanted name; BadInput if there is none or more than one."""
    if (count := names.count(wanted)) == 1:
        return names.index(wanted)
    if count:
        raise BadInput(f"{name} has {count} columns named {wanted!r}; rename all but one")
    found = ", ".join(_legible(column) for column in names[:20]) + (", ..." if len(names) > 20 else "")
    raise BadInput(f"{name} has no column {wanted!r} (it has: {found}); set {setting} to the right one or rename it")


def _legible(column: str) -> str:
    return (column if column.isprintable() and column.strip() == column != "" else ascii(column))[:60]
