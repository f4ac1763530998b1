"""Tags texts with a published model: a few given directly, or a file of any length in constant memory."""

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import posts
from pipeline.data.several_tags import SEPARATOR
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.model import serving, tagging
from pipeline.progress import Track, log_lines
from pipeline.sources import reader
from pipeline.sources.source import Source
from pipeline.stages.plan import LABELS

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
    with serving.opened(model) as served:
        for start in range(0, len(texts), BATCH):
            chunk = texts[start : start + BATCH]
            answer = served.tag([text.encode(errors="replace") for text in chunk])
            for at, text in enumerate(chunk):
                several = {"tags": answer["tags"][at].decode().split(SEPARATOR)} if "tags" in answer else {}
                probability = round(float(answer["probability"][at]), 6)
                yield {"post": text, "tag": answer["tag"][at].decode()} | several | {"probability": probability}


def tag_file(
    model: Path, source: Source, target: Path, text_column: str, max_bytes: int, track: Track = log_lines
) -> Tagging:
    """Tag the posts of the source, and write a Parquet file with the schema TAGGED, which replaces `target` at the end.

    Raises BadInput if the source cannot be read or has no post, or if `target`'s folder does not exist.
    """
    if not target.absolute().parent.is_dir():
        raise BadInput(f"--output {target}: the folder {target.absolute().parent} does not exist; create it first")
    labels, schema = read_lines(model / "assets" / LABELS), TAGGED
    if serving.thresholds_of(model) is not None:
        schema = schema.set(schema.get_field_index("tag"), pa.field("tags", pa.string()))
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    tagged = rejected = 0
    try:
        with (
            serving.opened(model) as served,
            pq.ParquetWriter(unfinished, schema, compression="zstd") as writer,
            track("predict", "posts", None) as advance,
        ):
            counts = Counter[str]()
            blocks = reader.read(source, text_column=text_column, tag_column=None, max_bytes=max_bytes)
            for batch, tags, probability in tagging.tagged(served, model, labels, _posts(blocks, counts)):
                columns = [batch.column("row"), batch.column("post"), tags, pa.array(probability.astype(np.float32))]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
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


def _posts(blocks: Iterable[reader.Block], counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The posts of the blocks in batches of bounded size; rejected rows are counted."""
    size = posts.ROWS_PER_BATCH
    for block in blocks:
        counts["rejected"] += block.rejected.num_rows
        yield from (block.posts.slice(start, size) for start in range(0, block.posts.num_rows, size))
