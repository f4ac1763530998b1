"""What the reader of sources promises for any bytes whatever: posts, or one sentence of refusal."""

from pathlib import Path

from pipeline.data import posts
from pipeline.errors import TaggerError
from pipeline.sources import reader

UNPACKED = 2**22
"""Bytes that fuzzing lets a source unpack to: far more than its inputs hold, and little enough to be quick."""


def kept(content: bytes, path: Path, tag_column: str | None = "tags", max_bytes: int = UNPACKED) -> str | None:
    """The sentence of refusal, if it was one; AssertionError, or whatever reading raised, where the promise is broken.

    `path` is where the content is written to be read; its name may promise a format.
    """
    path.write_bytes(content)
    try:
        rows = _rows(path, tag_column, max_bytes)
    except TaggerError as refusal:
        sentence = str(refusal)
        assert sentence.isprintable(), f"not one line of visible characters: {sentence!r}"
        assert len(sentence) < 3000
        return sentence
    assert rows == list(range(1, len(rows) + 1)), "rows are lost, invented or numbered anew"
    return None


def _rows(path: Path, tag_column: str | None, max_bytes: int) -> list[int]:
    rows: list[int] = []
    for block in reader.read(str(path), text_column="post", tag_column=tag_column, max_bytes=max_bytes):
        block.posts.validate(full=True)
        block.rejected.validate(full=True)
        assert block.posts.schema == posts.POSTS
        assert block.rejected.schema == posts.REJECTED
        assert all(text.strip() for text in block.posts.column("post").to_pylist())
        assert tag_column is None or all(tag.strip() for tag in block.posts.column("tag").to_pylist())
        assert set(block.rejected.column("reason").to_pylist()) <= set(reader.REASONS)
        assert 0 < block.posts.num_rows + block.rejected.num_rows <= posts.ROWS_PER_BATCH
        rows += sorted(block.posts.column("row").to_pylist() + block.rejected.column("row").to_pylist())
    return rows
