"""Choose the words and the labels that the network will know, from the train posts only."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.data import posts
from pipeline.data.several_tags import SEPARATOR, by_tag
from pipeline.data.vocabulary import MOST_PAIRS, Counts, Vocabulary, count, merged, most_frequent
from pipeline.errors import BadInput
from pipeline.files import scratch_folder, write_lines
from pipeline.progress import Advance
from pipeline.settings import Settings
from pipeline.stages.context import Context
from pipeline.stages.plan import FREQUENT, LABELS

COUNTS = ("words.parquet", "pairs.parquet")
"""The counts of a shard's words and, with ngrams=2, of its pairs of words."""

TAGS = "tags.json"
FREQUENT_WORDS = 20_000
"""At least so many words' counts are stored, also with a smaller vocabulary, to measure the drift of later data."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """The summary: `rows` train posts counted, `rejected` posts of the other sides with a tag that no train post has.

    The vocabulary has `words` words, `pairs` pairs of words among them, where `words_asked` were asked for. Of a pair
    up to `pairs_undercounted` occurrences may not be counted.
    """

    rows: int
    words: int
    pairs: int
    words_asked: int
    pairs_undercounted: int
    tags: int
    rejected: int
    unknown_words: float  # share of the train posts' words that are not in the vocabulary
    warnings: list[str]


@dataclass(frozen=True)
class Counted:
    """The summary of a shard: `rows` train posts with `words` different words."""

    rows: int
    words: int


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Fitted:
    """Write vocabulary.txt, counts.parquet and labels.txt to `out`, and the counts of more words to `out/frequent`.

    Raises BadInput if a split is empty, if the train posts have one tag only, or if more posts than
    max_rejected_fraction have a tag that occurs in the test split only.
    """
    with scratch_folder("count") as whole:
        run_shard(inputs, Path(whole), settings, context)
        return gather([Path(whole)], out, settings, context)


def run_shard(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Counted:
    """Count the words of the shard's train posts, and the posts of each tag on each side."""
    source, tags = inputs["ingest"], {side: Counter[str]() for side in posts.SIDES}
    total = sum(posts.rows(source, posts.of_side(side)) for side in posts.SIDES)
    with context.track("fit_vocabulary", "posts", total) as advance:
        texts = _texts(source, tags["train"], advance)
        counts = count(texts, ngrams=settings.ngrams, word_rule=settings.word_rule)
        for side in posts.SIDES[1:]:
            for batch in posts.batches(source, posts.of_side(side), ["tag"]):
                tags[side].update(posts.tally(batch.column("tag")))
                advance(batch.num_rows)
    for name, each in zip(COUNTS, counts, strict=False):
        each.save(out / name)
    (out / TAGS).write_text(json.dumps(tags))
    return Counted(counts[0].documents, len(counts[0].words))


def gather(shards: Sequence[Path], out: Path, settings: Settings, context: Context) -> Fitted:
    """Merge the counts of the shards, in the order of the posts, and write what `run` writes."""
    tags = {side: Counter[str]() for side in posts.SIDES}
    for folder in shards:
        for side, tally in json.loads((folder / TAGS).read_text()).items():
            tags[side].update(tally)
    rejected = _check_splits(tags["train"], tags["validation"], tags["test"], settings)
    unlearned = _unlearned(tags, settings)
    if settings.multi_tag:
        tags = {side: by_tag(tally) for side, tally in tags.items()}
    counts = [
        merged((Counts.load(folder / name) for folder in shards), most)
        for name, most in zip(COUNTS[: settings.ngrams], (None, MOST_PAIRS), strict=False)
    ]
    vocabulary = most_frequent(counts, settings.vocabulary_size, settings.min_documents, settings.word_rule)
    vocabulary.save(out)
    frequent = most_frequent(
        counts[:1], max(settings.vocabulary_size, FREQUENT_WORDS + 1), word_rule=settings.word_rule
    )
    (out / FREQUENT).mkdir()
    frequent.save(out / FREQUENT)
    write_lines(out / LABELS, sorted(tags["train"]))
    return Fitted(
        rows=vocabulary.documents,
        words=len(vocabulary.words),
        pairs=int(vocabulary.pairs.sum()),
        words_asked=settings.vocabulary_size - 1,
        pairs_undercounted=counts[-1].undercount,
        tags=len(tags["train"]),
        rejected=rejected,
        unknown_words=round(vocabulary.unknown, 6),
        warnings=_warnings(vocabulary, counts[-1].undercount, unlearned, _unvalidated(tags, settings), settings),
    )


