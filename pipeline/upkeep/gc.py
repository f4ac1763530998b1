"""Garbage collection: removes old runs, attempts and served versions that nothing needs any more."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self

from pipeline.errors import CorruptArtifact, NewerFormat
from pipeline.files import remove_abandoned
from pipeline.registry.card import Card
from pipeline.registry.cards import CARDS
from pipeline.registry.events import live_history
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import MODELS, path_of
from pipeline.settings import Deployment
from pipeline.stages.plan import LAST, STAGES
from pipeline.store import cache, run_index
from pipeline.store.hold import held
from pipeline.store.manifest import ATTEMPT, MANIFEST, RUNS, Manifest, attempt_time, current
from pipeline.store.needs import Collector, Needs, drop_old
from pipeline.store.notes import APPROVED, PUBLISHED, REFUSED, Approval
from pipeline.store.objects import Store
from pipeline.store.run_files import PAGE, REPORT, UNFINISHED
from pipeline.store.runs import RECORD, RESULT, TUNING, TUNINGS, Run, every_run, name_of

log = logging.getLogger(__name__)

WORKING = timedelta(days=7)
"""For how long after its last work a run or tuning that has not ended is taken to go on, whatever keep_days says."""

ABANDONED = timedelta(days=1)
"""Age from which a file that was not written to its end belongs to a process that was killed."""

NEVER = datetime.min.replace(tzinfo=UTC)
UNKNOWN = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Removal:
    """A folder of the store that garbage collection removes, the reason, and its size in bytes."""

    path: str
    why: str
    bytes: int


def removals(store: Store, deployment: Deployment, now: datetime | None = None) -> list[Removal]:
    """List what garbage collection would remove at the time `now`.

    It keeps the live version, the `keep_versions` versions live before it, and everything younger than `keep_days`;
    every run that a kept version comes from, that has not ended, or that somebody works on; and of any run the attempts
    that a kept run's manifest or a kept card names. Of the tunings the latest is kept. Cards and the log are never
    removed: they are small, and are the history.

    Raises CorruptArtifact if a card or manifest that is needed to decide cannot be read.
    """
    now = now or datetime.now(UTC)
    planned = _plan(Registry(store), deployment, now, Collector(store).needs())
    return [*planned, *_unfinished_files(store, now)]


def collect(store: Store, deployment: Deployment, now: datetime | None = None) -> Iterator[Removal]:
    """Remove what `removals` lists, and yield each removal when it is done.

    Meanwhile a run may take files over from the cache. So their cache entries are evicted first, and the list is made
    again after that; and also whenever somebody has begun to need what is on it, see pipeline.store.needs.
    """
    registry, now = Registry(store), now or datetime.now(UTC)
    registry.reconcile()
    evicted: set[str] | None = None
    with Collector(store) as collector:
        while True:
            known = collector.needs()
            planned = _plan(registry, deployment, now, known)
            going = {removal.path.rpartition("/")[-1] for removal in planned}
            if evicted is None or going - evicted:
                cache.evict(store, going)
                evicted = going | (evicted or set())
                continue
            look = _Look(collector, known, planned, _cards_by_run(registry) if planned else {})
            for removal in planned:
                if not _remove(registry, removal, look):
                    break
                yield removal
            else:
                break
    registry.note_unpublished()
    for unfinished in _unfinished_files(store, now):
        store.remove(unfinished.path)
        yield unfinished
    _update_run_index(store)
    drop_old(store)
    remove_abandoned()


@dataclass(frozen=True)
class _Look:
    """What garbage collection has decided to remove, knowing these needs, and the cards with files by their run."""

    collector: Collector
    known: Needs
    planned: Sequence[Removal]
    cards: Mapping[str, Sequence[Card]]

    @cached_property
    def paths(self) -> list[str]:
        """The paths of all that was planned."""
        return [removal.path for removal in self.planned]


def _cards_by_run(registry: Registry) -> dict[str, list[Card]]:
    cards = dict[str, list[Card]]()
    for card in registry.with_files():
        cards.setdefault(card.path.split("/")[1], []).append(card)
    return cards


def _remove(registry: Registry, removal: Removal, look: _Look) -> bool:
    """Remove what was planned; False if somebody has begun to need anything of it.

    The documents of a folder go first, so that a reader sees it as removed and never as incomplete.
    """
    store, path = registry.store, removal.path
    if not look.collector.may_remove(path, look.paths, look.known):
        return False
    if path.startswith(f"{MODELS}/"):
        registry.serving.withdraw(int(path.rpartition("/")[-1]))
        return True
    if path.startswith(f"{TUNINGS}/"):
        documents = [f"{path}/{RESULT}", f"{path}/{TUNING}"]
    else:
        run = path.split("/")[1]
        registry.note_collected(path, removal.why, look.cards.get(run, ()))
        is_run = path.count("/") == 1
        documents = _documents_of(store, path) if is_run else [f"{path}.json"]
    for document in documents:
        store.remove(document)
    store.remove(path)
    return True


def _documents_of(store: Store, path: str) -> list[str]:
    """The documents of a run that name files or one another; a document comes before those that it names."""
    there = store.names(path)
    stages = [f"{stage}/{MANIFEST}" for stage in reversed(STAGES) if stage in there]
    page = [f"{REPORT}/{PAGE}.json"] if REPORT in there else []
    return [f"{path}/{name}" for name in (PUBLISHED, *page, *stages)]


def _unfinished_files(store: Store, now: datetime) -> Iterator[Removal]:
    """The files that a process was writing when it was killed."""
    for path, size in store.unfinished(now - ABANDONED):
        yield Removal(path, "a file that a process did not finish writing", size)


def _update_run_index(store: Store) -> None:
    """Add the runs to the index that earlier releases began, and drop those that have been removed."""
    entries = run_index.entries(store)  # before the runs, because a run is begun before it is in the index
    for run in every_run(store):
        if entries.pop(run_index.digest_of(run.name), None) is None:
            with suppress(CorruptArtifact):
                if record := run.record():
                    run_index.add(store, run.name, record.created)
    for path in entries.values():
        store.remove(path)


@dataclass(frozen=True)
class _Kept:
    """What garbage collection keeps besides the live version: by its cards, its age, and who needs it."""

    cards: Sequence[Card]
    before: datetime
    working_since: datetime
    needs: Needs


def _plan(registry: Registry, deployment: Deployment, now: datetime, needs: Needs) -> list[Removal]:
    before = now - timedelta(days=deployment.keep_days)
    working_since = now - max(WORKING, timedelta(hours=deployment.approval_hours))
    kept = _Kept(_cards_to_keep(registry, deployment, before), before, working_since, needs)
    store = registry.store
    return [
        *_versions_to_remove(registry, kept),
        *_runs_to_remove(store, kept),
        *_tunings_to_remove(store, kept),
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


def _versions_to_remove(registry: Registry, kept: _Kept) -> Iterator[Removal]:
    cards = set(registry.store.names(CARDS))
    removable = {event.version for event in registry.events() if f"{event.version}.json" in cards}
    removable -= {card.version for card in kept.cards}
    for version, files in registry.serving.versions().items():
        if version in removable and not kept.needs.overlap([path_of(version)]):
            why = "a version that is old, and neither live nor among the keep_versions before it"
            yield Removal(path_of(version), why, sum(files.values()))


@dataclass(frozen=True)
class _FoundRun:
    """A run as one listing of the store shows it: the files and folders in it (`tree`), with their sizes in bytes.

    Of the stages in `newer` only a newer version of the pipeline can read the manifest. `begun` is when the run was
    last begun or approved, `refused` when it was refused; NEVER for what was not done, UNKNOWN for what is unreadable.
    """

    run: Run
    tree: Mapping[str, int]
    manifests: Mapping[str, Manifest]
    newer: Collection[str]
    begun: datetime
    refused: datetime

    @classmethod
    def read(cls, run: Run, tree: Mapping[str, int]) -> Self:
        """Read the run's documents after the listing, so that none is older than the listing."""
        manifests, newer = dict[str, Manifest](), list[str]()
        for stage in STAGES:
            try:
                manifest = run.manifest(stage) if f"{stage}/" in tree else None
            except NewerFormat as error:
                log.warning("nothing of run %s is removed: %s", run.name, error)
                newer.append(stage)
                continue
            if manifest:
                manifests[stage] = manifest
        return cls(run, tree, manifests, newer, *_begun_and_refused(run, tree))

    @property
    def named(self) -> Iterator[str]:
        """The folders that its manifests name, in this run or in others; as far as possible also of newer formats."""
        yield from (manifest.path for manifest in self.manifests.values())
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
        """When something was last done in the run; NEVER for a folder that is not a run, UNKNOWN if unreadable."""
        times = [datetime.fromisoformat(manifest.finished) for manifest in self.manifests.values()]
        times += [attempt_time(attempt) for attempts in self.attempts.values() for attempt in attempts]
        return UNKNOWN if self.newer else max([*times, self.begun, self.refused])

    @property
    def has_ended(self) -> bool:
        """Whether it was refused or did its last stage after it was begun or approved last."""
        last = current(self.manifests, LAST)
        if last is None or last.run != self.run.name:  # one from the cache has the time of the run that made it
            return self.refused >= self.begun or last is not None
        # A manifest's time has whole seconds.
        return max(self.refused, datetime.fromisoformat(last.finished)) >= self.begun.replace(microsecond=0)

    def is_used(self, kept: _Kept) -> bool:
        """Whether it is young, is not yet done, or is needed by somebody at the moment."""
        since = kept.before if self.has_ended else min(kept.before, kept.working_since)
        return self.last_work >= since or kept.needs.overlap([self.run.path])

    def removal(self, path: str, why: str) -> Removal:
        """The removal of a folder of the run, by its name; of the whole run if the name is empty."""
        size = sum(size for name, size in self.tree.items() if not path or name.startswith(f"{path}/"))
        return Removal(f"{self.run.path}/{path}".rstrip("/"), why, size)


