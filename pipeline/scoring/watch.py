"""Asks the live model, and the one before it, about newly tagged posts, and says whether it must be replaced."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from pipeline.checks import chance, drift
from pipeline.data import learned as learned_posts
from pipeline.data import posts
from pipeline.data.learned import Learned
from pipeline.data.several_tags import SEPARATOR
from pipeline.data.vocabulary import Vocabulary, count, most_frequent
from pipeline.errors import BadInput, CorruptArtifact, StageOutOfOrder
from pipeline.files import read_lines, scratch_folder
from pipeline.progress import Track, log_lines
from pipeline.published.model import PublishedModel
from pipeline.registry import model_cache
from pipeline.registry.events import live_history
from pipeline.registry.registry import Registry
from pipeline.registry.series import Entry, Observation, OfTag, Score, Series
from pipeline.run.champion import manifests_of
from pipeline.run.drift_check import counted_words
from pipeline.scoring import new_posts
from pipeline.scoring.new_posts import KIND, NewPosts
from pipeline.settings import Deployment, Settings
from pipeline.sources.source import Source
from pipeline.stages.fit_vocabulary import FREQUENT_WORDS
from pipeline.stages.plan import LABELS
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store
from pipeline.store.runs import Run

ASKS_AGAIN_AFTER = timedelta(days=7)
"""Time after which a version that stays below its limit asks for another retraining; until then it has asked."""

NOTHING_NEW = "nothing new: there is no post for the live version that its run did not have"

log = logging.getLogger(__name__)


def watch(
    store: Store, source: Source, settings: Settings, deployment: Deployment, track: Track = log_lines
) -> Observation | None:
    """Observe the live version on those posts of the source that its run did not have, and append it to the series.

    Each text counts once, and a post only if the version knows its tag. Of the settings, the columns, keep_tags and
    the limits of drift count. Returns None, and appends nothing, if there is no such post. Raises BadInput if no
    version is live, the source cannot be read, or none of its posts is of the kind that the version learned.
    """
    registry = Registry(store)
    card = registry.published(None)
    if source.synthetic and not card.synthetic:
        raise BadInput(
            f"version {card.version} learned real posts, and {source.display} names synthetic ones, on which its "
            "accuracy says nothing: name newly tagged posts as the source, or in TAGGER_WATCH_SOURCE"
        )
    lineage = Run(store, card.run)
    manifests = manifests_of(store, card)
    several = lineage.existing().settings.multi_tag
    with scratch_folder("watch") as scratch:
        folder, ingested = Path(scratch, "new"), Path(scratch, "ingest")
        known, lost = _known(registry, card.version, lineage, manifests.get("ingest"), ingested)
        labels = _labels(registry, card.version)
        with new_posts.opened(source, store, settings, deployment, track, several=several) as blocks:
            found = new_posts.read(blocks, known, labels, folder, track, several=several)
        if not found.posts:
            new_posts.check_usable(found, source, card.version, settings)
            level = logging.WARNING if found.unknown_posts else logging.INFO
            log.log(level, "%s", found.left_out_of(source, card.version))
            return None
        if several:
            new_posts.check_tags_per_post(found, source, manifests.get("ingest"))
        correct, correct_by_tag = _asked(registry, card.version, folder)
        before, not_asked = _before(registry, folder, found.posts)
        # Synthetic posts are not compared with real ones, as in the drift check and in the gate.
        other_kind = card.synthetic and not source.synthetic
        measured = None if other_kind else _drift(lineage, manifests, found, folder, ingested)
    comparable, differences = _compared(card.version, measured, settings, other_kind=other_kind)
    live = _score(card.version, correct, found.posts)
    limit = round(card.accuracy - deployment.watch_drop, 6)
    below = live.high < limit and comparable

    def observation(number: int, at: str, so_far: list[Entry]) -> Observation:
        return Observation(
            number=number,
            at=at,
            source=source.display,
            posts=found.posts,
            known=found.known,
            copies=found.copies,
            not_kept=found.not_kept,
            rejected=found.rejected,
            live=live,
            before=before,
            published=card.accuracy,
            limit=limit,
            below=below,
            called=below and not _has_called(so_far, card.version, at),
            by_tag={
                tag: OfTag(posts=count, accuracy=round(correct_by_tag[tag] / count, 6))
                for tag, count in found.tags.most_common()
            },
            unknown_tags=found.unknown_posts,
            drift=measured,
            warnings=[*lost, *new_posts.warnings_of_unknown_tags(found, card.version), *not_asked, *differences],
        )

    return Series(store).append(observation)


def _compared(
    version: int, measured: dict[str, float] | None, settings: Settings, *, other_kind: bool
) -> tuple[bool, list[str]]:
    """Whether posts with this drift can show that the version has declined, and the warnings of how they differ.

    They cannot where a run on them would be refused, or where they are of the `other_kind`, real or synthetic.
    """
    if measured is None and not other_kind:
        return True, ["the words of the live version's training posts are lost, so drift was not measured"]
    doubts, warnings = drift.above_limits(measured or {}, settings)
    if other_kind:
        doubts = [f"version {version} learned synthetic posts, and these are real"]
    if not doubts:
        return True, warnings
    sentence = (
        f"{'; '.join(doubts)}: such posts do not show whether version {version} has declined, and start no "
        "retraining; correct the source, text_column or tag_column, or if the posts are right, train on such posts or "
        "raise the limit"
    )
    return False, [sentence, *warnings]


def _has_called(so_far: list[Entry], version: int, at: str) -> bool:
    """Whether the version has asked for a retraining that may still be under way.

    A run may take long, or be refused by the gate; Airflow would queue one more run for each time that it is asked.
    """
    since = datetime.fromisoformat(at) - ASKS_AGAIN_AFTER
    observed = (each for each in so_far if isinstance(each, Observation) and each.live.version == version)
    return any(each.called and datetime.fromisoformat(each.at) > since for each in observed)


def _known(
    registry: Registry, version: int, run: Run, ingested: Manifest | None, folder: Path
) -> tuple[new_posts.IsKnown, list[str]]:
    """A function that says which texts the version's run had; where its posts are lost, which the version learned.

    Its posts are copied to the folder. If they are lost, there is a warning of which posts are left out for that.
    """
    kinds = [posts.of_side(side) for side in posts.SIDES]
    try:
        if ingested is None:
            raise CorruptArtifact(f"run {run.name} has no ingest")
        run.files.fetch(
            ingested, folder, [name for name in ingested.files if name.startswith(tuple(f"{k}/" for k in kinds))]
        )
    except CorruptArtifact as error:
        log.warning("the posts of the live version's run cannot be read: %s", error)
        return _learned(registry, version)
    found = [posts.digests(b.column("post")) for kind in kinds for b in posts.batches(folder, kind, ["post"])]
    every = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
    return lambda texts: np.isin(posts.digests(texts), every), []


def _learned(registry: Registry, version: int) -> tuple[new_posts.IsKnown, list[str]]:
    """A function that says which texts the version says it learned, with a warning that only these are left out."""
    with model_cache.opened(registry, version) as model:
        learned = Learned.read(model / learned_posts.FILE)
    lost = "the posts of the live version's run are lost"
    if learned.complete:
        warning = f"{lost}: posts that the version learned are left out, and its test posts count as new"
    else:
        warning = f"{lost}, so posts that it learned from may be among these"
    return learned.has, [warning]


def _labels(registry: Registry, version: int) -> list[str]:
    """The tags that a published version knows."""
    with model_cache.opened(registry, version) as model:
        return read_lines(model / "assets" / LABELS)


def _asked(registry: Registry, version: int, folder: Path) -> tuple[int, Counter[str]]:
    """How many posts in the folder a published version tags correctly, and how many of each tag get it."""
    correct, correct_by_tag = 0, Counter[str]()
    with model_cache.opened(registry, version) as files, closing(PublishedModel.open(files, version)) as model:
        for batch, answers in model.answer_batches(posts.batches(folder, KIND)):
            true, given = batch.column("tag"), pa.array(answers.given, pa.string())
            correct += pc.sum(pc.equal(given, true)).as_py() or 0
            if answers.several is not None:
                pairs = zip(true.to_pylist(), given.to_pylist(), strict=True)
                correct_by_tag.update(
                    tag for one, other in pairs for tag in {*one.split(SEPARATOR)} & {*other.split(SEPARATOR)}
                )
            else:
                correct_by_tag.update(posts.tally(true.filter(pc.equal(given, true))))
    return correct, correct_by_tag


def _before(registry: Registry, folder: Path, total: int) -> tuple[Score | None, list[str]]:
    """The score of the version that was live before; None if there is none, or, with a warning, if it fails."""
    history = live_history(registry.events())
    if len(history) < 2:
        return None, []
    try:
        return _score(history[-2], _asked(registry, history[-2], folder)[0], total), []
    except (BadInput, CorruptArtifact) as error:
        return None, [f"the version that was live before cannot be asked: {error}"]


def _score(version: int, right: int, total: int) -> Score:
    """The accuracy, with Wilson's interval (1927), which holds for few posts and for accuracies near 1, too."""
    interval = binomtest(right, total).proportion_ci(0.95, method="wilson")
    figures = right / total, float(interval.low), float(interval.high)
    accuracy, low, high = (round(figure, 6) for figure in figures)
    return Score(version=version, accuracy=accuracy, low=low, high=high)


