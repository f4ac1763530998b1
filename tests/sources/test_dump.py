"""Posts.xml: one row that is not well-formed costs that row at most, and a dump that is cut is refused."""

import gzip
from html import escape
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.sources import dump
from tests.sources.reading import read

HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'


def row(body: bytes, kind: int = 1, title: bytes = b"How") -> bytes:
    return b'  <row Id="1" PostTypeId="%d" Title="%s" Body="%s" Tags="|java|" />\n' % (kind, title, body)


def posts_xml(*rows: bytes) -> bytes:
    return HEAD + b"".join(rows) + b"</posts>\n"


GOOD = row(b"&lt;p&gt;fine&lt;/p&gt;")
FINE = ("How\nfine", "java")

FORBIDDEN = [
    *(bytes([code]) for code in {*range(32)} - {9, 10, 13}),
    *(b"&#x%x;" % code for code in {*range(32)} - {9, 10, 13}),
    *(b"&#%d;" % code for code in (0, 1, 14, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF, 0x110000, 10**20)),
    *(b"&#X41;", b"&#x;", b"&#;", b"&#12", b"&#xZZ;", b"&", b"& ", b"&bogus;", b"&nbsp;", b"&amp", b"<", b"<b>x</b>"),
    *("\ufffe\uffff".encode(), b'"', b'" Body="again'),
    *(b"<!-- x", b"<!-- x -->", b"<?php x", b"<![CDATA[x", b"<!DOCTYPE html>", b"</posts>"),
]
UNDECODABLE = [
    b"\xff",
    b"\x80",
    b"\xc3",
    b"\xc3(",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    "é".encode("latin-1"),
]


@pytest.mark.parametrize(("faults", "reason"), [(FORBIDDEN, "malformed XML"), (UNDECODABLE, "bad UTF-8")])
def test_a_row_that_is_not_well_formed_is_rejected_alone(tmp_path: Path, faults: list[bytes], reason: str) -> None:
    for fault in faults:
        for bad in (row(b"a %s b" % fault), row(b"", title=b"a %s b" % fault)):
            reading = read(tmp_path, posts_xml(GOOD, bad, GOOD))
            assert reading.posts == {1: FINE, 3: FINE}, fault
            assert reading.rejected[2][0] == reason, fault
            assert reading.rejected[2][1].startswith('<row Id="1" PostTypeId="1"'), fault
            assert len(reading.rejected) == 1
    assert read(tmp_path, gzip.compress(posts_xml(*map(row, faults)))).rejected.keys() == {*range(1, len(faults) + 1)}


@pytest.mark.parametrize("fault", FORBIDDEN + UNDECODABLE)
def test_in_an_answer_it_is_not_even_counted(tmp_path: Path, fault: bytes) -> None:
    for kind in (2, 5, 11):
        reading = read(tmp_path, posts_xml(GOOD, row(fault, kind), GOOD))
        assert (reading.posts, reading.rejected) == ({1: FINE, 3: FINE}, {})


@pytest.mark.parametrize("kind", [b"PostTypeId=1", b'PostTypeId="\x01"', b"", b'PostTypeId="1'])
def test_a_row_of_which_the_kind_cannot_be_told_counts(tmp_path: Path, kind: bytes) -> None:
    bad = row(b"\x01").replace(b'PostTypeId="1"', kind)
    reading = read(tmp_path, posts_xml(GOOD, bad, GOOD))
    assert (reading.posts.keys(), reading.rejected.keys()) == ({1, 3}, {2})


def test_a_dump_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = posts_xml(GOOD, row(b"answer", 2), b"<!-- a comment -->\n", GOOD).rstrip()
    for length in range(len(HEAD), len(content)):
        with pytest.raises(BadInput, match="truncated or corrupt: XML cannot be read from it to the end"):
            read(tmp_path, content[:length])
    assert len(read(tmp_path, content).posts) == 2


