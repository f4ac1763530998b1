"""Posts of the source as Parquet, with those set aside beside them and the reason for each."""

import logging
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import progress
from pipeline.checks import drift
from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.sources import reader, sample
from pipeline.sources.blocks import REJECTED_TEXT

DUPLICATE = "copy of an earlier post"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingested:
    """How many rows were read (`rows` = `posts` + `rejected`), and of what kinds; tags by falling count."""

    posts: int
    rejected: int
    rejected_by_reason: dict[str, int]
    posts_by_tag: dict[str, int]
    rows: int
    invented: bool  # not one of the posts was written by a person
    median_characters: float
    duplicates: float  # share of the posts read that are copies of an earlier one, kept or not
    leaked: float  # share of the test posts kept that are copies of a train post
    warnings: list[str]


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Ingested:
    """Read settings.source into posts and rejected under `out`; BadInput if that is nothing to train on."""
    tags, reasons, first = Counter[str](), Counter[str](), ""
    invented = sample.is_sample(settings.source)
    total = sample.parse(settings.source)[0] if invented else None
    text, tag = settings.text_column, settings.tag_column
    limit, allowed = settings.max_source_bytes, settings.may_read
    blocks = reader.read(settings.source, text_column=text, tag_column=tag, max_bytes=limit, allowed=allowed)
    seen = _Seen(drop=settings.drop_duplicates)
    with (
        posts.Writer(out, "posts") as accepted,
        posts.Writer(out, "rejected") as rejected,
        progress.track("ingest", "posts", total) as advance,
    ):
        for block in blocks:
            kept, copies = seen.sorted_out(block.posts)
            accepted.write(kept)
            tags.update(posts.tally(kept.column("tag")))
            for aside in (block.rejected, copies):
                rejected.write(aside)
                reasons.update(posts.tally(aside.column("reason")))
            first = first or _first(block.rejected)
            advance(block.posts.num_rows)
    _check(tags, reasons, first, settings)
    if settings.shards > 1:
        posts.cut(out, "posts", settings.shards)
    ingested = Ingested(
        posts=tags.total(),
        rejected=reasons.total(),
        rejected_by_reason=dict(reasons.most_common()),
        posts_by_tag=dict(tags.most_common()),
        rows=tags.total() + reasons.total(),
        invented=invented,
        median_characters=float(np.median(np.frombuffer(seen.lengths, np.uint32))),
        duplicates=seen.duplicates(),
        leaked=seen.leaked(settings),
        warnings=[],
    )
    return replace(ingested, warnings=_reservations(ingested, settings))


class _Seen:
    """The posts read so far by their digests and lengths: 12 bytes each, and 8 more to sort them.

    Where copies go, also a set of the digests, some 60 bytes each.
    """

    def __init__(self, *, drop: bool) -> None:
        self.digests = array("Q")
        self.lengths = array("I")  # of the posts kept, in characters
        self._known: set[int] | None = set() if drop else None

    def sorted_out(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """The posts to keep, and as rejected rows the copies that are dropped."""
        digests = posts.digests(batch.column("post"))
        self.digests.frombytes(digests.astype(np.uint64).tobytes())
        first = pa.array(self._first(digests), pa.bool_())
        kept, copies = batch.filter(first), batch.filter(pc.invert(first))
        self.lengths.frombytes(pc.utf8_length(kept.column("post")).to_numpy().astype(np.uint32).tobytes())
        texts = pc.utf8_slice_codeunits(copies.column("post"), 0, REJECTED_TEXT)
        return kept, posts.set_aside(copies.column("row"), DUPLICATE, texts)

    def _first(self, digests: np.ndarray) -> np.ndarray:
        """Whether each is the first of its text, bool [len(digests)]; all are where copies are kept."""
        first = np.ones(len(digests), bool)
        if self._known is not None:
            for at, digest in enumerate(digests.tolist()):
                first[at] = digest not in self._known
                self._known.add(digest)
        return first

    def duplicates(self) -> float:
        """The share of the posts that are copies of an earlier one."""
        every = np.sort(self._digests())
        different = 1 + np.count_nonzero(every[1:] != every[:-1])
        return round(1 - different / len(every), 6)

    def leaked(self, settings: Settings) -> float:
        """The share of test posts that are copies of a train post; a split by content has none."""
        if settings.split == "hash" or self._known is not None:
            return 0.0
        train, test = np.split(self._digests(), [posts.first_test_post(len(self.digests), settings)])
        if not len(train) or not len(test):
            return 0.0
        train = np.sort(train)
        near = np.minimum(np.searchsorted(train, test), len(train) - 1)
        return round(float((train[near] == test).mean()), 6)

    def _digests(self) -> np.ndarray:
        return np.frombuffer(self.digests, np.uint64)


def _reservations(ingested: Ingested, settings: Settings) -> list[str]:
    """What is said of the copies among the posts; BadInput where they are too many. Dropped, they do no harm."""
    if settings.drop_duplicates:
        return []
    figures = {"duplicates": ingested.duplicates, "leaked": ingested.leaked}
    cure = f"set drop_duplicates, mend {reader.shown(settings.source)}, or raise the limit"
    warnings = drift.judge(figures, settings, cure)
    for warning in warnings:
        log.warning("with reservations: %s", warning)
    return warnings


def _first(rejected: pa.RecordBatch) -> str:
    return f"row {rejected.column('row')[0]} ({rejected.column('reason')[0]})" if rejected.num_rows else ""


def _check(tags: Counter[str], reasons: Counter[str], first: str, settings: Settings) -> None:
    """Refuse posts that nothing can be learnt from, and a source too faulty to be trusted; copies are no fault."""
    source, rows = reader.shown(settings.source), tags.total() + reasons.total()
    faults = Counter({reason: count for reason, count in reasons.items() if reason != DUPLICATE})
    rejected, told = faults.total(), ", ".join(f"{count:,} {reason}" for reason, count in faults.most_common())
    if not rows:
        raise BadInput(f"{source} holds no rows at all; name a source that holds posts")
    if rejected == rows:
        raise BadInput(
            f"all {rows:,} rows of {source} were set aside ({told}), the first being {first}; mend the source, or "
            "set text_column and tag_column to the right ones"
        )
    if rejected > settings.max_rejected_fraction * rows:
        raise BadInput(
            f"{rejected:,} of {rows:,} rows of {source} were set aside ({told}), the first being {first}: "
            f"{rejected / rows:.3g} is more than max_rejected_fraction={settings.max_rejected_fraction:g}; mend the "
            "source or raise max_rejected_fraction"
        )
    if len(tags) == 1:
        (tag,) = tags
        raise BadInput(
            f"all {tags.total():,} posts of {source} bear the one tag {tag!r}, and there is nothing to tell apart; "
            "name a source with more tags or set tag_column to the right one"
        )
