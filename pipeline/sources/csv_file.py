"""Reads the posts of a CSV file record by record, so that one malformed row is rejected and the rest are read."""

import csv
import io
import re
from collections.abc import Iterator

from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    MALFORMED_QUOTES,
    REJECTED_TEXT,
    UTF8_BOM,
    WRONG_FIELD_COUNT,
    Block,
    Columns,
    corrupt,
    position,
)
from pipeline.sources.rows import Rows

LONGEST_RECORD = 16 * 2**20
"""Characters of a record after which it is refused: a quote was never closed, or the file is no CSV."""

OTHER_FORMATS = {
    b"PAR1": "Parquet within gzip: unpack it",  # reached only inside gzip, where seeking back is not affordable
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"BZh": "a bzip2 file: unpack it",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"[{": "a JSON array: write one object a line, as `jq -c '.[]'` does",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
"""Other formats that people pass by mistake: a file's first bytes, and what it is and how to convert it."""

Record = tuple[list[str] | None, list[str]]
"""A record's fields, None where its quotes are malformed, and its lines."""


def csv_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read all records after the header, numbered from 1; BadInput where the header lacks a needed column."""
    with _text(file, name) as content:
        records = _records(content, name)
        header, _ = next(records, ([], []))
        if header is None:
            raise BadInput(f"{name} has malformed quotes in its header: fix its first line")
        if not header:
            raise BadInput(f"{name} is empty, without even a header: choose a source that holds posts")
        text = position(header, columns.text, name, "text_column")
        tag = None if columns.tag is None else position(header, columns.tag, name, "tag_column")
        yield from _collected(records, len(header), text, tag, columns)


def _collected(records: Iterator[Record], width: int, text: int, tag: int | None, columns: Columns) -> Iterator[Block]:
    rows = Rows()
    for row, (fields, lines) in enumerate(records, 1):
        reason = _fault(fields, width)
        if fields and not reason:
            reason = rows.add(row, fields[text], "" if tag is None else fields[tag], columns)
        if reason:
            rows.reject(row, reason, _raw(lines))
        if rows.full:
            yield rows.block()
    if rows.count:
        yield rows.block()


def _text(file: io.BufferedReader, name: str) -> io.TextIOWrapper:
    """Open the content as UTF-8 text, with undecodable bytes as lone surrogates and line breaks unchanged."""
    head = file.peek(8)
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise BadInput(f"{name} is {what}, and use that as the source")
    if head.startswith(UTF8_BOM):
        file.read(len(UTF8_BOM))
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _records(text: io.TextIOBase, name: str) -> Iterator[Record]:
    """Parse the text into records; a record's list of lines is valid until the next one is read.

    Blank lines are skipped, as in pandas: files end in them, and csv writes a single empty field as "".
    """
    lines: list[str] = []
    ended = False

    def consumed() -> Iterator[str]:
        nonlocal ended
        room = LONGEST_RECORD
        while line := text.readline(LONGEST_RECORD + 1):  # bounded, because a line may have no end
            room = (room if lines else LONGEST_RECORD) - len(line)
            lines.append(line)
            if room < 0:
                raise _too_long(lines, reader.line_num + 1, name)
            yield line
        ended = True

    csv.field_size_limit(LONGEST_RECORD)
    reader = csv.reader(consumed(), strict=True)
    while True:
        lines.clear()
        try:
            if fields := next(reader):
                yield fields, lines
        except StopIteration:
            return
        except csv.Error:
            if ended:
                raise _unclosed(lines, reader.line_num, "never closed", name) from None
            yield None, lines


def _too_long(lines: list[str], last: int, name: str) -> BadInput:
    """The error for a record longer than LONGEST_RECORD: an open quote where it has several lines."""
    if len(lines) > 1:
        return _unclosed(lines, last, f"not closed within {LONGEST_RECORD:,} characters", name)
    return corrupt(name, f"line {last} is longer than {LONGEST_RECORD:,} characters")


def _unclosed(lines: list[str], last: int, fault: str, name: str) -> BadInput:
    """The error for a record whose last quoted field has no closing quote."""
    text = "".join(lines)
    closed = re.match(r'(?:(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n][^,\r\n]*+)?,)*+', text)
    end = closed.end()  # type: ignore[union-attr]
    breaks = text.count("\n", 0, end) + text.count("\r", 0, end) - text.count("\r\n", 0, end)
    return corrupt(name, f"the quote opened in line {last - len(lines) + 1 + breaks} is {fault}")


def _fault(fields: list[str] | None, width: int) -> str | None:
    """Find the reason for which the row cannot be read, or None."""
    if fields is None:
        return MALFORMED_QUOTES
    if len(fields) != width:
        return WRONG_FIELD_COUNT
    if not all(map(str.isascii, fields)) and not _decoded(fields):
        return BAD_UTF8
    return None


def _decoded(fields: list[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(lines: list[str]) -> str:
    r"""The record as it is in the file, undecodable bytes as \xff, cut to REJECTED_TEXT characters."""
    text = "".join(lines).rstrip("\r\n")[:REJECTED_TEXT]
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")[:REJECTED_TEXT]
