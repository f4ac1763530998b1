"""Asks the live model, and the one before it, about newly tagged posts, and says whether it must be replaced."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from pipeline.checks import drift
from pipeline.data import posts
from pipeline.data.several_tags import SEPARATOR, by_tag
from pipeline.data.vocabulary import count, most_frequent
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution.drift_check import counted_words
from pipeline.files import read_lines
from pipeline.model import serving, tagging
from pipeline.progress import Track, log_lines
from pipeline.registry import model_cache
from pipeline.registry.events import live_history
from pipeline.registry.registry import Registry
from pipeline.registry.series import Entry, Observation, OfTag, Score, Series
from pipeline.settings import Deployment, Settings
from pipeline.sources import reader
from pipeline.sources.source import Source
from pipeline.stages.fit_vocabulary import FREQUENT_WORDS
from pipeline.stages.plan import LABELS
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store
from pipeline.store.runs import Run

PATIENCE = timedelta(days=7)
"""Time after which a version that stays below its limit asks for another retraining; until then it has asked."""

KIND = "posts"

log = logging.getLogger(__name__)


def watch(
    store: Store, source: Source, settings: Settings, deployment: Deployment, track: Track = log_lines
) -> Observation | None:
    """Observe the live version on those posts of the source that its run did not have, and append it to the series.

    Of the settings, the columns, keep_tags and the limits that warn of drift count. Returns None, and appends nothing,
    if there is no such post. Raises BadInput if no version is live or the source cannot be read.
    """
    registry = Registry(store)
    card = registry.published(None)
    lineage = Run(store, card.run)
    manifests = lineage.manifests()
    with TemporaryDirectory(prefix="tagger-watch-") as scratch:
        folder, warnings = Path(scratch, "new"), list[str]()
        known = _known(lineage, manifests.get("ingest"), Path(scratch, "ingest"), warnings)
        several = lineage.existing().settings.multi_tag
        found = _read(source, settings, deployment, known, folder, track, several=several)
        if not found.posts:
            log.info(
                "nothing new: of %s all %d posts are known to version %d", source.display, found.known, card.version
            )
            return None
        asked = _asked(registry, card.version, folder)
        before = _before(registry, folder, found.posts, warnings)
        measured = _drift(lineage, manifests, found, folder, Path(scratch), settings, warnings)
    live = _score(card.version, asked.correct, found.posts)
    limit = round(card.accuracy - deployment.watch_drop, 6)
    below = live.high < limit

    def observation(number: int, at: str, so_far: list[Entry]) -> Observation:
        return Observation(
            number=number,
            at=at,
            source=source.display,
            posts=found.posts,
            known=found.known,
            rejected=found.rejected,
            live=live,
            before=before,
            published=card.accuracy,
            limit=limit,
            below=below,
            called=below and not _has_called(so_far, card.version, at),
            by_tag={
                tag: OfTag(posts=number, accuracy=round(asked.found[tag] / number, 6))
                for tag, number in found.tags.most_common()
            },
            unknown_tags=sum(number for tag, number in found.tags.items() if tag not in asked.labels),
            drift=measured,
            warnings=warnings,
        )

    return Series(store).append(observation)


def _has_called(so_far: list[Entry], version: int, at: str) -> bool:
    """Whether the version has asked for a retraining that may still be under way.

    A run may take long, or be refused by the gate; Airflow would queue one more run for each time that it is asked.
    """
    since = datetime.fromisoformat(at) - PATIENCE
    observed = (each for each in so_far if isinstance(each, Observation) and each.live.version == version)
    return any(each.called and datetime.fromisoformat(each.at) > since for each in observed)


@dataclass
class _Found:
    """What the source has: the new posts, also by tag, their lengths, and how many are known or unusable."""

    posts: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    lengths: list[np.ndarray] = field(default_factory=list)
    known: int = 0
    rejected: int = 0


def _known(run: Run, ingested: Manifest | None, folder: Path, warnings: list[str]) -> np.ndarray:
    """The digests of the posts that the run had, on any side: uint64, sorted."""
    kinds = [posts.of_side(side) for side in posts.SIDES]
    try:
        if ingested is None:
            raise CorruptArtifact(f"run {run.name} has no ingest")
        run.fetch(ingested, folder, [name for name in ingested.files if name.startswith(tuple(f"{k}/" for k in kinds))])
    except CorruptArtifact as error:
        log.warning("the posts of the live version's run cannot be read: %s", error)
        warnings.append(
            "the posts of the live version's run are lost, so posts that it learned from may be among these"
        )
        return np.empty(0, np.uint64)
    found = [posts.digests(b.column("post")) for kind in kinds for b in posts.batches(folder, kind, ["post"])]
    every: np.ndarray = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
    return every


def _read(
    source: Source,
    settings: Settings,
    deployment: Deployment,
    known: np.ndarray,
    folder: Path,
    track: Track,
    *,
    several: bool,
) -> _Found:
    """Write the source's new posts to the folder."""
    found = _Found()
    blocks = reader.read(
        source,
        text_column=settings.text_column,
        tag_column=settings.tag_column,
        keep=settings.kept_tags,
        several=several,
        max_bytes=deployment.max_source_bytes,
        track=track,
    )
    with posts.Writer(folder, KIND) as writer, track("watch", "posts", None) as advance:
        for block in blocks:
            for warning in block.warnings:
                log.warning("warning: %s", warning)
            new = block.posts.filter(pa.array(~np.isin(posts.digests(block.posts.column("post")), known)))
            writer.write(new)
            tags = posts.tally(new.column("tag"))
            found.tags.update(by_tag(tags) if several else tags)
            found.posts += new.num_rows
            found.lengths.append(pc.utf8_length(new.column("post")).to_numpy())
            found.known += block.posts.num_rows - new.num_rows
            found.rejected += block.rejected.num_rows
            advance(block.posts.num_rows)
    if not found.posts and not found.known:
        raise BadInput(f"{source.display} has no post that can be used ({found.rejected:,} rejected rows): correct it")
    return found


