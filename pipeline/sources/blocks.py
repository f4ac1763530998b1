"""What every reader of a source yields, sets aside and refuses alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from pipeline.errors import BadInput
from pipeline.sources import sample

MALFORMED_QUOTES = "malformed quotes"
WRONG_FIELD_COUNT = "wrong number of fields"
BAD_UTF8 = "bad UTF-8"
EMPTY_POST = "empty post"
EMPTY_TAG = "empty tag"
LINE_BREAK_IN_TAG = "line break in tag"
REASONS = (MALFORMED_QUOTES, WRONG_FIELD_COUNT, BAD_UTF8, EMPTY_POST, EMPTY_TAG, LINE_BREAK_IN_TAG)
"""Why a row is set aside; a row with several faults bears the first of these."""

TEXT_PER_BLOCK = 32 * 2**20
"""Characters (CSV) or bytes (Parquet) after which a block ends before it has posts.ROWS_PER_BATCH rows."""

REJECTED_TEXT = 64 * 2**10
"""Characters of a rejected row that are kept."""

BUFFER = 2**20
"""Bytes read at once."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source: `posts` as posts.POSTS, `rejected` as posts.REJECTED."""

    posts: pa.RecordBatch
    rejected: pa.RecordBatch


class Columns(NamedTuple):
    """The columns to take; without a tag column (posts to be scored), tags are null and not checked."""

    text: str
    tag: str | None


def shown(source: str) -> str:
    """The source as messages may show it: a URL without user, password and query."""
    if "://" not in source or sample.is_sample(source):
        return source
    return re.sub(r"[?#].*?(?=::|$)", "", re.sub(r"(?<=://)[^/?#]*@", "", source))


def corrupt(name: str, fault: str) -> BadInput:
    """The refusal of a file that is not whole."""
    return BadInput(f"{name} is truncated or corrupt: {fault}; fetch or write it again")


def too_large(name: str, max_bytes: int) -> BadInput:
    """The refusal of a source that goes on and on."""
    return BadInput(
        f"{name} holds more than max_source_bytes={max_bytes:,}; name a smaller source or raise the setting"
    )


def position(names: Sequence[str], wanted: str, name: str, setting: str) -> int:
    """Index of the one column with the wanted name; BadInput if there is none or more than one."""
    if (count := names.count(wanted)) == 1:
        return names.index(wanted)
    if count:
        raise BadInput(f"{name} has {count} columns named {wanted!r}; rename all but one")
    found = ", ".join(_legible(column) for column in names[:20]) + (", ..." if len(names) > 20 else "")
    raise BadInput(f"{name} has no column {wanted!r} (it has: {found}); set {setting} to the right one or rename it")


def _legible(column: str) -> str:
    return (column if column.isprintable() and column.strip() == column != "" else ascii(column))[:60]
