"""Reads a source given as bytes, for the tests of each format."""

from pathlib import Path
from typing import NamedTuple

from pipeline.sources import reader
from pipeline.sources.source import Source


class Reading(NamedTuple):
    """What was read: (post, tag) by row, (reason, text) by row, and the warnings."""

    posts: dict[int, tuple[str, str | None]]
    rejected: dict[int, tuple[str, str]]
    warnings: list[str]


def read(folder: Path, content: bytes, name: str = "posts", *, tag_column: str | None = "tags") -> Reading:
    """Write the content to a file of that name and read it."""
    path = folder / name
    path.write_bytes(content)
    reading = Reading({}, {}, [])
    for block in reader.read(Source.parse(str(path)), text_column="post", tag_column=tag_column):
        for row in block.posts.to_pylist():
            assert row["row"] not in reading.posts.keys() | reading.rejected
            reading.posts[row["row"]] = row["post"], row["tag"]
        for row in block.rejected.to_pylist():
            assert row["row"] not in reading.posts.keys() | reading.rejected
            reading.rejected[row["row"]] = row["reason"], row["text"]
        reading.warnings.extend(block.warnings)
    return reading