@dataclass(frozen=True)
class _Asked:
    """How many posts a version tagged correctly, how many of each tag got it, and the tags that it knows."""

    correct: int
    found: Counter[str]
    labels: frozenset[str]


def _asked(registry: Registry, version: int, folder: Path) -> _Asked:
    """Tag the posts in the folder with a published version."""
    correct, found = 0, Counter[str]()
    with model_cache.opened(registry, version) as model, serving.opened(model) as served:
        labels, several = read_lines(model / "assets" / LABELS), serving.thresholds_of(model) is not None
        for batch, given, _ in tagging.tagged(served, model, labels, posts.batches(folder, KIND)):
            true = batch.column("tag")
            correct += pc.sum(pc.equal(given, true)).as_py() or 0
            if several:
                pairs = zip(true.to_pylist(), given.to_pylist(), strict=True)
                found.update(tag for one, other in pairs for tag in {*one.split(SEPARATOR)} & {*other.split(SEPARATOR)})
            else:
                found.update(posts.tally(true.filter(pc.equal(given, true))))
    return _Asked(correct, found, frozenset(labels))


def _before(registry: Registry, folder: Path, total: int, warnings: list[str]) -> Score | None:
    """The score of the version that was live before; None if there is none, or if it cannot be asked."""
    history = live_history(registry.events())
    if len(history) < 2:
        return None
    try:
        return _score(history[-2], _asked(registry, history[-2], folder).correct, total)
    except (BadInput, CorruptArtifact) as error:
        warnings.append(f"the version that was live before cannot be asked: {error}")
        return None


def _score(version: int, right: int, total: int) -> Score:
    """The accuracy, with Wilson's interval (1927), which holds for few posts and for accuracies near 1, too."""
    interval = binomtest(right, total).proportion_ci(0.95, method="wilson")
    figures = right / total, float(interval.low), float(interval.high)
    accuracy, low, high = (round(figure, 6) for figure in figures)
    return Score(version=version, accuracy=accuracy, low=low, high=high)


def _drift(
    lineage: Run,
    manifests: Mapping[str, Manifest],
    found: _Found,
    folder: Path,
    scratch: Path,
    settings: Settings,
    warnings: list[str],
) -> dict[str, Any] | None:
    """How far the new posts are from those that the live version learned from; None if those are lost."""
    rule = lineage.existing().settings.word_rule
    texts = (batch.column("post") for batch in posts.batches(folder, KIND, ["post"]))
    counts = count(texts, ngrams=1, word_rule=rule)
    (scratch / "now").mkdir()
    most_frequent(counts[:1], FREQUENT_WORDS + 1, word_rule=rule).save(scratch / "now")
    median = float(np.median(np.concatenate(found.lengths)))
    now = {"posts_by_tag": dict(found.tags), "median_characters": median}
    try:
        then = counted_words(lineage, manifests, ".", scratch / "then")
    except (KeyError, CorruptArtifact):
        warnings.append("the words of the live version's training posts are lost, so drift was not measured")
        return None
    figures = asdict(drift.measure(drift.Corpus.of(now, scratch / "now"), drift.Corpus.of(*then)))
    for name, figure in figures.items():
        if figure > getattr(settings, f"warn_{name}"):
            warnings.append(drift.SENTENCES[name].format(figure))
    return figures
