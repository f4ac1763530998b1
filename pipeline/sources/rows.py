"""Makes blocks of rows, of those that are read one by one too, and finds what is wrong with a post and its tags."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.posts import POSTS, REJECTED
from pipeline.data.several_tags import SEPARATOR, tags_in
from pipeline.sources.blocks import (
    BAD_UTF8,
    EMPTY_POST,
    EMPTY_TAG,
    LEFT_OUT,
    LINE_BREAK_IN_TAG,
    REJECTED_TEXT,
    ROWS_PER_BLOCK,
    SEVERAL_TAGS,
    TEXT_PER_BLOCK,
    Block,
    Columns,
)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode the text: it has no half of a surrogate pair, as undecodable bytes become."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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

    def add(self, row: int, post: str, field: str, columns: Columns) -> str | None:
        """Add a row whose post and tag field are decoded, or leave it out.

        Returns the reason for which it can be neither, and is to be rejected by the caller.
        """
        tag, fault = (None, None) if columns.tag is None else tag_of(field, columns)
        if fault == LEFT_OUT:
            self.left_out += 1
            return None
        if not post or post.isspace():
            return EMPTY_POST
        if fault:
            return fault
        self.posts.append(post)
        self.tags.append(tag)
        self.rows.append(row)
        self.characters += len(post) + len(tag or "")
        return None

    def reject(self, row: int, reason: str, text: str) -> None:
        """Add a row that cannot be used, with the reason and the row as it is in the source."""
        self.rejected.append({"row": row, "reason": reason, "text": text})
        self.characters += len(text)

    @property
    def count(self) -> int:
        """How many rows were added, or left out."""
        return len(self.rows) + len(self.rejected) + self.left_out

    @property
    def full(self) -> bool:
        """Whether they make a block."""
        return self.count >= ROWS_PER_BLOCK or self.characters >= TEXT_PER_BLOCK

    def block(self, warnings: tuple[str, ...] = ()) -> Block:
        """Return the collected rows as a block, and start an empty one."""
        accepted = pa.record_batch([self.posts, self.tags, self.rows], schema=POSTS)
        rejected = pa.RecordBatch.from_pylist(self.rejected, schema=REJECTED)
        block = Block(accepted, rejected, self.left_out, warnings)
        self._clear()
        return block


def tag_of(field: str, columns: Columns) -> tuple[str, str | None]:
    """The tag of a post, or with `several` its tags in one form, and what is wrong: one of REASONS, LEFT_OUT, or None.

    Of a post with several tags, those that are not to be kept do not count.
    """
    tags = tags_in(field)
    if columns.keep:
        tags = [tag for tag in tags if tag in columns.keep]
        if not tags or (len(tags) > 1 and not columns.several):
            return "", LEFT_OUT
    if not tags:
        return "", EMPTY_TAG
    text = SEPARATOR.join(tags)
    if "\n" in text or "\r" in text:
        return text, LINE_BREAK_IN_TAG
    return text, SEVERAL_TAGS if len(tags) > 1 and not columns.several else None


def decoded_block(decoded: pa.RecordBatch, first_row: int, columns: Columns) -> Block:
    """The block of rows that are text_columns.DECODED, the first of which has the number `first_row`."""
    row = pa.array(np.arange(first_row, first_row + decoded.num_rows))
    post = decoded.column("post")
    tag, fault = pa.nulls(len(row), pa.string()), pa.nulls(len(row), pa.string())
    if columns.tag is not None:
        tag, fault = _tags_of(decoded.column("tag"), columns)
    left_out = pc.fill_null(pc.equal(fault, LEFT_OUT), False)
    fault = pc.if_else(pc.and_not(_empty(post), left_out), EMPTY_POST, fault)
    fault = pc.if_else(decoded.column("undecodable"), BAD_UTF8, fault)

    accepted = pc.is_null(fault)
    rejected = pc.and_not(pc.is_valid(fault), pc.equal(fault, LEFT_OUT))
    text = pc.utf8_slice_codeunits(pc.fill_null(post.filter(rejected), ""), 0, REJECTED_TEXT)
    return Block(
        posts=pa.record_batch([each.filter(accepted) for each in (post, tag, row)], schema=POSTS),
        rejected=pa.record_batch([row.filter(rejected), fault.filter(rejected), text], schema=REJECTED),
        left_out=pc.sum(pc.equal(fault, LEFT_OUT)).as_py() or 0,
    )


def _tags_of(fields: pa.Array, columns: Columns) -> tuple[pa.Array, pa.Array]:
    """What tag_of says of each field: the tags, and what is wrong."""
    encoded = pc.fill_null(fields, "").dictionary_encode()
    checked = [tag_of(field, columns) for field in encoded.dictionary.to_pylist()]
    tags, faults = (pa.array([pair[at] for pair in checked], pa.string()) for at in (0, 1))
    return tags.take(encoded.indices), faults.take(encoded.indices)


def _empty(column: pa.Array) -> pa.Array:
    """Find the texts of which str.strip() leaves nothing: bool [rows]."""
    nothing = pc.equal(pc.binary_length(column), 0)
    return pc.fill_null(pc.or_(nothing, pc.utf8_is_space(column)), True)
