"""Malicious sources, made to exhaust memory, crash or never end, are refused in one sentence with limited memory."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.sources import reader
from pipeline.sources.source import Source
from tests.fuzz import thrift
from tests.fuzz.thrift import chunk, group, leaf, one_column, packed, page, row_group

MEGABYTE = 2**20

READ = """
import json, re, resource, sys
from pathlib import Path
from pipeline.errors import BadInput
from pipeline.sources import reader
from pipeline.sources.source import Source
rows, said = 0, ""
try:
    source = Source.parse(sys.argv[1])
    for block in reader.read(source, text_column="post", tag_column=None, max_bytes=int(sys.argv[2])):
        rows += block.posts.num_rows + block.rejected.num_rows
except BadInput as refusal:
    said = str(refusal)
own = int(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])  # getrusage's outlives exec
print(json.dumps([said, rows, own >> 10, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10]))
"""


def reading(path: Path, max_bytes: int = 2**36) -> tuple[str, int, int]:
    """Read the file in a process of its own: the error's sentence, the number of rows, and the peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(max_bytes)], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    said, rows, own, childs = json.loads(done.stdout)
    print(f"{path.name}: {path.stat().st_size:,} bytes, {own} + {childs} MiB, {rows:,} rows, {said}")  # noqa: T201
    return said.replace(str(path), "it"), rows, max(own, childs)


def members(first: bytes, repeated: bytes, times: int) -> Iterator[bytes]:
    """Gzip members: the first, then `times` members of 64 repetitions each, compressed only once."""
    yield packed(first)
    member = packed(*[repeated] * 64)
    yield from (member for _ in range(times))


