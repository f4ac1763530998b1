"""Writes Parquet files with false metadata: as much of Thrift's compact protocol as that needs."""

import struct
import zlib

Value = int | bytes | list["Value"] | dict[int, "Value"]


class Long(int):
    """An integer that is encoded as i64; a plain int is an i32."""


def varint(number: int) -> bytes:
    rest = b""
    while number >= 0x80:
        rest += bytes([number & 0x7F | 0x80])
        number >>= 7
    return rest + bytes([number])


def _kind(value: Value) -> int:
    return {int: 5, Long: 6, bytes: 8, list: 9, dict: 12}[type(value)]


def encoded(value: Value) -> bytes:
    """Encode a number, bytes as a string, a list, or {field: value} as a struct; the same list item is encoded once."""
    match value:
        case int():
            return varint(value << 1 if value >= 0 else (-value << 1) - 1)
        case bytes():
            return varint(len(value)) + value
        case list():
            same = {key: encoded(item) for key, item in {id(item): item for item in value}.items()}
            return (
                bytes([0xF0 | _kind(value[0] if value else 0)])
                + varint(len(value))
                + b"".join(same[id(item)] for item in value)
            )
        case dict():
            steps = zip(value, [0, *value], strict=False)
            heads = [bytes([(field - last) << 4 | _kind(value[field])]) for field, last in steps]
            return b"".join(h + encoded(v) for h, v in zip(heads, value.values(), strict=True)) + b"\0"


def leaf(name: bytes, repetition: int = 0) -> Value:
    """A column of strings in the schema: 0 required, 1 optional."""
    return {1: 6, 3: repetition, 4: name, 6: 0}


def group(name: bytes, children: int) -> Value:
    return {3: 0, 4: name, 5: children}


def chunk(size: int, values: int, offset: int = 4) -> Value:
    """A column `post` packed by gzip, whose pages are `size` bytes from `offset` on."""
    sizes: dict[int, Value] = {5: Long(values), 6: Long(size), 7: Long(size), 9: Long(offset)}
    return {2: Long(offset), 3: {1: 6, 2: [0, 8], 3: [b"post"], 4: 2, **sizes}}


def row_group(chunks: list[Value], size: int, rows: int) -> Value:
    return {1: chunks, 2: Long(size), 3: Long(rows)}


def page(body: bytes, size: int, values: int, encoding: int, dictionary: bool = False) -> bytes:
    """A page of compressed content that claims the uncompressed size and number of values."""
    if dictionary:
        return encoded({1: 2, 2: size, 3: len(body), 7: {1: values, 2: 0}}) + body
    return encoded({1: 0, 2: size, 3: len(body), 5: {1: values, 2: encoding, 3: 3, 4: 3}}) + body


def file(schema: list[Value], groups: list[Value], rows: int, pages: bytes = b"") -> bytes:
    footer = encoded({1: 1, 2: schema, 3: Long(rows), 4: groups})
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"


def one_column(pages: bytes, rows: int, repetition: int = 0) -> bytes:
    """A file of one column `post` and one row group."""
    groups = [row_group([chunk(len(pages), rows)], len(pages), rows)]
    return file([group(b"schema", 1), leaf(b"post", repetition)], groups, rows, pages)


def packed(*pieces: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(map(packer.compress, pieces)) + packer.flush()
