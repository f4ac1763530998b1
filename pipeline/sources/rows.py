"""Makes blocks of rows, of those that are read one by one too, and finds what is wrong with a post and its tag."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.posts import POSTS, REJECTED
from pipeline.data.several_tags import SEPARATOR
from pipeline.sources.blocks import (
    EMPTY_POST,
    EMPTY_TAG,
    LINE_BREAK_IN_TAG,
    REJECTED_TEXT,
    ROWS_PER_BLOCK,
    SEVERAL_TAGS,
    TEXT_PER_BLOCK,
    Block,
    Columns,
)


class Rows:
    """Collects rows until they make a block."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.posts: list[str] = []
        self.tags: list[str | None] = []
        self.rows: list[int] = []
        self.rejected: list[dict[str, int | str]] = []
        self.characters = 0
        self.left_out = 0

    def accept(self, row: int, post: str, tag: str | None) -> None:
        """Add a row that can be used."""
        self.posts.append(post)
        self.tags.append(tag)
        self.rows.append(row)
        self.characters += len(post) + len(tag or "")

    def reject(self, row: int, reason: str, text: str) -> None:
        """Add a row that cannot, with the reason and the row as it is in the source."""
        self.rejected.append({"row": row, "reason": reason, "text": text})
        self.characters += len(text)

    def add(self, row: int, post: str, tags: list[str | None], columns: Columns, raw: str) -> None:
        """Add a post that has any number of tags; `raw` is the row as it is in the source."""
        if columns.several:
            tags = [SEPARATOR.join(tag or "" for tag in tags)]
        elif columns.keep:
            tags = [tag for tag in tags if tag in columns.keep]
            if len(tags) != 1:
                self.left_out += 1
                return
        if reason := fault_of(post, tags[0] if tags else "") or (SEVERAL_TAGS if len(tags) > 1 else None):
            self.reject(row, reason, raw)
        else:
            self.accept(row, post, tags[0])

    @property
    def count(self) -> int:
        """How many rows were added, or left out."""
        return len(self.rows) + len(self.rejected) + self.left_out

    @property
    def full(self) -> bool:
        """Whether they make a block."""
        return self.count >= ROWS_PER_BLOCK or self.characters >= TEXT_PER_BLOCK

    def block(self) -> Block:
        """Return the collected rows as a block, and start an empty one."""
        accepted = pa.record_batch([self.posts, self.tags, self.rows], schema=POSTS)
        rejected = pa.RecordBatch.from_pylist(self.rejected, schema=REJECTED)
        block = Block(accepted, rejected, self.left_out)
        self._clear()
        return block


def decoded_block(decoded: pa.RecordBatch, first_row: int) -> Block:
    """The block of rows that are text_columns.DECODED, the first of which has the number `first_row`."""
    rows = pa.array(range(first_row, first_row + decoded.num_rows), pa.int64())
    numbered = decoded.append_column("row", rows)
    accepted = numbered.filter(pc.is_null(decoded.column("fault")))
    rejected = numbered.filter(pc.is_valid(decoded.column("fault")))
    text = pc.utf8_slice_codeunits(pc.fill_null(rejected.column("post"), ""), 0, REJECTED_TEXT)
    return Block(
        posts=accepted.select(POSTS.names),
        rejected=pa.record_batch([rejected.column("row"), rejected.column("fault"), text], schema=REJECTED),
    )


def fault_of(post: str, tag: str | None) -> str | None:
    """Find the first of REASONS for which a decoded post is to be rejected, or None; a tag of None is not checked."""
    if _blank(post):
        return EMPTY_POST
    if tag is None:
        return None
    if _blank(tag):
        return EMPTY_TAG
    return LINE_BREAK_IN_TAG if "\n" in tag or "\r" in tag else None


def _blank(field: str) -> bool:
    return not field or field.isspace()
