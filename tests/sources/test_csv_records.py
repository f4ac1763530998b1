"""CSV: a malformed record costs its first line at most, and what cannot be decided is a warning."""

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.sources import csv_records, reader
from pipeline.sources.csv_records import Records
from pipeline.sources.source import Source
from tests.sources.reading import Reading, read

MANY = [f"how to do thing {number},{'java' if number % 2 else 'python'}" for number in range(1000)]


def read_lines(folder: Path, lines: list[str], header: str = "post,tags") -> Reading:
    return read(folder, "\n".join([header, *lines, ""]).encode())


def post_of(line: str) -> tuple[str, str]:
    post, tag = line.split(",")
    return post, tag


def check_untouched_rows(reading: Reading, lines: list[str], touched: set[int]) -> None:
    """Every other row is read as it is, under its number, and those touched are read or rejected."""
    assert reading.posts.keys() | reading.rejected == set(range(1, len(lines) + 1))
    for row, line in enumerate(lines, 1):
        if row - 1 not in touched:
            assert reading.posts[row] == post_of(line)


@given(st.data(), st.integers(2, 300))
@settings(max_examples=150, deadline=None)
def test_stray_quotes_cost_no_other_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int
) -> None:
    """Quotes at the beginning of either field, or at the line's end: where another program forgot to double them."""
    touched = data.draw(st.sets(st.integers(0, size - 2), max_size=4))
    lines = MANY[:size]
    for place in touched:
        post, tag = post_of(lines[place])
        lines[place] = data.draw(st.sampled_from([f'"{post},{tag}', f'{post},"{tag}', f'{post},{tag}"']))
    reading = read_lines(tmp_path_factory.mktemp("csv"), lines)
    check_untouched_rows(reading, lines, touched)
    assert {reason for reason, _ in reading.rejected.values()} <= {"malformed quotes"}


@pytest.mark.parametrize("stray", ['"how,java', 'how,"java', '""how,java', '"how"x,java'])
def test_a_stray_quote_that_is_never_closed_costs_its_line(tmp_path: Path, stray: str) -> None:
    lines = [*MANY[:10], stray, *MANY[11:]]
    reading = read_lines(tmp_path, lines)
    check_untouched_rows(reading, lines, {10})
    assert reading.rejected == {11: ("malformed quotes", stray)}


def test_a_quote_that_is_never_closed_is_a_warning_with_its_line(tmp_path: Path) -> None:
    (warning,) = read_lines(tmp_path, [*MANY[:10], 'how,"java', *MANY[11:]]).warnings
    assert f"{tmp_path}/posts has quotes that are never closed (1, the first in line 12)" in warning
    before = ['"several\nlines" and more,java', '"how\nto",java']
    (warning,) = read_lines(tmp_path, [*before, *MANY[:10], 'how,"java', *MANY[11:]]).warnings
    assert "(1, the first in line 16)" in warning
    (warning,) = read_lines(tmp_path, ['5","x', *MANY[:1]] * 500).warnings
    assert "has quotes that are never closed (500, the first in line 2)" in warning


def test_a_quote_that_is_longer_open_than_a_record_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "LONGEST_RECORD", 2000)
    lines = [*MANY[:10], 'how,"java', *MANY[11:500], '"why', 'not",go', *MANY[502:]]
    reading = read_lines(tmp_path, lines)
    assert reading.rejected == {11: ("malformed quotes", 'how,"java')}
    assert reading.posts[501] == ("why\nnot", "go")
    assert len(reading.posts) == len(lines) - 2


@pytest.mark.parametrize("header", ["post,tags", "tags,post", "id,tags,post", "post"])
def test_a_file_that_is_cut_within_a_quote_is_refused(tmp_path: Path, header: str) -> None:
    """The lines of a post are not rows: a file that ends among them was not read whole."""
    body = "Hello, all\n\nI have a list, a dict and a set.\nfor each in x:\n    print(x[1])\n\nThanks, bob\nand so on"
    before = ",".join({"post": "fine", "tags": "java", "id": "1"}[name] for name in header.split(","))
    fields = {"post": f'"{body}', "tags": "java", "id": "2"}
    cut = ",".join(fields[name] for name in header.split(",")[: header.split(",").index("post") + 1])
    with pytest.raises(BadInput, match="is truncated or corrupt: the quote opened in line 3 is never closed"):
        read(tmp_path, f"{header}\n{before}\n{cut}".encode(), tag_column="tags" if "tags" in header else None)


