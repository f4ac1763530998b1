"""Remembers which posts a model has learned, as short digests that are kept with the model and outlive its run.

Two posts count as copies if they begin or end with the same EDGE words, whatever their case, signs and spaces; of
shorter posts all words are the same. So a post of twice that length is known again after an edit. Other posts are
seldom taken for copies, though many end in the same courtesies or the same lines of HTML: 2 of the 8,000 posts in the
published test half of the 16,000 Stack Overflow posts, against its train half; with 16 words 6, with 8 words 84.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data import posts, words
from pipeline.data.posts import Side
from pipeline.data.threads import THREADS, in_order
from pipeline.errors import CorruptArtifact

FILE = "learned.parquet"
"""The file that is kept with a model: one column `digest`, ascending; its metadata says whether it is complete."""

EDGE = 32
"""Words at the beginning, and at the end, of a post by which copies of it are known."""

DIGEST_BYTES = 5
"""Of a million learned posts, one new post in half a million is then taken for a copy by chance."""

LEARNED_SIDES: tuple[Side, ...] = ("train", "validation")
"""Validation posts count as learned: the epoch, the thresholds and the temperature are chosen by them."""

COMPLETE = b"complete"

NO_WORD = r"[^\pL\pM\pN]+"
"""What separates words here: signs and blanks of every kind. So a copy with CR LF or typographic quotes is known."""


def digests(texts: pa.Array) -> np.ndarray:
    """The digests of each text's first and last EDGE words, of the whole text if it has no word: uint64 [texts, 2]."""
    edges = b"".join(
        blake2b(edge.encode(), digest_size=DIGEST_BYTES).digest() for pair in _edges(texts) for edge in pair
    )
    digits = np.frombuffer(edges, np.uint8).reshape(-1, 2, DIGEST_BYTES).astype(np.uint64)
    digits <<= np.arange(DIGEST_BYTES, dtype=np.uint64) * np.uint64(8)
    joined: np.ndarray = np.bitwise_or.reduce(digits, axis=2)
    return joined


def _edges(texts: pa.Array) -> Iterator[tuple[str, str]]:
    """The first and the last EDGE words of each text, joined by spaces; both the text itself if it has no word."""
    for piece in words.slices(texts, words.SLICE):
        split, ends = words.split(pc.replace_substring_regex(pc.utf8_normalize(piece, "NFKC"), NO_WORD, " "))
        listed = split.to_pylist()
        for text, start, end in zip(piece, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if start == end:
                yield text.as_py(), text.as_py()
            else:
                first = listed[start : min(start + EDGE, end)]
                last = listed[max(end - EDGE, start) : end]
                yield " ".join(first), " ".join(last)


@dataclass(frozen=True)
class Learned:
    """The digests of the posts that a model has learned, uint64, ascending, each once.

    They are not `complete` if the model began from the weights of one whose posts are not known.
    """

    digests: np.ndarray
    complete: bool = True

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> Self:
        """Those of batches with a column `post`."""
        by_batch = list(in_order(lambda batch: digests(batch.column("post")).ravel(), batches, THREADS))
        return cls(np.unique(np.concatenate([np.empty(0, np.uint64), *by_batch])))

    @classmethod
    def of_ingested(cls, folder: Path) -> Self:
        """Those of the train and validation posts that ingest left in the folder."""
        sides = (posts.batches(folder, posts.of_side(side), ["post"]) for side in LEARNED_SIDES)
        return cls.of(batch for batches in sides for batch in batches)

    def __or__(self, earlier: "Learned") -> "Learned":
        """Also those of the model from whose weights this one began."""
        both = np.union1d(self.digests, earlier.digests)
        return Learned(both, complete=self.complete and earlier.complete)

    def has(self, texts: pa.Array) -> np.ndarray:
        """Whether each text is a copy of a post that was learned: bool [texts]."""
        return self.has_digests(digests(texts))

    def has_digests(self, edges: np.ndarray) -> np.ndarray:
        """The same of texts by their `digests`, uint64 [texts, 2]."""
        held: np.ndarray = np.isin(edges, self.digests).any(axis=1)
        return held

    def write(self, path: Path) -> None:
        """Write it as Parquet; sorted digests are stored by their differences, in some seven bytes a post."""
        metadata = {COMPLETE: str(self.complete).encode()}
        schema = pa.schema([pa.field("digest", pa.int64())], metadata)
        table = pa.table([pa.array(self.digests.astype(np.int64))], schema=schema)
        pq.write_table(
            table, path, compression="zstd", use_dictionary=False, column_encoding={"digest": "DELTA_BINARY_PACKED"}
        )

    @classmethod
    def unknown(cls) -> Self:
        """Those of a model that does not say which posts it learned."""
        return cls(np.empty(0, np.uint64), complete=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote; `unknown` where there is no file, as in versions of earlier releases.

        Raises CorruptArtifact for any other file, and reads none that claims more digests than it has bytes.
        """
        if not path.is_file():
            return cls.unknown()
        try:
            file = pq.ParquetFile(path)
            if file.metadata.num_rows > path.stat().st_size:  # a digest takes more than a byte
                raise CorruptArtifact(f"{FILE} claims {file.metadata.num_rows:,} digests in fewer bytes")
            column = file.read(["digest"]).column("digest").cast(pa.int64())
        except (pa.ArrowException, LookupError, OSError, ValueError) as error:
            raise CorruptArtifact(f"{FILE} cannot be read: {str(error).splitlines()[0]}") from error
        if column.null_count:
            raise CorruptArtifact(f"{FILE} has empty digests")
        complete = (file.schema_arrow.metadata or {}).get(COMPLETE) == b"True"
        return cls(column.to_numpy().astype(np.uint64), complete)
