"""Reads the posts of a CSV file record by record, so that one malformed row is rejected and the rest are read."""

import io
from collections.abc import Iterator

from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    MALFORMED_QUOTES,
    NUL_BYTES,
    REJECTED_TEXT,
    WRONG_FIELD_COUNT,
    Block,
    Columns,
    position,
)
from pipeline.sources.csv_plain import MOST_LINES, Header, PlainRows, joined
from pipeline.sources.csv_records import Count, Records
from pipeline.sources.rows import Rows, is_unicode

MANY_LINES = 200
"""Lines of a row above which there is a warning: a stray quote may have swallowed the rows after it."""

LONGEST_PLAIN_HEADER = 2**16
"""Bytes of a header up to which it is looked at whether it is plain."""


def csv_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read all records after the header, numbered from 1; BadInput where the header lacks a needed column.

    The rows at the beginning that are plain are read by Arrow, and the others record by record.
    """
    first_line = file.readline(LONGEST_PLAIN_HEADER)
    fields = _plain_fields(first_line)
    if not fields:
        yield from record_blocks(joined(first_line, file), name, columns)
        return
    header = _header(fields, name, columns)
    plain = PlainRows(file, header, columns)
    yield from plain
    with _text(plain.rest) as text:
        records = Records(text, name, header.width, lines_before=1 + plain.line_count)
        yield from _collected(records, iter(records), header, name, columns, plain.row_count + 1)


def record_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read all records as csv_blocks does, each by itself."""
    with _text(file) as text:
        records = Records(text, name)
        rows_fields = iter(records)
        header = _header(next(rows_fields, []), name, columns)
        yield from _collected(records, rows_fields, header, name, columns)


def _text(file: io.BufferedReader) -> io.TextIOWrapper:
    # Undecodable bytes become lone surrogates, so that only their rows are rejected.
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _plain_fields(line: bytes) -> list[str]:
    """The fields of a header of two columns or more without quotes and the like; empty for any other."""
    if not line.endswith(b"\n") or any(sign in line.removesuffix(b"\n").removesuffix(b"\r") for sign in b'"\r\0'):
        return []
    try:
        fields = line.decode().rstrip("\r\n").split(",")
    except UnicodeDecodeError:
        return []
    return fields if len(fields) > 1 else []


def _header(fields: list[str] | None, name: str, columns: Columns) -> Header:
    if fields is None:
        raise BadInput(f"{name} has malformed quotes in its header: fix its first line")
    if not fields:
        raise BadInput(f"{name} is empty, without even a header: choose a source that holds posts")
    text = position(fields, columns.text, name, "text_column")
    tag = None if columns.tag is None else position(fields, columns.tag, name, "tag_column")
    return Header(len(fields), text, tag)


def _collected(
    records: Records,
    rows_fields: Iterator[list[str] | None],
    header: Header,
    name: str,
    columns: Columns,
    first_row: int = 1,
) -> Iterator[Block]:
    rows = Rows()
    # Rows that were read before end in line feeds.
    oddities = _Oddities(has_line_feeds=first_row > 1)
    for row, fields in enumerate(rows_fields, first_row):
        reason = _fault(fields, records.lines, header)
        if len(records.lines) > 1 and _may_be_several(fields, reason, header) and records.has_stray_quote():
            reason = MALFORMED_QUOTES
            records.go_back()
        elif fields and not reason:
            field = "" if header.tag is None else fields[header.tag]
            reason = rows.add(row, fields[header.text], field, columns)
        oddities.count(row, records)
        if reason:
            rows.reject(row, reason, _raw(records.lines))
        if rows.full:
            yield rows.block()
    warnings = oddities.warnings(name, records.unclosed)
    if rows.count or warnings:
        yield rows.block(warnings)


class _Oddities:
    """Counts what may be right or may be the trace of lost rows, for the warnings about a file."""

    def __init__(self, *, has_line_feeds: bool) -> None:
        self._long_rows = Count()
        self._carriage_returns = Count()
        self._has_line_feeds = has_line_feeds

    def count(self, row: int, records: Records) -> None:
        """Look at the lines of the current record."""
        line_count = len(records.lines)
        if line_count > MANY_LINES or (line_count > MOST_LINES and records.has_stray_quote()):
            self._long_rows.add(row)
        last = records.lines[-1]
        self._has_line_feeds = self._has_line_feeds or last.endswith("\n")
        if last.endswith("\r"):
            self._carriage_returns.add(row)

    def warnings(self, name: str, unclosed: Count) -> tuple[str, ...]:
        """The sentences; `unclosed` counts the lines in which a quote is opened and never closed."""
        warnings = []
        if unclosed.total:
            warnings.append(
                f"{name} has quotes that are never closed ({unclosed.total:,}, the first in line {unclosed.first:,}): "
                "such a line is rejected and those after it are read as rows; if the file is cut, write it again"
            )
        if self._long_rows.total:
            warnings.append(
                f"{name} has rows of many lines ({self._long_rows.total:,}, the first is row "
                f"{self._long_rows.first:,}): if one holds a stray quote, that has swallowed the rows after it; "
                "remove the quote"
            )
        if self._carriage_returns.total and self._has_line_feeds:
            warnings.append(
                f"{name} has rows that end in a lone carriage return ({self._carriage_returns.total:,}, the first is "
                f"row {self._carriage_returns.first:,}), while others end in a line feed: text after it was read as a "
                "row of its own; end all lines alike"
            )
        return tuple(warnings)


def _fault(fields: list[str] | None, lines: list[str], header: Header) -> str | None:
    """Find the reason for which the row cannot be read, or None."""
    if fields is None:
        return MALFORMED_QUOTES
    if any("\0" in line for line in lines):  # as in UTF-16, of which a part may follow on text in UTF-8
        return NUL_BYTES
    if len(fields) != header.width:
        return WRONG_FIELD_COUNT
    if not all(field.isascii() or is_unicode(field) for field in fields):
        return BAD_UTF8
    return None


def _may_be_several(fields: list[str] | None, reason: str | None, header: Header) -> bool:
    """Whether the row has the shape of several that a stray quote has joined: a field too many, or lines in its tag."""
    if fields is None or header.tag is None or reason:
        return reason == WRONG_FIELD_COUNT
    return any(line_end in fields[header.tag].strip() for line_end in "\r\n")


def _raw(lines: list[str]) -> str:
    r"""The record as it is in the file, undecodable bytes as \xff, cut to REJECTED_TEXT characters."""
    text = "".join(lines).rstrip("\r\n")[:REJECTED_TEXT]
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")[:REJECTED_TEXT]
