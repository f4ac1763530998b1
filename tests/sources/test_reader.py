"""Reading sources: every format, every reason to reject a row, and every error for a source as a whole."""

import csv
import gzip
import io
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations

from pipeline.data import posts
from pipeline.errors import BadInput, TaggerError, Unavailable
from pipeline.sources import csv_plain, csv_records, json_lines, open, parquet_subprocess, reader, rows
from pipeline.sources.source import Source
from pipeline.store.objects import Store

CSV = b"post,tags\nhow to,java\nwhy not,c#\n"
CSV_POSTS = [("how to", "java", 1), ("why not", "c#", 2)]
FIFTY = b"post,tags\n" + b"".join(b"post %d,java\n" % i for i in range(50))

WITH_A_THREAD = """
import logging, os, sys, threading, time
from pipeline import progress
from pipeline.sources import reader
from pipeline.sources.source import Source
from pipeline.store.objects import Store
forks = []
os.register_at_fork(before=lambda: forks.append(threading.active_count()))
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
progress.SECONDS_BETWEEN_LINES = 0.01
with progress.log_lines("ingest", "posts", None) as advance:
    advance(1)
    rows = [
        [tuple(row.values())[:2] for row in block.posts.to_pylist()]
        for block in reader.read(Source.parse(sys.argv[1]), text_column="post", tag_column="tags")
    ]
print(f"{rows}, forks with threads: {sum(threads > 1 for threads in forks)}")
"""
"""Reads as ingest does, while a thread logs the progress and takes the lock of a log handler each time."""

