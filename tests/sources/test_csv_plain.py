"""Plain rows that Arrow reads are the rows that are read record by record, whatever the file holds."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.posts import POSTS, REJECTED
from pipeline.errors import BadInput
from pipeline.sources import csv_file, csv_plain
from pipeline.sources.blocks import Columns

PLAIN = Columns("post", "tags")
KEPT = Columns("post", "tags", keep=frozenset({"a", "c#"}))
SEVERAL = Columns("post", "tags", several=True)

PIECES = [*(bytes([letter]) for letter in b'a",\n\r |<>\0'), b'""', b"\r\n", b"\n\n", b'"\n"', b"a,b\n", b"post,c#\n"]
PIECES += ["é".encode(), "東".encode(), b"\xff", b"NA", b"null", b"1.5", b"\t", b'"a\nb",c\n', b"x" * 50]

FIELD = st.lists(st.sampled_from(["a", "b", " ", ",", "\n", '"', "é", "|", "<a>", "NULL", "\r\n"]), max_size=8)
ROW = st.tuples(FIELD.map("".join), st.sampled_from(["a", "c#", "b", "", "a|b", " a ", "<a><c#>"]))


def read(blocks):
    """All that a reader gives, or the sentence of its error."""
    rows, rejected, left_out, warnings = [], [], 0, ()
    try:
        for block in blocks:
            rows += block.posts.to_pylist()
            rejected += block.rejected.to_pylist()
            left_out += block.left_out
            warnings += block.warnings
            assert (block.posts.schema, block.rejected.schema) == (POSTS, REJECTED)
    except BadInput as error:
        return str(error)
    return rows, rejected, left_out, warnings


def buffered(content):
    return io.BufferedReader(io.BytesIO(content))


def both(content, columns):
    return [read(reads(buffered(content), "x.csv", columns)) for reads in (csv_file.csv_blocks, csv_file.record_blocks)]


def same(content, columns=PLAIN):
    fast, by_record = both(content, columns)
    assert fast == by_record


@pytest.fixture(params=[2**20, 64])
def chunk(request, monkeypatch):
    """The usual chunks, and small ones, whose ends fall anywhere in the files below."""
    monkeypatch.setattr(csv_plain, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("columns", [Columns("post", "tags"), Columns("post", None), KEPT, SEVERAL])
def test_any_bytes_give_the_same_rows(columns):
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
    def check(content):
        same(b"post,tags\n" + content, columns)

    check()


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("columns", [Columns("post", "tags"), KEPT, SEVERAL])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_well_formed_rows_give_the_same_rows(columns, line_end):
    @settings(max_examples=80, deadline=None)
    @given(st.lists(ROW, max_size=30))
    def check(rows):
        quoted = ("".join(f'"{post.replace(chr(34), chr(34) * 2)}",{tag}{line_end}') for post, tag in rows)
        same(f"id,post,tags{line_end}".encode() + b"".join(f"1,{row}".encode() for row in quoted), columns)

    check()


HEADERS = [b"", b"\n", b"post", b"post\n", b'"post",tags\n', b"post,tags", b"post,post\n", b"\npost,tags\n"]
HEADERS += [b"post,tags\r", b"tags,post\n", b"post,tags,\n", b"p\xffost,tags\n", b"other,tags\n", b"post,tags\r\n"]
HEADERS += [b"po\0st,tags\n"]


@pytest.mark.parametrize("header", HEADERS)
def test_any_header_is_read_alike(header):
    same(header + b"how,java\nwhat,c\n")


def test_plain_rows_are_read_by_arrow():
    content = b"post,tags\n" + b'"how, to",java\n' * 10_000
    plain = csv_plain.PlainRows(buffered(content[10:]), csv_plain.Header(2, 0, 1), Columns("post", "tags"))
    sizes = [block.posts.num_rows for block in plain]
    assert (sum(sizes), plain.row_count, plain.line_count, plain.rest.read()) == (10_000, 10_000, 10_000, b"")
    assert max(sizes) <= csv_plain.ROWS_PER_BLOCK


def test_blank_lines_make_no_block(monkeypatch):
    monkeypatch.setattr(csv_plain, "CHUNK", 20)
    content = b"post,tags\n" + b"\n" * 100 + b"a,b\n" + b"\r\n" * 100
    blocks = list(csv_file.csv_blocks(buffered(content), "x.csv", PLAIN))
    assert [block.posts.to_pylist() for block in blocks] == [[{"post": "a", "tag": "b", "row": 1}]]
    same(content)


def test_rows_and_lines_are_numbered_through(monkeypatch):
    """The first row that is not plain, and those after it, are read record by record."""
    monkeypatch.setattr(csv_plain, "CHUNK", 100)
    content = b"post,tags\n" + b'"a\nb",java\n' * 50 + b'x,c\n"bad" quote,c\nlast,java\n"open,java\nmore text'
    fast, by_record = both(content, Columns("post", "tags"))
    assert fast == by_record
    assert "line 105 " in fast


def test_rows_are_the_same_at_any_place_in_a_large_file():
    rows = [b"how to,java\n"] * 100_000
    for place in (0, 50_000, 99_999):
        changed = [*rows[:place], b'a "b" c,java\n', b'"a" b,java\n', b"\xff,java\n", *rows[place:]]
        fast, by_record = both(b"post,tags\n" + b"".join(changed), Columns("post", "tags"))
        assert fast == by_record
        assert [row["row"] for row in fast[1]] == [place + 2, place + 3]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_every_column_is_decoded_strictly(at):
    fields = [b"x", b"how to", b"java"]
    fields[at] += b"\xff"
    same(b"id,post,tags\n1,a,b\n" + b",".join(fields) + b"\n1,a,b\n")


@pytest.mark.parametrize("line_count", [9, 10, 11, 12, 300])
def test_a_row_of_many_lines_has_the_same_warning(line_count):
    swallowed = b"how,java\n" * (line_count - 1)
    same(b'post,tags\na,b\n"first,java\n' + swallowed + b'last",java\nx,y\n')
    same(b'post,tags\na,b\n"' + b"text\n" * line_count + b'end",java\nx,y\n')


@pytest.mark.parametrize(
    "doubtful", [b'a"b\nc",d\n', b'"a" b,c\n', b'a,"b\n', b"a\rb,c\n", b"a\0,b\n", b"a,b", b'""",b\n', b'"a""b,c\n']
)
def test_it_is_not_certain_where_other_rows_end(doubtful):
    assert csv_plain.whole_records(doubtful) == 0


@pytest.mark.parametrize("plain", [b"a,b\n", b'"a\nb",c\r\n', b'"","a"""\n', b'"""a""",\n', b",\n", b"\n"])
def test_it_is_certain_where_plain_rows_end(plain):
    assert csv_plain.whole_records(plain * 3 + b'"a') == 3 * len(plain)