def _begun_and_refused(run: Run, tree: Collection[str]) -> tuple[datetime, datetime]:
    begun, refused = NEVER, NEVER
    try:
        if RECORD in tree and (record := run.record()):
            begun = record.started
        if APPROVED in tree and (approval := run.document(Approval, APPROVED)):
            begun = max(begun, approval.at)
        if REFUSED in tree and (refusal := run.refusal()):
            refused = refusal.at
    except CorruptArtifact as error:
        log.warning("nothing of run %s is removed: %s", run.name, error)
        return UNKNOWN, UNKNOWN
    return begun, refused


def _find_runs(store: Store) -> list[_FoundRun]:
    """The runs of the store, from one listing; other files in their folder are ignored."""
    trees = dict[str, dict[str, int]]()
    for name, size in store.tree(RUNS).items():
        run, slash, inside = name.partition("/")
        if slash and name_of(run) == run:
            trees.setdefault(run, {})[inside] = size
    for tree in trees.values():
        tree.pop("", None)
    return [_FoundRun.read(Run(store, run), tree) for run, tree in sorted(trees.items())]


def _runs_to_remove(store: Store, kept: _Kept) -> Iterator[Removal]:
    # Newest first: a run that uses files of another from the cache is removed before that one.
    every = sorted(_find_runs(store), key=lambda found: found.last_work, reverse=True)
    used = {found.run.name for found in every if found.is_used(kept)}
    # A version may be published by one run from the files of another.
    sources = {card.run for card in kept.cards} | {card.path.split("/")[1] for card in kept.cards}
    named = {card.path for card in kept.cards} | {
        path for found in every if found.run.name in used | sources for path in found.named
    }
    needed = sources | {path.split("/")[1] for path in named}
    for found in every:
        if found.run.name in used:
            continue
        if found.run.name in needed:
            yield from _attempts_to_remove(found, named)
        else:
            yield found.removal("", "an old run that no kept version comes from")


