"""Reads the questions of Posts.xml, a file of Stack Overflow's own data dump (https://archive.org/details/stackexchange).

Each row is an element whose attributes are title, body as HTML, and tags as `<a><b>` or, in newer dumps, `|a|b|`.
"""

import io
from collections.abc import Iterator

from lxml import etree, html

from pipeline.errors import BadInput
from pipeline.sources.blocks import REJECTED_TEXT, Block, Columns, corrupt
from pipeline.sources.rows import Rows

XML_STARTS = (b"<?xml", b"<posts")
QUESTION = "1"
HTML = html.HTMLParser(remove_comments=True, remove_pis=True, no_network=True)


def dump_blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """Read the questions, numbered by their place among all rows, of which the answers are not read.

    The settings of the columns do not matter. Raises BadInput where the file is no such dump, or is damaged.
    """
    rows = Rows()
    # Nothing is fetched, no entity is defined by the file, and what is read is freed row by row.
    parser = etree.iterparse(file, events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False)
    try:
        for row, element in _elements(parser, name):
            if element.get("PostTypeId") == QUESTION:
                _add(rows, row, element, columns)
            if rows.full:
                yield rows.block()
    except etree.XMLSyntaxError as error:
        raise corrupt(name, f"XML cannot be read from it ({str(error).splitlines()[0]})") from error
    if rows.count:
        yield rows.block()


def _elements(parser: etree.iterparse, name: str) -> Iterator[tuple[int, etree._Element]]:
    """Each row with its number, from 1; it is emptied afterwards."""
    row, root = 0, None
    for event, element in parser:
        if root is None:
            root = element
            if root.tag != "posts":
                raise BadInput(f"{name} is XML, but not Posts.xml of Stack Overflow's data dump: choose that file")
            if root.getroottree().docinfo.doctype:
                raise BadInput(f"{name} defines a document type, as no dump does: choose the dump's own Posts.xml")
        elif event == "end" and element.tag == "row":
            row += 1
            yield row, element
            root.clear()


def _add(rows: Rows, row: int, element: etree._Element, columns: Columns) -> None:
    title, body = element.get("Title") or "", element.get("Body") or ""
    post = "\n".join(part for part in (title, text_of(body)) if part.strip())
    if reason := rows.add(row, post, element.get("Tags") or "", columns):
        rows.reject(row, reason, etree.tostring(element, encoding="unicode")[:REJECTED_TEXT].rstrip())


def text_of(body: str) -> str:
    """The text of a post's HTML, with the words of neighbouring elements apart."""
    if not body.strip():
        return ""
    return " ".join(html.fragment_fromstring(body, create_parent="div", parser=HTML).itertext()).strip()
