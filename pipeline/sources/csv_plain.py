"""Reads the rows at the beginning of a CSV file by Arrow's reader, as long as it is certain that they are plain.

Arrow does not notice malformed quotes and the like. So the first row of which there is any doubt, and all rows after
it, are left to pipeline.sources.csv_file, which reads record by record and gives the same rows in about twice the time.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline.sources.blocks import ROWS_PER_BLOCK, Block, Columns
from pipeline.sources.rows import decoded_block
from pipeline.sources.text_columns import DECODED

CHUNK = 2**20
"""Bytes read at a time."""

MOST_LINES = 10
"""Lines of a row above which it is doubtful: a stray quote may have joined several rows."""

QUOTE, COMMA, LINE_FEED, CARRIAGE_RETURN = b'",\n\r'

BEFORE_FIELD = np.isin(np.arange(256), (COMMA, LINE_FEED))
BEHIND_FIELD = np.isin(np.arange(256), (COMMA, LINE_FEED, CARRIAGE_RETURN))
"""Which bytes may stand before, and behind, a field in quotes: bool [256]."""


@dataclass(frozen=True)
class Header:
    """The number of columns, and which of them are read."""

    width: int
    text: int
    tag: int | None


class PlainRows:
    """The blocks of the plain rows; afterwards `rest` is the file from the first doubtful row on.

    `row_count` and `line_count` say how many rows and lines were read before it.
    """

    def __init__(self, file: io.BufferedReader, header: Header, columns: Columns) -> None:
        self.row_count = self.line_count = 0
        self.rest = file
        self._header, self._columns = header, columns

    def __iter__(self) -> Iterator[Block]:
        file, doubtful = self.rest, b""
        while chunk := file.read(CHUNK):
            content = doubtful + chunk
            end = whole_records(content)
            block = self._block(content[:end]) if end else None
            if block is None:
                doubtful = content
                break
            self.line_count += content.count(b"\n", 0, end)
            self.row_count += block.posts.num_rows + block.left_out
            doubtful = content[end:]
            if block.posts.num_rows or block.left_out:  # else there were blank lines only
                yield from _in_pieces(block)
        self.rest = joined(doubtful, file)

    def _block(self, records: bytes) -> Block | None:
        """The block of plain records; None where one of them cannot be read, or is to be rejected."""
        names = [str(at) for at in range(self._header.width)]
        read = [names[self._header.text], *([] if self._header.tag is None else [names[self._header.tag]])]
        try:
            records.decode()  # also the columns that are not read
            table = pyarrow.csv.read_csv(
                pa.BufferReader(records),
                pyarrow.csv.ReadOptions(use_threads=False, block_size=len(records) + 1, column_names=names),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(read, pa.string()), include_columns=read),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        post, tag = table.column(0).combine_chunks(), table.column(len(read) - 1).combine_chunks()
        decoded = pa.record_batch([post, tag, pa.repeat(False, len(table))], schema=DECODED)
        block = decoded_block(decoded, self.row_count + 1, self._columns)
        return None if block.rejected.num_rows else block


def whole_records(content: bytes) -> int:
    """The number of bytes of the whole records at the beginning; 0 if it is not certain where they end.

    It is certain where each quote opens or closes a field, or is one of a doubled quote within a field, each carriage
    return is followed by a line feed, there is no NUL, and no record has more than MOST_LINES lines.
    """
    letters = np.frombuffer(content, np.uint8)
    quotes = np.flatnonzero(letters == QUOTE)
    line_feeds = np.flatnonzero(letters == LINE_FEED)
    last_lines = np.flatnonzero(np.searchsorted(quotes, line_feeds) % 2 == 0)  # outside of quotes
    if not len(last_lines) or np.diff(last_lines, prepend=-1).max() > MOST_LINES:
        return 0
    end = int(line_feeds[last_lines[-1]]) + 1
    quotes = quotes[: np.searchsorted(quotes, end)]
    opening, closing = quotes[0::2], quotes[1::2]
    # Of a doubled quote within a field the first one closes and the second one opens.
    doubled = closing[:-1] + 1 == opening[1:]
    opens = BEFORE_FIELD[letters[opening - 1]] | (opening == 0)
    opens[1:] |= doubled
    closes = BEHIND_FIELD[letters[closing + 1]]
    closes[:-1] |= doubled
    returns = np.flatnonzero(letters[:end] == CARRIAGE_RETURN)
    certain = opens.all() and closes.all() and (letters[returns + 1] == LINE_FEED).all()
    return end if certain and b"\0" not in content[:end] else 0


def _in_pieces(block: Block) -> Iterator[Block]:
    """The block as several of at most ROWS_PER_BLOCK posts each."""
    yield Block(block.posts[:ROWS_PER_BLOCK], block.rejected, block.left_out)
    for start in range(ROWS_PER_BLOCK, block.posts.num_rows, ROWS_PER_BLOCK):
        yield Block(block.posts[start : start + ROWS_PER_BLOCK], block.rejected)


def joined(read: bytes, file: io.BufferedReader) -> io.BufferedReader:
    """A file of bytes that were read already, and behind them the file that they come from."""
    return io.BufferedReader(_Joined(read, file), CHUNK)


class _Joined(io.RawIOBase):
    """Bytes that were read already, and behind them the file that they come from."""

    def __init__(self, read: bytes, file: io.BufferedReader) -> None:
        self._read, self._file = io.BytesIO(read), file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._read.readinto(buffer) or self._file.readinto(buffer)
