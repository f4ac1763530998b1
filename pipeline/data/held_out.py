"""The held-out posts that a model is evaluated on: the test posts with a known tag, in the order of their vectors."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import posts, words
from pipeline.data.threads import THREADS, in_order
from pipeline.data.vocabulary import Vocabulary

EXAMPLES = 5
"""How many predictions a person is shown."""

EXAMPLE_CHARACTERS = 200


def batches(ingested: Path, labels: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the held-out posts as batches of POSTS, from the folder that ingest left."""
    known = pa.array(labels, pa.string())
    for batch in posts.batches(ingested, posts.of_side("test")):
        yield batch.filter(pc.is_in(batch.column("tag"), value_set=known))


def digest(ingested: Path, labels: list[str]) -> str:
    """The sha256 of the held-out posts and their tags; evaluations with equal digests used the same posts."""
    sha256 = hashlib.sha256()
    for batch in batches(ingested, labels):
        for post, tag in zip(batch.column("post").to_pylist(), batch.column("tag").to_pylist(), strict=True):
            sha256.update(f"{tag}\n{len(post)}\n{post}".encode())
    return sha256.hexdigest()


def texts_of(ingested: Path, rows: pa.Array) -> pa.ChunkedArray:
    """The texts of the test posts with these row numbers, which must ascend and not be empty."""
    found, last = list[pa.Array](), rows[-1].as_py()
    for batch in posts.batches(ingested, posts.of_side("test"), ["post", "row"]):
        found.append(batch.filter(pc.is_in(batch.column("row"), value_set=rows)).column("post"))
        if batch.num_rows and batch.column("row")[-1].as_py() >= last:
            break
    return pa.chunked_array(found)


def lengths(ingested: Path, labels: list[str]) -> np.ndarray:
    """The number of characters of each held-out post: int32 [posts]."""
    found = [pc.utf8_length(batch.column("post")).to_numpy() for batch in batches(ingested, labels)]
    return np.concatenate(found)


def unknown_shares(ingested: Path, labels: list[str], vocabulary: Vocabulary) -> np.ndarray:
    """The share of each held-out post's words that are not in the vocabulary: float64 [posts], 0 without any word."""

    def shares(batch: pa.RecordBatch) -> np.ndarray:
        found, rows = words.words(batch.column("post"), vocabulary.word_rule)
        unknown = pc.invert(pc.is_in(found, value_set=vocabulary.words.cast(found.type))).to_numpy(zero_copy_only=False)
        every, strange = (np.bincount(rows, weights, batch.num_rows) for weights in (None, unknown))
        share: np.ndarray = np.round(strange / np.maximum(every, 1), 4)
        return share

    return np.concatenate(list(in_order(shares, batches(ingested, labels), THREADS)))


def excerpts(ingested: Path, rows: Iterable[int]) -> dict[int, str]:
    """The beginnings of the test posts with these row numbers, for a person."""
    ascending = pa.array(sorted(set(rows)), pa.int64())
    if not len(ascending):
        return {}
    texts = texts_of(ingested, ascending).to_pylist()
    return {row: text[:EXAMPLE_CHARACTERS] for row, text in zip(ascending.to_pylist(), texts, strict=True)}


def examples(ingested: Path, evaluated: Path, labels: list[str]) -> list[dict[str, Any]]:
    """The first EXAMPLES predictions of the folder `evaluated`, with the beginnings of their texts, for a person."""
    answers = next(posts.batches(evaluated, "predictions")).slice(0, EXAMPLES)
    found = texts_of(ingested, answers.column("row")).to_pylist()
    return [
        {
            "row": answer["row"],
            "post": text[:EXAMPLE_CHARACTERS],
            "tag": labels[answer["label"]],
            "predicted": labels[answer["predicted"]],
            "probability": round(max(answer["probabilities"]), 4),
        }
        for answer, text in zip(answers.to_pylist(), found, strict=True)
    ]
