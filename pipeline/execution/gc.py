"""Retention by lineage: what nothing kept refers to, and is old enough, may go."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import CorruptArtifact
from pipeline.execution import cache
from pipeline.registry.card import Card
from pipeline.registry.registry import CARDS, Registry, lives
from pipeline.registry.serving_dir import MODELS, path_of
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import PARTIAL, PARTS, Manifest, Run, attempt_time, every_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """A folder of the store that may go, why, and its size in bytes."""

    path: str
    why: str
    bytes: int


def removals(store: Store, settings: Settings, now: datetime | None = None) -> list[Removal]:
    """What may go, as of `now`.

    Kept are the live version, the keep_versions live before it, and what is younger than keep_days; every run a kept
    version descends from; and of any run the attempts that a kept run's manifest or a card names. Cards and the log are
    kept for ever: they are small, and say what was.

    Raises CorruptArtifact where a card or a manifest that says what is to be kept cannot be read.
    """
    before = (now or datetime.now(UTC)) - timedelta(days=settings.keep_days)
    kept = _kept(Registry(store), settings, before)
    found = [*_versions(store, kept), *_runs(store, kept, before)]
    return [Removal(path, why, sum(store.sizes(path).values())) for path, why in found]


def collect(store: Store, settings: Settings, now: datetime | None = None) -> Iterator[Removal]:
    """Remove what may go, and say each when it is gone.

    Somebody may take over a run's work or make its version live meanwhile: so first no later run can find what is to
    go, then what may go is asked again, and once more whenever the log has grown.
    """
    registry = Registry(store)
    registry.reconcile()
    cache.forget(store, {removal.path.rpartition("/")[-1] for removal in removals(store, settings, now)})
    while True:
        seen = len(registry.events())
        for removal in removals(store, settings, now):
            if len(registry.events()) != seen:
                break
            _remove(store, removal)
            yield removal
        else:
            return


def _remove(store: Store, removal: Removal) -> None:
    """Remove a folder: first what makes it count, so that whoever reads meanwhile finds it gone, not half."""
    registry = Registry(store)
    if removal.path.startswith(f"{MODELS}/"):
        registry.watched.withdraw(int(removal.path.rpartition("/")[-1]))
        return
    registry.note_let_go(removal.path, removal.why)
    store.remove(f"{removal.path}.json")  # as that of an unfinished try's work
    for stage in STAGES:
        store.remove(f"{removal.path}/{stage}/manifest.json")
    store.remove(removal.path)


def _kept(registry: Registry, settings: Settings, before: datetime) -> list[Card]:
    """The card of each kept version."""
    events = registry.events()
    history = list(dict.fromkeys(reversed(lives(events))))
    chosen = set(history[: 1 + settings.keep_versions])
    chosen |= {event.version for event in events if datetime.fromisoformat(event.at) >= before}
    return [_card(registry, version) for version in sorted(chosen)]


def _card(registry: Registry, version: int) -> Card:
    card = registry.card(version)
    if card is None:
        raise CorruptArtifact(
            f"{registry.store.shown(CARDS)}/{version}.json is gone, so it is not known what version {version} descends "
            "from: nothing is removed; restore it"
        )
    return card


def _versions(store: Store, kept: list[Card]) -> Iterator[tuple[str, str]]:
    registry = Registry(store)
    known = {card.version for card in registry.cards()} - {card.version for card in kept}
    for version in registry.watched.versions():
        if version in known:
            yield path_of(version), "a version that is not live, nor among those kept before it, nor young"


def _runs(store: Store, kept: list[Card], before: datetime) -> Iterator[tuple[str, str]]:
    every = list(every_run(store))
    manifests = {run.name: run.manifests() for run in every}
    young = {run.name for run in every if _last_work(run, manifests[run.name]) >= before}
    # A version may be published by one run from the files of another.
    descended = {card.run for card in kept} | {card.path.split("/")[1] for card in kept}
    named = {card.path for card in kept} | {
        run.attempt(manifest)
        for run in every
        if run.name in young | descended
        for manifest in manifests[run.name].values()
    }
    for run in every:
        if run.name in young:
            continue
        if run.name in descended or any(path.startswith(f"{run.path}/") for path in named):
            yield from _attempts(run, manifests[run.name], named, before)
        else:
            yield run.path, "a run that no kept version descends from, and old"


def _last_work(run: Run, manifests: Mapping[str, Manifest]) -> datetime:
    """When something was last done in the run; of a folder that is no run, the beginning of time."""
    try:
        record = run.record()
    except CorruptArtifact as error:
        log.warning("run %s is kept whole: %s", run.name, error)
        return datetime.max.replace(tzinfo=UTC)
    times = [datetime.fromisoformat(manifest.finished) for manifest in manifests.values()]
    times += [attempt_time(attempt) for stage in STAGES for attempt in run.attempts(stage)]
    return max([*times, record.started] if record else [*times, datetime.min.replace(tzinfo=UTC)])


def _attempts(
    run: Run, manifests: Mapping[str, Manifest], named: set[str], before: datetime
) -> Iterator[tuple[str, str]]:
    """The attempts of a kept run that neither a manifest nor a card names, and what late tries left half-done."""
    for stage in STAGES:
        current = {run.attempt(manifests[stage])} if stage in manifests else set()
        for attempt in run.attempts(stage):
            path = f"{run.path}/{stage}/{attempt}"
            if path not in named | current and attempt_time(attempt) < before:
                yield path, f"an attempt of {stage} that was replaced or never finished"
        for kept in {PARTIAL, PARTS} & set(run.store.names(f"{run.path}/{stage}")):
            yield f"{run.path}/{stage}/{kept}", f"work that a try of {stage} left unfinished"
