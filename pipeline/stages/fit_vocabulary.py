"""Fix the words and the labels that the network will know, from the train posts only."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import posts, progress
from pipeline.errors import BadInput
from pipeline.files import write_lines
from pipeline.settings import Settings
from pipeline.stages import LABELS
from pipeline.text import Vocabulary, count_words

UNKNOWN_TAG = "tag only in the test split"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """`rows` train posts were counted, `rejected` test posts set aside; `words` of the `words_asked` were found."""

    rows: int
    words: int
    words_asked: int
    tags: int
    rejected: int
    warnings: list[str]


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Fitted:
    """Leaves vocabulary.txt, counts.parquet, labels.txt and `rejected`.

    Raises BadInput where a split is empty, where the train posts have one tag only, and where more posts than
    max_rejected_fraction have a tag that only the test split knows.
    """
    source, tags = inputs["ingest"], set[str]()
    with progress.track("fit_vocabulary", "posts", posts.rows(source, "posts")) as advance:
        vocabulary = count_words(_texts(source, settings, tags, advance), size=settings.vocabulary_size)
        if len(tags) < 2:
            held = f"one tag only ({next(iter(tags))!r})" if tags else "no post"
            raise BadInput(
                f"the train split holds {held}: a classifier needs two; raise train_fraction "
                f"(now {settings.train_fraction}), or use split=hash if the source is sorted by tag"
            )
        rejected, tested = _set_aside(source, out, settings, tags, advance)
    _refuse_unknown(rejected, tested, posts.rows(source, "posts"), settings)
    vocabulary.save(out)
    write_lines(out / LABELS, sorted(tags))
    return Fitted(
        rows=vocabulary.documents,
        words=len(vocabulary.words),
        words_asked=settings.vocabulary_size - 1,
        tags=len(tags),
        rejected=rejected,
        warnings=_warnings(vocabulary, settings),
    )


def _texts(source: Path, settings: Settings, tags: set[str], advance: progress.Advance) -> Iterator[pa.Array]:
    """The train posts' texts; their tags are gathered in passing."""
    for batch in posts.split(source, "train", settings):
        tags.update(pc.unique(batch.column("tag")).to_pylist())
        advance(batch.num_rows)
        yield batch.column("post")


def _set_aside(
    source: Path, out: Path, settings: Settings, tags: set[str], advance: progress.Advance
) -> tuple[int, int]:
    """Write the test posts whose tag no train post has; return how many those are, and how many test posts remain."""
    known, tested = pa.array(sorted(tags), pa.string()), 0
    with posts.Writer(out, "rejected") as writer:
        for batch in posts.split(source, "test", settings):
            unknown = batch.filter(pc.invert(pc.is_in(batch.column("tag"), value_set=known)))
            reasons = pa.array([UNKNOWN_TAG] * unknown.num_rows, pa.string())
            columns = [unknown.column("row"), reasons, unknown.column("post")]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=posts.REJECTED))
            tested += batch.num_rows - unknown.num_rows
            advance(batch.num_rows)
        return writer.rows, tested


def _refuse_unknown(rejected: int, tested: int, total: int, settings: Settings) -> None:
    if rejected > settings.max_rejected_fraction * total:
        raise BadInput(
            f"{rejected:,} of {total:,} posts have a tag that no train post has, more than "
            f"max_rejected_fraction={settings.max_rejected_fraction}; use split=hash or raise train_fraction"
        )
    if not tested:
        raise BadInput(
            f"the test split holds no post to measure on ({total:,} posts, "
            f"train_fraction={settings.train_fraction}); lower train_fraction or bring more posts"
        )


def _warnings(vocabulary: Vocabulary, settings: Settings) -> list[str]:
    if len(vocabulary.words) >= settings.vocabulary_size - 1:
        return []
    warning = (
        f"the train posts hold {len(vocabulary.words):,} different words, fewer than the "
        f"{settings.vocabulary_size - 1:,} that vocabulary_size={settings.vocabulary_size} asks for"
    )
    log.warning(warning)
    return [warning]
