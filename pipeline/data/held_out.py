"""The held-out posts that a model is evaluated on: the test posts with a known tag, in the order of their vectors."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import learned, posts, several_tags, words
from pipeline.data.learned import Learned
from pipeline.data.threads import THREADS, in_order
from pipeline.data.vocabulary import Vocabulary

EXAMPLE_CHARACTERS = 200


def known(tags: pa.Array, labels: pa.Array, *, several: bool) -> pa.Array:
    """Whether the tag of each post, or one of its several tags, is one that the network knows: bool [posts]."""
    return several_tags.any_of(tags, labels) if several else pc.is_in(tags, value_set=labels)


@dataclass(frozen=True)
class HeldOut:
    """The held-out posts, from the folder that ingest left; `labels` are the tags that the network knows."""

    folder: Path
    labels: list[str]
    several: bool = False

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield them as batches of POSTS."""
        labels = pa.array(self.labels, pa.string())
        for batch in posts.batches(self.folder, posts.of_side("test")):
            yield batch.filter(known(batch.column("tag"), labels, several=self.several))

    def digest(self) -> str:
        """The sha256 of the posts and their tags; evaluations with equal digests used the same posts."""
        sha256 = hashlib.sha256()
        for batch in self.batches():
            for post, tag in zip(batch.column("post").to_pylist(), batch.column("tag").to_pylist(), strict=True):
                sha256.update(f"{tag}\n{len(post)}\n{post}".encode())
        return sha256.hexdigest()

    def with_all_tags_in(self, tags: Collection[str]) -> np.ndarray:
        """Whether every tag of each post, also one that the network does not know, is one of these: bool [posts]."""
        wanted = pa.array(sorted(tags), pa.string())

        def held(batch: pa.RecordBatch) -> np.ndarray:
            column = batch.column("tag")
            if not self.several:
                known: np.ndarray = pc.is_in(column, value_set=wanted).to_numpy(zero_copy_only=False)
                return known
            tag_count = pc.list_value_length(pc.split_pattern(column, several_tags.SEPARATOR))
            wanted_count = pc.list_value_length(several_tags.labels_of(column, wanted))
            same: np.ndarray = pc.equal(tag_count, wanted_count).to_numpy(zero_copy_only=False)
            return same

        return np.concatenate([held(batch) for batch in self.batches()])

    def copies_of(self, *models: Learned) -> list[np.ndarray]:
        """For each model whether each post is a copy of one that it has learned: bool [posts]."""
        edges = np.concatenate(
            list(in_order(lambda batch: learned.digests(batch.column("post")), self.batches(), THREADS))
        )
        return [model.has_digests(edges) for model in models]

    def lengths(self) -> np.ndarray:
        """The number of characters of each post: int32 [posts]."""
        return np.concatenate([pc.utf8_length(batch.column("post")).to_numpy() for batch in self.batches()])

    def unknown_shares(self, vocabulary: Vocabulary) -> np.ndarray:
        """The share of each post's words that are not in the vocabulary: float64 [posts], 0 without any word."""

        def shares(batch: pa.RecordBatch) -> np.ndarray:
            found, rows = words.words(batch.column("post"), vocabulary.word_rule)
            unknown = pc.invert(pc.is_in(found, value_set=vocabulary.words.cast(found.type)))
            weights = unknown.to_numpy(zero_copy_only=False)
            every, strange = (np.bincount(rows, each, batch.num_rows) for each in (None, weights))
            share: np.ndarray = np.round(strange / np.maximum(every, 1), 4)
            return share

        return np.concatenate(list(in_order(shares, self.batches(), THREADS)))


def texts_of(ingested: Path, rows: pa.Array) -> pa.ChunkedArray:
    """The texts of the test posts with these row numbers, which must ascend and not be empty."""
    found, last = list[pa.Array](), rows[-1].as_py()
    for batch in posts.batches(ingested, posts.of_side("test"), ["post", "row"]):
        found.append(batch.filter(pc.is_in(batch.column("row"), value_set=rows)).column("post"))
        if batch.num_rows and batch.column("row")[-1].as_py() >= last:
            break
    return pa.chunked_array(found)


def excerpts(ingested: Path, rows: Iterable[int]) -> dict[int, str]:
    """The beginnings of the test posts with these row numbers, for a person."""
    ascending = pa.array(sorted(set(rows)), pa.int64())
    if not len(ascending):
        return {}
    texts = texts_of(ingested, ascending).to_pylist()
    return {row: text[:EXAMPLE_CHARACTERS] for row, text in zip(ascending.to_pylist(), texts, strict=True)}
