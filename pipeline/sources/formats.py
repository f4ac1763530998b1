"""Recognizes a file's format by its first bytes, and says of other formats what they are and how to convert them."""

import csv
import json
import re
from enum import Enum

from pipeline.errors import BadInput
from pipeline.sources.blocks import UTF8_BOM, Columns, corrupt
from pipeline.sources.listing import JSON_LINES

GZIP_MAGIC = b"\x1f\x8b"

UNPACK, AS_CSV = "unpack it", "save it as CSV or Parquet"
OTHER_FORMATS = (
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", f"a zip archive or an Excel workbook: {UNPACK}, or save it as CSV"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", f"a bzip2 file: {UNPACK}"),
    (rb"\xfd7zXZ\x00", f"an xz file: {UNPACK}"),
    (rb"\]\x00\x00", f"an lzma file: {UNPACK}"),
    (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", f"a zstd file: {UNPACK}"),
    (rb"\x04\x22\x4d\x18", f"an lz4 file: {UNPACK}"),
    (rb"\xff\x06\x00\x00sNaPpY", f"a snappy file: {UNPACK}"),
    (rb"\x1f[\x9d\xa0]", f"a file of compress: {UNPACK}"),
    (rb"7z\xbc\xaf\x27\x1c", f"a 7z archive: {UNPACK}"),
    (rb"Rar!\x1a\x07", f"a rar archive: {UNPACK}"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls): save it as CSV"),
    (rb"SQLite format 3\x00", "an SQLite database: export its table as CSV"),
    (rb"ARROW1\x00\x00|FEA1[\x00-\x1f]", f"an Arrow or Feather file: {AS_CSV}"),
    (rb"ORC[\x00-\x1f][^\n]*\x00", f"an ORC file: {AS_CSV}"),
    (rb"Obj\x01", f"an Avro file: {AS_CSV}"),
    (rb"\x89HDF\r\n\x1a\n", f"an HDF5 file: {AS_CSV}"),
    (rb"\x80[\x02-\x05]", f"a pickle of Python: {AS_CSV}"),
    (rb"%PDF-\d\.\d\s", f"a PDF: {AS_CSV}"),
    (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff", "UTF-32 text: save it as UTF-8"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16 text: save it as UTF-8"),
)
"""Formats that people pass by mistake: a pattern of the first bytes, and what such a file is and how to convert it.

The patterns are as long as no text begins, so that a CSV file whose header begins with `BZh` or `PK` is read.
"""

XML = re.compile(rb"<(\?xml|posts[\s>/]|!--|!DOCTYPE posts)")
HTML = re.compile(rb"<(!DOCTYPE html|html)[\s>]", re.IGNORECASE)
JSON_ARRAY = re.compile(rb'\[\s*([\[{"\]]|$)')

BLANKS = b" \t\r\n"


class Format(Enum):
    """The formats of text that are read."""

    CSV = "CSV"
    JSON_LINES = "JSON Lines"
    DUMP = "Posts.xml"


def is_gzip(head: bytes) -> bool:
    """Whether the file is compressed by gzip."""
    return head.startswith(GZIP_MAGIC)


def is_parquet(head: bytes) -> bool:
    """Whether the file is Parquet: behind the magic number, which is text, comes a byte that is not."""
    return bool(re.match(rb"PAR1([^ -~\r\n\t]|$)|PARE[^ -~\r\n\t]", head))


def check(head: bytes, name: str, *, unpacked: bool = False) -> None:
    """Raise BadInput for a format that is not read, or not where it was `unpacked` from gzip.

    It goes by the content alone; where the name promises gzip or Parquet and the content is of no known format, the
    file is damaged.
    """
    gzip, parquet = is_gzip(head), is_parquet(head)
    what = None if gzip or parquet else _other_format(head)
    if unpacked and (gzip or parquet):
        what = f"{'gzip' if gzip else 'Parquet'} within gzip: {UNPACK}"
    if what:
        raise BadInput(f"{name} is {what}, and use that as the source")
    for suffix, is_of_it in ((".gz", gzip), (".parquet", parquet)):
        if not unpacked and _path(name).endswith(suffix) and not is_of_it:
            raise corrupt(name, f"its name ends in {suffix} but its content is of another format")


def text_format(head: bytes, name: str, columns: Columns) -> Format:
    """Recognize the format of a text from its first bytes; BadInput for a JSON array and for a web page.

    A text whose first line is a CSV header with the columns to read is CSV, with whatever sign it begins. Of any other
    first line that is not of a format, the file's name says whether it is JSON Lines.
    """
    text = head.removeprefix(UTF8_BOM).lstrip(BLANKS)
    named_json = _path(name).endswith(JSON_LINES)
    if not text.startswith((b"{", b"[", b"<")) and not named_json:
        return Format.CSV
    lines = text.splitlines()
    if lines and _is_header(lines[0], columns):
        return Format.CSV
    if XML.match(text):
        return Format.DUMP
    if HTML.match(text):
        raise BadInput(f"{name} is a web page, not a file of posts: save the file that it shows, and use that")
    has_objects = text.startswith(b"{") or (text.startswith(b"[") and _objects_follow(lines))
    if JSON_ARRAY.match(text) and not has_objects:
        raise BadInput(
            f"{name} is a JSON array: write one object a line, as `jq -c '.[]'` does, and use that as the source"
        )
    return Format.JSON_LINES if has_objects or named_json else Format.CSV


def _path(name: str) -> str:
    """The part of the name that may end in a suffix, in lower case: of a chained URL the first one."""
    return name.partition("::")[0].lower()


def _other_format(head: bytes) -> str | None:
    for pattern, what in OTHER_FORMATS:
        if re.match(pattern, head):
            return what
    if _is_tar(head):
        return f"a tar archive: {UNPACK}"
    if encoding := _wide_encoding(head):
        return f"{encoding} text: save it as UTF-8"
    return None


def _is_tar(head: bytes) -> bool:
    """Whether the checksum in a tar header is right: old archives have no magic number."""
    header = head[:512]
    digits = header[148:156].strip(b"\0 ")
    if len(header) < 512 or not re.fullmatch(rb"[0-7]+", digits):
        return False
    return int(digits, 8) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _wide_encoding(head: bytes) -> str | None:
    """Recognize UTF-16 and UTF-32 without a byte order mark: in the first line every second byte is often NUL."""
    end = head.find(b"\n")
    line = head[: min(end, 4096) + 2] if end >= 0 else head[:4096]
    even, odd = line[::2].count(0), line[1::2].count(0)
    if max(even, odd) < max(2, len(line) // 16):
        return None
    units = [line[place::4] for place in range(4)]
    for highest, second in ((3, 2), (0, 1)):  # little endian, big endian: no code point is above 0x10FFFF
        if not any(units[highest]) and max(units[second], default=0) <= 0x10:
            return "UTF-32"
    return "UTF-16" if min(even, odd) * 8 <= max(even, odd) else None


def _is_header(line: bytes, columns: Columns) -> bool:
    try:
        fields = next(csv.reader([line.decode()], strict=True), [])
    except (csv.Error, UnicodeDecodeError):
        return False
    return {columns.text, columns.tag} - {None} <= set(fields)


def _objects_follow(lines: list[bytes]) -> bool:
    """Whether the first line is a JSON value by itself, and an object follows: JSON Lines with a faulty first line."""
    try:
        json.loads(lines[0])
    except (ValueError, RecursionError):
        return False
    return any(line.lstrip(BLANKS).startswith(b"{") for line in lines[1:])
