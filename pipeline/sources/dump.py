"""Reads the questions of Posts.xml, a file of Stack Overflow's own data dump (https://archive.org/details/stackexchange).

Each row is an element whose attributes are title, body as HTML, and tags as `<a><b>` or, in newer dumps, `|a|b|`.
"""

import io
import re
from collections.abc import Iterator

from lxml import etree, html

from pipeline.errors import BadInput
from pipeline.sources.blocks import (
    BAD_UTF8,
    BUFFER,
    MALFORMED_HTML,
    MALFORMED_XML,
    REJECTED_TEXT,
    Block,
    Columns,
    corrupt,
)
from pipeline.sources.rows import Rows

LONGEST_ROW = 16 * 2**20
"""Bytes of a row after which the file is refused: it is not a dump."""

QUESTION = "1"
UTF8_NAMES = (b"utf-8", b"utf8", b"us-ascii", b"ascii")

UNREAD_MARKUP = {b"!--": b"-->", b"?": b"?>", b"![CDATA[": b"]]>"}
"""What holds no element though it may look so, by its beginning after `<`, with its end."""

# Nothing is fetched, and no entity is expanded: a row by itself cannot define any.
XML = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
HTML = html.HTMLParser(remove_comments=True, remove_pis=True, no_network=True)


def dump_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read the questions, numbered by their place among all rows, of which the answers are not read.

    The settings of the columns do not matter. Each row is parsed by itself, so that one that is not well-formed, such
    as one with a character that XML forbids, is rejected and the others are read. Raises BadInput where the file is
    not such a dump, or is cut.
    """
    rows = Rows()
    for row, tag in enumerate(_row_tags(file, name), 1):
        _add(rows, row, tag, columns)
        if rows.full:
            yield rows.block()
    if rows.count:
        yield rows.block()


def _row_tags(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    """The bytes of each row's tag."""
    last = b""
    for tag in _tags(file, name):
        kind = re.match(rb"[^\s/>]*", tag)[0]  # type: ignore[index]
        if kind == b"!DOCTYPE" and (not last or _has_ended(last)):
            raise BadInput(f"{name} defines a document type, as no dump does: choose the dump's own Posts.xml")
        if not last and kind != b"posts":
            raise BadInput(f"{name} is XML, but not Posts.xml of Stack Overflow's data dump: choose that file")
        last = tag
        if kind == b"row":
            yield b"<" + tag
    if not re.match(rb"/posts\s*>|posts[^>]*/>", last):
        raise corrupt(name, "XML cannot be read from it to the end, which is not </posts>")


def _tags(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    """What follows each `<` up to the next one, which an attribute cannot hold; comments and the like are left out.

    None begins where a tag has not ended: there a row's text has a `<` that it should not have.
    """
    end = b""
    has_ended = True
    for piece in _pieces(file, name):
        if not end:
            start = next((start for start in UNREAD_MARKUP if piece.startswith(start)), None) if has_ended else None
            has_ended = _has_ended(piece)
            if start is None:
                yield piece
                continue
            if start == b"?":
                _check_encoding(piece, name)
            end = UNREAD_MARKUP[start]
            piece = piece.removeprefix(start)
        if end in piece:
            end = b""
            has_ended = True
    if end:
        raise corrupt(name, f"XML cannot be read from it to the end, because {end.decode()} is missing")


def _has_ended(tag: bytes) -> bool:
    return tag.rstrip().endswith(b">")


def _pieces(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    """What is between each `<` and the next one or the file's end."""
    rest = b""
    first = True
    while chunk := file.read(BUFFER):
        *pieces, rest = (rest + chunk).split(b"<")
        yield from pieces[1:] if first and pieces else pieces
        first = first and not pieces
        if len(rest) > LONGEST_ROW:
            raise corrupt(name, f"a row is longer than {LONGEST_ROW:,} bytes")
    yield rest


def _check_encoding(declaration: bytes, name: str) -> None:
    declared = re.match(rb"""\?xml\s[^>]*encoding\s*=\s*["']([^"']+)""", declaration)
    if declared and declared[1].lower() not in UTF8_NAMES:
        encoding = ascii(declared[1].decode(errors="replace"))[:60]
        raise BadInput(f"{name} says that its encoding is {encoding}, not UTF-8: save it as UTF-8, as dumps are")


def _add(rows: Rows, row: int, tag: bytes, columns: Columns) -> None:
    """Add the row if it is a question, accepted or rejected."""
    tag = tag[: tag.rfind(b">") + 1] or tag
    try:
        element = etree.fromstring(tag if tag.endswith(b"/>") else tag + b"</row>", XML)
    except etree.XMLSyntaxError:
        kind = re.search(rb"""\sPostTypeId\s*=\s*["'](\d+)["']""", tag)
        if not kind or kind[1] == QUESTION.encode():  # it counts unless it is surely another kind of post
            raw = tag.decode(errors="backslashreplace")[:REJECTED_TEXT]
            rows.reject(row, MALFORMED_XML if _is_utf8(tag) else BAD_UTF8, raw)
        return
    if element.get("PostTypeId") != QUESTION:
        return
    raw = etree.tostring(element, encoding="unicode")[:REJECTED_TEXT].rstrip()
    title, body = element.get("Title") or "", text_of(element.get("Body") or "")
    if body is None:
        rows.reject(row, MALFORMED_HTML, raw)
        return
    post = "\n".join(part for part in (title, body) if part.strip())
    if reason := rows.add(row, post, element.get("Tags") or "", columns):
        rows.reject(row, reason, raw)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_of(body: str) -> str | None:
    """The text of a post's HTML, with the words of neighbouring elements apart; None where it cannot all be read."""
    if not body.strip():
        return ""
    # Without end tags, after which the parser leaves out whatever follows, a whole page is read as a fragment is.
    fragment = re.sub(r"</(?:html|body)\s*>", " ", body, flags=re.IGNORECASE)
    try:
        root = html.document_fromstring(f"<html><body>{fragment}", parser=HTML)
    except (etree.LxmlError, ValueError, AssertionError):
        return None
    if any(entry.level == etree.ErrorLevels.FATAL for entry in HTML.error_log):  # elements nested too deeply
        return None
    return " ".join(root.itertext()).strip()