def _drift(
    lineage: Run, manifests: Mapping[str, Manifest], found: NewPosts, folder: Path, ingested: Path
) -> dict[str, float] | None:
    """How far the new posts are from those that the live version learned from, beyond chance; None if those are lost.

    `folder` has the new posts, `ingested` those that the version's run had.
    """
    its_settings = lineage.existing().settings
    texts = (batch.column("post") for batch in posts.batches(folder, KIND, ["post"]))
    counts = count(texts, ngrams=1, word_rule=its_settings.word_rule)
    with scratch_folder("drift") as scratch:
        new_words = Path(scratch, "now")
        new_words.mkdir()
        most_frequent(counts[:1], FREQUENT_WORDS + 1, word_rule=its_settings.word_rule).save(new_words)
        median = float(np.median(np.concatenate(found.lengths)))
        now = drift.Corpus.of({"posts_by_tag": dict(found.tags), "median_characters": median}, new_words)
        try:
            summary, learned_words = counted_words(lineage, manifests, ".", Path(scratch, "then"))
            by_chance = chance.expected(
                found.posts, ingested, Vocabulary.load(learned_words), several=its_settings.multi_tag
            )
        except (KeyError, CorruptArtifact, StageOutOfOrder):
            return None
        return asdict(drift.measure(now, drift.Corpus.of(summary, learned_words), by_chance))