CSV_CASES: dict[str, tuple[Callable[[], Iterator[bytes]], int, str]] = {
    "ten gigabytes of posts": (
        lambda: members(b"post\n", (b"how to " * 9362 + b"\n") * 16, 160),
        2**28,
        "it is larger than max_source_bytes=268,435,456: choose a smaller source or raise the setting",
    ),
    "ten gigabytes of blank lines": (lambda: members(b"post\n", b"\n" * MEGABYTE, 160), 2**24, "it is larger than"),
    "a field without end": (
        lambda: members(b'post\n"', b"\xf0\x9f\x98\x80" * (MEGABYTE // 4), 16),
        2**36,
        "it is truncated or corrupt: line 2 is longer than 16,777,216 characters",
    ),
    "a field of lines without end": (
        lambda: members(b'post\n"', b"15 characters, \n" * (MEGABYTE // 16), 16),
        2**36,
        "it is truncated or corrupt: the quote opened in line 2 is not closed within 16,777,216 characters",
    ),
    "a header without end": (lambda: members(b"post", b"," * MEGABYTE, 16), 2**36, "line 1 is longer than 16,777,216"),
    "six million columns": (lambda: members(b"x", b",a" * 100_000, 1), 2**36, "it has no column 'post'"),
    "a gzip header without end": (
        lambda: iter([b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * MEGABYTE]),
        2**18,
        "it is larger than",
    ),
    "members without content": (lambda: (packed() for _ in range(20_000)), 2**18, "it is larger than"),
}


SLOW = pytest.mark.thorough
"""For what takes many seconds, and has a quick case beside it that meets the same limit."""

SLOW_CASES = ("ten gigabytes of blank lines",)


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOW if case in SLOW_CASES else ()) for case in CSV_CASES])
def test_csv(tmp_path: Path, case: str) -> None:
    content, max_bytes, sentence = CSV_CASES[case]
    with (tmp_path / "source").open("wb") as file:
        file.writelines(content())
    said, _, peak = reading(tmp_path / "source", max_bytes)
    assert sentence in said
    assert peak < 800


def repeated_dictionary() -> bytes:
    """100,000 rows that refer to one text of 30 MB in a dictionary: 3 TB."""
    size, rows = 30 * MEGABYTE, 100_000
    text = page(packed(struct.pack("<I", size), b"a" * size), size + 4, 1, 0, dictionary=True)
    pointers = b"\x01" + thrift.varint(rows << 1) + b"\0"
    return one_column(text + page(packed(pointers), len(pointers), rows, 8), rows)


def long_page() -> bytes:
    """A page of one text of 1.9 GB, compressed to 2 MB."""
    size = 1900 * MEGABYTE
    return one_column(page(packed(struct.pack("<I", size - 4), *[b"a" * MEGABYTE] * 1899), size, 1, 0), 1)


def endless_nulls() -> bytes:
    """Two billion null rows in 30 bytes, and a footer that claims 10**15."""
    rows = 2**31 - 1
    levels = thrift.varint(rows << 1) + b"\0"
    body = struct.pack("<I", len(levels)) + levels
    return one_column(page(packed(body), len(body), rows, 0), 10**15, repetition=1)


def deep() -> bytes:
    """100,000 nested groups, on which Arrow's parser recurses."""
    return thrift.file([group(b"schema", 2), leaf(b"post"), *[group(b"a", 1)] * 100_000, leaf(b"x")], [], 0)


def wide() -> bytes:
    return thrift.file([group(b"schema", 10**7 + 1), leaf(b"post"), *[leaf(b"x")] * 10**7], [], 0)


def other_columns() -> bytes:
    """Row groups of 9,000 columns under a schema of one, at which pyarrow 25 ends its process."""
    return thrift.file([group(b"schema", 1), leaf(b"post")], [row_group([chunk(0, 0)] * 9000, 0, 0)] * 100, 0)


def many_chunks() -> bytes:
    """Metadata of 40 MB that takes gigabytes of memory when decoded."""
    return thrift.file([group(b"schema", 1), leaf(b"post")], [row_group([{2: thrift.Long(0)}] * 9000, 0, 0)] * 1000, 0)


def lying_size() -> bytes:
    """A page that claims an uncompressed size of 2 GB."""
    return one_column(page(packed(b"abc"), 2**31 - 1, 1, 0), 1)


def wrong_histogram() -> bytes:
    """Statistics of four levels where the schema has one, at which pyarrow 25 ends its process: found by fuzzing."""
    column = {2: thrift.Long(4), 3: {**chunk(0, 0)[3], 16: {3: [thrift.Long(1)] * 4}}}  # type: ignore[index]
    return thrift.file([group(b"schema", 1), leaf(b"post")], [row_group([column], 0, 0)], 0)


PARQUET_CASES = {
    wrong_histogram: "decoding it crashed (signal 6)",
    repeated_dictionary: "it needs more than 2,048 MiB to decode",
    long_page: "it needs more than 2,048 MiB to decode",
    endless_nulls: "it is larger than max_source_bytes=33,554,432",
    deep: "it is truncated or corrupt: Parquet cannot be read from it (Couldn't deserialize thrift: TProtocolException",
    wide: "it is truncated or corrupt: Parquet cannot be read from it (Couldn't deserialize thrift: TProtocolException",
    other_columns: "decoding it crashed (signal 6)",
    many_chunks: "std::bad_alloc",
    lying_size: "it needs more than 2,048 MiB to decode",
}


@pytest.mark.parametrize(
    "content", [pytest.param(case, marks=SLOW if case is long_page else ()) for case in PARQUET_CASES]
)
def test_parquet(tmp_path: Path, content: Callable[[], bytes]) -> None:
    (tmp_path / "source").write_bytes(content())
    said, _, peak = reading(tmp_path / "source", 2**25)
    assert PARQUET_CASES[content] in said
    assert peak < 2300


@pytest.mark.parametrize("rows", [10**9, 10**15 - 1])
def test_synthetic_posts_without_end(rows: int) -> None:
    with pytest.raises(BadInput, match=r"rows=.* is larger than max_source_bytes=68,719,476,736: choose a smaller"):
        next(reader.read(Source.parse(f"sample://posts?rows={rows}"), text_column="post", tag_column="tags"))
