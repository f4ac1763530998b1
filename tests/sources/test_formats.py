"""What a file is: of each format of text every other encoding, archive and format is refused by its name."""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest

from pipeline.errors import BadInput
from pipeline.sources import blocks
from tests.sources.reading import read

TEXTS = {
    "csv": "post,tags\nhow to,java\nwhy nöt,c#\n文本 ĀĀ,go\n",
    "jsonl": """{"post": "how to", "tags": "java"}
{"post": "why nöt", "tags": "c#"}
{"post": "文本 ĀĀ", "tags": "go"}
""",
    "xml": """<?xml version="1.0"?>
<posts>
<row PostTypeId="1" Title="how to" Tags="|java|" />
<row PostTypeId="1" Title="why nöt" Tags="|c#|" />
<row PostTypeId="1" Title="文本 ĀĀ" Tags="|go|" />
</posts>
""",
}
POSTS = {1: ("how to", "java"), 2: ("why nöt", "c#"), 3: ("文本 ĀĀ", "go")}

NAMES = ["posts", "posts.csv", "posts.jsonl", "Posts.xml", "posts.txt"]


def refusal(folder: Path, content: bytes, name: str = "posts") -> str:
    with pytest.raises(BadInput) as caught:
        read(folder, content, name)
    return str(caught.value).removeprefix(f"{folder / name} ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("before", ["", "\ufeff", "\n \n", "\ufeff\r\n"])
def test_texts_are_recognized_by_their_content(tmp_path: Path, kind: str, name: str, before: str) -> None:
    content = (before.replace(" ", "") if kind == "csv" else before) + TEXTS[kind]
    for packed, suffix in ((content.encode(), ""), (gzip.compress(content.encode()), ".gz")):
        reading = read(tmp_path, packed, name + suffix)
        assert (reading.posts, reading.rejected, reading.warnings) == (POSTS, {}, [])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("width", ["16", "32"])
@pytest.mark.parametrize("order", ["", "-le", "-be"])
def test_other_encodings_are_named(tmp_path: Path, kind: str, name: str, width: str, order: str) -> None:
    for line_end in ("\n", "\r\n"):
        content = TEXTS[kind].replace("\n", line_end).encode(f"utf-{width}{order}")
        for packed, suffix in ((content, ""), (gzip.compress(content), ".gz")):
            sentence = f"is UTF-{width} text: save it as UTF-8, and use that as the source"
            assert refusal(tmp_path, packed, name + suffix) == sentence


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        *product(TEXTS, ["latin-1", "cp1252"]),
        *product(["csv", "jsonl"], ["utf-16-le", "utf-16-be"]),  # a dump would not end as a dump does
    ],
)
def test_a_part_in_another_encoding_is_rejected_row_by_row(tmp_path: Path, kind: str, encoding: str) -> None:
    """As where a shell appends to a file in an encoding of its own."""
    first, *rest = TEXTS[kind].replace("文本 ĀĀ", "é").splitlines(keepends=True)
    utf8 = "".join([first, *rest[:-1]]).encode() if kind == "xml" else "".join([first, *rest]).encode()
    other = {"csv": "é,java\n", "jsonl": '{"post": "é", "tags": "c"}\n', "xml": '<row PostTypeId="1" Title="é"/>\n'}
    content = utf8 + other[kind].encode(encoding) + (b"</posts>" if kind == "xml" else b"")
    reading = read(tmp_path, content)
    assert len(reading.posts) == 3
    reasons = {reason for reason, _ in reading.rejected.values()}
    assert reasons
    assert reasons <= {"bad UTF-8", "NUL bytes"}


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("posts.csv", content)
    return file.getvalue()


