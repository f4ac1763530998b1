"""Posts of the source as Parquet, with those set aside beside them and the reason for each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline import posts, progress, sample, sources
from pipeline.errors import BadInput
from pipeline.settings import Settings


@dataclass(frozen=True)
class Ingested:
    """How many rows were read (`rows` = `posts` + `rejected`), and of what kinds; tags by falling count."""

    posts: int
    rejected: int
    rejected_by_reason: dict[str, int]
    posts_by_tag: dict[str, int]
    rows: int
    invented: bool  # not one of the posts was written by a person


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Ingested:
    """Read settings.source into posts and rejected under `out`; BadInput if that is nothing to train on."""
    tags, reasons, first = Counter[str](), Counter[str](), ""
    invented = sample.is_sample(settings.source)
    total = sample.parse(settings.source)[0] if invented else None
    text, tag = settings.text_column, settings.tag_column
    blocks = sources.read(settings.source, text_column=text, tag_column=tag, allowed=settings.may_read)
    with (
        posts.Writer(out, "posts") as accepted,
        posts.Writer(out, "rejected") as rejected,
        progress.track("ingest", "posts", total) as advance,
    ):
        for block in blocks:
            accepted.write(block.posts)
            rejected.write(block.rejected)
            tags.update(_counts(block.posts.column("tag")))
            reasons.update(_counts(block.rejected.column("reason")))
            first = first or _first(block.rejected)
            advance(block.posts.num_rows)
    ingested = Ingested(
        posts=tags.total(),
        rejected=reasons.total(),
        rejected_by_reason=dict(reasons.most_common()),
        posts_by_tag=dict(tags.most_common()),
        rows=tags.total() + reasons.total(),
        invented=invented,
    )
    _check(ingested, first, settings)
    return ingested


def _counts(column: pa.Array) -> dict[str, int]:
    return {count["values"]: count["counts"] for count in column.value_counts().to_pylist()}


def _first(rejected: pa.RecordBatch) -> str:
    return f"row {rejected.column('row')[0]} ({rejected.column('reason')[0]})" if rejected.num_rows else ""


def _check(ingested: Ingested, first: str, settings: Settings) -> None:
    """Refuse posts that nothing can be learnt from, and a source too faulty to be trusted."""
    source, rows, rejected = sources.shown(settings.source), ingested.rows, ingested.rejected
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in ingested.rejected_by_reason.items())
    if not rows:
        raise BadInput(f"{source} holds no rows at all; name a source that holds posts")
    if rejected == rows:
        raise BadInput(
            f"all {rows:,} rows of {source} were set aside ({reasons}), the first being {first}; mend the source, or "
            "set text_column and tag_column to the right ones"
        )
    if rejected > settings.max_rejected_fraction * rows:
        raise BadInput(
            f"{rejected:,} of {rows:,} rows of {source} were set aside ({reasons}), the first being {first}: "
            f"{rejected / rows:.3g} is more than max_rejected_fraction={settings.max_rejected_fraction:g}; mend the "
            "source or raise max_rejected_fraction"
        )
    if len(ingested.posts_by_tag) == 1:
        (tag,) = ingested.posts_by_tag
        raise BadInput(
            f"all {ingested.posts:,} posts of {source} bear the one tag {tag!r}, and there is nothing to tell apart; "
            "name a source with more tags or set tag_column to the right one"
        )