@pytest.mark.parametrize(
    ("content", "titles"),
    [
        (b"<!-- before --> \n" + posts_xml(GOOD).partition(b"\n")[2], 1),
        (posts_xml(GOOD).replace(b"<posts>", b"<!-- <rows> --><?pi <x>?>\n<posts site='a'>"), 1),
        (posts_xml(b"<!-- ", GOOD, b" -->", GOOD, b"<!---->", b"<?x ", GOOD, b"?><![CDATA[", GOOD, b"]]>", GOOD), 2),
        (posts_xml(GOOD.replace(b" />", b"></row>"), GOOD.replace(b" />", b"/>"), GOOD.replace(b" Id", b"\n\tId")), 3),
        (posts_xml(GOOD.replace(b'"', b"'")), 1),
        (posts_xml(GOOD.replace(b"/>", b"> <more/> text </row>")), 1),
        (posts_xml(GOOD) * 2, 2),
        (b"<posts/>", 0),
        (b"<posts />\n", 0),
    ],
)
def test_other_ways_to_write_a_dump(tmp_path: Path, content: bytes, titles: int) -> None:
    reading = read(tmp_path, content)
    assert (list(reading.posts.values()), reading.rejected) == ([FINE] * titles, {})


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "UTF-16", "cp037", "x" * 500])
def test_a_declaration_of_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(BadInput, match=f"says that its encoding is '{encoding[:59]}.*, not UTF-8: save it as UTF-8"):
        read(tmp_path, posts_xml(GOOD).replace(b"utf-8", encoding.encode()))


@pytest.mark.parametrize("content", [posts_xml(GOOD).replace(b"posts", b"rows"), b"<posts><!DOCTYPE x></posts>"])
def test_other_xml_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadInput, match=r"is XML, but not Posts.xml|defines a document type"):
        read(tmp_path, content)


@pytest.mark.parametrize("before", [b"", HEAD, b"<posts>", posts_xml(GOOD)])
def test_a_row_or_comment_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(dump, "LONGEST_ROW", 1000)
    for start in (b'<row Body="', b"<!-- "):
        with pytest.raises(BadInput, match=r"a row is longer than 1,000 bytes|is XML, but not"):
            read(tmp_path, (before or b"<?xml version='1.0'?>") + start + b"x" * 2**21)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<html></html>", ""),
        ("<html>", ""),
        ("<!DOCTYPE html>", ""),
        ("<!DOCTYPE html><html><head><title>t</title></head><body>a<p>b</p></body></html> c", "t a b c"),
        ("a</body></html><p>b", "a b"),
        ("<body>a</BODY >b", "a b"),
        ("<head>a", "a"),
        ("<frameset><frame>a</frameset>", "a"),
        ("<!-- a", ""),
        ("<?php b ?>a", "a"),
        ("<textarea><b>a", "<b>a"),
        ("<title>a", "a"),
        ("<plaintext>a", "a"),
        ("<svg><![CDATA[</svg>a", "a"),
        ("<a:b c:d=e>a", "a"),
        ("&#xD800;&#0;&bogus;a", "\ufffd&bogus;a"),
        ("<b>" * 200 + "a" + "</b>" * 200, "a"),
    ],
)
def test_any_html_is_read(tmp_path: Path, body: str, text: str) -> None:
    reading = read(tmp_path, posts_xml(GOOD, row(escape(body).encode()), GOOD))
    assert reading.posts.keys() == {1, 2, 3}
    post = " ".join(reading.posts[2][0].split())
    assert post.replace("\ufffd\ufffd", "\ufffd") == " ".join(["How", *text.split()])


@pytest.mark.parametrize("body", ["<div>" * 300 + "a", "<b>" * 100_000, "<ul><li>" * 5000 + "a" + "</li></ul>" * 5000])
def test_html_that_is_nested_too_deeply_to_be_read_whole_is_rejected(tmp_path: Path, body: str) -> None:
    reading = read(tmp_path, posts_xml(GOOD, row(escape(body).encode()), GOOD))
    assert reading.posts == {1: FINE, 3: FINE}
    assert reading.rejected[2][0] == "malformed HTML"
