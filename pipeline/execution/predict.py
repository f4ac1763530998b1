"""Ask a published model: a few texts, or a file of any length in constant memory."""

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

from pipeline import progress
from pipeline.data import posts
from pipeline.data.words import vectorize_all
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.model import input_fn, serving
from pipeline.sources import reader
from pipeline.stages.plan import LABELS

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


def tag_file(model: Path, source: str, target: Path, text_column: str, max_bytes: int) -> Tagging:
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
            aside = Counter[str]()
            blocks = reader.read(source, text_column=text_column, tag_column=None, max_bytes=max_bytes)
            for batch in _tagged(served, model, _posts(blocks, aside)):
                writer.write_batch(batch)
                tagged += batch.num_rows
                advance(batch.num_rows)
            rejected = aside.total()
        if not tagged:
            raise BadInput(f"{reader.shown(source)} holds no post to tag ({rejected:,} rows without text)")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return Tagging(tagged, rejected)


def _posts(blocks: Iterable[reader.Block], aside: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The posts of the blocks, a bounded number at a time; rows set aside are counted."""
    size = posts.ROWS_PER_BATCH
    for block in blocks:
        aside["rejected"] += block.rejected.num_rows
        yield from (block.posts.slice(start, size) for start in range(0, block.posts.num_rows, size))


def _tagged(served: serving.Served, model: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The posts as TAGGED.

    Their vectors are made here where the model says how, which takes a sixth of the time that its graph needs; that
    both are the same was proved when it was exported.
    """
    words = serving.words(model)
    if words is None:
        for batch in batches:
            answer = served.tag(batch.column("post").cast(pa.binary()).to_numpy(zero_copy_only=False))
            yield _answered(batch, pa.array(answer["tag"], pa.binary()).cast(pa.string()), answer["probability"])
        return
    labels = pa.array(read_lines(model / "assets" / LABELS), pa.string())
    for batch, sparse in vectorize_all(batches, words.vocabulary, size=words.size, mode=words.mode):
        probabilities = served.from_cells(input_fn.vectors(sparse, words.size))
        yield _answered(batch, labels.take(pa.array(probabilities.argmax(axis=1))), probabilities.max(axis=1))


def _answered(batch: pa.RecordBatch, tags: pa.Array, probability: np.ndarray) -> pa.RecordBatch:
    columns = [batch.column("row"), batch.column("post"), tags, pa.array(probability.astype(np.float32))]
    return pa.RecordBatch.from_arrays(columns, schema=TAGGED)