def tarred(content: bytes, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        member = tarfile.TarInfo("posts.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def of_old_tar(content: bytes) -> bytes:
    """An archive as before POSIX, without a magic number: what differs has to be NUL."""
    header = bytearray(tarred(content, tarfile.USTAR_FORMAT)[:512])
    header[257:] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content


def written(write: Callable[[pa.Table, pa.BufferOutputStream], None]) -> bytes:
    sink = pa.BufferOutputStream()
    write(pa.table({"post": ["how to"], "tags": ["java"]}), sink)
    return bytes(sink.getvalue())


def database(content: bytes) -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table posts (post, tags)")
        return connection.serialize()


CSV = TEXTS["csv"].encode()
OTHERS = {
    "a zip archive or an Excel workbook": zipped(CSV),
    "a bzip2 file": bz2.compress(CSV),
    "an xz file": lzma.compress(CSV),
    "an lzma file": lzma.compress(CSV, lzma.FORMAT_ALONE),
    "a zstd file": pa.compress(CSV, codec="zstd", asbytes=True),
    "an lz4 file": pa.compress(CSV, codec="lz4", asbytes=True),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\x00\x04",
    "a rar archive": b"Rar!\x1a\x07\x01\x00",
    "a tar archive": tarred(CSV),
    "an old Excel workbook": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    "an SQLite database": database(CSV),
    "an Arrow or Feather file": written(lambda table, sink: pa.feather.write_feather(table, sink)),
    "an ORC file": written(lambda table, sink: pa.orc.write_table(table, sink)),
    "an Avro file": b"Obj\x01\x04\x16avro.schema",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n\x00",
    "a pickle of Python": b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x5d\x94.",
    "a JSON array": json.dumps([{"post": "a", "tags": "b"}]).encode(),
    "a web page": b"\n<!doctype html>\n<html><body>sign in</body></html>",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", OTHERS)
def test_other_formats_are_named_whatever_the_files_name(tmp_path: Path, what: str, name: str) -> None:
    assert refusal(tmp_path, OTHERS[what], name).startswith(f"is {what}")
    assert refusal(tmp_path, gzip.compress(OTHERS[what]), f"{name}.gz").startswith(f"is {what}")
    if not what.startswith(("a JSON", "a web")):
        for misnamed in (f"{name}.gz", "posts.parquet"):
            assert refusal(tmp_path, OTHERS[what], misnamed).startswith(f"is {what}")


def test_what_is_packed_twice_or_in_older_ways_is_named(tmp_path: Path) -> None:
    parquet = written(lambda table, sink: pa.parquet.write_table(table, sink))
    assert refusal(tmp_path, gzip.compress(parquet)).startswith("is Parquet within gzip")
    assert refusal(tmp_path, gzip.compress(gzip.compress(CSV))).startswith("is gzip within gzip")
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        assert refusal(tmp_path, tarred(CSV, form)).startswith("is a tar archive")
    assert refusal(tmp_path, of_old_tar(CSV)).startswith("is a tar archive")
    assert refusal(tmp_path, bz2.compress(b"")).startswith("is a bzip2 file")
    assert refusal(tmp_path, zipped(b"")[-22:]).startswith("is a zip archive")


HEADERS = [
    *"BZhour BZh9 PK PK34 7z Rar! PAR1 PARE ORC ARROW1 FEA1 Obj {id} [id] [{id}] <id> <html> <!-- <?xml ] ( {".split(),
    *("SQLite format 3", "%PDF-1.4", '"[{""id"'),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", HEADERS)
def test_a_header_that_begins_like_another_format_is_csv(tmp_path: Path, column: str, name: str) -> None:
    content = f"{column},post,tags\n1,a,b\n2,c,d\n".encode()
    for line_end in (b"\n", b"\r\n", b"\r"):
        reading = read(tmp_path, content.replace(b"\n", line_end), name)
        assert (reading.posts, reading.rejected) == ({1: ("a", "b"), 2: ("c", "d")}, {})


@pytest.mark.parametrize(
    "array", [b"[]", b"[\n]", b"[\r\n  {", b'[["post", "tags"],', b'["a",\n"b"]', b'\xef\xbb\xbf [{"a": 1}]']
)
@pytest.mark.parametrize("name", NAMES)
def test_json_arrays_are_named(tmp_path: Path, array: bytes, name: str) -> None:
    assert refusal(tmp_path, array, name).startswith("is a JSON array: write one object a line, as `jq -c '.[]'` does")


def test_a_small_first_member_of_gzip_does_not_hide_the_format(tmp_path: Path) -> None:
    for content in (CSV, TEXTS["jsonl"].encode(), TEXTS["xml"].encode()):
        packed = gzip.compress(content[:1]) + gzip.compress(b"") + gzip.compress(content[1:])
        assert read(tmp_path, packed).posts == POSTS


def test_the_page_lists_every_reason_for_a_rejection() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/run-on-your-posts.md").read_text()
    table = page.partition("| reason |")[2].partition("\n\n")[0]
    listed = [reason for row in table.splitlines()[2:] for reason in row.split("|")[1].strip().split(", ")]
    assert listed == list(blocks.REASONS)
