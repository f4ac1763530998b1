"""Small valid sources of every format, for the fuzzers to damage."""

import gzip
import io
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq

CSVS = [
    b"post,tags\nhow to,java\nwhy not,c#\n",
    b'tags,id,post\r\njava,1,"two\r\nlines, ""quoted"""\r\n,2,\r\n',
    "\ufeffpost,tags\nnaïve 東京 \U0001f600,c#\n\n\x00\x85\u2028,x\n".encode(),
    b'post,tags\rbad \xff,java\r"open',
    b'post\n""\nonly\n',
]

JSON_LINES = [
    b'{"post": "how to", "tags": "java"}\n{"tags": ["c#"], "post": "why not"}\n',
    '\ufeff{"post": "naïve 東京 \U0001f600 \\ud83d\\ude00", "tags": null}\r\n\r\n'.encode()
    + b'{"post": "\\u0000", "tags": "x"}',
]

DUMPS = [
    b'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
    b'  <row Id="1" PostTypeId="1" Title="How" Body="&lt;p&gt;a &amp;lt; b&#xA;&lt;/p&gt;" Tags="|java|" />\n'
    b'  <row Id="2" PostTypeId="2" Body="&lt;pre&gt;&lt;code&gt;an answer" />\n  <!-- a comment -->\n'
    b'  <row Id="3" PostTypeId="1" Title="Why" Body="&lt;html&gt;" Tags="&lt;c#&gt;&lt;.net&gt;" />\n</posts>\n',
]

TABLE = {
    "post": ["how to", "", None, "naïve 東京", "why not", "how to", "x" * 300],
    "tags": ["java", "c#", "java", "c#", "ja\nva", "c#", None],
    "n": [[1], [], None, [2], [3], [3], [3]],
}
KINDS = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
ENCODINGS = ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"]
COMPRESSIONS = ["snappy", "gzip", "zstd", "lz4", "brotli"]


def gzips() -> list[bytes]:
    """CSV files compressed by gzip: in one member, in several, and with a file name in the header."""
    named = io.BytesIO()
    with gzip.GzipFile("posts.csv", "wb", fileobj=named) as file:
        file.write(CSVS[0])
    return [*map(gzip.compress, CSVS), b"".join(map(gzip.compress, CSVS[:2])), named.getvalue()]


def parquets() -> list[bytes]:
    """Parquet files of all string types, encodings, compressions and page versions."""
    bare = {"compression": "none"}
    encoded = [{"use_dictionary": ["n.list.element"], "column_encoding": {"post": e, "tags": e}} for e in ENCODINGS]
    return [
        *(_parquet(kind, **bare, **how) for kind, how in product(KINDS, [{}, *encoded])),
        *(_parquet(pa.string(), compression=c, data_page_version=v) for c in COMPRESSIONS for v in ("1.0", "2.0")),
        _parquet(pa.string(), **bare, store_schema=False, write_page_checksum=True, write_page_index=True),
    ]


def _parquet(kind: pa.DataType, **how: object) -> bytes:
    file, table = io.BytesIO(), pa.table(TABLE)
    table = table.set_column(0, "post", table.column("post").cast(kind))
    pq.write_table(table, file, row_group_size=4, **how)
    return file.getvalue()


FORMS = {"csv": lambda: CSVS, "gzip": gzips, "parquet": parquets}