Rows = list[tuple[object, ...]]


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the process that decodes Parquet run a statement first."""

    def run_first(statement: str) -> None:
        start, main = parquet_subprocess.PROGRAM.rsplit("main(", 1)
        code = f"{start}\nfrom pipeline.sources import parquet_decoder, text_columns\n{statement}\nmain({main}"
        monkeypatch.setattr(parquet_subprocess, "COMMAND", (sys.executable, "-P", "-c", code))

    return run_first


def rows_of(batches: list[pa.RecordBatch]) -> Rows:
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def read(source: object, tag_column: str | None = "tags", text_column: str = "post") -> tuple[Rows, Rows]:
    """(post, tag, row) of the accepted rows and (row, reason, text) of the rejected ones."""
    blocks = list(reader.read(Source.parse(str(source)), text_column=text_column, tag_column=tag_column))
    for block in blocks:
        assert block.posts.schema == posts.POSTS
        assert block.rejected.schema == posts.REJECTED
    return rows_of([block.posts for block in blocks]), rows_of([block.rejected for block in blocks])


def refusal(source: object, kind: type[TaggerError] = BadInput, **columns: str) -> str:
    with pytest.raises(TaggerError) as caught:
        read(source, **columns)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(content: bytes, name: str = "posts.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return save


class TestCsv:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (CSV, CSV_POSTS),
            (CSV.rstrip(), CSV_POSTS),
            (CSV.replace(b"\n", b"\r\n"), CSV_POSTS),
            (CSV.replace(b"\n", b"\r"), CSV_POSTS),
            (b"\xef\xbb\xbf" + CSV, CSV_POSTS),
            (b"\n\n" + CSV.replace(b"\n", b"\n\n"), CSV_POSTS),
            (b"id,tags,post\n1,java,how to\n2,c#,why not\n", CSV_POSTS),
            (b'post,tags\n"one\ntwo\r\nthree\rfour",java\n', [("one\ntwo\r\nthree\rfour", "java", 1)]),
            (b'post,tags\n"he said ""no"", twice",java\n', [('he said "no", twice', "java", 1)]),
            (b'post,tags\n5" disk,java\n', [('5" disk', "java", 1)]),
            ("post,tags\nnaïve 東京 \U0001f600,c#\n".encode(), [("naïve 東京 \U0001f600", "c#", 1)]),
            (b"post,tags\n how , c#\n", [(" how ", "c#", 1)]),
            (b"post,tags\nline\x0bsep\x1cpara\xe2\x80\xa8x,c#\n", [("line\x0bsep\x1cpara\u2028x", "c#", 1)]),
            (b"post,tags\n", []),
        ],
    )
    def test_posts(self, saved: Callable[..., Path], content: bytes, expected: Rows) -> None:
        assert read(saved(content)) == (expected, [])

    @pytest.mark.parametrize(
        ("row", "reason", "text"),
        [
            (b",java", "empty post", ",java"),
            (b'" \t\n",java', "empty post", '" \t\n",java'),
            ("\u3000,java".encode(), "empty post", "\u3000,java"),
            (b"post,", "empty tag", "post,"),
            (b"post,  ", "empty tag", "post,  "),
            (b"post,ja\xffva", "bad UTF-8", "post,ja\\xffva"),
            (b"po\xc3st,java", "bad UTF-8", "po\\xc3st,java"),
            (b"\xed\xa0\x80,java", "bad UTF-8", "\\xed\\xa0\\x80,java"),
            (b"post", "wrong number of fields", "post"),
            (b"post,java,c#", "wrong number of fields", "post,java,c#"),
            (b'"a "quoted" word",java', "malformed quotes", '"a "quoted" word",java'),
            (b"po\x00st,java", "NUL bytes", "po\x00st,java"),
            (b'post,"ja\nva"', "line break in tag", 'post,"ja\nva"'),
            (b'post,"ja\rva"', "line break in tag", 'post,"ja\rva"'),
            (b"post,java|c#", "several tags", "post,java|c#"),
        ],
    )
    def test_a_faulty_row_is_set_aside_and_reading_goes_on(
        self, saved: Callable[..., Path], row: bytes, reason: str, text: str
    ) -> None:
        path = saved(b"post,tags\nhow to,java\n" + row + b"\r\nwhy not,c#\n")
        assert read(path) == ([("how to", "java", 1), ("why not", "c#", 3)], [(2, reason, text)])
        assert reason in reader.REASONS

    def test_bad_utf8_in_a_column_that_is_not_needed_sets_the_row_aside(self, saved: Callable[..., Path]) -> None:
        assert read(saved(b"post,tags,by\nhow,java,J\xfcrgen\n"))[1] == [(1, "bad UTF-8", "how,java,J\\xfcrgen")]

    def test_a_rejected_rows_text_is_cut(self, saved: Callable[..., Path]) -> None:
        ((_, _, text),) = read(saved(b"post,tags\n" + b"a" * 70_000 + b"\n"))[1]
        assert text == "a" * 65_536
        ((_, _, text),) = read(saved(b"post,tags\n" + b"\xff" * 70_000 + b",c\n"))[1]
        assert text == "\\xff" * 16_384

    def test_a_field_of_5_mb(self, saved: Callable[..., Path]) -> None:
        long = "x\n" * 2_500_000
        assert read(saved(f'post,tags\n"{long}",java\nwhy,c#\n'.encode())) == (
            [(long, "java", 1), ("why", "c#", 2)],
            [],
        )

    def test_without_a_tag_column_tags_are_null_and_not_checked(self, saved: Callable[..., Path]) -> None:
        assert read(saved(b'post,tags\nhow,\n,java\nwhy,"a\nb"\n'), tag_column=None) == (
            [("how", None, 1), ("why", None, 3)],
            [(2, "empty post", ",java")],
        )
        assert read(saved(b'post\nhow\n\n""\n'), tag_column=None) == ([("how", None, 1)], [(2, "empty post", '""')])

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", "is empty, without even a header"),
            (b"\xef\xbb\xbf", "is empty, without even a header"),
            (b"\r\n\n", "is empty, without even a header"),
            (b"post,label\n", "has no column 'tags' (it has: post, label); set tag_column to the right one or rename"),
            (b"text,tags\n", "has no column 'post' (it has: text, tags); set text_column to the right one or"),
            (b"post, tags\n", "has no column 'tags' (it has: post, ' tags')"),
            (b"\xff,tags\n", "has no column 'post' (it has: '\\udcff', tags)"),
            (b"post,tags,tags\n", "has 2 columns named 'tags'; rename all but one"),
            (b'"post"x,tags\n', "has malformed quotes in its header"),
            (b'post,tags\nhow,"java\n\n', "is truncated or corrupt: the quote opened in line 2 is never closed"),
            (b'post,tags\na,b\n"x\ny","op""en\n', "the quote opened in line 4 is never closed"),
            (b'post,tags\na,b\n"""x\ny""","open\n', "the quote opened in line 4 is never closed"),
            (b'post,tags\r\na,b\r\n"x\r\ny","open\r\n', "the quote opened in line 4 is never closed"),
            (b'post,tags\nhow,"', "the quote opened in line 2 is never closed"),
            (b'"post,tags\nhow,java\n', "the quote opened in line 1 is never closed"),
            (b"PK\x03\x04rest", "is a zip archive or an Excel workbook"),
            ("\ufeffpost,tags\n".encode("utf-16-le"), "is UTF-16 text: save it as UTF-8"),
        ],
    )
    def test_refusals(self, saved: Callable[..., Path], content: bytes, sentence: str) -> None:
        path = saved(content)
        assert f"{path} {sentence}" in refusal(path) or f": {sentence}" in refusal(path)

    def test_a_duplicate_column_that_is_not_needed_is_no_fault(self, saved: Callable[..., Path]) -> None:
        assert read(saved(b"post,x,tags,x\nhow,1,java,2\n"))[0] == [("how", "java", 1)]

    def test_a_wide_header_is_not_shown_whole(self, saved: Callable[..., Path]) -> None:
        assert len(refusal(saved(b",".join([b"x" * 1000] * 1000)))) < 2000

    def test_a_quote_that_swallows_the_file_is_refused_before_memory_is_full(
        self, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_records, "LONGEST_RECORD", 1000)
        path = saved(b'post,tags\na,b\nc,"d' + b"\nand so on" * 1000)
        assert "the quote opened in line 3 is not closed within 1,000 characters" in refusal(path)
        csv.field_size_limit(2**17)

    def test_every_record_equals_that_of_a_plain_reader(self, saved: Callable[..., Path]) -> None:
        table = [(f'p{i} "q", {"é" * (i % 7)}\r\n' * (i % 3 + 1), f"t{i % 5}") for i in range(9000)]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("post", "tags"), *table])
        expected = [(post, tag, row) for row, (post, tag) in enumerate(table, 1)]
        assert read(saved(text.getvalue().encode())) == (expected, [])


LINES = b'{"post": "how to", "tags": "java"}\n{"tags": ["c#"], "more": 1, "post": "why not"}\n'


class TestJsonLines:
    @pytest.mark.parametrize("name", ["posts.jsonl", "posts.ndjson", "posts.csv", "posts"])
    def test_posts_whatever_the_files_name(self, saved: Callable[..., Path], name: str) -> None:
        assert read(saved(LINES, name)) == (CSV_POSTS, [])
        assert read(saved(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\n"), name)) == (CSV_POSTS, [])
        assert read(saved(LINES.rstrip(), name)) == (CSV_POSTS, [])

    def test_gzipped(self, saved: Callable[..., Path]) -> None:
        assert read(saved(gzip.compress(LINES), "posts.jsonl.gz")) == (CSV_POSTS, [])
        assert read(saved(gzip.compress(LINES), "posts.gz")) == (CSV_POSTS, [])

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b"{", "malformed JSON"),
            (b"[]", "malformed JSON"),
            (b"[" * 5000, "malformed JSON"),
            (b'{"post": "a\x00", "tags": "b"}', "NUL bytes"),
            (b'{"post": "a\xff", "tags": "b"}', "bad UTF-8"),
            (b'{"post": "\\ud800", "tags": "b"}', "bad UTF-8"),
            (b'{"post": "a", "tags": ["\\udfff"]}', "bad UTF-8"),
            (b'{"post": 1, "tags": "b"}', "post or tag is no text"),
            (b'{"post": "a", "tags": {"b": 1}}', "post or tag is no text"),
            (b'{"post": "a", "tags": [1]}', "post or tag is no text"),
            (b'{"post": NaN, "tags": "b"}', "post or tag is no text"),
            (b'{"tags": "b"}', "empty post"),
            (b'{"post": null, "tags": "b"}', "empty post"),
            (b'{"post": " ", "tags": "b"}', "empty post"),
            (b'{"post": "a"}', "empty tag"),
            (b'{"post": "a", "tags": []}', "empty tag"),
            (b'{"post": "a", "tags": [""]}', "empty tag"),
            (b'{"post": "a", "tags": ["b", "c"]}', "several tags"),
            (b'{"post": "a", "tags": "b\\nc"}', "line break in tag"),
        ],
    )
    def test_a_faulty_line_is_set_aside_and_reading_goes_on(
        self, saved: Callable[..., Path], line: bytes, reason: str
    ) -> None:
        first, second = LINES.splitlines(keepends=True)
        accepted, rejected = read(saved(first + line + b"\n" + second))
        assert accepted == [("how to", "java", 1), ("why not", "c#", 3)]
        assert rejected == [(2, reason, line.decode(errors="backslashreplace"))]
        assert reason in reader.REASONS

    def test_refusals(self, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        assert "has no column 'tags' (it has: post, label); set tag_column" in refusal(
            saved(b'{"post": "a", "label": "b"}\n')
        )
        assert "is a JSON array: write one object a line" in refusal(saved(b'[{"post": "a"}]', "posts.json"))
        monkeypatch.setattr(json_lines, "LONGEST_LINE", 100)
        assert "line 3 is longer than 100 bytes" in refusal(saved(LINES + b'{"post": "' + b"a" * 100))

    def test_without_a_tag_column_tags_are_null_and_not_checked(self, saved: Callable[..., Path]) -> None:
        path = saved(b'{"post": "how"}\n{"post": "why", "tags": 1}\n{"post": ""}\n')
        assert read(path, tag_column=None) == (
            [("how", None, 1), ("why", None, 2)],
            [(3, "empty post", '{"post": ""}')],
        )


DUMP = b"""\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="4" PostTypeId="1" Title="How to?" Tags="&lt;java&gt;"
    Body="&lt;p&gt;a &lt;code&gt;List&amp;lt;int&amp;gt;&lt;/code&gt;&lt;/p&gt;&lt;p&gt;b&lt;br&gt;c&lt;/p&gt;" />
  <row Id="5" PostTypeId="2" ParentId="4" Body="&lt;p&gt;an answer&lt;/p&gt;" />
  <row Id="6" PostTypeId="1" Title="Why not" Body="" Tags="|c#|" />
  <row Id="7" PostTypeId="1" Title="Both" Body="&lt;p&gt;x&lt;/p&gt;" Tags="&lt;python&gt;&lt;pandas&gt;" />
  <row Id="8" PostTypeId="1" Title=" " Body="&lt;p&gt; &lt;/p&gt;" Tags="|c#|" />
  <row Id="9" PostTypeId="1" Title="None" Body="&lt;p&gt;y" Tags="" />