def test_quotes_that_close_where_they_should_not_are_seen_by_what_is_in_between(tmp_path: Path) -> None:
    """A record of 400 lines with too few fields, or a tag of 400 lines, is a row with a stray quote, and 399 rows."""
    for first, last in (('"how,java', 'why,go"'), ('how,"java', 'why,go"'), ('how,"java', 'why,"')):
        lines = [*MANY[:100], first, *MANY[101:500], last, *MANY[501:]]
        reading = read_lines(tmp_path, lines)
        check_untouched_rows(reading, lines, {100, 500})
        assert len(reading.rejected) <= 2


def test_a_post_of_several_lines_with_a_fault_is_one_row(tmp_path: Path) -> None:
    lines = ['"first\nsecond, and more\nthird",java,extra', '"first\nsecond",', '"a","b\nc"', "how,java"]
    reading = read_lines(tmp_path, lines)
    assert reading.posts == {4: ("how", "java")}
    assert [reason for reason, _ in reading.rejected.values()] == [
        "wrong number of fields",
        "empty tag",
        "line break in tag",
    ]


@pytest.mark.parametrize(
    ("line_count", "swallowed", "warns"), [(200, False, False), (201, False, True), (11, True, True), (10, True, False)]
)
def test_a_row_of_many_lines_is_read_with_a_warning(
    tmp_path: Path, line_count: int, swallowed: bool, warns: bool
) -> None:
    inner = MANY if swallowed else ["a line of code"] * 1000
    post = "\n".join(inner[:line_count])
    reading = read_lines(tmp_path, ["fine,java", f'"{post}",java', f'"{post}",go'])
    assert reading.posts == {1: ("fine", "java"), 2: (post, "java"), 3: (post, "go")}
    assert len(reading.warnings) == warns
    assert all("has rows of many lines (2, the first is row 2)" in warning for warning in reading.warnings)


def test_lone_carriage_returns_among_line_feeds_are_a_warning(tmp_path: Path) -> None:
    for line_end in ("\n", "\r\n"):
        content = line_end.join(["post,tags", "a,b", "c,d\re,f", "g,h\ri,j", ""])
        reading = read(tmp_path, content.encode())
        assert list(reading.posts.values()) == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j")]
        (warning,) = reading.warnings
        assert "end in a lone carriage return (2, the first is row 2)" in warning
    for content in ("post,tags\ra,b\rc,d\r", 'post,tags\n"a\rb",c\n', "post,tags\r\na,b\r\n", "post,tags\na,b\n"):
        assert read(tmp_path, content.encode()).warnings == []


@pytest.mark.parametrize("keep", [frozenset(), frozenset(["java"])])
@pytest.mark.parametrize("several", [False, True])
def test_warnings_are_kept_through_all_that_is_done_with_the_rows(
    tmp_path: Path, keep: frozenset[str], several: bool
) -> None:
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_bytes(b"post,tags\na,java\nb,java\rc,java\nd,\n")
    for source, count in ((tmp_path / "1.csv", 1), (tmp_path, 2)):
        blocks = reader.read(
            Source.parse(str(source)), text_column="post", tag_column="tags", keep=keep, several=several
        )
        warnings = [warning for block in blocks for warning in block.warnings]
        assert len(warnings) == count
        assert all("lone carriage return" in warning for warning in warnings)


def reference(text: str, width: int) -> list[list[str] | None]:
    """The records of a text as csv finds them from a line on; after a malformed one it goes on at the second line."""
    lines = text.splitlines(keepends=True) if "\r" not in text.replace("\r\n", "") else None
    assert lines is not None
    records: list[list[str] | None] = []
    while lines:
        reader = csv.reader(lines, strict=True)
        try:
            fields = next(reader)
        except csv.Error:
            records.append(None)
            lines = lines[1:]
            continue
        if fields:
            records.append(fields)
        lines = lines[reader.line_num :]
    return records


pieces = st.sampled_from(["a", "b c", ",", ",", '"', '""', "\n", "\n", "\r\n", "é"])


@given(st.lists(pieces, max_size=60))
@settings(max_examples=1500, deadline=None)
def test_records_are_those_of_a_plain_reader(parts: list[str]) -> None:
    text = "post,tags\n" + "".join(parts) + "\n"
    expected = reference(text, 2)
    records = Records(io.StringIO(text, newline=""), "it")
    with suppress(BadInput):  # the file is taken for a cut one, if it ends in a quote
        assert list(records) == expected
        return
    assert None in expected


def test_quotes_arranged_to_be_read_again_and_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "LONGEST_RECORD", 2000)
    text = io.StringIO("post,tags\n" + '5","x\na,b\n' * 10_000, newline="")
    with pytest.raises(BadInput, match="has too many quotes that are never closed, up to line"):
        list(Records(text, "it"))
