"""Checks what reader.read guarantees for any bytes: valid blocks of posts, or an error of one sentence."""

from pathlib import Path

from pipeline.data import posts
from pipeline.errors import TaggerError
from pipeline.sources import blocks, reader
from pipeline.sources.source import Source

UNPACKED = 2**22
"""Largest unpacked size in fuzzing: far more than the inputs have, and small enough to be fast."""


def kept(
    content: bytes, path: Path, tag_column: str | None = "tags", max_bytes: int = UNPACKED, *, of_dump: bool = False
) -> str | None:
    """Write the content to `path` and read it: returns the error's sentence, or None where it was read.

    Of a dump the rows that are no questions are not among those read.

    Raises AssertionError, or the unexpected exception, where the guarantee is broken.
    """
    path.write_bytes(content)
    try:
        rows = _rows(path, tag_column, max_bytes)
    except TaggerError as refusal:
        sentence = str(refusal)
        assert sentence.isprintable(), f"not one printable line: {sentence!r}"
        assert len(sentence) < 3000
        return sentence
    every = sorted(set(rows)) if of_dump else list(range(1, len(rows) + 1))
    assert rows == every, "rows are missing, repeated or misnumbered"
    return None


def _rows(path: Path, tag_column: str | None, max_bytes: int) -> list[int]:
    rows: list[int] = []
    for block in reader.read(Source.parse(str(path)), text_column="post", tag_column=tag_column, max_bytes=max_bytes):
        block.posts.validate(full=True)
        block.rejected.validate(full=True)
        assert block.posts.schema == posts.POSTS
        assert block.rejected.schema == posts.REJECTED
        assert all(text.strip() for text in block.posts.column("post").to_pylist())
        assert tag_column is None or all(tag.strip() for tag in block.posts.column("tag").to_pylist())
        assert set(block.rejected.column("reason").to_pylist()) <= set(reader.REASONS)
        row_count = block.posts.num_rows + block.rejected.num_rows
        assert row_count or block.warnings
        assert row_count <= blocks.ROWS_PER_BLOCK
        assert all(warning.isprintable() for warning in block.warnings)
        rows += sorted(block.posts.column("row").to_pylist() + block.rejected.column("row").to_pylist())
    return rows
