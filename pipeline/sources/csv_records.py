"""Splits CSV text into records, so that a malformed one costs its first line at most, not the lines after it."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator

from pipeline.errors import BadInput
from pipeline.sources.blocks import corrupt

LONGEST_RECORD = 16 * 2**20
"""Characters of a record after which its quote counts as never closed."""

LINES_COMPARED = 1000
"""Lines after an open quote, of which half must be rows by themselves for the quote to be a stray one."""


class Count:
    """How many rows or lines are of a kind, and the number of the first one."""

    def __init__(self) -> None:
        self.total = self.first = 0

    def add(self, number: int) -> None:
        """Count the row or line of that number."""
        self.total += 1
        self.first = self.first or number


class Records:
    """The records of a CSV text; `lines` are those of the current one, and `unclosed` counts stray open quotes.

    Blank lines are skipped, as in pandas: files end in them, and csv writes a single empty field as "".
    """

    def __init__(self, text: io.TextIOBase, name: str, width: int = 0, lines_before: int = 0) -> None:
        """Begin at the header, or behind one of that `width` and so many lines."""
        self.lines: list[str] = []
        self.unclosed = Count()
        self._source = _Lines(text, name, lines_before)
        self._name = name
        self._width = width

    def __iter__(self) -> Iterator[list[str] | None]:
        """The fields of the header and of each record, or None where its quotes are malformed.

        Of a malformed record that has several lines, the second begins the next record.
        """
        csv.field_size_limit(LONGEST_RECORD)
        reader = csv.reader(self._source, strict=True)
        while True:
            self.lines = self._source.begin_record()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except (csv.Error, _TooLong) as fault:
                self._check_open_quote(fault)
                self.go_back()
                yield None
                continue
            if fields:
                self._width = self._width or len(fields)
                yield fields

    @property
    def line_number(self) -> int:
        """The number of the current record's first line, from 1."""
        return self._source.number - len(self.lines) + 1

    def go_back(self) -> None:
        """Take all lines but the first from the current record, and read them as records of their own."""
        self._source.give_back(self.lines[1:])
        del self.lines[1:]

    def has_stray_quote(self) -> bool:
        """Whether the current record, which has several lines, is rather a row with a stray quote, and rows after it.

        That is so where its first line has commas enough for a row, and most of the next lines are rows by themselves.
        """
        if self._width < 2 or self.lines[0].count(",") < self._width - 1:
            return False
        following = [line for line in self.lines[1 : LINES_COMPARED + 1] if line.strip()]
        row_count = sum(map(self._is_row, following))
        return 0 < row_count >= len(following) / 2

    def _is_row(self, line: str) -> bool:
        try:
            return len(next(csv.reader([line], strict=True))) == self._width
        except csv.Error:
            return False

    def _check_open_quote(self, fault: Exception) -> None:
        """Raise BadInput for a quote that is not closed, unless it is a stray one: then the file may well be cut."""
        limit = f"not closed within {LONGEST_RECORD:,} characters"
        if not isinstance(fault, _TooLong) and not self._source.ended:
            return
        if not self.has_stray_quote():
            raise self._unclosed(limit if isinstance(fault, _TooLong) else "never closed")
        self.unclosed.add(self.line_number)

    def _unclosed(self, fault: str) -> BadInput:
        """The error for a record whose last quoted field has no closing quote."""
        text = "".join(self.lines)
        closed = re.match(r'(?:(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n][^,\r\n]*+)?,)*+', text)
        end = closed.end()  # type: ignore[union-attr]
        breaks = text.count("\n", 0, end) + text.count("\r", 0, end) - text.count("\r\n", 0, end)
        return corrupt(self._name, f"the quote opened in line {self.line_number + breaks} is {fault}")


class _TooLong(Exception):
    """A record of several lines is longer than LONGEST_RECORD."""


class _Lines:
    """The lines of a text, of which those of the current record can be given back."""

    def __init__(self, text: io.TextIOBase, name: str, number: int) -> None:
        self.number = number
        self.ended = False
        self._text, self._name = text, name
        self._record: list[str] = []
        self._room = LONGEST_RECORD
        self._given_back: deque[str] = deque()
        self._character_count = self._repeated_count = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        # A line is read with a bound, because it may have no end.
        line = self._given_back.popleft() if self._given_back else self._text.readline(LONGEST_RECORD + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self._character_count += len(line)
        self._room -= len(line)
        self._record.append(line)
        if self._room < 0 and len(self._record) > 1:
            raise _TooLong
        if self._room < 0:
            raise corrupt(self._name, f"line {self.number} is longer than {LONGEST_RECORD:,} characters")
        return line

    def begin_record(self) -> list[str]:
        """Begin a record: the list to which its lines will be added."""
        self._record = []
        self._room = LONGEST_RECORD
        self.ended = False
        return self._record

    def give_back(self, lines: list[str]) -> None:
        """Let the lines come again; BadInput where that is asked for too often, as quotes can be arranged for."""
        self._given_back.extendleft(reversed(lines))
        self.number -= len(lines)
        self._repeated_count += sum(map(len, lines))
        if self._repeated_count > 8 * LONGEST_RECORD + self._character_count / 2:
            raise corrupt(self._name, f"it has too many quotes that are never closed, up to line {self.number}")
