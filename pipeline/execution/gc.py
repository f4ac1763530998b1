"""Garbage collection: removes old runs, attempts and served versions that nothing needs any more."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from pipeline.errors import CorruptArtifact, NewerFormat
from pipeline.execution import cache
from pipeline.registry.card import Card
from pipeline.registry.cards import CARDS
from pipeline.registry.events import live_history
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import MODELS, path_of
from pipeline.settings import Deployment
from pipeline.stages.plan import STAGES
from pipeline.store.manifest import ATTEMPT, MANIFEST, Manifest, attempt_time
from pipeline.store.notes import PUBLISHED, REFUSED
from pipeline.store.objects import Store
from pipeline.store.runs import (
    PAGE,
    RECORD,
    REPORT,
    RESULT,
    RUNS,
    TUNING,
    TUNINGS,
    UNFINISHED,
    Run,
    name_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """A folder of the store that garbage collection removes, the reason, and its size in bytes."""

    path: str
    why: str
    bytes: int


def removals(store: Store, deployment: Deployment, now: datetime | None = None) -> list[Removal]:
    """List the folders that garbage collection would remove at the time `now`.

    It keeps the live version, the `keep_versions` versions live before it, and everything younger than `keep_days`;
    every run that a kept version comes from; and of any run the attempts that a kept run's manifest or a kept card
    names. Of the tunings the latest is kept. Cards and the log are never removed: they are small, and are the history.

    Raises CorruptArtifact if a card or manifest that is needed to decide cannot be read.
    """
    return _plan(Registry(store), deployment, now)


def collect(store: Store, deployment: Deployment, now: datetime | None = None) -> Iterator[Removal]:
    """Remove the folders that `removals` lists, and yield each one when it is removed.

    Meanwhile a run may take files over from the cache, or a version may go live. So their cache entries are evicted
    first, the list is computed again after that, and once more whenever the log has grown.
    """
    registry = Registry(store)
    registry.reconcile()
    evicted: set[str] | None = None
    while True:
        seen = len(registry.log.names())
        planned = _plan(registry, deployment, now)
        going = {removal.path.rpartition("/")[-1] for removal in planned}
        if evicted is None or going - evicted:
            cache.evict(store, going)
            evicted = going | (evicted or set())
            continue
        cards = registry.with_files() if planned else []
        for removal in planned:
            if len(registry.log.names()) != seen:
                break
            _remove(registry, removal, cards)
            yield removal
        else:
            registry.note_unpublished()
            return


def _remove(registry: Registry, removal: Removal, cards: Iterable[Card]) -> None:
    """Remove a folder, its documents first, so that a reader sees it as removed and never as incomplete."""
    store, path = registry.store, removal.path
    if path.startswith(f"{MODELS}/"):
        registry.serving.withdraw(int(path.rpartition("/")[-1]))
        return
    if path.startswith(f"{TUNINGS}/"):
        for document in (RESULT, TUNING):
            store.remove(f"{path}/{document}")
        store.remove(path)
        return
    registry.note_collected(path, removal.why, cards)
    is_run = path.count("/") == 1
    # What names others goes before them, so that `tagger verify` misses nothing where this is interrupted.
    manifests = [f"{stage}/{MANIFEST}" for stage in reversed(STAGES)]
    of_run = [PUBLISHED, f"{REPORT}/{PAGE}.json", *manifests]
    for document in [f"{path}/{name}" for name in of_run] if is_run else [f"{path}.json"]:
        store.remove(document)
    store.remove(path)


def _plan(registry: Registry, deployment: Deployment, now: datetime | None) -> list[Removal]:
    before = (now or datetime.now(UTC)) - timedelta(days=deployment.keep_days)
    kept = _cards_to_keep(registry, deployment, before)
    store = registry.store
    return [
        *_versions_to_remove(registry, kept),
        *_runs_to_remove(store, kept, before),
        *_tunings_to_remove(store, before),
    ]


def _cards_to_keep(registry: Registry, deployment: Deployment, before: datetime) -> list[Card]:
    """The cards of the versions to keep."""
    events = registry.events()
    history = list(dict.fromkeys(reversed(live_history(events))))
    chosen = set(history[: 1 + deployment.keep_versions])
    chosen |= {event.version for event in events if datetime.fromisoformat(event.at) >= before}
    return [_card(registry, version) for version in sorted(chosen)]


def _card(registry: Registry, version: int) -> Card:
    try:
        card = registry.card(version)
    except NewerFormat as error:
        document = registry.store.read(f"{CARDS}/{version}.json") or {}
        if not {"run", "path"} <= document.keys():
            raise
        log.warning("version %d is kept: %s", version, error)
        return Card.model_construct(**document)
    if card is None:
        raise CorruptArtifact(
            f"{registry.store.display_path(CARDS)}/{version}.json is gone, so it is not known which run version "
            f"{version} comes from: nothing is removed; restore it"
        )
    return card


def _versions_to_remove(registry: Registry, kept: Iterable[Card]) -> Iterator[Removal]:
    cards = set(registry.store.names(CARDS))
    removable = {event.version for event in registry.events() if f"{event.version}.json" in cards}
    removable -= {card.version for card in kept}
    for version, files in registry.serving.versions().items():
        if version in removable:
            why = "a version that is old, and neither live nor among the keep_versions before it"
            yield Removal(path_of(version), why, sum(files.values()))


@dataclass(frozen=True)
class _FoundRun:
    """A run as one listing of the store shows it: the files and folders in it (`tree`), with their sizes in bytes."""

    run: Run
    tree: Mapping[str, int]
    newer: set[str] = field(default_factory=set)  # stages whose manifest only a newer version of the pipeline can read

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """The manifests of its stages. They are read after the listing, so none is older than the listing."""
        found = dict[str, Manifest]()
        for stage in STAGES:
            try:
                manifest = self.run.manifest(stage) if f"{stage}/" in self.tree else None
            except NewerFormat as error:
                log.warning("nothing of run %s is removed: %s", self.run.name, error)
                self.newer.add(stage)
                continue
            if manifest:
                found[stage] = manifest
        return found

    @property
    def named(self) -> Iterator[str]:
        """The folders that its manifests name, in this run or in others; as far as possible also of newer formats."""
        yield from map(self.run.attempt, self.manifests.values())
        for stage in self.newer:
            document = self.run.store.read(f"{self.run.path}/{stage}/{MANIFEST}") or {}
            yield f"{RUNS}/{document.get('run')}/{stage}/{document.get('attempt')}"

    @cached_property
    def attempts(self) -> dict[str, list[str]]:
        """Every attempt of each stage that left a folder, complete or not."""
        found = {stage: list[str]() for stage in STAGES}
        for name in self.tree:
            stage, _, attempt = name.rstrip("/").partition("/")
            if name.endswith("/") and stage in found and ATTEMPT.fullmatch(attempt):
                found[stage].append(attempt)
        return found

    @cached_property
    def last_work(self) -> datetime:
        """When something was last done in the run; the earliest time there is for a folder that is not a run."""
        try:
            record = self.run.record() if RECORD in self.tree else None
        except CorruptArtifact as error:
            log.warning("nothing of run %s is removed: %s", self.run.name, error)
            return datetime.max.replace(tzinfo=UTC)
        times = [datetime.fromisoformat(manifest.finished) for manifest in self.manifests.values()]
        if self.newer:
            return datetime.max.replace(tzinfo=UTC)
        times += [attempt_time(attempt) for attempts in self.attempts.values() for attempt in attempts]
        if record is None and REFUSED in self.tree and (refusal := self.run.refusal()):
            times.append(refusal.at)  # it was refused before it began
        return max([*times, record.started if record else datetime.min.replace(tzinfo=UTC)])

    def removal(self, path: str, why: str) -> Removal:
        """The removal of a folder of the run, by its name; of the whole run if the name is empty."""
        size = sum(size for name, size in self.tree.items() if not path or name.startswith(f"{path}/"))
        return Removal(f"{self.run.path}/{path}".rstrip("/"), why, size)


def _find_runs(store: Store) -> list[_FoundRun]:
    """The runs of the store, from one listing; other files in their folder are ignored."""
    trees = dict[str, dict[str, int]]()
    for name, size in store.tree(RUNS).items():
        run, slash, inside = name.partition("/")
        if slash and name_of(run) == run:
            trees.setdefault(run, {})[inside] = size
    for tree in trees.values():
        tree.pop("", None)
    return [_FoundRun(Run(store, run), tree) for run, tree in sorted(trees.items())]


def _runs_to_remove(store: Store, kept: Iterable[Card], before: datetime) -> Iterator[Removal]:
    every = _find_runs(store)
    young = {found.run.name for found in every if found.last_work >= before}
    # A version may be published by one run from the files of another.
    sources = {card.run for card in kept} | {card.path.split("/")[1] for card in kept}
    named = {card.path for card in kept} | {
        path for found in every if found.run.name in young | sources for path in found.named
    }
    needed = sources | {path.split("/")[1] for path in named}
    for found in every:
        if found.run.name in young:
            continue
        if found.run.name in needed:
            yield from _attempts_to_remove(found, named, before)
        else:
            yield found.removal("", "an old run that no kept version comes from")


def _tunings_to_remove(store: Store, before: datetime) -> Iterator[Removal]:
    """The tunings that ended, or were begun and never ended, before that time; the one that ended last is kept."""
    ended, other = dict[str, datetime](), dict[str, datetime]()
    for name in store.folders(TUNINGS):
        if result := store.read(f"{TUNINGS}/{name}/{RESULT}"):
            ended[name] = datetime.fromisoformat(result["finished"])
        elif asked := store.read(f"{TUNINGS}/{name}/{TUNING}"):
            other[name] = datetime.fromisoformat(asked["created"])
    last = max(ended, key=ended.__getitem__, default=None)
    for name, time in (ended | other).items():
        if time < before and name != last:
            path = f"{TUNINGS}/{name}"
            yield Removal(path, "an old tuning that is not the latest", sum(store.tree(path).values()))


def _attempts_to_remove(found: _FoundRun, named: set[str], before: datetime) -> Iterator[Removal]:
    """The attempts of a kept run that no manifest or card names, and the unfinished work of its stages."""
    for stage, attempts in found.attempts.items():
        current = found.manifests[stage].attempt if stage in found.manifests else None
        for attempt in sorted(attempts):
            path = f"{stage}/{attempt}"
            if f"{found.run.path}/{path}" not in named and attempt != current and attempt_time(attempt) < before:
                yield found.removal(path, f"an attempt of {stage} that was replaced or never completed")
        for folder in UNFINISHED:
            if f"{stage}/{folder}/" in found.tree:
                yield found.removal(f"{stage}/{folder}", f"unfinished work of {stage}")