</posts>
"""


class TestDump:
    def test_the_questions_of_stack_overflows_dump(self, saved: Callable[..., Path]) -> None:
        accepted, rejected = read(saved(DUMP, "Posts.xml"))
        assert accepted == [("How to?\na  List<int> b c", "java", 1), ("Why not", "c#", 3)]
        assert [row[:2] for row in rejected] == [(4, "several tags"), (5, "empty post"), (6, "empty tag")]
        assert rejected[0][2].startswith('<row Id="7" PostTypeId="1" Title="Both"')
        assert read(saved(gzip.compress(DUMP), "Posts.xml.gz"))[0] == accepted
        assert read(saved(DUMP.removeprefix(b"\xef\xbb\xbf")))[0] == accepted

    def test_without_a_tag_column_every_question_is_read(self, saved: Callable[..., Path]) -> None:
        assert [row for _, _, row in read(saved(DUMP), tag_column=None)[0]] == [1, 3, 4, 6]

    def test_memory_does_not_grow_with_the_dump(self, saved: Callable[..., Path]) -> None:
        row = b'<row Id="1" PostTypeId="2" Body="' + b"answer " * 100 + b'"/>\n'
        path = saved(b"<posts>" + row * 100_000 + b"</posts>")
        before = psutil.Process().memory_info().rss
        assert read(path) == ([], [])
        assert psutil.Process().memory_info().rss - before < 30 * 2**20

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (DUMP[:400], "is truncated or corrupt: XML cannot be read from it to the end"),
            (b"<?xml version='1.0'?><rows/>", "is XML, but not Posts.xml of Stack Overflow's data dump"),
            (b"<?xml version='1.0'?><!DOCTYPE posts><posts/>", "defines a document type"),
            (
                b"<?xml version='1.0'?><!DOCTYPE posts [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><posts>&a;</posts>",
                "defines a document type",
            ),
            (
                b"<?xml version='1.0'?><!DOCTYPE posts [<!ENTITY a0 'lol'>"
                + b"".join(b"<!ENTITY a%d '%s'>" % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 10))
                + b"]><posts a='&a9;'/>",
                "defines a document type",
            ),
        ],
    )
    def test_refusals(self, saved: Callable[..., Path], content: bytes, sentence: str) -> None:
        assert sentence in refusal(saved(content, "Posts.xml"))


class TestTagsToKeep:
    def kept(self, path: Path, *tags: str) -> tuple[Rows, Rows, int]:
        keep = frozenset(tags)
        blocks = list(reader.read(Source.parse(str(path)), text_column="post", tag_column="tags", keep=keep))
        left_out = sum(block.left_out for block in blocks)
        return rows_of([block.posts for block in blocks]), rows_of([block.rejected for block in blocks]), left_out

    def test_of_several_tags_the_one_to_keep_counts_and_other_posts_are_left_out(
        self, saved: Callable[..., Path], tmp_path: Path
    ) -> None:
        accepted, rejected, left_out = self.kept(saved(DUMP), "python", "c#")
        assert [(tag, row) for _, tag, row in accepted] == [("c#", 3), ("python", 4)]
        assert ([row[:2] for row in rejected], left_out) == ([(5, "empty post")], 2)
        assert self.kept(saved(DUMP), "python", "pandas") == ([], [], 5)
        lines = b'{"post": "a", "tags": ["x", "java"]}\n{"post": "b", "tags": []}\n{"post": "c", "tags": "c#"}\n'
        assert self.kept(saved(lines), "java") == ([("a", "java", 1)], [], 2)

    def test_of_files_whose_posts_have_one_tag_too(self, saved: Callable[..., Path], tmp_path: Path) -> None:
        assert self.kept(saved(CSV + b",java\n"), "java") == ([CSV_POSTS[0]], [(3, "empty post", ",java")], 1)
        pq.write_table(pa.table({"post": ["a", "b"], "tags": ["c#", "java"]}), tmp_path / "posts.parquet")
        assert self.kept(tmp_path / "posts.parquet", "java") == ([("b", "java", 2)], [], 1)


class TestSeveralTags:
    def read(self, path: Path, *keep: str) -> tuple[list[tuple[str, int]], list[tuple[int, str]], int]:
        blocks = list(
            reader.read(
                Source.parse(str(path)), text_column="post", tag_column="tags", keep=frozenset(keep), several=True
            )
        )
        posts, rejected = (rows_of([getattr(block, kind) for block in blocks]) for kind in ("posts", "rejected"))
        left_out = sum(block.left_out for block in blocks)
        return [(tag, row) for _, tag, row in posts], [(row, reason) for row, reason, _ in rejected], left_out

    def test_of_the_dump(self, saved: Callable[..., Path]) -> None:
        accepted, rejected, left_out = self.read(saved(DUMP))
        assert accepted == [("java", 1), ("c#", 3), ("pandas|python", 4)]
        assert (rejected, left_out) == ([(5, "empty post"), (6, "empty tag")], 0)
        assert self.read(saved(DUMP), "pandas", "java") == ([("java", 1), ("pandas", 4)], [], 3)

    def test_of_csv(self, saved: Callable[..., Path]) -> None:
        rows = b"post,tags\na,python|pandas\nb, |\nc,python | python\n,java\n"
        assert self.read(saved(rows)) == (
            [("pandas|python", 1), ("python", 3)],
            [(2, "empty tag"), (4, "empty post")],
            0,
        )

    def test_of_json_lines(self, saved: Callable[..., Path]) -> None:
        lines = b'{"post": "a", "tags": ["x", "java"]}\n{"post": "b", "tags": []}\n{"post": "c", "tags": "c#|x"}\n'
        assert self.read(saved(lines)) == ([("java|x", 1), ("c#|x", 3)], [(2, "empty tag")], 0)
        assert self.read(saved(lines), "java") == ([("java", 1)], [], 2)

    @pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.binary())])
    def test_of_parquet_may_be_lists(self, tmp_path: Path, kind: pa.DataType) -> None:
        tags = pa.array([["python", "pandas"], None, [], ["c#", None]], pa.list_(pa.string())).cast(kind)
        pq.write_table(pa.table({"post": ["a", "b", "c", "d"], "tags": tags}), tmp_path / "posts.parquet")
        accepted, rejected, _ = self.read(tmp_path / "posts.parquet")
        assert accepted == [("pandas|python", 1), ("c#", 4)]
        assert rejected == [(2, "empty tag"), (3, "empty tag")]


class TestSeveralFiles:
    def save(self, folder: Path) -> None:
        for name, content in {
            "train/0.csv": CSV,
            "train/1.jsonl.gz": gzip.compress(LINES),
            "train/2.csv": b"post,tags\n,java\nlast,java\n",
            "train/.hidden.csv": CSV,
            "train/_temporary/0.csv": CSV,
            "train/README.md": b"# Posts",
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        pq.write_table(pa.table({"post": ["parquet"], "tags": ["c#"]}), folder / "train/3.parquet")

    def test_a_folder_is_read_file_by_file_with_rows_numbered_through(self, tmp_path: Path) -> None:
        self.save(tmp_path)
        accepted, rejected = read(tmp_path)
        assert accepted == [
            *CSV_POSTS,
            ("how to", "java", 3),
            ("why not", "c#", 4),
            ("last", "java", 6),
            ("parquet", "c#", 7),
        ]
        assert rejected == [(5, "empty post", ",java")]

    def test_a_pattern_picks_files_but_a_name_with_its_signs_is_a_name(self, tmp_path: Path) -> None:
        self.save(tmp_path)
        assert read(tmp_path / "*/[02].csv")[0] == [*CSV_POSTS, ("last", "java", 4)]
        assert read(tmp_path / "**/*.parquet")[0] == [("parquet", "c#", 1)]
        (tmp_path / "a[02].csv").write_bytes(CSV)
        (tmp_path / "a0.csv").write_bytes(b"post,tags\nother,java\n")
        assert read(tmp_path / "a[02].csv") == (CSV_POSTS, [])

    def test_a_change_of_any_file_changes_what_identifies_the_source(self, tmp_path: Path) -> None:
        self.save(tmp_path)
        source = Source.parse(str(tmp_path))
        before = source.fingerprint(), source.state()
        assert None not in before
        assert (source.fingerprint(), source.state()) == before
        (tmp_path / "train/README.md").write_text("not read")
        assert (source.fingerprint(), source.state()) == before
        (tmp_path / "train/2.csv").write_bytes(CSV)
        after = source.fingerprint(), source.state()
        assert all(new != old for new, old in zip(after, before, strict=True))
        (tmp_path / "train/2.csv").rename(tmp_path / "train/4.csv")
        assert source.fingerprint() not in (before[0], after[0])

    def test_of_an_object_store_a_folder_and_a_pattern_are_read_too(self, s3: dict[str, str], tmp_path: Path) -> None:
        self.save(tmp_path)
        fs = Store("s3://stores").fs
        fs.put(f"{tmp_path}/train/", "stores/several/train/", recursive=True)
        place = "s3://stores/several/train"
        assert read(f"{place}/") == read(tmp_path)
        assert read(f"{place}/*[02].csv")[0] == [*CSV_POSTS, ("last", "java", 4)]
        assert read("s3://stores/several/*/*.parquet")[0] == [("parquet", "c#", 1)]
        source = Source.parse(f"{place}/", (place,))
        before = source.fingerprint()
        assert before is not None
        assert (source.fingerprint(), source.state()) == (before, source.state())
        fs.pipe("stores/several/train/2.csv", CSV)
        assert source.fingerprint() != before
        with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
            Source.parse(f"{place}/*.csv", ("s3://stores/other",)).files()
        assert refusal("s3://stores/nothing/") == (
            "s3://stores/nothing/ has no file that ends in .csv, .jsonl, .ndjson, .parquet: correct the source"
        )
        assert "matches no file as a pattern" in refusal("s3://stores/nothing/*.csv")

    def test_a_file_that_leads_out_of_what_is_allowed_is_refused(self, tmp_path: Path) -> None:
        inside, outside = tmp_path / "inside", tmp_path / "outside.csv"
        inside.mkdir()
        outside.write_bytes(CSV)
        (inside / "a.csv").write_bytes(CSV)
        for place in (inside, inside / "*.csv"):
            source = Source.parse(str(place), (str(inside),))
            assert len(list(reader.read(source, text_column="post", tag_column="tags"))) == 1
        (inside / "b.csv").symlink_to(outside)
        for place in (inside, inside / "*.csv"):
            source = Source.parse(str(place), (str(inside),))
            with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
                list(reader.read(source, text_column="post", tag_column="tags"))

    def test_the_limit_holds_for_all_files_together(self, tmp_path: Path) -> None:
        for number in range(5):
            (tmp_path / f"{number}.csv").write_bytes(b"post,tags\n" + b"x" * 400 + b",java\n")
        source = Source.parse(str(tmp_path))
        with pytest.raises(BadInput, match="is larger than max_source_bytes=1,500"):
            list(reader.read(source, text_column="post", tag_column="tags", max_bytes=1500))


class TestBlocks:
    def sizes(self, path: Path) -> list[int]:
        blocks = reader.read(Source.parse(str(path)), text_column="post", tag_column="tags")
        return [block.posts.num_rows + block.rejected.num_rows for block in blocks]

    def test_of_short_rows_count_accepted_and_rejected(self, saved: Callable[..., Path]) -> None:
        assert self.sizes(saved(b"post,tags\n" + b"how,java\n,c#\n" * 5000)) == [4096, 4096, 1808]

    def test_of_long_rows_are_small(self, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows, "TEXT_PER_BLOCK", 1000)
        monkeypatch.setattr(csv_plain, "CHUNK", 1000)
        assert self.sizes(saved(b"post,tags\n" + (b"x" * 400 + b",java\n") * 7)) == [2, 2, 3]
        assert self.sizes(saved(b"post,tags\n" + (b'"x""' + b"x" * 396 + b'",java\n') * 7)) == [2, 2, 3]
        assert self.sizes(saved(b"post,tags\n" + (b"x" * 400 + b"\n") * 7)) == [3, 3, 1]

    @pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
    def test_of_parquet_are_small_where_rows_are_long(
        self, tmp_path: Path, decoder: Callable[[str], None], kind: pa.DataType
    ) -> None:
        decoder("parquet_decoder.TEXT_PER_BLOCK = text_columns.TEXT_PER_BLOCK = 1000")
        long = pa.array([f"{i}" * 400 for i in range(7)]).cast(kind)
        pq.write_table(pa.table({"post": long, "tags": ["java"] * 7}), tmp_path / "p", compression="none")
        assert all(size <= 3 for size in self.sizes(tmp_path / "p"))
        assert read(tmp_path / "p")[0] == [(f"{i}" * 400, "java", i + 1) for i in range(7)]

    def test_one_long_row_among_short_ones_makes_a_small_block(
        self, tmp_path: Path, decoder: Callable[[str], None]
    ) -> None:
        decoder("parquet_decoder.TEXT_PER_BLOCK = text_columns.TEXT_PER_BLOCK = 4000")
        table = pa.table({"post": ["a"] * 63 + ["b" * 5000] + ["c"] * 64, "tags": ["java"] * 128})
        pq.write_table(table, tmp_path / "p", compression="none")
        for block in reader.read(Source.parse(str(tmp_path / "p")), text_column="post", tag_column="tags"):
            texts = block.posts.column("post").to_pylist()
            assert len(texts) == 1 or sum(map(len, texts)) <= 4000
        assert [row for _, _, row in read(tmp_path / "p")[0]] == list(range(1, 129))

    def test_of_parquet_are_not_decoded_before_they_are_needed(
        self, tmp_path: Path, decoder: Callable[[str], None]
    ) -> None:
        megabyte = 2**20
        decoder(f"parquet_decoder.TEXT_PER_BLOCK = text_columns.TEXT_PER_BLOCK = {2 * megabyte}")
        table = pa.table({"post": [f"{i:03d}" + "x" * megabyte for i in range(48)], "tags": ["java"] * 48})
        pq.write_table(table, tmp_path / "p", compression="none", use_dictionary=False, write_batch_size=1)
        del table
        before = pa.total_allocated_bytes()
        blocks = reader.read(Source.parse(str(tmp_path / "p")), text_column="post", tag_column="tags")
        assert max(pa.total_allocated_bytes() - before for _ in blocks) < 24 * megabyte

    @pytest.mark.parametrize("form", ["csv", "parquet"])
    def test_memory_does_not_grow_with_the_source(self, tmp_path: Path, form: str) -> None:
        path, rows, megabyte = tmp_path / "long", 40_000, 2**20
        post = "x" * 1000
        if form == "csv":
            path.write_text("post,tags\n" + f"{post},java\n" * rows)
        else:
            unlike = [f"{i}{post}" for i in range(rows)]
            pq.write_table(pa.table({"post": unlike, "tags": ["java"] * rows}), path, compression="none")
            del unlike
        before, most = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for block in reader.read(Source.parse(str(path)), text_column="post", tag_column="tags"):
            most = max(most, pa.total_allocated_bytes() - before)
            assert block.posts.num_rows
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert path.stat().st_size > 38 * megabyte
        assert 2 * megabyte < most + peak < 30 * megabyte


class TestGzip:
    def test_is_detected_by_content(self, saved: Callable[..., Path]) -> None:
        assert read(saved(gzip.compress(CSV, mtime=0), "posts.csv.gz")) == (CSV_POSTS, [])
        assert read(saved(gzip.compress(CSV, mtime=0), "posts")) == (CSV_POSTS, [])

    def test_of_several_members_is_read_to_the_end(self, saved: Callable[..., Path]) -> None:
        path = saved(gzip.compress(CSV[:15]) + gzip.compress(CSV[15:]))
        assert read(path) == (CSV_POSTS, [])

    @pytest.mark.parametrize(
        "content",
        [
            gzip.compress(FIFTY, mtime=0)[:-20],  # ends within the data
            gzip.compress(FIFTY, mtime=0)[:-4],  # ends within the check sum
            gzip.compress(FIFTY, mtime=0)[:5],  # ends within the header
            gzip.compress(FIFTY, mtime=0)[:-8] + bytes(8),  # another check sum
            gzip.compress(FIFTY, mtime=0)[:10] + b"\xff" * 40,  # no deflate stream
            gzip.compress(FIFTY, mtime=0) + b"more",  # something behind the end
        ],
        ids=["cut in the data", "cut in the sum", "cut in the header", "other sum", "no deflate stream", "more behind"],
    )
    def test_truncated_or_corrupt(self, saved: Callable[..., Path], content: bytes) -> None:
        assert "posts.csv.gz is truncated or corrupt: gzip cannot unpack it" in refusal(saved(content, "posts.csv.gz"))

    @pytest.mark.parametrize("name", ["posts.csv.gz", "posts.PARQUET"])
    @pytest.mark.parametrize("content", [CSV, b""])
    def test_a_name_that_promises_other_content_is_refused(
        self, saved: Callable[..., Path], name: str, content: bytes
    ) -> None:
        assert f"{name} is truncated or corrupt: its name ends in" in refusal(saved(content, name))

    def test_around_parquet_is_refused(self, saved: Callable[..., Path]) -> None:
        assert "is Parquet within gzip: unpack it" in refusal(saved(gzip.compress(b"PAR1\x15\x04 and so on")))


class TestParquet:
    def write(self, folder: Path, name: str = "posts.parquet", **columns: object) -> Path:
        pq.write_table(pa.table(columns), folder / name)
        return folder / name

    @pytest.mark.parametrize(
        "kind",
        [
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.large_binary(),
            pa.dictionary(pa.int32(), pa.string()),
        ],
        ids=str,
    )
    def test_kinds_of_text(self, tmp_path: Path, kind: pa.DataType) -> None:
        post = pa.array(["naïve", None, "", " \u2003\n", "how", "why", "so", "as", "no"]).cast(kind)
        tags = pa.array(["java", "c#", "c#", "c#", "", None, "a\nb", "a\rb", "java"]).cast(kind)
        path = self.write(tmp_path, id=range(9), tags=tags, post=post)
        assert pq.read_schema(path).field("post").type == kind
        assert read(path) == (
            [("naïve", "java", 1), ("no", "java", 9)],
            [
                (2, "empty post", ""),
                (3, "empty post", ""),
                (4, "empty post", " \u2003\n"),
                (5, "empty tag", "how"),
                (6, "empty tag", "why"),
                (7, "line break in tag", "so"),
                (8, "line break in tag", "as"),
            ],
        )

    @pytest.mark.parametrize("claim", [pa.binary(), pa.string()], ids=str)
    def test_bad_utf8_is_set_aside_row_by_row(self, tmp_path: Path, claim: pa.DataType) -> None:
        post = pa.array([b"how", b"J\xfcrgen", b"caf\xc3\xa9", b"so", None], pa.binary())
        tags = pa.array([b"java", b"java", b"c#", b"\xff", b"c"], pa.binary())
        columns = {"post": post, "tags": tags}
        if claim == pa.string():
            columns = {n: pa.Array.from_buffers(claim, len(a), a.buffers()) for n, a in columns.items()}
        assert read(self.write(tmp_path, **columns)) == (
            [("how", "java", 1), ("café", "c#", 3)],
            [(2, "bad UTF-8", "J\\xfcrgen"), (4, "bad UTF-8", "so"), (5, "empty post", "")],
        )

    def test_emptiness_is_that_of_str_strip(self, tmp_path: Path) -> None:
        characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
        accepted, _ = read(self.write(tmp_path, post=characters, tags=["c"] * len(characters)))
        assert [post for post, _, _ in accepted] == [c for c in characters if c.strip()]

    def test_rows_are_numbered_through_groups_and_batches(self, tmp_path: Path) -> None:
        path = tmp_path / "p"
        table = pa.table({"post": [f"p{i}" for i in range(10_000)], "tags": ["c"] * 10_000})
        pq.write_table(table, path, row_group_size=3000)
        assert read(path)[0] == [(f"p{i}", "c", i + 1) for i in range(10_000)]

    def test_without_a_tag_column(self, tmp_path: Path) -> None:
        assert read(self.write(tmp_path, post=["how", ""]), tag_column=None) == (
            [("how", None, 1)],
            [(2, "empty post", "")],
        )

    def test_a_rejected_rows_text_is_cut(self, tmp_path: Path) -> None:
        assert read(self.write(tmp_path, post=["é" * 70_000], tags=[""]))[1] == [(1, "empty tag", "é" * 65_536)]

    def test_no_rows(self, tmp_path: Path) -> None:
        assert read(self.write(tmp_path, post=pa.array([], pa.string()), tags=pa.array([], pa.string()))) == ([], [])

    def test_columns_are_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, post=["how"], tags=[1], many=[["a"]])
        assert "has int64 in column 'tags', not text: set tag_column to a column of strings" in refusal(path)
        assert "in column 'many', not text: set text_column" in refusal(path, text_column="many")
        assert "has no column 'body' (it has: post, tags, many); set text_column" in refusal(path, text_column="body")
        pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["post", "tags", "tags"]), path)
        assert "has 2 columns named 'tags'" in refusal(path)

    @pytest.mark.parametrize("damage", [lambda b: b[:300], lambda b: b[:4], lambda b: b[:40] + bytes(200) + b[240:]])
    def test_truncated_or_corrupt(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = self.write(tmp_path, post=[f"post {i}" for i in range(500)], tags=["java"] * 500)
        path.write_bytes(damage(path.read_bytes()))
        assert "posts.parquet is truncated or corrupt: Parquet cannot be read from it" in refusal(path)

    def test_a_wrong_check_sum_is_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "p"
        table = pa.table({"post": ["how to open it"], "tags": ["java"]})
        pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
        path.write_bytes(path.read_bytes().replace(b"how to open it", b"how to close i"))
        assert "is truncated or corrupt" in refusal(path)

    def test_an_undecodable_column_name(self, tmp_path: Path) -> None:
        path = tmp_path / "p"
        table = pa.table({"post": ["how"], "tags": ["java"], "café": ["x"]})
        pq.write_table(table, path, store_schema=False)
        path.write_bytes(path.read_bytes().replace("café".encode(), b"caf\xff\xff"))
        assert "is truncated or corrupt" in refusal(path)

    def test_a_failing_disk_is_not_taken_for_a_corrupt_file(
        self, tmp_path: Path, decoder: Callable[[str], None]
    ) -> None:
        path = self.write(tmp_path, post=["how"], tags=["java"])
        decoder(
            "def fail(*_, **__): raise OSError(5, 'Input/output error')\n"
            "import pyarrow.parquet; pyarrow.parquet.ParquetFile.iter_batches = fail"
        )
        assert refusal(path, Unavailable) == f"{path} could not be read (Input/output error); try again"

    def test_a_decoder_that_cannot_begin_is_no_fault_of_the_file(
        self, tmp_path: Path, decoder: Callable[[str], None]
    ) -> None:
        decoder("sys.exit(3)")
        with pytest.raises(RuntimeError, match="the process that decodes Parquet ended with status 3"):
            read(self.write(tmp_path, post=["how"], tags=["java"]))

    def test_a_lock_that_another_thread_holds_does_not_reach_the_decoder(self, tmp_path: Path) -> None:
        """A fork has every lock as it was, and none of the threads that would release it."""
        path = self.write(tmp_path, post=["how"], tags=["java"])
        done = subprocess.run(
            [sys.executable, "-c", WITH_A_THREAD, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "[[('how', 'java')]], forks with threads: 0\n"

    def test_the_decoders_process_is_gone_after_an_abandoned_reading(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, post=["x" * 1000] * 50_000, tags=["java"] * 50_000)
        blocks = reader.read(Source.parse(str(path)), text_column="post", tag_column="tags")
        others = set(psutil.Process().children())
        next(blocks)
        (decoder,) = set(psutil.Process().children()) - others
        blocks.close()  # type: ignore[attr-defined]
        assert not psutil.pid_exists(decoder.pid)

    def test_the_decoder_imports_only_what_decoding_needs(self, tmp_path: Path, decoder: Callable[[str], None]) -> None:
        """It starts for every Parquet source: each package costs that much time and memory each time."""
        decoder(
            "import os, sysconfig\n"
            "end, folder = os._exit, sysconfig.get_path('purelib')\n"
            "def report(status):\n"
            "    names = {name.partition('.')[0] for name, module in list(sys.modules.items())\n"
            "             if (getattr(module, '__file__', None) or '').startswith(folder)}\n"
            f"    open({str(tmp_path / 'imported')!r}, 'w').write(' '.join(sorted(names)))\n"
            "    end(status)\n"
            "os._exit = report"
        )
        assert read(self.write(tmp_path, post=["how", ""], tags=["java", "c"]))[0] == [("how", "java", 1)]
        imported = set((tmp_path / "imported").read_text().split()) - {"_distutils_hack", "sitecustomize"}
        assert imported <= {"pyarrow", "cloudpickle", "dateutil", "six"}  # the last three by pyarrow

    def test_our_own_faults_are_no_faults_of_the_file(self, tmp_path: Path, decoder: Callable[[str], None]) -> None:
        decoder("del text_columns._strings")
        with pytest.raises(RuntimeError, match="NameError: name '_strings' is not defined"):
            read(self.write(tmp_path, post=["how"], tags=["java"]))

    def test_a_fault_that_quotes_the_file_is_one_visible_line(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, post=["how"], tags=["java"])
        path.write_bytes(path.read_bytes().replace(b"post", b"p\x1b\x7ft"))
        assert refusal(path).isprintable()


class TestFiles:
    def test_file_url_and_home(self, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        path = saved(CSV)
        monkeypatch.setenv("HOME", str(path.parent))
        assert read(f"file://{path}") == read("~/posts.csv") == (CSV_POSTS, [])

    def test_fsspec_url(self) -> None:
        with fsspec.open("memory://sources/posts.csv.gz", "wb") as file:
            file.write(gzip.compress(CSV, mtime=0))
        table = pa.table({"post": ["how"], "tags": ["java"]})
        with fsspec.open("memory://sources/posts.parquet", "wb") as file:
            pq.write_table(table, file)
        assert read("memory://sources/posts.csv.gz") == (CSV_POSTS, [])
        with fsspec.open("memory://[sources].tar.gz", "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            member = tarfile.TarInfo("posts.csv")
            member.size = len(CSV)
            tar.addfile(member, io.BytesIO(CSV))
        assert read("tar://posts.csv::memory://[sources].tar.gz") == (CSV_POSTS, [])
        assert read("memory://sources/posts.parquet") == ([("how", "java", 1)], [])

    def test_not_found(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "posts.csv") == f"{tmp_path}/posts.csv does not exist: correct the source"
        assert refusal("memory://sources/none.csv") == "memory://sources/none.csv does not exist: correct the source"
        assert refusal(tmp_path) == (
            f"{tmp_path} has no file that ends in .csv, .jsonl, .ndjson, .parquet: correct the source"
        )
        assert refusal(tmp_path / "*.csv") == (
            f"{tmp_path}/*.csv does not exist, and matches no file as a pattern: correct the source"
        )

    @pytest.mark.parametrize(
        ("error", "kind", "sentence"),
        [
            (PermissionError(13, "Permission denied"), BadInput, "cannot be read: give this user permission"),
            (OSError(5, "Input/output error"), Unavailable, "could not be read (Input/output error); try again"),
            (TimeoutError(), Unavailable, "could not be read (TimeoutError); try again"),
        ],
    )
    def test_faults_of_opening(
        self,
        saved: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        error: OSError,
        kind: type[TaggerError],
        sentence: str,
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        path = saved(CSV)
        monkeypatch.setattr("builtins.open", fail)
        with pytest.raises(kind) as caught:
            read(path)
        assert f"{path} {sentence}" in str(caught.value)

    def test_missing_backend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = {"class": "no_such_package.Files", "err": "Install nosuchfs to access cloud://"}
        monkeypatch.setitem(known_implementations, "cloud", backend)
        assert (
            refusal("cloud://key:secret@bucket/posts.csv?sig=1")
            == "cloud://bucket/posts.csv needs a package that is not installed: Install nosuchfs to access cloud://"
        )
        assert "nope://x cannot be opened (Protocol not known: nope)" in refusal("nope://x")

    def test_a_backends_complaint_shows_no_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(url: str) -> None:
            raise ValueError(f"no bucket in {url}")

        monkeypatch.setattr(fsspec, "url_to_fs", fail)
        assert refusal("s3://key:secret@b") == "s3://b cannot be opened (no bucket in s3://b); correct the source"

    def test_a_backends_own_exceptions_are_worth_another_try(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class NoCredentials(Exception):
            pass

        def fail(*_: object) -> None:
            raise NoCredentials("secret")

        monkeypatch.setattr(fsspec, "url_to_fs", fail)
        assert refusal("s3://bucket/posts.csv", Unavailable) == (
            "s3://bucket/posts.csv could not be opened (NoCredentials): check access to it and try again"
        )

    def test_an_abandoned_file_is_closed(self, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[io.IOBase] = []

        def remember(source: str) -> io.IOBase:
            opened.append(Path(source).open("rb"))  # noqa: SIM115
            return opened[-1]

        monkeypatch.setattr(open, "_file", remember)
        blocks = reader.read(
            Source.parse(str(saved(b"post,tags\n" + b"how,c\n" * 9000))), text_column="post", tag_column="tags"
        )
        next(blocks)
        assert not opened[0].closed
        blocks.close()  # type: ignore[attr-defined]
        assert opened[0].closed


class Served(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str | None]

    def do_GET(self) -> None:
        Served.asked.append(self.headers["Accept-Encoding"])
        getattr(self, self.path.strip("/").partition("?")[0].partition(".")[0])()
        self.close_connection = True

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self) -> None:
        self.answer(CSV)

    def packed(self) -> None:
        self.answer(gzip.compress(CSV, mtime=0))

    def encoded(self) -> None:
        self.answer(gzip.compress(CSV, mtime=0), Content_Encoding="gzip")

    def columnar(self) -> None:
        file = io.BytesIO()
        pq.write_table(pa.table({"post": ["how"], "tags": ["java"]}), file)
        self.answer(file.getvalue())

    def moved(self) -> None:
        self.answer(b"", 302, Location="/good")

    def circle(self) -> None:
        self.answer(b"", 302, Location="/circle")

    def missing(self) -> None:
        self.answer(b"<html>", 404)

    def busy(self) -> None:
        self.answer(b"", 429)

    def broken(self) -> None:
        self.answer(b"", 500)

    def short(self) -> None:
        self.answer(CSV, length=5000)

    def endless(self) -> None:  # neither a length nor chunks: the connection's end is the body's
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CSV)

    def chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"a\r\npost,tags\n\r\n")  # and no last chunk

    def forever(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(CSV * 1000)

    def vast(self) -> None:
        self.answer(CSV, length=10**15)

    def silent(self) -> None:
        self.answer(CSV, length=5000)
        self.wfile.flush()
        Served.over.wait(5)

    over = threading.Event()

    def log_message(self, *_: object) -> None:
        pass


class TestHttp:
    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        Served.asked = []
        Served.over.clear()
        with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            Served.over.set()
            server.shutdown()
            thread.join()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("path", ["good", "packed", "packed.csv.gz?x=1", "encoded", "moved", "endless"])
    def test_csv(self, server: str, path: str) -> None:
        assert read(f"{server}/{path}") == (CSV_POSTS, [])
        assert set(Served.asked) == {"identity"}

    def test_parquet(self, server: str) -> None:
        assert read(f"{server}/columnar.parquet") == ([("how", "java", 1)], [])

    @pytest.mark.parametrize(
        ("path", "kind", "sentence"),
        [
            ("missing", BadInput, "answered 404 Not Found; correct the URL or the access to it"),
            ("busy", Unavailable, "answered 429 Too Many Requests; try again later"),
            ("broken", Unavailable, "answered 500 Internal Server Error; try again later"),
            ("short", Unavailable, "ended after 33 of 5,000 bytes; try again later"),
            ("chunked", Unavailable, "could not be fetched (RemoteProtocolError); try again later"),
            ("circle", BadInput, "cannot be fetched (TooManyRedirects); correct the URL"),
            ("good.csv.gz", BadInput, "is truncated or corrupt: its name ends in .gz"),
        ],
    )
    def test_refusals(self, server: str, path: str, kind: type[TaggerError], sentence: str) -> None:
        source = f"{server}/{path}".replace("://", "://user:secret@") + "?token=secret"
        assert refusal(source, kind).startswith(f"{server}/{path} {sentence}")

    @pytest.mark.parametrize("path", ["forever", "vast"])
    def test_a_download_without_end_is_given_up(self, server: str, path: str) -> None:
        with pytest.raises(BadInput, match="is larger than max_source_bytes=1,000,000: choose a smaller source"):
            next(reader.read(Source.parse(f"{server}/{path}"), text_column="post", tag_column="tags", max_bytes=10**6))

    def test_a_slow_download_is_given_up(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(open, "LONGEST_DOWNLOAD", 0)
        assert "did not download within 0 seconds; try again later" in refusal(f"{server}/good", Unavailable)

    def test_timeout(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(open, "TIMEOUT", httpx.Timeout(0.2))
        assert "/silent could not be fetched (ReadTimeout)" in refusal(f"{server}/silent", Unavailable)

    def test_nobody_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            assert "Connection refused" in refusal(f"http://127.0.0.1:{port}/x.csv", Unavailable)

    @pytest.mark.parametrize("url", ["http://", "http://[::1", "https:///posts.csv"])
    def test_no_url(self, url: str) -> None:
        assert f"{url} cannot be fetched" in refusal(url)

    def test_the_temporary_file_is_gone_after_an_abandoned_reading(self, server: str, tmp_path: Path) -> None:
        blocks = reader.read(Source.parse(f"{server}/good"), text_column="post", tag_column="tags")
        next(blocks)
        del blocks
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("posts?.csv", "posts?.csv"),
        ("/data/a@b/posts.csv", "/data/a@b/posts.csv"),
        ("https://h/posts.csv", "https://h/posts.csv"),
        ("https://user:pass@h:8080/a@b/posts.csv?sig=secret#x", "https://h:8080/a@b/posts.csv"),
        ("https://user:p@ss@h/posts.csv", "https://h/posts.csv"),
        ("s3://key:secret@bucket/posts.csv?versionId=1", "s3://bucket/posts.csv"),
        ("zip://posts.csv::https://u:p@h/a.zip?sig=secret", "zip://posts.csv::https://h/a.zip"),
        ("simplecache::https://h/a.csv?sig=secret::memory://b", "simplecache::https://h/a.csv"),
        ("https://h/posts.csv?a=::&token=secret\n&b=secret", "https://h/posts.csv"),
        ("sample://posts?rows=5&seed=1", "sample://posts?rows=5&seed=1"),
        ("sample://posts?token=secret", "sample://posts"),
    ],
)
def test_display_has_no_secrets(source: str, expected: str) -> None:
    assert Source.parse(source).display == expected


def test_synthetic_posts() -> None:
    accepted, rejected = read("sample://posts?rows=1500&seed=3")
    assert [row for _, _, row in accepted] == list(range(1, 1501))
    assert rejected == []
    assert [(post, None, row) for post, _, row in accepted] == read("sample://posts?rows=1500&seed=3", None)[0]
    assert "does not name synthetic posts" in refusal("sample://posts?rows=0")


def test_the_real_posts_are_all_accepted(real_posts: Path) -> None:
    accepted, rejected = read(real_posts)
    assert (len(accepted), len(rejected)) == (16_000, 0)
    assert {tag for _, tag, _ in accepted} == {"c#", "java", "javascript", "python"}
