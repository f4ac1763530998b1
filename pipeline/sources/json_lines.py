"""Reads the posts of JSON Lines (https://jsonlines.org), one object a line; a bad line is rejected by itself."""

import io
import json
from collections.abc import Iterator
from typing import Any

from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    MALFORMED_JSON,
    NO_TEXT,
    NUL_BYTES,
    REJECTED_TEXT,
    Block,
    Columns,
    corrupt,
    position,
)
from pipeline.sources.rows import Rows, is_unicode

LONGEST_LINE = 16 * 2**20
"""Bytes of a line after which the file is refused: it is not JSON Lines."""


def json_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read all lines that are not blank, numbered from 1; BadInput where no object has a needed field."""
    rows = Rows()
    absent = _Absent(columns)
    row = 0
    for row, line in enumerate(_lines(file, name), 1):
        parsed = _add(rows, row, line, columns)
        if absent.fields and parsed is not None:
            absent.seen(parsed)
        if rows.full:
            yield rows.block()
    absent.check(name, row)
    if rows.count:
        yield rows.block()


class _Absent:
    """The needed fields that no object had so far, with the settings that name them."""

    def __init__(self, columns: Columns) -> None:
        self.fields = {columns.text: "text_column"} | ({columns.tag: "tag_column"} if columns.tag else {})
        self._of_first: list[str] | None = None

    def seen(self, parsed: dict[str, Any]) -> None:
        """Take those that the object has from the fields."""
        if self._of_first is None:
            self._of_first = list(parsed)
        for field in self.fields.keys() & parsed:
            del self.fields[field]

    def check(self, name: str, line_count: int) -> None:
        """Raise BadInput where there are lines but none is an object, or where no object has one of the fields."""
        if self._of_first is not None:
            for field, setting in self.fields.items():
                position(self._of_first, field, name, setting)
        elif line_count:
            raise BadInput(
                f"{name} has no JSON object in any of its {line_count:,} lines: write one object a line, as `jq -c` "
                "does, and use that as the source"
            )


def _lines(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    """The lines that are not blank; a carriage return ends one, too, unless what it is in is JSON as a whole."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise corrupt(name, f"line {number} is longer than {LONGEST_LINE:,} bytes")
        several = b"\r" in line.rstrip() and isinstance(_parsed(line), str)
        for part in line.split(b"\r") if several else [line]:
            if part.strip():
                yield part


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The object that the line holds, or the reason why it is to be rejected."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return BAD_UTF8
    try:
        parsed = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return NUL_BYTES if "\0" in text else MALFORMED_JSON
    return parsed if isinstance(parsed, dict) else MALFORMED_JSON


def _add(rows: Rows, row: int, line: bytes, columns: Columns) -> dict[str, Any] | None:
    """Add a line to the rows, accepted or rejected; returns its object, if it is one."""
    shown = line.decode(errors="backslashreplace").rstrip("\r\n")[:REJECTED_TEXT]
    parsed = _parsed(line)
    if isinstance(parsed, str):
        rows.reject(row, parsed, shown)
        return None
    post = _text(parsed.get(columns.text))
    tags = list[Any]()
    if columns.tag is not None:
        field = parsed.get(columns.tag)
        tags = [tag for tag in (field if isinstance(field, list) else [field]) if tag is not None]
    texts = [post, *tags]
    if not all(isinstance(text, str) for text in texts):
        rows.reject(row, NO_TEXT, shown)
    elif not all(map(is_unicode, texts)):  # JSON can name halves of a surrogate pair
        rows.reject(row, BAD_UTF8, shown)
    elif reason := rows.add(row, post, SEPARATOR.join(tags), columns):
        rows.reject(row, reason, shown)
    return parsed


def _text(value: Any) -> Any:
    """The value; an absent one as an empty text."""
    return "" if value is None else value
