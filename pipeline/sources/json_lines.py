"""Reads the posts of JSON Lines (https://jsonlines.org), one object a line; a bad line is rejected by itself."""

import io
import json
from collections.abc import Iterator
from typing import Any

from pipeline.data.several_tags import SEPARATOR
from pipeline.sources.blocks import (
    BAD_UTF8,
    MALFORMED_JSON,
    NO_TEXT,
    REJECTED_TEXT,
    UTF8_BOM,
    Block,
    Columns,
    corrupt,
    position,
)
from pipeline.sources.rows import Rows

LONGEST_LINE = 16 * 2**20
"""Bytes of a line after which the file is refused: it is no JSON Lines."""


def json_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read all lines that are not blank, numbered from 1; BadInput where the first object lacks a needed field."""
    rows, row = Rows(), 0
    if file.peek(len(UTF8_BOM)).startswith(UTF8_BOM):
        file.read(len(UTF8_BOM))
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise corrupt(name, f"line {row + 1} is longer than {LONGEST_LINE:,} bytes")
        if not line.strip():
            continue
        row += 1
        _add(rows, row, line, name, columns)
        if rows.full:
            yield rows.block()
    if rows.count:
        yield rows.block()


def _add(rows: Rows, row: int, line: bytes, name: str, columns: Columns) -> None:
    """Parse a line and add it to the rows, accepted or rejected."""
    shown = line.decode(errors="backslashreplace").rstrip("\r\n")[:REJECTED_TEXT]
    try:
        parsed = json.loads(line)
    except UnicodeDecodeError:
        rows.reject(row, BAD_UTF8, shown)
        return
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        rows.reject(row, MALFORMED_JSON, shown)
        return
    if row == 1:
        for wanted, setting in ((columns.text, "text_column"), (columns.tag, "tag_column")):
            if wanted is not None:
                position(list(parsed), wanted, name, setting)
    post = _text(parsed.get(columns.text))
    tags = list[Any]()
    if columns.tag is not None:
        field = parsed.get(columns.tag)
        tags = [tag for tag in (field if isinstance(field, list) else [field]) if tag is not None]
    texts = [post, *tags]
    if not all(isinstance(text, str) for text in texts):
        rows.reject(row, NO_TEXT, shown)
    elif not all(map(_encodes, texts)):  # JSON can name halves of a surrogate pair
        rows.reject(row, BAD_UTF8, shown)
    elif reason := rows.add(row, post, SEPARATOR.join(tags), columns):
        rows.reject(row, reason, shown)


def _text(value: Any) -> Any:
    """The value; an absent one as an empty text."""
    return "" if value is None else value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
