"""JSON Lines: a file is read if any object has the fields, wherever in the file it is."""

from itertools import permutations, product
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from tests.sources.reading import read

GOOD = b'{"post": "how", "tags": "java"}\n'
POORER = {
    b'{"id": 1}\n': "empty post",
    b'{"post": "a"}\n': "empty tag",
    b'{"tags": "a"}\n': "empty post",
    b"{}\n": "empty post",
    b"null\n": "malformed JSON",
    b"[1, 2]\n": "malformed JSON",
    b'[{"post": "a", "tags": "b"}]\n': "malformed JSON",
    b'"post"\n': "malformed JSON",
    b"{\n": "malformed JSON",
    b'{"post": "a\xff", "tags": "b"}\n': "bad UTF-8",
}


@pytest.mark.parametrize(
    ("name", "poorer"),
    [
        *product(["posts.jsonl"], POORER),
        *product(["posts"], [line for line in POORER if line.startswith((b"{", b"["))]),  # of others the name must tell
    ],
)
def test_the_order_of_the_lines_does_not_matter(tmp_path: Path, poorer: bytes, name: str) -> None:
    for lines in permutations([poorer, GOOD, b"\n"]):
        reading = read(tmp_path, b"".join(lines), name)
        assert list(reading.posts.values()) == [("how", "java")]
        assert [reason for reason, _ in reading.rejected.values()] == [POORER[poorer]]


def test_a_field_that_no_object_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no column 'tags' \(it has: id, post\); set tag_column to the right one"):
        read(tmp_path, b'{"id": 1, "post": "a"}\n{"post": "b"}\n' * 5000)
    with pytest.raises(BadInput, match=r"has no column 'post' \(it has: \); set text_column to the right one"):
        read(tmp_path, b"{}\n{}\n")
    assert read(tmp_path, b'{"id": 1}\n{"post": "b"}\n', tag_column=None).posts == {2: ("b", None)}


@pytest.mark.parametrize("content", [b'{\n  "post": "a",\n  "tags": "b"\n}\n', b"{\n{\n", b'{"a" 1}\n'])
def test_a_file_without_any_object_in_a_line_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadInput, match=r"has no JSON object in any of its \d lines: write one object a line"):
        read(tmp_path, content)


def test_a_carriage_return_ends_a_line_unless_it_is_in_an_object(tmp_path: Path) -> None:
    posts = [("how", "java")] * 3
    for content in (GOOD.replace(b"\n", b"\r") * 3, GOOD.strip() + b"\r" + GOOD + GOOD, GOOD.replace(b" ", b"\r") * 3):
        reading = read(tmp_path, content)
        assert list(reading.posts.values()) == posts
        assert not reading.rejected


def test_files_put_one_behind_the_other_keep_their_byte_order_marks(tmp_path: Path) -> None:
    assert len(read(tmp_path, (b"\xef\xbb\xbf" + GOOD) * 3).posts) == 3
