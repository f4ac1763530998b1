"""The newly tagged posts of a source that a live version is judged by, and what of the source is left out."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import posts, several_tags
from pipeline.data.several_tags import by_tag
from pipeline.errors import BadInput
from pipeline.files import scratch_folder
from pipeline.progress import Track
from pipeline.run.feedback_source import store_of
from pipeline.settings import Deployment, Settings
from pipeline.sources import reader
from pipeline.sources.source import Source
from pipeline.stages.plan import FEEDBACK_FILE
from pipeline.store import feedback
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store

KIND = "posts"

IsKnown = Callable[[pa.Array], np.ndarray]
"""Says which texts the version's run had: bool [texts]."""

MOST_TAGS = 5
"""The most tags that Stack Overflow lets a post have."""

IMPLAUSIBLE = 0.001
"""What is less probable than this is not taken for chance."""


@dataclass(frozen=True)
class Blocks:
    """The posts of a source, and how many copies and rows without a text were left out before."""

    blocks: Iterator[reader.Block]
    copies: int = 0
    rejected: int = 0


@dataclass
class NewPosts:
    """What the source has: the posts to judge the version by, also by tag, their lengths, and what was left out.

    Left out are posts that the version's run had (`known`), `copies` of another post, posts without a tag that the
    version knows (`unknown_posts`, by tag in `unknown_tags`), rejected rows, and posts without one of keep_tags.
    """

    posts: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    lengths: list[np.ndarray] = field(default_factory=list)
    known: int = 0
    copies: int = 0
    unknown_posts: int = 0
    unknown_tags: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    not_kept: int = 0

    @property
    def some_unknown_tags(self) -> str:
        """The most frequent of the tags that the version does not know, with their numbers of posts."""
        return ", ".join(f"{tag!r:.60} {count:,}" for tag, count in self.unknown_tags.most_common(5))

    def left_out_of(self, source: Source, version: int) -> str:
        """Why there is nothing new in the source for the version."""
        unknown = f", and {self.unknown_posts:,} have tags that it does not know" if self.unknown_posts else ""
        return f"nothing new: of {source.display} {self.known:,} posts are known to version {version}{unknown}"


@contextmanager
def opened(
    source: Source, store: Store, settings: Settings, deployment: Deployment, track: Track, *, several: bool
) -> Iterator[Blocks]:
    """The posts of the source; of a store's feedback each text with the tag that was told last, which count once."""
    read_rows = partial(
        reader.read,
        keep=settings.kept_tags,
        several=several,
        max_bytes=deployment.max_source_bytes,
        track=track,
    )
    with scratch_folder("feedback") as scratch:
        folder = Path(scratch, "told")
        feedback_store = store_of(source, store)
        fetched = None
        if feedback_store:
            fetched = feedback.fetch(feedback_store, folder, by_text=True)
        if fetched is None:
            yield Blocks(read_rows(source, text_column=settings.text_column, tag_column=settings.tag_column))
        else:
            file = Source.parse(str(folder / FEEDBACK_FILE))
            blocks = read_rows(file, text_column="post", tag_column="tags")
            yield Blocks(blocks, copies=fetched.earlier, rejected=fetched.without_text)


def read(
    source: Blocks, is_known: IsKnown, labels: list[str], folder: Path, track: Track, *, several: bool
) -> NewPosts:
    """Write the posts to judge the version by to the folder, those of several tags with the tags that it knows."""
    found = NewPosts(copies=source.copies, rejected=source.rejected)
    seen = set[int]()
    with posts.Writer(folder, KIND) as writer, track("watch", "posts", None) as advance:
        for block in source.blocks:
            texts = block.posts.column("post")
            is_new = ~is_known(texts)
            is_first = is_new & _first(posts.digests(texts), seen)
            new = block.posts.filter(pa.array(is_first))
            judged, unknown_tags = _with_known_tags(new, labels, several=several)
            writer.write(judged)
            tags = posts.tally(judged.column("tag"))
            found.tags.update(by_tag(tags) if several else tags)
            found.posts += judged.num_rows
            found.lengths.append(pc.utf8_length(judged.column("post")).to_numpy())
            found.known += int((~is_new).sum())
            found.copies += int((is_new & ~is_first).sum())
            found.unknown_posts += new.num_rows - judged.num_rows
            found.unknown_tags.update(unknown_tags)
            found.rejected += block.rejected.num_rows
            found.not_kept += block.left_out
            advance(block.posts.num_rows)
    return found


def _first(digests: np.ndarray, seen: set[int]) -> np.ndarray:
    """Whether each text is not one of those seen, to which it is added: bool [len(digests)]."""
    first = np.empty(len(digests), bool)
    for at, digest in enumerate(digests.tolist()):
        first[at] = digest not in seen
        seen.add(digest)
    return first


def _with_known_tags(new: pa.RecordBatch, labels: list[str], *, several: bool) -> tuple[pa.RecordBatch, dict[str, int]]:
    """The posts with a tag that the version knows, and the number of posts with each other tag.

    The gate judges a version in the same way: by posts that have one of its tags, and of several tags by those.
    """
    tags = new.column("tag")
    if several:
        known = several_tags.among(tags, pa.array(sorted(labels), pa.string()))
        other = by_tag(posts.tally(tags)) - by_tag(posts.tally(known))
        has_known = pc.not_equal(known, "")
        return new.set_column(1, posts.POSTS.field("tag"), known).filter(has_known), dict(other)
    is_known = pc.is_in(tags, pa.array(labels, pa.string()))
    return new.filter(is_known), posts.tally(tags.filter(pc.invert(is_known)))


def check_usable(found: NewPosts, source: Source, version: int, settings: Settings) -> None:
    """Raise BadInput where the source has neither a post that the version's run had nor one to judge it by."""
    if found.known:
        return
    if found.unknown_posts:
        raise BadInput(
            f"version {version} knows no tag of the {found.unknown_posts:,} posts of {source.display} "
            f"({found.some_unknown_tags}), so they cannot show how good it is: correct the source or tag_column, or "
            "train a version on such posts"
        )
    not_kept = f", {found.not_kept:,} posts without one of keep_tags={settings.keep_tags}" if found.not_kept else ""
    raise BadInput(
        f"{source.display} has no post that can be used ({found.rejected:,} rejected rows{not_kept}): correct it"
    )


def check_tags_per_post(found: NewPosts, source: Source, ingested: Manifest | None) -> None:
    """Raise BadInput where no post has several tags, though too many of those learned do for this to be chance."""
    summary = ingested.summary if ingested else {}
    if found.tags.total() > found.posts or not summary.get("posts"):
        return
    learned = sum(summary["posts_by_tag"].values()) / summary["posts"]
    # Posts of the mean number m of tags, with at most five, have several with a probability of (m - 1) / 4 or more.
    share = min((learned - 1) / (MOST_TAGS - 1), 1.0)
    if (1 - share) ** found.posts < IMPLAUSIBLE:
        raise BadInput(
            f"none of the {found.posts:,} new posts of {source.display} has several tags, and those that the live "
            f"version learned have {learned:.1f} each: set tag_column to the column with all tags"
        )


def warnings_of_unknown_tags(found: NewPosts, version: int) -> list[str]:
    """The warning of posts whose tags the version cannot give, which is a reason of its own to train a new one."""
    if not found.unknown_posts:
        return []
    share = found.unknown_posts / (found.unknown_posts + found.posts)
    return [
        f"{found.unknown_posts:,} new posts ({share:.1%}) have only tags that version {version} does not know "
        f"({found.some_unknown_tags}): they are not in its accuracy, and only a version that learns these tags can "
        "give them"
    ]
