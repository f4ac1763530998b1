"""Puts a document into a Parquet file, where no reader of Parquet looks: so both are replaced in one atomic write.

A Parquet file is data, a footer that tells where in the data each column begins, the footer's length, and `PAR1`. The
document is put between data and footer, and behind it its length and MARK.
"""

MARK = b"tagger-1"

END = b"PAR1"


def sealed(content: bytes, document: bytes) -> bytes:
    """The Parquet file with the document in it."""
    footer = _footer(content)
    return content[:footer] + document + len(document).to_bytes(4, "little") + MARK + content[footer:]


def unsealed(data: bytes) -> tuple[bytes, bytes] | None:
    """The file without its document, and the document, both unchecked; None if there is no document in it."""
    footer = _footer(data)
    mark = footer - len(MARK)
    length = mark - 4
    start = length - int.from_bytes(data[max(length, 0) : max(mark, 0)], "little")
    if not data.endswith(END) or start < 0 or data[mark:footer] != MARK:
        return None
    return data[:start] + data[footer:], data[start:length]


def _footer(data: bytes) -> int:
    """Where the footer begins, as the file says."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")
