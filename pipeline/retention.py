"""Retention by lineage: what nothing kept refers to, and is old enough, may go."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline import reuse
from pipeline.registry import MODELS, Registry, lives, path_of
from pipeline.runs import RUNS, Run, attempt_time
from pipeline.settings import Settings
from pipeline.stages import STAGES
from pipeline.store import Store


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
    """
    before = (now or datetime.now(UTC)) - timedelta(days=settings.keep_days)
    versions = _kept_versions(Registry(store), settings, before)
    found = [*_versions(store, versions), *_runs(store, versions, before)]
    return [Removal(path, why, sum(store.sizes(path).values())) for path, why in found]


def remove(store: Store, removal: Removal) -> None:
    """Remove a folder: first what makes it count, so that whoever reads meanwhile finds it gone, not half."""
    if removal.path.startswith(f"{MODELS}/"):
        Registry(store).withdraw(int(removal.path.rsplit("/", 1)[-1]))
        return
    reuse.forget(store, removal.path.removeprefix(f"{RUNS}/"))
    for stage in STAGES:
        store.remove(f"{removal.path}/{stage}/manifest.json")
    store.remove(removal.path)


def _kept_versions(registry: Registry, settings: Settings, before: datetime) -> dict[int, str]:
    """Each kept version with the folder of its files."""
    events = registry.events()
    history = list(dict.fromkeys(reversed(lives(events))))
    chosen = set(history[: 1 + settings.keep_versions])
    chosen |= {event.version for event in events if datetime.fromisoformat(event.at) >= before}
    return {card.version: card.path for card in registry.cards() if card.version in chosen}


def _versions(store: Store, kept: dict[int, str]) -> Iterator[tuple[str, str]]:
    known = {card.version for card in Registry(store).cards()}
    for name in store.names(MODELS):
        if name.isdecimal() and int(name) in known and int(name) not in kept:
            yield path_of(int(name)), "a version that is not live, nor among those kept before it, nor young"


def _runs(store: Store, kept: dict[int, str], before: datetime) -> Iterator[tuple[str, str]]:
    every = [Run(store, name) for name in store.names(RUNS)]
    young = {run.name for run in every if _last_work(run) >= before}
    descended = {run.name for run in every if any(path.startswith(f"{run.path}/") for path in kept.values())}
    named = set(kept.values()) | {
        run.attempt(manifest) for run in every if run.name in young | descended for manifest in run.manifests().values()
    }
    for run in every:
        if run.name in young:
            continue
        if any(path.startswith(f"{run.path}/") for path in named):
            yield from _attempts(run, named, before)
        else:
            yield run.path, "a run that no kept version descends from, and old"


def _last_work(run: Run) -> datetime:
    """When something was last done in the run; of a folder that is no run, the beginning of time."""
    record = run.record()
    times = [datetime.fromisoformat(manifest.finished) for manifest in run.manifests().values()]
    times += [attempt_time(attempt) for stage in STAGES for attempt in run.attempts(stage)]
    return max([*times, record.started] if record else [*times, datetime.min.replace(tzinfo=UTC)])


def _attempts(run: Run, named: set[str], before: datetime) -> Iterator[tuple[str, str]]:
    """The attempts of a kept run that neither a manifest nor a card names."""
    for stage in STAGES:
        manifest = run.manifest(stage)
        current = {run.attempt(manifest)} if manifest else set()
        for attempt in run.attempts(stage):
            path = f"{run.path}/{stage}/{attempt}"
            if path not in named | current and attempt_time(attempt) < before:
                yield path, f"an attempt of {stage} that was replaced or never finished"