def _tunings_to_remove(store: Store, kept: _Kept) -> Iterator[Removal]:
    """The old tunings that ended, or were begun and never ended; not the one that ended last, nor those in use."""
    ended, other = dict[str, datetime](), dict[str, datetime]()
    for name in store.folders(TUNINGS):
        if result := store.read(f"{TUNINGS}/{name}/{RESULT}"):
            ended[name] = datetime.fromisoformat(result["finished"])
        elif asked := store.read(f"{TUNINGS}/{name}/{TUNING}"):
            other[name] = datetime.fromisoformat(asked["created"])
    last = max(ended, key=ended.__getitem__, default=None)
    for name, time in (ended | other).items():
        path = f"{TUNINGS}/{name}"
        since = kept.before if name in ended else min(kept.before, kept.working_since)
        if time < since and name != last and not kept.needs.overlap([path]) and not held(store, name):
            yield Removal(path, "an old tuning that is not the latest", sum(store.tree(path).values()))


def _attempts_to_remove(found: _FoundRun, named: set[str]) -> Iterator[Removal]:
    """The attempts of a kept run that no manifest or card names, and the unfinished work of its stages."""
    for stage, attempts in found.attempts.items():
        result = found.manifests[stage].attempt if stage in found.manifests else None
        for attempt in sorted(attempts):
            path = f"{stage}/{attempt}"
            if f"{found.run.path}/{path}" not in named and attempt != result:
                yield found.removal(path, f"an attempt of {stage} that was replaced or never completed")
        for folder in UNFINISHED:
            if f"{stage}/{folder}/" in found.tree:
                yield found.removal(f"{stage}/{folder}", f"unfinished work of {stage}")
