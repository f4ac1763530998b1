"""Tags texts with a published model: a few given directly, or a file of any length in constant memory."""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import posts
from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.progress import Track, log_lines
from pipeline.published.model import PublishedModel
from pipeline.sources.source import Source

if TYPE_CHECKING:
    from pipeline.sources.reader import Block

BATCH = 500

TAGGED = pa.schema([("row", pa.int64()), ("post", pa.string()), ("tag", pa.string()), ("probability", pa.float32())])
"""Columns of the output: a post with its row number in the source, and the model's answer.

A model of several tags writes `tags` in place of `tag`, each a text such as `pandas|python`, and the highest of their
probabilities.
"""


@dataclass(frozen=True)
class Tagging:
    """How many posts of a file were tagged, and how many rows had no usable text."""

    posts: int
    rejected: int


def tag_texts(model: Path, texts: list[str]) -> Iterator[dict[str, Any]]:
    """Tag the texts: for each of them its `post`, `tag` and `probability`, and of a model of several tags `tags`."""
    with closing(PublishedModel.open(model)) as published:
        for start in range(0, len(texts), BATCH):
            chunk = texts[start : start + BATCH]
            answers = published.answer(chunk)
            for at, text in enumerate(chunk):
                several = {} if answers.several is None else {"tags": answers.several[at].split(SEPARATOR)}
                probability = round(float(answers.best[at]), 6)
                yield {"post": text, "tag": answers.tags[at]} | several | {"probability": probability}


def tag_file(
    model: Path, source: Source, target: Path, text_column: str, max_bytes: int, track: Track = log_lines
) -> Tagging:
    """Tag the posts of the source, and write a Parquet file with the schema TAGGED, which replaces `target` at the end.

    Raises BadInput if the source cannot be read or has no post, or if `target`'s folder does not exist.
    """
    if not target.absolute().parent.is_dir():
        raise BadInput(f"--output {target}: the folder {target.absolute().parent} does not exist; create it first")
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    tagged = rejected = 0
    try:
        with (
            closing(PublishedModel.open(model)) as published,
            pq.ParquetWriter(unfinished, _schema(published), compression="zstd") as writer,
            track("predict", "posts", None) as advance,
        ):
            from pipeline.sources import reader  # imports what reads sources of every kind

            counts = Counter[str]()
            blocks = reader.read(source, text_column=text_column, tag_column=None, max_bytes=max_bytes)
            for batch, answers in published.answer_batches(_posts(blocks, counts)):
                columns = [batch.column("row"), batch.column("post"), pa.array(answers.given), pa.array(answers.best)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=writer.schema))
                tagged += batch.num_rows
                advance(batch.num_rows)
            rejected = counts["rejected"]
        if not tagged:
            raise BadInput(
                f"{source.display} has no post to tag ({rejected:,} rows without text): name the column with the texts"
            )
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Tagging(tagged, rejected)


def _schema(model: PublishedModel) -> pa.Schema:
    if model.limits is None:
        return TAGGED
    return TAGGED.set(TAGGED.get_field_index("tag"), pa.field("tags", pa.string()))


def _posts(blocks: "Iterable[Block]", counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The posts of the blocks in batches of bounded size; rejected rows are counted."""
    size = posts.ROWS_PER_BATCH
    for block in blocks:
        counts["rejected"] += block.rejected.num_rows
        yield from (block.posts.slice(start, size) for start in range(0, block.posts.num_rows, size))
