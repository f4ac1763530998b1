"""Fix the words and the labels that the network will know, from the train posts only."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from pipeline import progress
from pipeline.data import posts
from pipeline.data.words import Counts, Vocabulary, count, merged
from pipeline.errors import BadInput
from pipeline.files import write_lines
from pipeline.settings import Settings
from pipeline.stages.plan import FREQUENT, LABELS

COUNTS = "counts.parquet"
TAGS = "tags.json"
FREQUENT_WORDS = 20_000
"""Words whose counts are kept so that later data can be compared, where the vocabulary has not as many."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """`rows` train posts were counted; `rejected` test posts have a tag that no train post has.

    `words` of the `words_asked` were found.
    """

    rows: int
    words: int
    words_asked: int
    tags: int
    rejected: int
    unknown_words: float  # share of the train posts' words that are not in the vocabulary
    warnings: list[str]


@dataclass(frozen=True)
class Counted:
    """`rows` train posts were counted, which hold so many different words."""

    rows: int
    words: int


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Fitted:
    """Leaves vocabulary.txt, counts.parquet, labels.txt, and in `frequent` the counts of more words.

    Raises BadInput where a split is empty, where the train posts have one tag only, and where more posts than
    max_rejected_fraction have a tag that only the test split knows.
    """
    with TemporaryDirectory(prefix="tagger-count-") as whole:
        part(inputs, Path(whole), settings)
        return gather([Path(whole)], out, settings)


def part(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Counted:
    """Count what is there of the posts: the words of the train posts, and the posts of each tag on each side."""
    source, tags = inputs["ingest"], {side: Counter[str]() for side in posts.SIDES}
    with progress.track("fit_vocabulary", "posts", posts.rows(source, "posts")) as advance:
        counts = count(_texts(source, settings, tags["train"], advance))
        for batch in posts.split(source, "test", settings, ["tag"]):
            tags["test"].update(posts.tally(batch.column("tag")))
            advance(batch.num_rows)
    counts.save(out / COUNTS)
    (out / TAGS).write_text(json.dumps(tags))
    return Counted(counts.documents, len(counts.words))


def gather(parts: Sequence[Path], out: Path, settings: Settings) -> Fitted:
    """Fix the vocabulary and the labels from what the parts counted, in the order of their posts."""
    tags = {side: Counter[str]() for side in posts.SIDES}
    for folder in parts:
        for side, tally in json.loads((folder / TAGS).read_text()).items():
            tags[side].update(tally)
    rejected = _refuse(tags["train"], tags["test"], settings)
    counts = merged(Counts.load(folder / COUNTS) for folder in parts)
    frequent = counts.most_frequent(max(settings.vocabulary_size, FREQUENT_WORDS + 1))
    vocabulary = frequent.head(settings.vocabulary_size)
    vocabulary.save(out)
    (out / FREQUENT).mkdir()
    frequent.save(out / FREQUENT)
    write_lines(out / LABELS, sorted(tags["train"]))
    return Fitted(
        rows=vocabulary.documents,
        words=len(vocabulary.words),
        words_asked=settings.vocabulary_size - 1,
        tags=len(tags["train"]),
        rejected=rejected,
        unknown_words=round(vocabulary.unknown, 6),
        warnings=_warnings(vocabulary, settings),
    )


def _texts(source: Path, settings: Settings, tags: Counter[str], advance: progress.Advance) -> Iterator[pa.Array]:
    """The train posts' texts; their tags are counted in passing."""
    for batch in posts.split(source, "train", settings, ["post", "tag"]):
        tags.update(posts.tally(batch.column("tag")))
        advance(batch.num_rows)
        yield batch.column("post")


def _refuse(train: Counter[str], test: Counter[str], settings: Settings) -> int:
    """BadInput where these splits cannot be learnt from; else how many test posts have a tag that no train post has."""
    total, rejected = train.total() + test.total(), sum(test[tag] for tag in test.keys() - train.keys())
    if len(train) < 2:
        held = f"one tag only ({next(iter(train))!r})" if train else "no post"
        raise BadInput(
            f"the train split holds {held}: a classifier needs two; raise train_fraction "
            f"(now {settings.train_fraction}), or use split=hash if the source is sorted by tag"
        )
    if rejected > settings.max_rejected_fraction * total:
        raise BadInput(
            f"{rejected:,} of {total:,} posts have a tag that no train post has, more than "
            f"max_rejected_fraction={settings.max_rejected_fraction}; use split=hash or raise train_fraction"
        )
    if rejected == test.total():
        raise BadInput(
            f"the test split holds no post to measure on ({total:,} posts, "
            f"train_fraction={settings.train_fraction}); lower train_fraction or bring more posts"
        )
    return rejected


def _warnings(vocabulary: Vocabulary, settings: Settings) -> list[str]:
    if len(vocabulary.words) >= settings.vocabulary_size - 1:
        return []
    warning = (
        f"the train posts hold {len(vocabulary.words):,} different words, fewer than the "
        f"{settings.vocabulary_size - 1:,} that vocabulary_size={settings.vocabulary_size} asks for"
    )
    log.warning(warning)
    return [warning]
