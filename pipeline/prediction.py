"""Ask a published model: a few texts, or a file of any length in constant memory."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import progress, sources
from pipeline.errors import BadInput
from pipeline.estimator import serving

BATCH = 500

TAGGED = pa.schema([("row", pa.int64()), ("post", pa.string()), ("tag", pa.string()), ("probability", pa.float32())])
"""A post by its row in the source, and the model's answer."""


@dataclass(frozen=True)
class Tagging:
    """How many posts were tagged, and how many rows held no usable text."""

    posts: int
    rejected: int


def tag_texts(model: Path, texts: list[str]) -> Iterator[dict[str, Any]]:
    """For each text its `post`, `tag` and `probability`."""
    with serving.opened(model) as served:
        for start in range(0, len(texts), BATCH):
            chunk = texts[start : start + BATCH]
            answer = served.tag([text.encode(errors="replace") for text in chunk])
            for text, tag, probability in zip(chunk, answer["tag"], answer["probability"], strict=True):
                yield {"post": text, "tag": tag.decode(), "probability": round(float(probability), 6)}


def tag_file(model: Path, source: str, target: Path, text_column: str) -> Tagging:
    """Write a TAGGED Parquet file, which appears at `target` when it is whole.

    Raises BadInput where the source cannot be read, holds no post, or `target`'s folder is not there.
    """
    if not target.absolute().parent.is_dir():
        raise BadInput(f"--output {target} is in no folder that exists: create {target.absolute().parent} first")
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    tagged = rejected = 0
    try:
        with (
            serving.opened(model) as served,
            pq.ParquetWriter(beside, TAGGED, compression="zstd") as writer,
            progress.track("predict", "posts") as advance,
        ):
            for block in sources.read(source, text_column=text_column, tag_column=None):
                rejected += block.rejected.num_rows
                for start in range(0, block.posts.num_rows, BATCH):
                    batch = _tagged(served, block.posts.slice(start, BATCH))
                    writer.write_batch(batch)
                    tagged += batch.num_rows
                    advance(batch.num_rows)
        if not tagged:
            raise BadInput(f"{sources.shown(source)} holds no post to tag ({rejected:,} rows without text)")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return Tagging(tagged, rejected)


def _tagged(served: serving.Served, batch: pa.RecordBatch) -> pa.RecordBatch:
    posts = batch.column("post")
    answer = served.tag(posts.cast(pa.binary()).to_numpy(zero_copy_only=False))
    tags = pa.array(answer["tag"], pa.binary()).cast(pa.string())
    columns = [batch.column("row"), posts, tags, pa.array(answer["probability"].astype(np.float32))]
    return pa.RecordBatch.from_arrays(columns, schema=TAGGED)