def _texts(source: Path, tags: Counter[str], advance: Advance) -> Iterator[pa.Array]:
    """Yield the train posts' texts, and count their tags on the way."""
    for batch in posts.batches(source, posts.of_side("train"), ["post", "tag"]):
        tags.update(posts.tally(batch.column("tag")))
        advance(batch.num_rows)
        yield batch.column("post")


def _check_splits(train: Counter[str], validation: Counter[str], test: Counter[str], settings: Settings) -> int:
    """Count the other posts with a tag that no train post has; raise BadInput if the splits cannot be used."""
    tags = by_tag(train) if settings.multi_tag else train
    unlearned, untested = (_unknown(side, tags, several=settings.multi_tag).total() for side in (validation, test))
    total, rejected = (train + validation + test).total(), unlearned + untested
    if len(tags) < 2:
        content = f"one tag only ({next(iter(tags))!r})" if tags else "no post"
        raise BadInput(
            f"the train split has {content}, and a classifier needs at least two tags; raise train_fraction "
            f"(now {settings.train_fraction}), or use split=hash if the source is sorted by tag"
        )
    if rejected > settings.max_rejected_fraction * total:
        raise BadInput(
            f"{rejected:,} of {total:,} posts have a tag that no train post has, more than "
            f"max_rejected_fraction={settings.max_rejected_fraction}; use split=hash or raise train_fraction"
        )
    if settings.validation_fraction and unlearned == validation.total():
        raise BadInput(
            f"the validation split has no post to validate on ({total:,} posts, validation_fraction="
            f"{settings.validation_fraction}); raise validation_fraction or use a source with more posts"
        )
    if untested == test.total() and not settings.drop_test_posts:
        raise BadInput(
            f"the test split has no post to evaluate on ({total:,} posts, "
            f"train_fraction={settings.train_fraction}); lower train_fraction or use a source with more posts"
        )
    return rejected


def _unknown(side: Counter[str], tags: Counter[str], *, several: bool) -> Counter[str]:
    """The posts of a side with a tag, or only tags, that no train post has."""
    of_post = {text: text.split(SEPARATOR) if several else [text] for text in side}
    return Counter({text: count for text, count in side.items() if not tags.keys() & of_post[text]})


def _unlearned(tags: Mapping[posts.Side, Counter[str]], settings: Settings) -> list[str]:
    """A sentence for each side with posts that the network cannot tag right, because it learns none of their tags."""
    learned = by_tag(tags["train"]) if settings.multi_tag else tags["train"]
    sentences = list[str]()
    for side in posts.SIDES:
        unknown, total = _unknown(tags[side], learned, several=settings.multi_tag), tags[side].total()
        if count := unknown.total():
            some = ", ".join(f"{tag!r:.60}" for tag in sorted(unknown)[:5])
            sentences.append(
                f"{count:,} of the {total:,} {side} posts ({count / total:.2%}) have no tag that a train post has, so "
                f"they are left out and no figure counts them: {some}"
            )
    return sentences


def _unvalidated(tags: Mapping[posts.Side, Counter[str]], settings: Settings) -> list[str]:
    """The tags that no validation post has, if there should be validation posts."""
    return sorted(tags["train"].keys() - tags["validation"].keys()) if settings.validation_fraction else []


def _warnings(
    vocabulary: Vocabulary, undercount: int, unlearned: list[str], unvalidated: list[str], settings: Settings
) -> list[str]:
    warnings = [*unlearned]
    if unvalidated:
        some = ", ".join(f"{tag!r:.60}" for tag in unvalidated[:5])
        warnings.append(
            f"{len(unvalidated)} of the tags occur in no validation post, so nothing is measured for them: {some}"
        )
    if len(vocabulary.words) < settings.vocabulary_size - 1:
        kind = "words" if settings.ngrams == 1 else "words and pairs of words"
        rare = f" in at least min_documents={settings.min_documents} posts" if settings.min_documents > 1 else ""
        warnings.append(
            f"the train posts have {len(vocabulary.words):,} different {kind}{rare}, fewer than the "
            f"{settings.vocabulary_size - 1:,} that vocabulary_size={settings.vocabulary_size} asks for"
        )
    if len(vocabulary.words) and undercount >= vocabulary.counts[-1]:
        warnings.append(
            f"the train posts have more than {MOST_PAIRS:,} different pairs of words, so up to {undercount:,} "
            "occurrences of a pair are not counted, and rare pairs may be missing from the vocabulary: lower "
            "vocabulary_size"
        )
    for warning in warnings:
        log.warning("warning: %s", warning)
    return warnings
